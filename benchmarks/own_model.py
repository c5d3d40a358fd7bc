"""The worked example of docs/own-model.md, from an empty folder: teacher, students of three settings, scores, words on the accelerator.

    python benchmarks/own_model.py reports/own-model --steps 1200 300 500 500 500

Goes on where it was stopped. Prints the table of the page: CPU minutes of training, exact matches on the first test words of the fake-quant
and of the integer model, and how many words the accelerator wrote as the integer model did, every tensor compared.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import ternbin
from ternbin.models.task.dataset import Room, encode_set
from ternbin.models.task.evaluate import load_model
from ternbin.models.task.integer_eval import IntegerModel
from ternbin.models.task.sets import open_dataset
from ternbin.models.task.task import carried_task
from ternbin.models.task.tokenizer import tokenizer_in

WIDE = "1-1 widened"
CHAIN = {"teacher": None, "2-8": None, "2-2": "2-8", "1-1": "2-2", WIDE: "2-2"}
"""What is trained, and the student that it starts from."""


def command(name: str, steps: int, data: str) -> list[str]:
    """Of training, as one types it."""
    if name == "teacher":
        return ["train", "teacher", "--data", data, "--steps", str(steps), "--out", "teacher"]
    start = CHAIN[name]
    more = ["--start", folder(start)] if start else []
    wide = ["--widen"] if name == WIDE else []
    words = ["train", "student", "--data", data, "--teacher", "teacher", *more, "--bits", name.split()[0], *wide]
    return [*words, "--steps", str(steps), "--out", folder(name)]


def folder(name: str) -> str:
    """Where a model goes."""
    return name if name == "teacher" else f"s{name.replace('-', '').replace(' ', '-')}"


def run(words: list[str], where: Path) -> float:
    """CPU minutes of a command."""
    print("ternbin", *words, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "ternbin", *words], cwd=where, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def on_accelerator(model_dir: Path, data: str, count: int) -> tuple[int, int]:
    """(words that the accelerator wrote as the integer model did, words), every tensor compared."""
    tokenizer, room = tokenizer_in(model_dir), Room.of(load_model(model_dir).config)
    encoded = encode_set(open_dataset(data), ["test"], tokenizer, room, carried=carried_task(model_dir), limit=count)
    rows, task = encoded.texts["test"].rows, encoded.task
    wanted = IntegerModel(model_dir).write(tokenizer, task, rows, 1)
    words = [e.source for e in encoded.texts["test"].examples]
    done = [
        ternbin.summarise(word, model=model_dir, hw="small", beams=1, max_new_tokens=task.max_target) for word in words
    ]
    return sum(one.bit_exact and one.summary == text for one, text in zip(done, wanted, strict=True)), len(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="misaki")
    parser.add_argument("--steps", type=int, nargs=5, default=(1200, 300, 500, 500, 500))
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--words", type=int, default=3)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    minutes_file = args.out / "minutes.json"
    minutes = json.loads(minutes_file.read_text(encoding="utf-8")) if minutes_file.exists() else {}
    for name, steps in zip(CHAIN, args.steps, strict=True):
        if name not in minutes:
            minutes[name] = round(run(command(name, steps, args.data), args.out), 1)
            minutes_file.write_text(json.dumps(minutes), encoding="utf-8")
        scores = [
            "eval",
            "--data",
            args.data,
            "--model",
            folder(name),
            "--limit",
            str(args.limit),
            "--json",
            f"{name}.json",
        ]
        if not (args.out / f"{name}.json").exists():
            run(scores, args.out)
    print(
        "| model | steps | CPU minutes | greedy | beam 4 | integer, greedy | integer, beam 4 | 95% | on the accelerator |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    os.chdir(args.out)
    for name, steps in zip(CHAIN, args.steps, strict=True):
        found = json.loads(Path(f"{name}.json").read_text(encoding="utf-8"))
        whole = found.get("integer", {})
        marks = [found["model"][search]["exact"] for search in ("greedy", "beam 4")]
        marks += [whole["greedy"]["exact"], whole["searches"]["beam 4"]["exact"]] if whole else ["", ""]
        low, high = found["intervals"]["integer" if whole else "model"]["beam 4"]["exact"]
        same = "{} of {}".format(*on_accelerator(Path(folder(name)), args.data, args.words)) if whole else ""
        cells = [name, f"{steps:,}", minutes[name], *marks, f"{low:.1f} to {high:.1f}", same]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
