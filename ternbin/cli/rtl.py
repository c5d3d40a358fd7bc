"""Generate the Verilog of an accelerator, a JSON manifest of its ports, parameters, address map and counters, and lint waivers."""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import claimed, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hw", default="small", metavar="NAME|FILE", help="named configuration or .toml file (default: small)"
    )
    parser.add_argument("--out", default="reports/rtl", metavar="DIR", help="folder to write to (default: reports/rtl)")
    parser.add_argument("--json", metavar="PATH", type=options.output_file, help="also write the manifest there")


def call(args: argparse.Namespace) -> None:
    from ternbin import api

    files = api.verilog(args.hw)
    with claimed(Path(args.out)) as out:
        for name, text in files.items():
            write_text(out / name, text)
            print(f"{out / name}  {(out / name).stat().st_size:,} bytes")
    if args.json:
        write_text(args.json, files["manifest.json"])
