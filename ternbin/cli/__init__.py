"""The command line: one verb a file, typed errors become exit codes here and nowhere else."""

import argparse
import importlib
import os
import sys

from ternbin.errors import TernbinError
from ternbin.version import __version__

VERBS = {
    "run": "summarise a text on the simulated accelerator and report",
    "train": "train a teacher or a quantized student",
    "quantize": "quantize a BART checkpoint directory",
    "eval": "ROUGE and NLL of a checkpoint on the held-out texts",
    "lower": "lower a checkpoint to the integer graph",
    "rtl": "generate the Verilog of an accelerator",
    "sim": "run a lowered program cycle-accurately",
    "verify": "check every link of the chain on random models",
    "energy": "gate-level energy, area and timing of the blocks",
    "explore": "a design space without simulation: front, what binds, what would double speed",
    "report": "render reports from result.json files",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ternbin", description="Hardware co-design and simulation of binary and ternary transformers."
    )
    parser.add_argument("--version", action="version", version=f"ternbin {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary in VERBS.items():
        module = importlib.import_module(f"ternbin.cli.{name}")
        sub = verbs.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(sub)
        sub.set_defaults(call=module.call)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 good, 1 a check failed, 2 bad input or usage, 3 missing tool."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever fetched from a hub
    args = _parser().parse_args(argv)
    try:
        return args.call(args) or 0
    except TernbinError as error:
        print(f"ternbin {args.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"ternbin {args.verb}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
