"""Token embeddings from co-occurrence: a start for a model of two languages that share one table.

Tokens that stand in the same pairs of texts get like vectors, so a word lies near its translation before any training.
Positive pointwise mutual information, then a truncated singular value decomposition (latent semantic analysis).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ternbin.models.task.batches import Row

CHUNK = 2000  # rows counted at a time
SPECTRUM = 0.25  # power of the singular values: frequent topics count, but do not drown the rest
OWN = 0.45  # share of each token's own random vector, which tells it from its neighbours


def co_occurrence(rows: Sequence[Row], vocab: int) -> np.ndarray:
    """How many rows hold token i and token j, on whichever side (float32 [vocab, vocab])."""
    counts = np.zeros(vocab * vocab, dtype=np.float32)
    for first in range(0, len(rows), CHUNK):
        sets = [np.array(sorted({*source, *target})) for source, target in rows[first : first + CHUNK]]
        flat = [np.add.outer(tokens * vocab, tokens).ravel() for tokens in sets]
        index, times = np.unique(np.concatenate(flat), return_counts=True)
        counts[index] += times
    return counts.reshape(vocab, vocab)


def information(counts: np.ndarray) -> np.ndarray:
    """Positive pointwise mutual information of a symmetric table of counts."""
    own = counts.diagonal()
    expected = np.outer(own, own) / max(1.0, own.max())
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(counts / expected)
    return np.where(np.isfinite(value), np.maximum(value, 0), 0).astype(np.float32)


def embeddings(rows: Sequence[Row], vocab: int, width: int, seed: int = 0) -> torch.Tensor:
    """Vectors [vocab, width] of about unit variance; random ones where a token is never seen."""
    torch.manual_seed(seed)
    table = torch.from_numpy(information(co_occurrence(rows, vocab)))
    left, values, _ = torch.svd_lowrank(table, q=width, niter=4)
    turn = torch.linalg.qr(torch.randn(width, width))[0]  # no dimension matters more than another
    vectors = torch.nn.functional.normalize(left * values**SPECTRUM @ turn) * width**0.5
    seen = (table.diagonal() > 0).float().unsqueeze(1)
    mix = OWN * seen + (1 - seen)
    return (1 - mix**2).sqrt() * vectors + mix * torch.randn(vocab, width)
