"""The command line: one verb a file, typed errors become exit codes here and nowhere else."""

import argparse
import atexit
import contextlib
import gc
import importlib
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from ternbin.errors import FAULT, TernbinError
from ternbin.progress import LOG
from ternbin.version import __version__

VERBS = {
    "run": "summarise a text on the simulated accelerator and report",
    "train": "train a teacher or a quantized student",
    "quantize": "quantize a checkpoint directory",
    "eval": "ROUGE and NLL of a checkpoint on the held-out texts",
    "lower": "lower a checkpoint to the integer graph",
    "rtl": "generate the Verilog of an accelerator",
    "fpga": "an accelerator on an FPGA: resources, clock, bitstream",
    "sim": "run a lowered program cycle-accurately",
    "verify": "check every link of the chain on random models",
    "energy": "gate-level energy, area and timing of the blocks",
    "explore": "a design space without simulation: front, what binds, what would double speed",
    "report": "render reports from result.json files",
    "doctor": "tools, packages, cache: what each verb needs and whether it is there",
    "completion": "print the script that lets a shell complete this command",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other bad input: "--option must be ..."."""
        line = re.sub(r"^argument ([^:]*): ", lambda found: f"{found[1].split('/')[-1]} ", message)
        line = re.sub(r"invalid choice: ('.*') \(choose from (.*)\)$", r"must be one of \2, not \1", line)
        self.exit(2, f"{self.prog}: {line}\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    whole = _Parser(prog="ternbin", description="Hardware co-design and simulation of binary and ternary transformers.")
    whole.add_argument("--version", action="version", version=f"ternbin {__version__}")
    verbs = whole.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary in VERBS.items():
        module = importlib.import_module(f"ternbin.cli.{name}")
        sub = verbs.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(sub)
        add_verbosity(sub)
        sub.set_defaults(call=module.call)
    return whole


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-v", "--verbose", action="store_true", help="every step, commands of tools, tracebacks of faults")
    how.add_argument(
        "-q", "--quiet", action="store_true", help="no progress and no information, only warnings and errors"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0 good, 1 bits differ, 2 bad input or usage, 3 missing tool, 70 a fault of ternbin or of a
    tool, 128 and the number of a signal where one ended it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever fetched from a hub
    # Threads of PyTorch that wait for one another give their core away: where another process wants it, spinning costs some
    # milliseconds an operation. PyTorch reads this when it is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # PyTorch, programs and designs are hundred thousands of small objects that live on, and circles are few: looking for them among so
    # many took a tenth of mapping.
    gc.set_threshold(1_000_000, 20, 100)
    # A process that ends looks for circles twice more, through all of PyTorch too: half a second, for memory that goes anyway.
    atexit.register(gc.freeze)
    verb = ""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # not a stream of the system
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore  # a text may not be printable in every locale
    try:
        args = parser().parse_args(argv)
        verb = f" {args.verb}"
        with _terminable(), _log(args):
            code = args.call(args) or 0
        sys.stdout.flush()
        return code
    except TernbinError as error:
        return _ended(verb, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _ended(verb, "interrupted", 128 + signal.SIGINT)
    except _Terminated:
        return _ended(verb, "terminated", 128 + signal.SIGTERM)
    except BrokenPipeError:  # nobody reads on, as with | head
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to be flushed goes nowhere
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.strerror is None:
            return _fault(verb, error)
        return _ended(verb, f"{error.filename or 'a file'}: cannot be used: {error.strerror}", 2)
    except Exception as error:
        return _fault(verb, error)


class _Terminated(BaseException):
    """SIGTERM came: what is being written is cleared away on the way out."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Lines(logging.Handler):
    """Lines of the log on standard error, as it is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        print(f"{mark}{record.getMessage()}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _log(args: argparse.Namespace) -> Iterator[None]:
    """The log as --verbose and --quiet want it."""
    handler, before = _Lines(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG if args.verbose else logging.WARNING if args.quiet else logging.INFO)
    LOG.propagate = False
    try:
        yield
    except Exception:
        LOG.debug(traceback.format_exc())
        raise
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)
        LOG.propagate = True


def _ended(verb: str, line: str, code: int) -> int:
    print(f"ternbin{verb}: {line}", file=sys.stderr)
    return code


def _fault(verb: str, error: Exception) -> int:
    """One line for a fault of ternbin itself; the traceback is kept in a file, where there is room for one."""
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    text = f"ternbin {__version__}: {sys.argv}\n{traceback.format_exc()}"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="ternbin-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.write(text)
        kept = f"traceback: {file.name}"
    except OSError as full:
        kept = f"its traceback cannot be kept: {full.strerror}; --verbose shows it"
    return _ended(verb, f"internal error: {what} ({kept})", FAULT)
