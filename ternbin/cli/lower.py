"""Lower a checkpoint for one text length: the program for the accelerator and the integer graph (text, picture, ONNX)."""

import argparse
from pathlib import Path

from ternbin.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_hw(parser)
    parser.add_argument("--source-len", type=int, default=48, metavar="N", help="tokens of the text (default: 48)")
    parser.add_argument("--max-new-tokens", type=int, default=12, metavar="N", help="tokens to generate at most (default: 12)")
    parser.add_argument("--out", default="reports/lowered", metavar="DIR", help="folder to write to (default: reports/lowered)")
    options.add_json(parser)


def call(args: argparse.Namespace) -> None:
    from ternbin import export, results
    from ternbin.dump import dump
    from ternbin.hw import load_hw
    from ternbin.mapper import map_model
    from ternbin.models import prepare
    from ternbin.picture import picture
    from ternbin.program import listing, save

    out = options.check_writable(Path(args.out))
    hw = load_hw(args.hw)
    lowered = prepare.lowered_model(args.model or prepare.bundled_dir(), args.bits)
    program = map_model(lowered, hw, args.source_len, args.max_new_tokens)
    save(program, out / "program.tbn")
    results.write_text(out / "program.txt", listing(program))
    results.write_text(out / "graph.svg", picture(lowered))
    for graph in (lowered.encoder, lowered.decoder):
        results.write_text(out / f"{graph.name}.txt", dump(graph, lowered.weights))
        export.save_onnx(graph, lowered.weights, out / f"{graph.name}.onnx")
    summary = {
        "hardware": hw.name, "bits": lowered.meta["bits"], "source_len": args.source_len, "calls": len(program.calls),
        "instructions": sum(c.count for c in program.calls), "image_bytes": len(program.image), "probes": len(program.probes),
    }
    print("\n".join(f"{key:14}{value:,}" if isinstance(value, int) else f"{key:14}{value}" for key, value in summary.items()))
    print(f"\nwritten to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    if args.json:
        results.write_json(args.json, summary)
