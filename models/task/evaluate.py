"""Scores: the task's metric and likelihood of a model on held-out texts, beside baselines, its teacher and the paper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ternbin.models.families import family_in
from ternbin.models.model import QuantModel
from ternbin.models.task.batches import encode_examples
from ternbin.models.task.data import Example, read_examples
from ternbin.models.task.generate import generate, mean_nll
from ternbin.models.task.integer_eval import integer_scores
from ternbin.models.task.paper import RATIOS
from ternbin.models.task.scores import METRICS, Scores
from ternbin.models.task.task import Task, read_task
from ternbin.models.task.tokenizer import load_tokenizer
from ternbin.storage import write_text

SAMPLES = 8


def load_model(model_dir: Path) -> Any:
    """The full-precision or quantized model saved in `model_dir`, in evaluation mode."""
    family, full_precision = family_in(model_dir)
    return family.load_stock(model_dir) if full_precision else family.load(model_dir)


def search_name(beams: int) -> str:
    """What a search is called in results."""
    return "greedy" if beams == 1 else f"beam {beams}"


def write_texts(
    model, tokenizer, task: Task, examples: Sequence[Example], beams: Sequence[int]
) -> dict[str, list[str]]:
    """What the model makes of the sources, by search."""
    sources = [e.source for e in examples]
    return {search_name(count): generate(model, tokenizer, task, sources, beams=count) for count in beams}


def evaluate(
    model_dir: Path,
    data_dir: Path,
    *,
    teacher_dir: Path | None = None,
    limit: int | None = None,
    beams: Sequence[int] = (1, 4),
    threads: int = 1,
) -> dict:
    """Scores of the model in `model_dir` on the first `limit` test texts (all by default).

    Returns ``{"task", "metric", "texts", "baselines": {name: scores}, "model": {"greedy", "beam 4": scores}, "nll":
    {"validation", "test"}, "samples"}``; "bits" and "integer" (see `integer_eval`) for a quantized model; "teacher" and
    "ratio" to it, in percent of the metric's first score, where `teacher_dir` is given.
    Scores in percent, likelihood in nats a token.
    """
    torch.set_num_threads(threads)
    task, examples = read_task(data_dir), read_examples(data_dir, "test")[:limit]
    metric, tokenizer, model = METRICS[task.metric], load_tokenizer(model_dir), load_model(model_dir)
    references = [e.target for e in examples]
    result: dict = {"task": task.name, "metric": task.metric, "texts": len(examples), "baselines": {}, "nll": {}}
    for name, baseline in metric.baselines.items():
        result["baselines"][name] = metric.score([baseline(e.source) for e in examples], references)
    for split in ("validation", "test"):
        rows = encode_examples(task, tokenizer, read_examples(data_dir, split)[:limit])
        result["nll"][split] = round(mean_nll(model, rows), 4)
    written = write_texts(model, tokenizer, task, examples, beams)
    result["model"] = {name: metric.score(texts, references) for name, texts in written.items()}
    result["samples"] = samples(examples, written[search_name(beams[-1])])
    if isinstance(model, QuantModel):
        result["bits"] = model.quant_config.bits
        result["integer"] = integer_scores(model_dir, data_dir, limit=limit)
    if teacher_dir is not None:
        teacher = write_texts(load_model(teacher_dir), load_tokenizer(teacher_dir), task, examples, beams)
        result["teacher"] = {name: metric.score(texts, references) for name, texts in teacher.items()}
        result["ratio"] = ratios(result, metric.first)
    return result


def samples(examples: Sequence[Example], texts: Sequence[str]) -> list[dict[str, str]]:
    """The first few texts beside what was written."""
    pairs = zip(examples[:SAMPLES], texts[:SAMPLES], strict=True)
    return [dict(package=e.package, source=e.source, reference=e.target, model=text) for e, text in pairs]


def ratios(result: dict, score: str) -> dict[str, float]:
    """The model's score in percent of its teacher's, by search; 0 where the teacher has none."""
    both = {name: (own[score], result["teacher"][name][score]) for name, own in result["model"].items()}
    return {name: round(100 * own / teacher, 1) if teacher else 0.0 for name, (own, teacher) in both.items()}


# -- tables ------------------------------------------------------------------------------------


def table(result: dict) -> str:
    """The figures of :func:`evaluate` as text."""
    labels = METRICS[result["metric"]].labels
    rows: list[tuple[str, Scores]] = list(result["baselines"].items())
    rows += [(f"teacher, {name}", score) for name, score in result.get("teacher", {}).items()]
    rows += [(f"model, {name}", score) for name, score in result["model"].items()]
    if "integer" in result:
        rows.append(("integer model, greedy", result["integer"]["greedy"]))
    lines = [f"{'':36}" + "".join(f"{label:>7}" for label in labels.values())]
    lines += [f"{name:36}" + "".join(f"{score[key]:7.2f}" for key in labels) for name, score in rows]
    likelihoods = result["nll"] | (
        {"test (integer model)": result["integer"]["nll"]["test"]} if "integer" in result else {}
    )
    nll = ", ".join(f"{split} {value:.3f}" for split, value in likelihoods.items())
    lines.append(f"nats a token: {nll} ({result['texts']} test texts)")
    if "ratio" in result:
        lines.append(ratio_line(result))
    return "\n".join(lines)


def ratio_line(result: dict) -> str:
    """The share of the teacher's score that the model keeps, beside the paper's."""
    key = METRICS[result["metric"]].first
    label = METRICS[result["metric"]].labels[key]
    own = ", ".join(f"{name} {value:.1f}%" for name, value in result["ratio"].items())
    paper = RATIOS.get(key, {}).get(result.get("bits", ""))
    line = f"{label} of the model / {label} of the teacher: {own}"
    return line if paper is None else f"{line} (paper, {result['bits']}: {paper:.1f}%)"


def main_evaluate(
    model_dir: Path,
    data_dir: Path,
    json_path: Path | None = None,
    limit: int | None = None,
    teacher_dir: Path | None = None,
) -> dict:
    """Evaluate, print the table and write JSON to `json_path`."""
    result = evaluate(model_dir, data_dir, limit=limit, teacher_dir=teacher_dir)
    print(table(result))
    if json_path is not None:
        write_text(json_path, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    return result
