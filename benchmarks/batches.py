"""What a batch brings: four bundled texts one at a time, two at a time and all at once; cycles and energy of decoding a generated token.

    python benchmarks/batches.py --hw small --json batches.json

Every run is simulated and compared as in `ternbin run`; the summaries are the same at every size.
"""

import argparse
import json
from pathlib import Path

from ternbin.contract.hw import HwConfig, load_hw
from ternbin.flow import Job, summarise
from ternbin.models.prepare import demo_texts
from ternbin.results import texts

TEXTS = 4


def measure(hw: HwConfig, size: int, dram: str) -> dict:
    """Decoding the texts in batches of ``size``: generated tokens, calls, cycles and picojoules of all together."""
    sources = [text["source"] for text in demo_texts()[:TEXTS]]
    total: dict = {"texts": size, "summaries": []}
    for first in range(0, TEXTS, size):
        result, _ = summarise(Job(hw=hw, texts=sources[first : first + size], dram=dram))
        if not result["bit_exact"]:
            raise SystemExit(f"bits differ: {result['first_divergence']}")
        total["summaries"] += [entry["summary"] for entry in texts(result)]
        phase, energy = result["phases"][1], result["energy"]["phases"][1]
        counts = {
            "tokens": len(result["tokens"]),
            "calls": phase["calls"],
            "cycles": phase["cycles"],
            "pj": energy["pj"],
            "low": energy["low"],
            "high": energy["high"],
        }
        total |= {name: total.get(name, 0) + value for name, value in counts.items()}
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hw", default="small", metavar="NAME|FILE")
    parser.add_argument("--dram", choices=("lpddr4", "hbm2", "ddr3"), default="lpddr4")
    parser.add_argument("--json", type=Path, metavar="PATH")
    args = parser.parse_args()
    records = [measure(load_hw(args.hw), size, args.dram) for size in (1, 2, 4)]
    for record in records:
        if record["summaries"] != records[0]["summaries"]:
            raise SystemExit(f"a batch must give the summaries of single texts, not {record['summaries']}")
        cycles, pj, low, high = (record[name] / record["tokens"] for name in ("cycles", "pj", "low", "high"))
        call = record["cycles"] / record["calls"]
        print(
            f"{record['texts']} at a time: {record['tokens']} tokens in {record['calls']} calls of {call:,.0f} cycles, "
            f"{cycles:,.0f} cycles and {pj / 1e6:.1f} ({low / 1e6:.1f} to {high / 1e6:.1f}) uJ a token"
        )
    if args.json:
        args.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
