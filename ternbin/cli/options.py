"""Options that several verbs share."""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ternbin.errors import InputError
from ternbin.models import config

if TYPE_CHECKING:
    from ternbin.counting.external import MemoryModel

BITS = tuple(config.BITS)


def add_model(parser: argparse.ArgumentParser) -> None:
    add_model_folder(parser)
    parser.add_argument(
        "--bits", choices=BITS, help="weight-activation bits; quantizes the checkpoint where it has others"
    )


def add_model_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="bundled model (summarisation or translation) or checkpoint folder (default: summarisation)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        default="debian",
        metavar="NAME|DIR",
        help="data set: a folder, or debian or debian-it, which are built in data/ where missing (default: debian)",
    )


def add_hw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hw", default="small", metavar="NAME|FILE", help="named configuration or .toml file (default: small)"
    )


def add_input(parser: argparse.ArgumentParser) -> None:
    """Each option as often as there are texts; no two of them together."""
    several = "repeated: more texts, all as one batch"
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        help=f"text to summarise or translate (default: a bundled one); {several}",
    )
    parser.add_argument(
        "--file", action="append", default=[], metavar="F", help=f"file that holds the text, UTF-8; {several}"
    )
    parser.add_argument(
        "--ids",
        action="append",
        default=[],
        metavar="LIST",
        help=f"token ids, such as 0,17,4,2 (needs no tokenizer); {several}",
    )


def sources(args: argparse.Namespace) -> dict[str, list | None]:
    """``text`` or ``ids`` of the texts, None for what was not given."""
    if (args.text != []) + (args.file != []) + (args.ids != []) > 1:
        raise InputError("--text, --file and --ids must not be mixed")
    texts, ids = args.text + [read_text(path) for path in args.file], [parse_ids(each) for each in args.ids]
    return {"text": texts or None, "ids": ids or None}


def memory(args: argparse.Namespace) -> "MemoryModel":
    """The external memory of a simulation."""
    from ternbin.counting.external import MemoryModel

    return MemoryModel(latency=args.latency, bandwidth=args.bandwidth, stall_seed=args.stall_seed)


def add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--latency", type=int, default=40, metavar="N", help="memory latency in cycles (default: 40)")
    parser.add_argument(
        "--bandwidth",
        type=float,
        default=1.0,
        metavar="X",
        help="bus beats a cycle in each direction, on average, from 1/64 to 1 (default: 1)",
    )
    parser.add_argument("--stall-seed", type=int, metavar="N", help="pause every bus channel at random, reproducibly")


def add_characterisation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--characterisation",
        metavar="FILE",
        help="gate-level figures of another cell library, as energy --rebuild --store wrote them (default: the stored ones)",
    )


def add_beams(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--beams", type=int, default=1, metavar="N", help="beam search on hardware made for N beams (default: greedy)"
    )


def add_search(parser: argparse.ArgumentParser) -> None:
    own = "(default: the model's)"
    parser.add_argument(
        "--length-penalty", type=float, metavar="X", help=f"exponent of the length that divides a score {own}"
    )
    parser.add_argument(
        "--no-repeat-ngram", type=int, metavar="N", help=f"no N tokens twice in a text, 0: allowed {own}"
    )
    parser.add_argument(
        "--early-stopping", choices=("true", "false", "never"), help=f"as in Hugging Face's generate {own}"
    )


def search_settings(args: argparse.Namespace, beams: int) -> dict:
    """Settings of a search of ``beams`` beams, as the functions of ternbin/api.py take them; None where none was given."""
    early = {"true": True, "false": False}.get(args.early_stopping, args.early_stopping)
    settings = {
        "length_penalty": args.length_penalty,
        "no_repeat_ngram": args.no_repeat_ngram,
        "early_stopping": early,
    }
    if beams == 1 and any(value is not None for value in settings.values()):
        raise InputError("--length-penalty, --no-repeat-ngram and --early-stopping must come with --beams of 2 or more")
    return settings


def add_restart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--restart", action="store_true", help="do not go on from the checkpoint of a run that was stopped"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="PATH", help="write the result there as JSON")


def parse_ids(text: str) -> list[int]:
    """Comma-separated token ids."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--ids must be integers separated by commas, not {text!r}") from None


def read_text(path: str) -> str:
    """The text of a file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None


def check_writable(folder: Path) -> Path:
    """The folder, made if need be: found out before long work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
    return folder
