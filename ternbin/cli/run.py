"""Summarise a text on the simulated accelerator: every op in RTL, every tensor compared, energy and the audited claim.

Several texts run as one batch: a decoder call reads the weights once for all of them. Texts times beams are at most 8. A long run keeps
its state in checkpoint.npz of the report folder; the same command goes on from there after it was stopped.
"""

import argparse
from pathlib import Path

from ternbin.cli import options

DEFAULT_OUT = "reports/run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model(parser)
    options.add_hw(parser)
    options.add_input(parser)
    options.add_memory(parser)
    parser.add_argument("--max-new-tokens", type=int, default=20, metavar="N", help="stop after N tokens (default: 20)")
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
    from ternbin import results
    from ternbin.contract.hw import load_hw
    from ternbin.counting.external import MemoryModel
    from ternbin.energy import figures
    from ternbin.flow import Job, summarise
    from ternbin.report import tables, write_report

    out = options.check_writable(Path(args.out))
    job = Job(
        model_dir=args.model,
        bits=args.bits,
        hw=load_hw(args.hw),
        **options.sources(args),
        max_new_tokens=args.max_new_tokens,
        beams=args.beams,
        search=options.search_settings(args, args.beams),
        memory=MemoryModel(latency=args.latency, bandwidth=args.bandwidth, stall_seed=args.stall_seed),
        dram=args.dram,
    )
    with figures.using(args.characterisation):
        result, artefacts = summarise(job, checkpoint=out / "checkpoint.npz", restart=args.restart)
    write_report(result, out)
    for name, text in artefacts.items():
        results.write_text(out / name, text)
    if args.json:
        results.write_json(args.json, result)
    print(tables.terminal(result))
    print(f"\nreport: {out / 'index.html'}")
    return 0 if result["bit_exact"] else 1
