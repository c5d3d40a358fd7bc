"""Scores: the task's metric and likelihood of a model on held-out texts, beside baselines, its teacher and the paper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ternbin.models.families import family_in
from ternbin.models.model import QuantModel
from ternbin.models.task.batches import Row
from ternbin.models.task.checkpoint import writer_in
from ternbin.models.task.data import Example
from ternbin.models.task.dataset import Choice, Dataset, Room, encode_set, token_rows
from ternbin.models.task.generate import generate, mean_nll
from ternbin.models.task.integer_eval import IntegerModel
from ternbin.models.task.paper import RATIOS
from ternbin.models.task.scores import METRICS, Metric, Scores
from ternbin.models.task.sets import open_dataset
from ternbin.models.task.task import Task, carried_task
from ternbin.models.task.tokenizer import closing, cut, tokenizer_in
from ternbin.progress import bar, stage
from ternbin.storage import write_text

SAMPLES, EXTREMES = 8, 4


def load_model(model_dir: Path) -> Any:
    """The full-precision or quantized model saved in `model_dir`, in evaluation mode."""
    family, full_precision = family_in(model_dir)
    return family.load_stock(model_dir) if full_precision else family.load(model_dir)


def search_name(beams: int) -> str:
    """What a search is called in results."""
    return "greedy" if beams == 1 else f"beam {beams}"


def write_texts(
    model: Any, tokenizer: Any, task: Task, rows: Sequence[Row], beams: Sequence[int], batch_size: int = 32
) -> dict[str, list[str]]:
    """What the model makes of the sources of `rows`, by search."""
    sources, found = [source for source, _ in rows], {}
    for count in beams:
        with bar(total=len(sources), label=search_name(count), unit="text") as shown:
            found[search_name(count)] = generate(
                model, tokenizer, task, sources, beams=count, batch_size=batch_size, progress=shown.update
            )
    return found


def evaluate(
    model_dir: Path,
    data: str | Path | Dataset,
    *,
    teacher_dir: Path | None = None,
    limit: int | None = None,
    beams: Sequence[int] = (1, 4),
    batch_size: int = 32,
    threads: int = 1,
    choice: Choice | None = None,
    res_bits: int | None = None,
) -> dict:
    """Scores of the model in `model_dir` on the first `limit` test texts (all by default).

    Returns ``{"task", "metric", "texts", "baselines": {name: scores}, "model": {"greedy", "beam 4": scores}, "nll":
    {"validation", "test"}, "samples", "extremes": {"best", "worst"}, "intervals": {"model": {search: {score: [low,
    high]}}}}``; for a quantized model "bits" and "integer": ``{"greedy": scores, "searches": {"beam 4": scores},
    "nll"}``, with a residual stream of `res_bits` where given, and "integer" in "intervals"; "teacher" and "ratio" to
    it, in percent of the metric's first score, where `teacher_dir` is given.  Scores in percent, likelihood in nats a
    token; intervals hold 95% of 1,000 resamples of the texts.
    """
    torch.set_num_threads(threads)
    writer_in(model_dir, "model")
    tokenizer, model = tokenizer_in(model_dir), load_model(model_dir)
    held, room, carried = open_dataset(data, choice), Room.of(model.config), carried_task(model_dir)
    encoded = encode_set(held, ("validation", "test"), tokenizer, room, choice, carried, limit)
    task, metric = encoded.task, METRICS[encoded.task.metric]
    examples, rows = encoded.texts["test"].examples, encoded.texts["test"].rows
    references = [e.target for e in examples]
    integer = IntegerModel(model_dir, batch_size, res_bits) if isinstance(model, QuantModel) else None
    if integer is not None:
        integer.check(beams)
    result: dict = {"task": task.name, "metric": task.metric, "texts": len(examples), "baselines": {}, "nll": {}}
    for name, baseline in metric.baselines.items():
        result["baselines"][name] = metric.score([baseline(e.source) for e in examples], references)
    for split, texts in encoded.texts.items():
        with stage(f"likelihood, {split}"):
            result["nll"][split] = round(mean_nll(model, texts.rows), 4)
    written = write_texts(model, tokenizer, task, rows, beams, batch_size)
    result["model"], ranges = scored(metric, written, references)
    result["intervals"] = {"model": ranges}
    result["samples"] = samples(examples, written[search_name(beams[-1])])
    result["extremes"] = extremes(metric, examples, written[search_name(beams[-1])])
    if integer is not None:
        result["bits"] = model.quant_config.bits
        own, ranges = scored(
            metric, {search_name(count): integer.write(tokenizer, task, rows, count) for count in beams}, references
        )
        greedy = {"greedy": own.pop("greedy")} if "greedy" in own else {}
        result["integer"] = greedy | {"searches": own}
        result["integer"]["nll"] = {split: round(integer.nll(own.rows), 4) for split, own in encoded.texts.items()}
        result["intervals"]["integer"] = ranges
    if teacher_dir is not None:
        teacher = teacher_texts(teacher_dir, task, examples, beams, batch_size)
        result["teacher"], _ = scored(metric, teacher, references)
        result["ratio"] = ratios(result, metric.first)
    return result


def scored(
    metric: Metric, written: dict[str, list[str]], references: Sequence[str]
) -> tuple[dict[str, Scores], dict[str, dict[str, list[float]]]]:
    """Scores and their intervals, by search."""
    scores = {name: metric.score(texts, references) for name, texts in written.items()}
    return scores, {name: metric.intervals(texts, references) for name, texts in written.items()}


def teacher_texts(
    folder: Path, task: Task, examples: Sequence[Example], beams: Sequence[int], batch_size: int
) -> dict[str, list[str]]:
    """What a teacher writes for the same texts, by its own tokenizer."""
    tokenizer = tokenizer_in(folder)
    tail = closing(tokenizer)
    rows = [(cut(source, task.max_source, tail), target) for source, target in token_rows(tokenizer, examples)]
    return write_texts(load_model(folder), tokenizer, task, rows, beams, batch_size)


def extremes(metric: Metric, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """The texts on which the model does ``best`` and ``worst``, the longer of equals first."""
    marks = metric.each(texts, [e.target for e in examples])
    order = sorted(range(len(texts)), key=lambda i: (marks[i], len(examples[i].source)))
    worst = sorted(order, key=lambda i: (marks[i], -len(examples[i].source)))[:EXTREMES]
    chosen = {"best": order[::-1][:EXTREMES], "worst": worst}
    return {kind: samples([examples[i] for i in own], [texts[i] for i in own]) for kind, own in chosen.items()}


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
        own = {name: each for name, each in result["integer"].items() if name == "greedy"}
        own |= result["integer"].get("searches", {})
        rows += [(f"integer model, {name}", score) for name, score in own.items()]
    lines = [f"{'':36}" + "".join(f"{label:>7}" for label in labels.values())]
    lines += [f"{name:36}" + "".join(f"{score[key]:7.2f}" for key in labels) for name, score in rows]
    likelihoods = result["nll"] | (
        {"test (integer model)": result["integer"]["nll"]["test"]} if "integer" in result else {}
    )
    nll = ", ".join(f"{split} {value:.3f}" for split, value in likelihoods.items())
    lines.append(f"nats a token: {nll} ({result['texts']} test texts)")
    lines += interval_lines(result)
    if "ratio" in result:
        lines.append(ratio_line(result))
    return "\n".join(lines)


def interval_lines(result: dict) -> list[str]:
    """What 95% of resamples of the texts give for the first score, a line a kind of model."""
    key = METRICS[result["metric"]].first
    label = METRICS[result["metric"]].labels[key]
    return [
        f"{label} of the {'integer ' if kind == 'integer' else ''}model, 95% of resamples: "
        + ", ".join(f"{name} {own[key][0]:.1f} to {own[key][1]:.1f}" for name, own in ranges.items())
        for kind, ranges in result.get("intervals", {}).items()
    ]


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
    data: str | Path | Dataset,
    json_path: Path | None = None,
    command: str | None = None,
    **options: Any,
) -> dict:
    """Evaluate with the `options` of :func:`evaluate`, print the table and write JSON to `json_path`, with the `command`
    that asked for it."""
    result = evaluate(model_dir, data, **options) | ({} if command is None else {"command": command})
    print(table(result))
    if json_path is not None:
        write_text(json_path, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    return result
