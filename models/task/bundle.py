"""Makes the committed files of `models/bundled`: splits, tokenizer, demo texts, the packed student, scores."""

from __future__ import annotations

import json
import lzma
import random
import shutil
from pathlib import Path

from ternbin.models.files import PACKED_FILE
from ternbin.models.task import data as dataset
from ternbin.models.task.evaluate import evaluate

NOTICE = "Descriptions of Debian packages, each under the licence of the package it names (see its debian/copyright)."
ORIGIN = "https://packages.debian.org/bookworm/"
MODEL_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", PACKED_FILE)


def bundle_data(data_dir: Path, out_dir: Path = dataset.BUNDLED, demos: int = 36, seed: int = 0) -> None:
    """Package names of each split, tokenizer, and `demos` test texts of 20 to 60 words."""
    out_dir.mkdir(parents=True, exist_ok=True)
    splits = {split: dataset.read_examples(data_dir, split) for split in dataset.SPLITS}
    names = {split: [e.package for e in examples] for split, examples in splits.items()}
    (out_dir / "splits.json.xz").write_bytes(lzma.compress(json.dumps(names).encode(), preset=9))
    shutil.copyfile(Path(data_dir) / "tokenizer.json", out_dir / "tokenizer.json")
    short = [e for e in splits["test"] if 20 <= len(e.source.split()) <= 60]
    texts = sorted(random.Random(seed).sample(short, min(demos, len(short))), key=lambda e: e.package)
    document = {"notice": NOTICE, "origin": ORIGIN, "texts": [vars(e) for e in texts]}
    (out_dir / "demo_texts.json").write_text(
        json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


def bundle_model(student_dir: Path, out_dir: Path = dataset.BUNDLED) -> None:
    """The packed checkpoint of `student_dir`."""
    for name in MODEL_FILES:
        shutil.copyfile(Path(student_dir) / name, out_dir / name)


def bundle_scores(models: dict[str, Path], data_dir: Path, out_dir: Path = dataset.BUNDLED) -> None:
    """``eval.json``: the lead baselines and, by name, ROUGE and likelihood of every model on all test texts.

    Quantized models are scored a second time as what runs on the accelerator, the integer model (``integer``).
    """
    document: dict = {}
    for name, folder in models.items():
        result = evaluate(folder, data_dir)
        document |= {"texts": result["texts"], "baselines": result["baselines"]}
        scores = {key: result[key] for key in ("model", "integer", "nll", "samples") if key in result}
        document.setdefault("models", {})[name] = scores
    (out_dir / "eval.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
