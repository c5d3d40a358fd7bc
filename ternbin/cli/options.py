"""Options that several verbs share."""

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ternbin.contract.hw import MAX_BEAMS
from ternbin.errors import InputError
from ternbin.models import config
from ternbin.schema import parse_json, read_text, shown

if TYPE_CHECKING:
    from ternbin.counting.external import MemoryModel
    from ternbin.models.task.dataset import Choice

BITS = tuple(config.BITS)
MANY = 1 << 31


def whole(low: int, high: int = MANY) -> Callable[[str], int]:
    """Type of an option: a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        try:
            value = int(text) if len(text) <= 40 else None
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            bounds = f"from {low} to {high}" if high != MANY else f"of at least {low}"
            raise argparse.ArgumentTypeError(
                f"must be a whole number {bounds}, not {text if value is not None else shown(text)}"
            )
        return value

    return parse


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Type of an option: a finite number from ``low`` to ``high``; ``above``: beyond ``low``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high and not (above and value == low)):
            bounds = f" above {low:g}" if above else f" from {low:g} to {high:g}" if math.isfinite(low) else ""
            raise argparse.ArgumentTypeError(f"must be a number{bounds}, not {shown(text)}")
        return value

    return parse


def output_file(text: str) -> str:
    """Type of an option: a file that can be made, found out before long work."""
    path = Path(text)
    if not text or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, not {'a folder' if text else 'empty'}: {shown(text)}")
    above = next((folder for folder in path.absolute().parents if folder.exists()), path.absolute().parent)
    if not above.is_dir():
        raise argparse.ArgumentTypeError(f"must be in a folder, not below a file: {shown(str(above))}")
    return text


def add_model(parser: argparse.ArgumentParser) -> None:
    add_model_folder(parser)
    parser.add_argument(
        "--bits",
        choices=BITS,
        help="weight-activation bits: which of the bundled models; quantizes a checkpoint folder that has others",
    )


def add_head_bits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--head-bits",
        type=int,
        choices=sorted(config.WEIGHT_KIND),
        help="bits of the LM head's weights (default: the checkpoint's, else those of --bits)",
    )


def add_model_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="bundled model (summarisation or translation) or checkpoint folder (default: summarisation)",
    )


def add_data(parser: argparse.ArgumentParser, default: str | None = "debian", otherwise: str = "debian") -> None:
    """The data set, and what is said of it."""
    of_data = "(default: what the data say)"
    parser.add_argument(
        "--data",
        default=default,
        metavar="FILE|DIR|NAME",
        help="pairs of texts: a JSONL, CSV or TSV file, a folder of train, validation and test, or a set by name: debian, debian-it, "
        f"misaki, which are built in data/ where missing, or xsum, cnn_dailymail, wmt16-en-ro (default: {otherwise})",
    )
    parser.add_argument(
        "--source-column", metavar="NAME", help="of a file's sources (default: source, or another usual name)"
    )
    parser.add_argument(
        "--target-column", metavar="NAME", help="of its targets (default: target, or another usual name)"
    )
    parser.add_argument(
        "--split-seed", type=whole(0), default=0, metavar="N", help="by which a single file is split (default: 0)"
    )
    parser.add_argument("--metric", choices=("rouge", "bleu", "exact"), help=f"score of texts {of_data}")
    parser.add_argument("--max-source", type=whole(2), metavar="N", help=f"tokens of a source at most {of_data}")
    parser.add_argument("--max-target", type=whole(2), metavar="N", help=f"tokens of a target at most {of_data}")
    parser.add_argument(
        "--longer",
        choices=("cut", "drop", "refuse"),
        help=f"what becomes of longer texts; drop leaves the row out {of_data}",
    )


def choice(args: argparse.Namespace) -> "Choice":
    """What the options of `add_data` say."""
    from ternbin.models.task.dataset import Choice
    from ternbin.models.task.tables import Columns

    return Choice(
        columns=Columns(source=args.source_column, target=args.target_column),
        metric=args.metric,
        max_source=args.max_source,
        max_target=args.max_target,
        longer=args.longer,
        units=getattr(args, "units", None),
        vocab=getattr(args, "vocab", None),
        split_seed=args.split_seed,
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
    parser.add_argument(
        "--truncate", action="store_true", help="cut a text that is longer than the model takes (default: refuse it)"
    )


def add_audio(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audio",
        action="append",
        default=[],
        metavar="F",
        help="WAV file of 16 bits and 16 kHz, for a model that listens (default: a made-up sound); repeated: more, as one batch",
    )


def add_pair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pair",
        action="append",
        default=[],
        metavar="TEXT",
        help="second text of a pair, for a model with token types; as often as there are texts",
    )


def sources(args: argparse.Namespace) -> dict[str, Any]:
    """``text`` or ``ids`` of the texts, None for what was not given."""
    if (args.text != []) + (args.file != []) + (args.ids != []) > 1:
        raise InputError("--text, --file and --ids must not be mixed")
    if args.truncate and args.ids:
        raise InputError("--truncate must come with texts, not with --ids")
    texts, ids = args.text + [read_text(path) for path in args.file], [parse_ids(each) for each in args.ids]
    return {"text": texts or None, "ids": ids or None, "truncate": args.truncate}


def memory(args: argparse.Namespace) -> "MemoryModel":
    """The external memory of a simulation."""
    from ternbin.counting.external import MemoryModel

    return MemoryModel(latency=args.latency, bandwidth=args.bandwidth, stall_seed=args.stall_seed)


def add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--latency", type=whole(1, 1_000_000), default=40, metavar="N", help="memory latency in cycles (default: 40)"
    )
    parser.add_argument(
        "--bandwidth",
        type=number(1 / 64, 1),
        default=1.0,
        metavar="X",
        help="bus beats a cycle in each direction, on average, from 1/64 to 1 (default: 1)",
    )
    parser.add_argument(
        "--stall-seed",
        type=whole(0, (1 << 32) - 1),
        metavar="N",
        help="pause every bus channel at random, reproducibly",
    )


def add_characterisation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--characterisation",
        metavar="FILE",
        help="gate-level figures of another cell library, as energy --rebuild --store wrote them (default: the stored ones)",
    )


def add_beams(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--beams",
        type=whole(1, MAX_BEAMS),
        metavar="N",
        help="beam search on hardware made for N beams, 1: greedy (default: the model's)",
    )


def add_search(parser: argparse.ArgumentParser) -> None:
    own = "(default: the model's)"
    parser.add_argument(
        "--length-penalty", type=number(), metavar="X", help=f"exponent of the length that divides a score {own}"
    )
    parser.add_argument(
        "--no-repeat-ngram", type=whole(0), metavar="N", help=f"no N tokens twice in a text, 0: allowed {own}"
    )
    parser.add_argument(
        "--early-stopping", choices=("true", "false", "never"), help=f"as in Hugging Face's generate {own}"
    )
    parser.add_argument(
        "--generation",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"any other setting of generation_config.json, the value as JSON, such as do_sample=false {own}; repeated: more",
    )


def search_settings(args: argparse.Namespace, beams: int | None) -> dict:
    """Settings of a search of ``beams`` beams, as the functions of ternbin/api.py take them; None where none was given."""
    if beams == 1 and (args.length_penalty is not None or args.early_stopping is not None):
        raise InputError("--length-penalty and --early-stopping must come with --beams of 2 or more")
    early = args.early_stopping if args.early_stopping in (None, "never") else args.early_stopping == "true"
    return {
        "length_penalty": args.length_penalty,
        "no_repeat_ngram": args.no_repeat_ngram,
        "early_stopping": early,
        "generation": dict(map(_setting, args.generation)),
    }


def _setting(text: str) -> tuple[str, object]:
    """Name and value of a generation setting."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--generation must be NAME=VALUE with a value in JSON, not {shown(text)}")
    return name, parse_json(value.encode("utf-8", "surrogateescape"), f"--generation {name}")


def add_restart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--restart", action="store_true", help="do not go on from the checkpoint of a run that was stopped"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="PATH", type=output_file, help="write the result there as JSON")


def typed() -> str:
    """The command line of this process, as one types it."""
    return shlex.join(["ternbin", *sys.argv[1:]])


def parse_ids(text: str) -> list[int]:
    """Comma-separated token ids."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--ids must be integers separated by commas, not {shown(text)}") from None
