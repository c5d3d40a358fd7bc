"""What to expect of each named configuration with the bundled model: a table of speed, latency, area and power.

    python benchmarks/configurations.py --source-len 48 --max-new-tokens 12 --out reports/configurations.md

Nothing is simulated: cycles are those of the cycle model, area and energy those of the event model, at the configuration's clock, with
keys and values in external memory where they do not fit on chip.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from ternbin.contract.hw import NAMED
from ternbin.explore.evaluate import evaluate
from ternbin.explore.point import HARDWARE, Point
from ternbin.storage import write_text

HEAD = (
    "| configuration | model | clock, MHz | tokens a second | latency of a text, ms | area, mm2 "
    "| power with memory, mW "
    "| uJ a text |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
)

MODELS = {"ternary": "2-2", "binary": "1-1", "ternary8": "2-8"}


def row(name: str, source: int, new: int) -> str:
    """A configuration with the model that its array is for."""
    hw = NAMED[name]
    bits = MODELS[hw.kind]
    hardware = {field: value for field, value in asdict(hw).items() if field in HARDWARE and field != "kv_external"}
    record = evaluate(Point.of({"bits": bits, "source_len": source, "new_tokens": new} | hardware))
    if "figures" not in record:
        print(f"{name}: {record['reason']}")
        return f"| `{name}` | {bits} | {hw.clock_mhz:g} | {source} tokens do not fit | | | | |\n"
    found = record["figures"]
    return (
        f"| `{name}` | {bits} | {hw.clock_mhz:g} | {1000 / found['token_ms']:,.0f} | {found['ms']:.2f} "
        f"| {found['area_mm2']:.2f} | {found['mw']:.0f} | {found['energy_uj']:.0f} |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source-len", type=int, default=48, metavar="N")
    parser.add_argument("--max-new-tokens", type=int, default=12, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("reports/configurations.md"), metavar="FILE")
    args = parser.parse_args()
    text = HEAD
    for name in NAMED:
        text += row(name, args.source_len, args.max_new_tokens)
        print(text.splitlines()[-1], flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, text)


if __name__ == "__main__":
    main()
