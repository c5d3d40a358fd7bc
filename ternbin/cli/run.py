"""Run a model on a text on the simulated accelerator: every op in RTL, every tensor compared, energy and the audited claim.

A model that generates writes its text; of a BERT the host makes a label or an embedding, shown with its distance to that of the
fake-quant and the full-precision model.

Several texts run as one batch: a decoder call reads the weights once for all of them. Texts times beams are at most 8. A long run keeps
its state in checkpoint.npz of the report folder; the same command goes on from there after it was stopped.
"""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import claimed

DEFAULT_OUT = "reports/run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_hw(parser)
    options.add_input(parser)
    options.add_pair(parser)
    options.add_audio(parser)
    options.add_memory(parser)
    parser.add_argument(
        "--max-new-tokens",
        type=options.whole(1, 1 << 20),
        default=20,
        metavar="N",
        help="stop after N tokens (default: 20)",
    )
    parser.add_argument(
        "--dram", choices=("lpddr4", "hbm2", "ddr3"), default="lpddr4", help="external memory (default: lpddr4)"
    )
    parser.add_argument("--out", default=DEFAULT_OUT, metavar="DIR", help=f"report folder (default: {DEFAULT_OUT})")
    options.add_characterisation(parser)
    options.add_beams(parser)
    options.add_search(parser)
    options.add_restart(parser)
    options.add_json(parser)


def call(args: argparse.Namespace) -> int:
    with claimed(Path(args.out)) as out:
        return _run(args, out)


def _run(args: argparse.Namespace, out: Path) -> int:
    from ternbin import api, results

    run = api.summarise(
        **options.sources(args),
        pair=args.pair or None,
        audio=args.audio,
        model=args.model,
        bits=args.bits,
        hw=args.hw,
        max_new_tokens=args.max_new_tokens,
        beams=args.beams,
        **options.search_settings(args, args.beams),
        memory=options.memory(args),
        dram=args.dram,
        characterisation=args.characterisation,
        checkpoint=out / "checkpoint.npz",
        restart=args.restart,
        out=out,
    )
    page = run.save(out)
    if args.json:
        results.write_json(args.json, run.result)
    print(run)
    print(f"\nreport: {page}")
    return 0 if run.bit_exact else 1
