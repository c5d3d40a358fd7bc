"""Makes the committed files of a bundled model: splits, tokenizer, demo texts, the packed student, scores.

python -m ternbin.models.task.bundle data/debian-it data/it-student models/bundled/translation teacher=data/it-teacher
"""

from __future__ import annotations

import json
import lzma
import random
import shutil
import sys
from pathlib import Path

from ternbin.models.files import CONFIG_FILE, GENERATION_FILE, PACKED_FILE
from ternbin.models.prepare import DEMO_FILE
from ternbin.models.task.data import SPLITS, Example, read_examples
from ternbin.models.task.evaluate import evaluate, load_model
from ternbin.models.task.generate import generate
from ternbin.models.task.scores import METRICS
from ternbin.models.task.sets import SPLITS_FILE
from ternbin.models.task.splits import names_of
from ternbin.models.task.task import Task, read_task
from ternbin.models.task.tokenizer import TOKENIZER_FILE, load_tokenizer
from ternbin.storage import write_bytes, write_text

NOTICE = "Descriptions of Debian packages, each under the licence of the package it names (see its debian/copyright)."
ORIGIN = "https://packages.debian.org/bookworm/"
MODEL_FILES = (CONFIG_FILE, GENERATION_FILE, "tokenizer_config.json", PACKED_FILE)


def bundle_data(
    data_dir: Path, out_dir: Path, demos: int = 36, seed: int = 0, words: tuple[int, int] = (20, 60)
) -> None:
    """Package names of each split, tokenizer, and `demos` test texts of at least and at most `words` words."""
    out_dir.mkdir(parents=True, exist_ok=True)
    splits = {split: read_examples(data_dir, split) for split in SPLITS}
    names = json.dumps(names_of(splits))
    write_bytes(out_dir / SPLITS_FILE, lzma.compress(names.encode(), preset=9))
    shutil.copyfile(Path(data_dir) / TOKENIZER_FILE, out_dir / TOKENIZER_FILE)
    short = [e for e in splits["test"] if words[0] <= len(e.source.split()) <= words[1]]
    texts = sorted(random.Random(seed).sample(short, min(demos, len(short))), key=lambda e: e.package)
    write_demos(texts, out_dir, texts[0].source)


def write_demos(texts: list[Example], out_dir: Path, default: str) -> None:
    """``demo_texts.json``: the texts, where they come from, and the source that is taken when the user gives none."""
    document = {"notice": NOTICE, "origin": ORIGIN, "default": default, "texts": [vars(e) for e in texts]}
    write_text(out_dir / DEMO_FILE, json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def bundle_model(student_dir: Path, out_dir: Path) -> None:
    """The packed checkpoint of `student_dir`."""
    for name in MODEL_FILES:
        shutil.copyfile(Path(student_dir) / name, out_dir / name)


def choose_default(out_dir: Path, task: Task) -> None:
    """Takes as the text that is run when the user gives none the one of the demos on which the bundled model does
    best, of several the longest."""
    texts = [Example(**row) for row in json.loads((out_dir / DEMO_FILE).read_text(encoding="utf-8"))["texts"]]
    model, tokenizer, metric = load_model(out_dir), load_tokenizer(out_dir), METRICS[task.metric]
    written = generate(model, tokenizer, task, [e.source for e in texts])
    scores = [metric.score([text], [e.target])[metric.first] for text, e in zip(written, texts, strict=True)]
    _, _, default = max((score, len(e.source), e.source) for score, e in zip(scores, texts, strict=True))
    write_demos(texts, out_dir, default)


def bundle_scores(models: dict[str, Path], data_dir: Path, out_dir: Path, limit: int | None = None) -> None:
    """``eval.json``: the baselines and, by name, score and likelihood of every model on the test texts.

    Quantized models are scored a second time as what runs on the accelerator, the integer model (``integer``).
    """
    document: dict = {}
    for name, folder in models.items():
        result = evaluate(folder, data_dir, limit=limit)
        document |= {key: result[key] for key in ("task", "metric", "texts", "baselines")}
        scores = {key: result[key] for key in ("bits", "model", "integer", "nll", "samples") if key in result}
        document.setdefault("models", {})[name] = scores
    write_text(out_dir / "eval.json", json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def main(data_dir: str, student_dir: str, out_dir: str, *others: str) -> None:
    """Everything; `others` are more models to score, each as name=folder."""
    out, task = Path(out_dir), read_task(Path(data_dir))
    bundle_data(Path(data_dir), out, words=(20, 60) if task.longer == "cut" else (5, 20))
    bundle_model(Path(student_dir), out)
    choose_default(out, task)
    models = dict(other.split("=", 1) for other in others) | {"student": student_dir}
    bundle_scores({name: Path(folder) for name, folder in models.items()}, Path(data_dir), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
