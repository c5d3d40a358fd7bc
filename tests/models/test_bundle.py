"""What is committed of data set and model hangs together."""

import json

from ternbin.models.task import bundle
from ternbin.models.task import data as dataset
from ternbin.models.task.evaluate import generate, load_model

MAX_BYTES = 8 << 20


def test_bundle_data_of_a_small_set(tmp_path):
    examples = dataset.demo_examples()
    for split, part in zip(dataset.SPLITS, (examples[:10], examples[10:12], examples[12:]), strict=True):
        dataset.write_examples(tmp_path / f"{split}.jsonl", part)
    (tmp_path / "tokenizer.json").write_bytes((dataset.BUNDLED / "tokenizer.json").read_bytes())
    bundle.bundle_data(tmp_path, tmp_path / "out", demos=3)
    document = json.loads((tmp_path / "out" / "demo_texts.json").read_text())
    assert len(document["texts"]) == 3 and document["notice"] == bundle.NOTICE


def test_bundled_model_is_small_ternary_and_writes_words():
    assert sum(path.stat().st_size for path in dataset.BUNDLED.iterdir()) < MAX_BYTES
    model, tokenizer = load_model(dataset.BUNDLED), dataset.load_tokenizer(dataset.BUNDLED)
    assert model.is_packed and model.quant_config.bits == "2-2" and model.quant_config.fracs
    assert model.config.vocab_size == len(tokenizer) and model.config.d_model == 192
    texts = generate(model, tokenizer, [e.source for e in dataset.demo_examples()[:4]], beams=4)
    assert all(texts)
