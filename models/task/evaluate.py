"""Scores: ROUGE and likelihood of a model on held-out texts, beside the lead baselines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ternbin.models.families import family_in
from ternbin.models.model import QuantModel
from ternbin.models.task import data as dataset
from ternbin.models.task.batches import Row, encode_examples, epoch_batches, pad_rows
from ternbin.models.task.integer_eval import integer_scores
from ternbin.models.task.scores import BASELINES, METRICS, rouge
from ternbin.storage import write_text

# -- scores ------------------------------------------------------------------------------------


@torch.no_grad()
def generate(model, tokenizer, sources: Sequence[str], *, beams: int = 1, batch_size: int = 32) -> list[str]:
    """Synopses of `sources`: greedy for one beam, else beam search without repeated trigrams."""
    model.eval()
    encoded = dataset.encode(tokenizer, sources, dataset.MAX_SOURCE)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    texts = [""] * len(encoded)
    options = dict(num_beams=beams, do_sample=False, max_new_tokens=dataset.MAX_TARGET)
    if beams > 1:
        options |= dict(no_repeat_ngram_size=3, length_penalty=1.0, early_stopping=True)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        ids = pad_rows([encoded[i] for i in part], dataset.PAD)
        out = model.generate(input_ids=ids, attention_mask=(ids != dataset.PAD).long(), **options)
        for i, text in zip(part, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
            texts[i] = text.strip()
    return texts


@torch.no_grad()
def mean_nll(model, rows: Sequence[Row], batch_tokens: int = 4000) -> float:
    """Mean negative log-likelihood, in nats a target token, of (source ids, target ids) rows."""
    model.eval()
    total, count = 0.0, 0
    for batch in epoch_batches(rows, batch_tokens):
        logits = model(**batch.inputs()).logits
        total += torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="sum").item()
        count += int((batch.labels != -100).sum())
    return total / count


# -- a model folder ----------------------------------------------------------------------------


def load_model(model_dir: Path) -> Any:
    """The full-precision or quantized model saved in `model_dir`, in evaluation mode."""
    family, full_precision = family_in(model_dir)
    return family.load_stock(model_dir) if full_precision else family.load(model_dir)


def evaluate(
    model_dir: Path,
    data_dir: Path,
    *,
    limit: int | None = None,
    beams: Sequence[int] = (1, 4),
    threads: int = 1,
) -> dict:
    """Scores of the model in `model_dir` on the first `limit` test texts (all by default).

    Returns ``{"texts", "baselines": {name: rouge}, "model": {"greedy", "beam 4": rouge}, "nll":
    {"validation", "test"}, "samples"}``, and "integer" (see `integer_eval`) for a quantized model;
    ROUGE in percent, likelihood in nats a token.
    """
    torch.set_num_threads(threads)
    examples = dataset.read_examples(data_dir, "test")[:limit]
    tokenizer = dataset.load_tokenizer(model_dir)
    model = load_model(model_dir)
    sources, references = [e.source for e in examples], [e.target for e in examples]
    result: dict = {"texts": len(examples), "baselines": {}, "model": {}, "nll": {}, "samples": []}
    for name, baseline in BASELINES.items():
        result["baselines"][name] = rouge([baseline(source) for source in sources], references)
    for split in ("validation", "test"):
        rows = encode_examples(tokenizer, dataset.read_examples(data_dir, split)[:limit])
        result["nll"][split] = round(mean_nll(model, rows), 4)
    for count in beams:
        texts = generate(model, tokenizer, sources, beams=count)
        result["model"]["greedy" if count == 1 else f"beam {count}"] = rouge(texts, references)
        samples = zip(examples[:8], texts[:8], strict=True)
        result["samples"] = [dict(package=e.package, reference=e.target, model=text) for e, text in samples]
    if isinstance(model, QuantModel):
        result["integer"] = integer_scores(model_dir, data_dir, limit=limit)
    return result


def table(result: dict) -> str:
    """The ROUGE figures of :func:`evaluate` as a text table."""
    rows = list(result["baselines"].items()) + [(f"model, {name}", score) for name, score in result["model"].items()]
    if "integer" in result:
        rows.append(("integer model, greedy", result["integer"]["greedy"]))
    lines = [f"{'':36}{'R1':>7}{'R2':>7}{'RL':>7}"]
    lines += [f"{name:36}" + "".join(f"{score[m]:7.2f}" for m in METRICS) for name, score in rows]
    likelihoods = result["nll"] | (
        {"test (integer model)": result["integer"]["nll"]["test"]} if "integer" in result else {}
    )
    nll = ", ".join(f"{split} {value:.3f}" for split, value in likelihoods.items())
    return "\n".join([*lines, f"nats a token: {nll} ({result['texts']} test texts)"])


def main_evaluate(model_dir: Path, data_dir: Path, json_path: Path | None = None, limit: int | None = None) -> dict:
    """Evaluate, print the table and write JSON to `json_path`."""
    result = evaluate(model_dir, data_dir, limit=limit)
    print(table(result))
    if json_path is not None:
        write_text(json_path, json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main_evaluate(Path(sys.argv[1]), Path(sys.argv[2]))
