"""Score and likelihood of what runs on the accelerator, the integer model: the figures that evaluate.py gives for the model itself."""

from __future__ import annotations

from pathlib import Path

from ternbin.decoding.greedy import Batched
from ternbin.models.families import family_in
from ternbin.models.task.batches import encode_examples
from ternbin.models.task.data import read_examples
from ternbin.models.task.scores import METRICS
from ternbin.models.task.task import read_task
from ternbin.models.task.tokenizer import load_tokenizer
from ternbin.passes import fold


def integer_scores(model_dir: Path, data_dir: Path, *, limit: int | None = None, progress=lambda done: None) -> dict:
    """Greedy score of the quantized model in ``model_dir`` on the test texts, and nats a token on validation and test."""
    task, tokenizer = read_task(data_dir), load_tokenizer(model_dir)
    family, _ = family_in(model_dir)
    batched = Batched(fold(family.lower(family.load(model_dir))))
    examples = read_examples(data_dir, "test")[:limit]
    rows = encode_examples(task, tokenizer, examples)
    tokens = batched.generate([source for source, _ in rows], task.max_target, progress)
    texts = [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
    result: dict = {"greedy": METRICS[task.metric].score(texts, [e.target for e in examples]), "nll": {}}
    for split in ("validation", "test"):
        rows = encode_examples(task, tokenizer, read_examples(data_dir, split)[:limit])
        nats = batched.nll([source for source, _ in rows], [target for _, target in rows], progress)
        result["nll"][split] = round(sum(nats) / sum(len(target) for _, target in rows), 4)
    return result
