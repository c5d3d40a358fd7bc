"""Verbs stopped at random moments, or denied room on the disk: ``python tests/fuzz/interruptions.py --times 20``.

A verb that is stopped ends soon, with its exit code and at most one line; what was in its folder stays good, nothing of its own is left
over, and the same command given again gives what an undisturbed one gives.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import BartConfig, BartForConditionalGeneration

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
FAULT = 70  # of a tool that had no room
PATIENCE = 60  # seconds to end after a signal


@dataclass(frozen=True)
class Verb:
    """A command that writes into the folder ``out``; ``keep``: the files that it promises, and of which fields must repeat."""

    name: str
    arguments: tuple[str, ...]
    keep: dict[str, tuple[str, ...]]


def stock(folder: Path) -> Path:
    """A random BART of one layer each."""
    torch.manual_seed(3)
    config = BartConfig(
        vocab_size=97,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        activation_function="relu",
    )
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


def verbs(root: Path) -> list[Verb]:
    model, ids = str(stock(root / "model")), "0,5,9,17,33,2"
    chosen = ("--model", model, "--bits", "2-2")
    return [
        Verb(
            "run",
            ("run", "--hw", "tiny", *chosen, "--ids", ids, "--max-new-tokens", "3"),
            {"result.json": ("tokens", "cycles", "counters", "bit_exact")},
        ),
        Verb("quantize", ("quantize", model, "--bits", "2-2"), {"config.json": (), "packed.safetensors": ()}),
        Verb("lower", ("lower", "--hw", "tiny", *chosen, "--source-len", "6"), {"program.tbn": ()}),
        Verb("rtl", ("rtl", "--hw", "tiny"), {"manifest.json": ()}),
        Verb("report", ("report", str(Path(__file__).parents[2] / "reports/example")), {"index.html": ()}),
    ]


def _command(arguments: Sequence[str], out: Path) -> list[str]:
    return [sys.executable, "-m", "ternbin", *arguments, "--out", str(out)]


def _call(arguments: Sequence[str], out: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(arguments, out), capture_output=True, text=True, **options)  # type: ignore[call-overload]


def contents(verb: Verb, out: Path) -> dict[str, object]:
    """What the files that a verb promises say, whatever else changes from run to run (times)."""
    found: dict[str, object] = {}
    for name, fields in verb.keep.items():
        data = (out / name).read_bytes()
        found[name] = {field: json.loads(data)[field] for field in fields} if fields else data
    return found


def leftovers(*folders: Path) -> list[str]:
    """Files that only a write in progress has."""
    return [str(path) for folder in folders if folder.exists() for path in folder.rglob(".*") if path.name != ".lock"]


def stopped(verb: Verb, out: Path, after: float, number: signal.Signals) -> str | None:
    """What is wrong after the verb got a signal, or None."""
    process = subprocess.Popen(_command(verb.arguments, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(number)
    try:
        _, stderr = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"it must end within {PATIENCE} s of {number.name}"
    return _judge(process.returncode, stderr, (0, CODES[number], -number), out if number != signal.SIGKILL else None)


def cramped(verb: Verb, out: Path, room: int) -> str | None:
    """What is wrong after the verb could write files of at most ``room`` bytes, or None."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    done = _call(verb.arguments, out, preexec_fn=limit)
    return _judge(done.returncode, done.stderr, (0, 2, FAULT), out)


def _judge(code: int, stderr: str, allowed: Sequence[int], out: Path | None) -> str | None:
    if code not in allowed:
        return f"exit {code}, not one of {allowed}: {stderr[-500:]}"
    if "Traceback (most recent" in stderr and code != FAULT:
        return f"a traceback: {stderr[-800:]}"
    left = leftovers(out) if out else []
    return f"left over: {left}" if left else None


def trial(verb: Verb, root: Path, good: dict[str, object], seconds: float, chance: random.Random) -> str | None:
    """One disturbance in a folder that holds a good result or none, and the same command again."""
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    before = chance.random() < 0.5
    if before:
        shutil.copytree(root / f"good-{verb.name}", out)
    if chance.random() < 0.3:
        room = int(2 ** chance.uniform(0, 20))
        what, wrong = f"files of at most {room} bytes", cramped(verb, out, room)
    else:
        number = chance.choice(list(CODES))
        after = chance.uniform(0, 1.1 * seconds)
        what, wrong = f"{number.name} after {after:.2f} s", stopped(verb, out, after, number)
    if wrong is None and before and contents(verb, out) != good:
        wrong = "what was there must still be good"
    if wrong is None:
        again = _call(verb.arguments, out)
        if again.returncode != 0:
            wrong = f"given again: exit {again.returncode}: {again.stderr[-500:]}"
        elif contents(verb, out) != good:
            wrong = "given again it must give the same"
    return f"{verb.name}, {what}: {wrong}" if wrong else None


def disturb(times: int, seed: int, names: Sequence[str] = ()) -> list[str]:
    """Disturbs each verb ``times`` times; the faults."""
    chance, faults = random.Random(seed), []
    with tempfile.TemporaryDirectory(prefix="interruptions-") as name:
        root = Path(name)
        for verb in [verb for verb in verbs(root) if not names or verb.name in names]:
            folder = root / f"good-{verb.name}"
            first = _call(verb.arguments, folder)
            if first.returncode != 0:
                raise RuntimeError(f"{verb.name} must run undisturbed: {first.stderr[-500:]}")
            start = time.monotonic()
            shutil.rmtree(folder)
            _call(verb.arguments, folder)
            seconds, good = time.monotonic() - start, contents(verb, folder)
            for _ in tqdm(range(times), desc=verb.name, disable=None, leave=False):
                wrong = trial(verb, root, good, seconds, chance)
                if wrong:
                    faults.append(wrong)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="disturbances of each verb (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", action="append", default=[], help="only these")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    faults = disturb(args.times, args.seed, args.verb)
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
