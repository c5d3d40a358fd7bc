"""Generate the Verilog of an accelerator and a JSON manifest of its ports, parameters, address map and counters."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hw", default="small", metavar="NAME|FILE", help="named configuration or .toml file (default: small)"
    )
    parser.add_argument("--out", default="reports/rtl", metavar="DIR", help="folder to write to (default: reports/rtl)")
    parser.add_argument("--json", metavar="PATH", help="also write the manifest there")


def write_rtl(hw, out: Path) -> list[Path]:
    """Writes every Verilog file and manifest.json of one configuration below ``out``."""
    from ternbin import results
    from ternbin.rtl.verilog.generate import generate, manifest

    paths = []
    for name, text in generate(hw).items():
        results.write_text(out / name, text)
        paths.append(out / name)
    results.write_json(out / "manifest.json", manifest(hw))
    return [*paths, out / "manifest.json"]


def call(args: argparse.Namespace) -> None:
    from ternbin import results
    from ternbin.contract.hw import load_hw
    from ternbin.rtl.verilog.generate import manifest

    hw = load_hw(args.hw)
    for path in write_rtl(hw, Path(args.out)):
        print(f"{path}  {path.stat().st_size:,} bytes")
    if args.json:
        results.write_json(args.json, manifest(hw))
