"""Makes the committed files of a bundled model: splits, tokenizer, demo texts, the packed student, scores.

python -m ternbin.models.task.bundle data/debian data/s22 models/bundled "teacher (FP32)=teacher.json" "student (W2A2)=s22.json"
python -m ternbin.models.task.bundle data/debian data/s11 models/bundled --setting "teacher (FP32)=teacher.json" "student (W1A1)=s11.json"

The second adds another setting of the same model in a folder named by its bits, here models/bundled/1-1: packed student and scores
alone.  What is scored is given as NAME=PATH: the JSON of `ternbin eval`, or the folder of a checkpoint, which is evaluated.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import shutil
from pathlib import Path

from ternbin.errors import InputError
from ternbin.models.config import BITS
from ternbin.models.files import CONFIG_FILE, GENERATION_FILE, PACKED_FILE, read_config
from ternbin.models.prepare import DEMO_FILE
from ternbin.models.task.data import SPLITS, Example, read_examples
from ternbin.models.task.evaluate import evaluate, load_model
from ternbin.models.task.generate import generate
from ternbin.models.task.scores import METRICS
from ternbin.models.task.sets import SPLITS_FILE
from ternbin.models.task.splits import names_of
from ternbin.models.task.task import Task, read_task
from ternbin.models.task.tokenizer import TOKENIZER_FILE, encode, load_tokenizer
from ternbin.schema import DATA_BYTES, read_json
from ternbin.storage import write_bytes, write_text

NOTICE = "Descriptions of Debian packages, each under the licence of the package it names (see its debian/copyright)."
ORIGIN = "https://packages.debian.org/bookworm/"
MODEL_FILES = (CONFIG_FILE, GENERATION_FILE, PACKED_FILE)
TOKENIZER_CONFIG = "tokenizer_config.json"  # of all settings of a model, as the tokenizer itself
KEPT = ("bits", "model", "integer", "nll", "intervals", "samples", "extremes", "command")  # of an evaluation


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
    out_dir.mkdir(parents=True, exist_ok=True)
    for name in MODEL_FILES:
        shutil.copyfile(Path(student_dir) / name, out_dir / name)


def setting_dir(student_dir: Path, bundled: Path) -> Path:
    """Where a student is bundled beside the model in `bundled`.  Raises InputError where it does not belong there."""
    bits = (read_config(student_dir).get("quant") or {}).get("bits")
    if bits not in BITS:
        raise InputError(f"{student_dir}: student must be quantized to {' or '.join(BITS)}, not {bits!r}")
    own, shared = (json.loads((folder / TOKENIZER_FILE).read_text("utf-8")) for folder in (student_dir, bundled))
    if own["model"] != shared["model"]:
        raise InputError(f"{student_dir}: tokenizer must be that of the bundled model, not another")
    return bundled / bits


def choose_default(out_dir: Path, task: Task) -> None:
    """Takes as the text that is run when the user gives none the one of the demos on which the bundled model does
    best, of several the longest."""
    texts = [Example(**row) for row in json.loads((out_dir / DEMO_FILE).read_text(encoding="utf-8"))["texts"]]
    model, tokenizer, metric = load_model(out_dir), load_tokenizer(out_dir), METRICS[task.metric]
    sources = encode(tokenizer, [e.source for e in texts], task.max_source)
    written = generate(model, tokenizer, task, sources)
    scores = [metric.score([text], [e.target])[metric.first] for text, e in zip(written, texts, strict=True)]
    _, _, default = max((score, len(e.source), e.source) for score, e in zip(scores, texts, strict=True))
    write_demos(texts, out_dir, default)


def bundle_scores(models: dict[str, Path], data_dir: Path, out_dir: Path, limit: int | None = None) -> None:
    """``eval.json``: the baselines and, by name, score and likelihood of every model on the test texts.

    `models`: the JSON of an evaluation, or a checkpoint that is evaluated.  Quantized models are scored a second time as
    what runs on the accelerator, the integer model (``integer``).
    """
    document: dict = {}
    for name, path in models.items():
        result = read_json(path, DATA_BYTES) if path.is_file() else evaluate(path, data_dir, limit=limit)
        head = {key: result[key] for key in ("task", "metric", "texts", "baselines")}
        if document and head != {key: document[key] for key in head}:
            raise InputError(f"{path}: must be an evaluation of the same texts as the others")
        document |= head
        document.setdefault("models", {})[name] = {key: result[key] for key in KEPT if key in result}
    write_text(out_dir / "eval.json", json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Everything, or with ``--setting`` one more setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "student", "out"):
        parser.add_argument(name, type=Path, metavar="DIR")
    parser.add_argument("scored", nargs="*", metavar="NAME=PATH")
    parser.add_argument("--setting", action="store_true")
    args = parser.parse_intermixed_args(argv)
    models = {name: Path(path) for name, _, path in (each.partition("=") for each in args.scored)}
    if not any(name.startswith("student") for name in models):
        models["student"] = args.student
    out = args.out
    if args.setting:
        out = setting_dir(args.student, args.out)
        bundle_model(args.student, out)
    else:
        task = read_task(args.data)
        bundle_data(args.data, out, words=(20, 60) if task.longer == "cut" else (5, 20))
        bundle_model(args.student, out)
        shutil.copyfile(args.student / TOKENIZER_CONFIG, out / TOKENIZER_CONFIG)
        choose_default(out, task)
    bundle_scores(models, args.data, out)
    print(out)


if __name__ == "__main__":
    main()
