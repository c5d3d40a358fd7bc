"""Render result.json files: HTML page, CSV tables and a Perfetto trace; several results also give a comparison."""

import argparse
from pathlib import Path

from ternbin.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="*", metavar="RESULT", help="result.json files or their folders")
    parser.add_argument(
        "--claim",
        action="store_true",
        help="audit the paper's claim: every precision on the same accelerator (minutes); results add the ratios of their runs",
    )
    parser.add_argument(
        "--models",
        choices=("all", "bundled", "bart-base", "none"),
        help="with --claim: models to audit (default: all; none: sizes, operations and gate level only)",
    )
    parser.add_argument(
        "--dram", choices=("lpddr4", "hbm2", "ddr3"), help="with --claim: external memory (default: lpddr4)"
    )
    parser.add_argument(
        "--characterisation",
        metavar="FILE",
        help="with --claim: gate-level figures of another cell library, as energy stores them",
    )
    parser.add_argument(
        "--measured",
        metavar="FILE",
        help="with --claim: JSON of energy measured on a board or chip (docs/energy.md, 'The claim')",
    )
    parser.add_argument("--out", metavar="DIR", help="folder to write to (default: beside the first result)")
    parser.add_argument("--json", metavar="PATH", type=options.output_file, help="write the comparison there as JSON")


def call(args: argparse.Namespace) -> None:
    from ternbin import results
    from ternbin.errors import InputError

    if args.claim:
        return _claim(args)
    if args.models or args.dram or args.characterisation or args.measured:
        raise InputError("--models, --dram, --characterisation and --measured must be given with --claim")
    if not args.results:
        raise InputError("RESULT must be given, except with --claim")
    from ternbin.report import compare, folder_of, tables, write_report, write_reports

    loaded = [results.load(path) for path in args.results]
    out = Path(args.out) if args.out else folder_of(Path(args.results[0]))
    if len(loaded) == 1:
        write_report(loaded[0], out)
        print(tables.terminal(loaded[0]))
    else:
        write_reports([(result, Path(path)) for path, result in zip(args.results, loaded, strict=True)], out)
        print(compare.terminal(loaded))
    if args.json:
        results.write_json(args.json, compare.rows(loaded))
    print(f"\nreport: {out / ('index.html' if len(loaded) == 1 else 'comparison.html')}")


def _claim(args: argparse.Namespace) -> None:
    from ternbin import results, storage
    from ternbin.energy import figures
    from ternbin.energy.claim import claim_report
    from ternbin.energy.silicon import read_measured
    from ternbin.explore.audit import SUBJECTS, audit
    from ternbin.models.task.paper import paper_table
    from ternbin.progress import passing
    from ternbin.report import audit as rendered

    loaded = [results.load(path) for path in args.results]
    measured = read_measured(args.measured) if args.measured else []
    out = storage.writable(Path(args.out)) if args.out else None

    names = {None: list(SUBJECTS), "all": list(SUBJECTS), "none": []}.get(args.models, [args.models])
    with figures.using(args.characterisation):
        report = claim_report(paper_table(), loaded) | audit(names, args.dram or "lpddr4", passing)
        report |= {"measured": measured}
    passing("")
    print(rendered.terminal(report))
    if args.json:
        results.write_json(args.json, report)
    if out:
        storage.write_text(out / "claim.html", rendered.page(report))
        print(f"\nreport: {out / 'claim.html'}")
