"""Generate the Verilog of an accelerator, a JSON manifest of its ports, parameters, address map and counters, and lint waivers.

The form for FPGAs has no latches, and memories that infer as block RAM; bits and cycles are the same. --package adds what other people's
tools and programs want: a FuseSoC core, drivers, the registers as SystemRDL, C header, HTML and IP-XACT (docs/integration.md).
"""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import claimed, write_bytes

PAGES = "html/"  # of a package


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hw", default="small", metavar="NAME|FILE", help="named configuration or .toml file (default: small)"
    )
    parser.add_argument("--out", default="reports/rtl", metavar="DIR", help="folder to write to (default: reports/rtl)")
    parser.add_argument("--form", default="asic", choices=("asic", "fpga"), help="what it is for (default: asic)")
    parser.add_argument(
        "--prefix",
        metavar="NAME",
        help="of the names of modules and files, and the name of the top (default: ternbin_ and the configuration's name)",
    )
    parser.add_argument(
        "--package",
        action="store_true",
        help="also a FuseSoC core, drivers, and registers as SystemRDL, C header, HTML, IP-XACT (the extra integration)",
    )
    parser.add_argument("--json", metavar="PATH", type=options.output_file, help="also write the manifest there")


def call(args: argparse.Namespace) -> None:
    from ternbin import api

    if args.package:
        files = api.package(args.hw, form=args.form, prefix=args.prefix)
    else:
        files = {name: text.encode() for name, text in api.verilog(args.hw, form=args.form, prefix=args.prefix).items()}
    with claimed(Path(args.out)) as out:
        for name, data in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(out / name, data)
            if not name.startswith(PAGES):
                print(f"{out / name}  {len(data):,} bytes")
    if args.package:
        print(f"{out / PAGES}  {sum(name.startswith(PAGES) for name in files)} files")
    if args.json:
        write_bytes(args.json, files["manifest.json"])
