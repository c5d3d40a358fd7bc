"""Lower a checkpoint for the length of a text, or those of a batch: the program for the accelerator and the integer graph (text, picture,
ONNX)."""

import argparse
from pathlib import Path

from ternbin.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_hw(parser)
    parser.add_argument(
        "--source-len",
        type=int,
        action="append",
        metavar="N",
        help="tokens of the text (default: 48); repeated: of more texts, all as one batch",
    )
    options.add_beams(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, default=12, metavar="N", help="tokens to generate at most (default: 12)"
    )
    parser.add_argument(
        "--out", default="reports/lowered", metavar="DIR", help="folder to write to (default: reports/lowered)"
    )
    options.add_json(parser)


def call(args: argparse.Namespace) -> None:
    from ternbin import results
    from ternbin.contract.hw import load_hw
    from ternbin.contract.program import listing, save
    from ternbin.decoding.beam import check_vocabulary
    from ternbin.graph import export
    from ternbin.graph.dump import dump
    from ternbin.graph.picture import picture
    from ternbin.mapping.mapper import map_model
    from ternbin.models import prepare

    out = options.check_writable(Path(args.out))
    hw, lengths = load_hw(args.hw), args.source_len or [48]
    several = args.beams * len(lengths) != 1
    if several:
        hw = hw.searching(args.beams, len(lengths))
    lowered = prepare.lowered_model(args.model or prepare.bundled_dir(), args.bits)
    if several:
        check_vocabulary(lowered.meta["vocab_size"], hw.beams)
    program = map_model(lowered, hw, lengths, args.max_new_tokens, args.beams)
    save(program, out / "program.tbn")
    results.write_text(out / "program.txt", listing(program))
    results.write_text(out / "graph.svg", picture(lowered))
    for graph in (lowered.encoder, lowered.decoder):
        results.write_text(out / f"{graph.name}.txt", dump(graph, lowered.weights))
        export.save_onnx(graph, lowered.weights, out / f"{graph.name}.onnx")
    summary = {
        "hardware": hw.name,
        "bits": lowered.meta["bits"],
        "source_len": lengths[0] if len(lengths) == 1 else lengths,
        "beams": args.beams,
        "calls": len(program.calls),
        "instructions": sum(c.count for c in program.calls),
        "image_bytes": len(program.image),
        "probes": len(program.probes),
    }
    print(
        "\n".join(
            f"{key:14}{value:,}" if isinstance(value, int) else f"{key:14}{value}" for key, value in summary.items()
        )
    )
    print(f"\nwritten to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    if args.json:
        results.write_json(args.json, summary)
