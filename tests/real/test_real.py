"""Real checkpoints through the whole chain: what they say in full precision, and every bit of a run in RTL.

Not part of `make test`: they are downloads of 15 to 83 MB. `pytest -m real` runs them; packages are kept in `$TERNBIN_CACHE/real` or
`~/.cache/ternbin/real`.
"""

import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from convert import convert

import ternbin
from ternbin.decoding.greedy import reference_run
from ternbin.models import prepare
from ternbin.models.families import family_in
from ternbin.passes import fold

pytestmark = [pytest.mark.real, pytest.mark.build]
torch.set_num_threads(1)

CACHE = Path(os.environ.get("TERNBIN_CACHE") or Path.home() / ".cache/ternbin") / "real"
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return lambda name: convert(name, CACHE, tmp_path_factory.mktemp(name))


def _exact(run: ternbin.Run) -> None:
    assert run.bit_exact, run.result["first_divergence"]


def test_annalog(folder):
    """SMILES to SMILES: in full precision a molecule like the one given; quantized, every bit as the reference."""
    path = folder("annalog")
    stock: Any = family_in(path)[0].load_stock(path)
    tokenizer: Any = prepare.load_tokenizer(path)
    ids = torch.tensor([prepare.token_ids(tokenizer, ASPIRIN)])
    (tokens,) = stock.generate(ids, max_new_tokens=40, num_beams=1, do_sample=False).tolist()
    said = tokenizer.decode(tokens, skip_special_tokens=True)
    assert said.count("(") == said.count(")") and "c1ccccc1" in said
    run = ternbin.summarise(ASPIRIN, model=path, bits="2-8", hw="base", max_new_tokens=4)
    _exact(run)
    assert run.tokens == reference_run(fold(prepare.lower(prepare.load_model(path, "2-8"))), ids[0].tolist(), 4)[0]


def test_minilm(folder):
    """A sentence to an embedding: alike sentences are nearer in full precision, and the run's is the fake-quant model's."""
    path = folder("minilm")
    run = ternbin.summarise("A library to parse configuration files.", model=path, bits="2-8", hw="small")
    _exact(run)
    near = run.answers[0]["agreement"]
    assert near["fake_quant"]["cosine"] > 0.99 and -1 <= near["full_precision"]["cosine"] <= 1
    family, model = family_in(path)[0], prepare.load_model(path, "2-8")
    stock, tokenizer = family.load_stock(path), prepare.load_tokenizer(path)

    def embedded(text: str) -> torch.Tensor:
        ids = prepare.token_ids(tokenizer, text)
        return family.answer(model, family.stock_streams(model, stock, ids)).values

    one, like, other = map(embedded, ("A cat sits on a mat.", "A kitten is on the rug.", "Stocks fell on Monday."))
    assert one @ like > 0.5 > 0.3 > one @ other


def test_whisper(folder):
    """Half a second of a made-up voice: the tokens of the run are those of the interpreter."""
    path = folder("whisper")
    run = ternbin.summarise(model=path, bits="2-8", hw="base", max_new_tokens=4)
    _exact(run)
    model = prepare.load_model(path, "2-8")
    given = prepare.listen(model, None)
    assert run.tokens == reference_run(fold(prepare.lower(model)), given, 4)[0]
    assert run.tokens[0] == cast(Any, model).prompt_ids[0]
