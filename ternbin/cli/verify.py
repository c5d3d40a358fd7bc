"""Check every link of the chain on small random models: graph, program, RTL, bit for bit.

Each case is a random model of one of the families (layers, sizes, variations, activation function, bits, text) on a random memory timing;
the first difference is printed with op, index, expected and actual value.
"""

import argparse

from ternbin.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cases", type=options.whole(1, 1_000_000), default=8, metavar="N", help="random cases (default: 8)"
    )
    parser.add_argument("--seed", type=options.whole(0), default=0, help="seed of the first case (default: 0)")
    parser.add_argument(
        "--hw", default="tiny", metavar="NAME|FILE", help="named configuration or .toml file (default: tiny)"
    )
    options.add_beams(parser)
    parser.add_argument(
        "--texts",
        type=options.whole(1, options.MAX_BEAMS),
        default=1,
        metavar="N",
        help="texts at a time, on hardware made for all beams (default: 1)",
    )
    options.add_json(parser)


def call(args: argparse.Namespace) -> int:
    from ternbin import api, results

    def show(record: dict) -> None:
        verdict = (
            "equal" if record["mismatches"] == 0 else f"{record['mismatches']:,} DIFFER: {record['first_divergence']}"
        )
        print(
            f"case {record['seed']}: {record['case']}: {record['tensors_checked']} tensors, {record['values_checked']:,} values, {verdict}"
        )

    records = api.verify_cases(
        args.cases, seed=args.seed, hw=args.hw, beams=args.beams or 1, texts=args.texts, each=show
    )
    failed = sum(record["mismatches"] > 0 for record in records)
    print(f"{len(records) - failed} of {len(records)} cases bit-exact")
    if args.json:
        results.write_json(args.json, records)
    return 1 if failed else 0
