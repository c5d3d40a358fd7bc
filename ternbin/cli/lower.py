"""Lower a checkpoint for the length of a text, or those of a batch: the program for the accelerator and the integer graph (text, picture,
ONNX)."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ternbin.cli import options
from ternbin.storage import claimed, write_bytes, write_text

if TYPE_CHECKING:
    from ternbin.graph.ir import Graph, Lowered, Weights
    from ternbin.passes import Pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_hw(parser)
    parser.add_argument(
        "--source-len",
        type=options.whole(1, 1 << 20),
        action="append",
        metavar="N",
        help="tokens of the text (default: 48); repeated: of more texts, all as one batch",
    )
    options.add_beams(parser)
    parser.add_argument(
        "--max-new-tokens",
        type=options.whole(1, 1 << 20),
        default=12,
        metavar="N",
        help="tokens to generate at most (default: 12)",
    )
    parser.add_argument(
        "--passes", metavar="A,B", help="passes to run on the graphs, in this order (default: all that fold real ops)"
    )
    parser.add_argument(
        "--print-after",
        action="append",
        default=[],
        metavar="PASS",
        help="print the graphs as they are after this pass",
    )
    parser.add_argument(
        "--image", action="store_true", help="also write program.img, what the drivers of an accelerator take"
    )
    parser.add_argument(
        "--out", default="reports/lowered", metavar="DIR", help="folder to write to (default: reports/lowered)"
    )
    options.add_json(parser)


def call(args: argparse.Namespace) -> None:
    with claimed(Path(args.out)) as out:
        _lower(args, out)


def _lower(args: argparse.Namespace, out: Path) -> None:
    from ternbin import api, results
    from ternbin.contract.hw import load_hw
    from ternbin.contract.program import listing, save
    from ternbin.graph.shape import is_final
    from ternbin.integration.image import image

    hw, lengths = load_hw(args.hw), args.source_len or [48]
    hw.searching(args.beams or 1, len(lengths))  # what cannot be is known before the model is loaded
    lowered = _lowered(args)
    _write_graphs(lowered, out)
    summary = {"hardware": hw.name, "bits": lowered.meta["bits"]}
    if is_final(lowered):
        program = api.map_for(lowered, hw, lengths, args.max_new_tokens, args.beams)
        save(program, out / "program.tbn")
        if args.image:
            write_bytes(out / "program.img", image(program))
        write_text(out / "program.txt", listing(program))
        summary |= {
            "source_len": lengths[0] if len(lengths) == 1 else lengths,
            "beams": api.beams_of_program(program),
            "calls": len(program.calls),
            "instructions": sum(c.count for c in program.calls),
            "image_bytes": len(program.image),
            "probes": len(program.probes),
        }
    else:
        summary |= {"program": "none: these passes leave real ops"}
    print(
        "\n".join(
            f"{key:14}{value:,}" if isinstance(value, int) else f"{key:14}{value}" for key, value in summary.items()
        )
    )
    print(f"\nwritten to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    if args.json:
        results.write_json(args.json, summary)


def _lowered(args: argparse.Namespace) -> "Lowered":
    """The model after the passes that were asked for."""
    from ternbin.errors import InputError
    from ternbin.graph.dump import dump
    from ternbin.models import prepare
    from ternbin.passes import PASSES, named, transform

    names = args.passes.split(",") if args.passes is not None else list(PASSES)
    passes = named(names)
    for name in args.print_after:
        if name not in names:
            raise InputError(f"--print-after must be one of the passes that run ({', '.join(names)}), not {name!r}")

    def after(each: "Pass", graph: "Graph", weights: "Weights") -> None:
        if each.name in args.print_after:
            print(f"after {each.name}:\n{dump(graph, weights)}")

    model = prepare.load_lowerable(prepare.model_dir(args.model, args.bits), args.bits)
    return transform(prepare.lower(model), passes, after)


def _write_graphs(lowered: "Lowered", out: Path) -> None:
    """Every graph as text and ONNX, all as one picture."""
    from ternbin.graph import export
    from ternbin.graph.dump import dump
    from ternbin.graph.picture import picture

    write_text(out / "graph.svg", picture(lowered))
    for graph in lowered.stacks:
        write_text(out / f"{graph.name}.txt", dump(graph, lowered.weights))
        export.save_onnx(graph, lowered.weights, out / f"{graph.name}.onnx")
