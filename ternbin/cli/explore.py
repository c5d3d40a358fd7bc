"""Explore a design space: accelerator, bits, model, lengths and memory of every point mapped, timed and charged without simulation.

SPACE.toml says what varies, what is asked for and what must hold (docs/explore.md). Every point is one line of records.jsonl in the
report folder as soon as it is there; the same command goes on after it was stopped. The front's points are written as --hw files.
"""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import claimed

DEFAULT_OUT = "reports/explore"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("space", metavar="SPACE", help="bundled, bart-base, or a .toml file")
    parser.add_argument("--out", default=DEFAULT_OUT, metavar="DIR", help=f"report folder (default: {DEFAULT_OUT})")
    parser.add_argument(
        "--workers",
        type=options.whole(0, 1024),
        metavar="N",
        help="processes on this machine (default: one a core; 0: this one alone)",
    )
    parser.add_argument(
        "--dask", metavar="ADDRESS|local", help="a Dask scheduler such as tcp://host:8786, or local for one of its own"
    )
    parser.add_argument(
        "--validate",
        type=options.whole(0, 1000),
        default=0,
        metavar="N",
        help="simulate the N best points of the front in RTL, bit for bit",
    )
    parser.add_argument("--gates", action="store_true", help="with --validate: synthesize them, too (the energy extra)")
    parser.add_argument(
        "--no-sensitivity", action="store_true", help="leave out what the best point is sensitive to (some 60 points)"
    )
    parser.add_argument("--restart", action="store_true", help="do not go on from the records that are there")
    options.add_characterisation(parser)
    options.add_json(parser)
    parser.add_argument(
        "--parquet",
        metavar="PATH",
        type=options.output_file,
        help="write a line a point there as Parquet (the explore extra)",
    )


def call(args: argparse.Namespace) -> int:
    from ternbin import api, results
    from ternbin.progress import bar, passing
    from ternbin.report import explore as rendered

    if args.parquet:
        rendered.need_parquet()
    with claimed(Path(args.out)) as out, bar(label="exploring", unit=" points") as progress:

        def told(done: int, total: int) -> None:
            if progress.total is None:  # what was there before counts for no speed
                progress.total, progress.initial, progress.n = total, done, done
            progress.update(done - progress.n)

        def step(text: str) -> None:
            progress.close()
            passing(text)

        found = api.explore_space(
            args.space,
            out,
            workers=args.workers,
            dask=args.dask,
            validate=args.validate,
            gates=args.gates,
            sensitivity=not args.no_sensitivity,
            restart=args.restart,
            characterisation=args.characterisation,
            told=told,
            step=step,
        )
    passing("")
    print(rendered.terminal(found.summary, found.records))
    print(f"\nreport: {out / 'index.html'}")
    if args.json:
        results.write_json(args.json, found.summary)
    if args.parquet:
        found.to_parquet(args.parquet)
    return 0 if found.bit_exact else 1
