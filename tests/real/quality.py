"""What quantization without training costs real checkpoints, on the integer interpreter: the tables of docs/real-checkpoints.md.

python tests/real/quality.py annalog|minilm|whisper FOLDER
"""

import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from convert import MOLECULES

from ternbin.decoding.greedy import reference_run, reference_streams
from ternbin.graph.ir import Lowered
from ternbin.graph.shape import shape
from ternbin.models import prepare
from ternbin.models.config import BITS
from ternbin.models.families import family_in
from ternbin.models.whisper import sound
from ternbin.passes import fold

TOKENS, TEXTS = 60, 24


def lowered(folder: Path) -> Iterator[tuple[str, Lowered]]:
    for bits in BITS:
        yield bits, fold(prepare.lower(prepare.load_model(folder, bits).pack()))


def annalog(folder: Path) -> None:
    """Greedy molecules that are valid (where RDKit is installed), and equal to those in full precision."""
    stock: Any = family_in(folder)[0].load_stock(folder)
    tokenizer: Any = prepare.load_tokenizer(folder)
    sources = [prepare.token_ids(tokenizer, text) for text in MOLECULES]

    def said(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    with torch.no_grad():
        full = [
            stock.generate(torch.tensor([ids]), max_new_tokens=TOKENS, num_beams=1, do_sample=False)[0].tolist()
            for ids in sources
        ]
    _molecules("FP32", [said(tokens) for tokens in full], [said(tokens) for tokens in full])
    for bits, model in lowered(folder):
        texts = [said(reference_run(model, ids, TOKENS)[0]) for ids in sources]
        _molecules(bits, texts, [said(tokens) for tokens in full])


def _molecules(name: str, texts: list[str], full: list[str]) -> None:
    equal = sum(a == b for a, b in zip(texts, full, strict=True))
    print(f"{name:5} valid {_valid(texts)} of {len(texts)}, equal {equal}; first: {texts[0]}")


def _valid(texts: list[str]) -> int | str:
    try:
        from rdkit import Chem, RDLogger  # pyright: ignore[reportMissingImports]  # optional
    except ImportError:
        return "?"
    RDLogger.DisableLog("rdApp.*")
    return sum(bool(text) and Chem.MolFromSmiles(text) is not None for text in texts)


def minilm(folder: Path) -> None:
    """Cosine to the full-precision embedding, and rank correlation of the similarities of all pairs of texts."""
    family, tokenizer = family_in(folder)[0], prepare.load_tokenizer(folder)
    stock, texts = family.load_stock(folder), [text["source"] for text in prepare.demo_texts()][:TEXTS]
    sources = [prepare.token_ids(tokenizer, text)[:128] for text in texts]
    model = prepare.load_model(folder, "2-8")
    full = [family.answer(model, family.stock_streams(model, stock, ids)).values for ids in sources]
    for bits, graphs in lowered(folder):
        fracs = shape(graphs).prefill.fracs
        own = []
        for ids in sources:
            read = {name: x * 2.0 ** -fracs[name] for name, x in reference_streams(graphs, ids).items()}
            own.append(family.answer(model, read).values)
        cosines = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in zip(own, full, strict=True)]
        print(
            f"{bits:5} {len(texts)} texts, cosine {sum(cosines) / len(cosines):.3f} (least {min(cosines):.3f}), "
            f"rank correlation of similarities {_correlation(own, full):.3f}"
        )


def _correlation(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """Spearman's, over all pairs."""
    ranks = []
    for vectors in (a, b):
        values = torch.stack([torch.cosine_similarity(x, y, dim=0) for x, y in combinations(vectors, 2)])
        ranks.append(values.argsort().argsort().double())
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def whisper(folder: Path, file: str | None = None) -> None:
    """What is heard in a file, or in a made-up sound: in full precision in the whole window, and quantized in its own length."""
    stock: Any = family_in(folder)[0].load_stock(folder)
    tokenizer: Any = prepare.load_tokenizer(folder)
    config = stock.config
    samples = sound.made_up(0, config.max_source_positions) if file is None else sound.read_wav(file)
    heard = sound.features(samples, config.num_mel_bins, config.max_source_positions)
    with torch.no_grad():
        tokens = stock.generate(heard, max_new_tokens=TOKENS, num_beams=1, do_sample=False)[0].tolist()
    print(f"FP32  {tokenizer.decode(tokens, skip_special_tokens=True)!r}")
    for bits in BITS:
        model = prepare.load_model(folder, bits)
        graphs = fold(prepare.lower(model))
        tokens, _ = reference_run(graphs, prepare.listen(model, file), 20)
        print(f"{bits:5} {tokenizer.decode(tokens, skip_special_tokens=True)!r}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"annalog": annalog, "minilm": minilm, "whisper": whisper}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
