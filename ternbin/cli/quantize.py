"""Quantize a checkpoint folder and write a packed ternbin checkpoint.

Without training the texts of the result mean nothing: `ternbin train` distils a student that works.
"""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import claimed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="DIR",
        help="checkpoint folder of a supported family, as its library writes it, or a quantized one",
    )
    parser.add_argument("--bits", choices=options.BITS, default="2-2", help="weight-activation bits (default: 2-2)")
    options.add_head_bits(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the packed checkpoint")
    options.add_json(parser)
    plain = parser.format_help
    parser.format_help = lambda: f"{plain()}\n{_supported()}\n"  # only then: what is supported takes seconds to load


def _supported() -> str:
    from ternbin.models.families import supported

    return f"supported {supported()}; docs/families.md says which variations of them"


def call(args: argparse.Namespace) -> None:
    from ternbin import results
    from ternbin.models import prepare
    from ternbin.progress import warn

    with claimed(Path(args.out)) as out:
        done = prepare.quantize(args.model, out, args.bits, args.head_bits)
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    print("\n".join(f"{out / name}  {size:,} bytes" for name, size in sizes.items()))
    if done.head is not None:
        print(f"LM head: {done.head.equal} of {done.head.total} tokens as in floating point")
    for note in done.notes:
        warn(note)
    if args.json:
        summary = {
            "bits": args.bits,
            "bytes": sizes,
            "fidelity": [agreement.fields() for agreement in done.agreements],
            "limited": done.limited,
        }
        results.write_json(args.json, summary)
