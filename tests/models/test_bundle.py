"""What is committed of data set and model hangs together."""

import json

from ternbin.models.prepare import bundled_dir, demo_texts
from ternbin.models.task import bundle
from ternbin.models.task.data import SPLITS, Example, write_examples
from ternbin.models.task.debian import TASK
from ternbin.models.task.evaluate import load_model
from ternbin.models.task.generate import generate
from ternbin.models.task.tokenizer import load_tokenizer

MAX_BYTES = 8 << 20


def test_bundle_data_of_a_small_set(tmp_path):
    examples = [Example(**row) for row in demo_texts()]
    for split, part in zip(SPLITS, (examples[:10], examples[10:12], examples[12:]), strict=True):
        write_examples(tmp_path / f"{split}.jsonl", part)
    (tmp_path / "tokenizer.json").write_bytes((bundled_dir() / "tokenizer.json").read_bytes())
    bundle.bundle_data(tmp_path, tmp_path / "out", demos=3)
    document = json.loads((tmp_path / "out" / "demo_texts.json").read_text())
    assert len(document["texts"]) == 3 and document["notice"] == bundle.NOTICE


def test_bundled_model_is_small_ternary_and_writes_words():
    assert sum(path.stat().st_size for path in bundled_dir().iterdir() if path.is_file()) < MAX_BYTES
    model, tokenizer = load_model(bundled_dir()), load_tokenizer(bundled_dir())
    assert model.is_packed and model.quant_config.bits == "2-2" and model.quant_config.fracs
    assert model.config.vocab_size == len(tokenizer) and model.config.d_model == 192
    texts = generate(model, tokenizer, TASK, [text["source"] for text in demo_texts()[:4]], beams=4)
    assert all(texts)
