"""What the host makes of the residual stream that a model without decoder gives: the scores of labels, or an embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`values`: an embedding, or a score for each of `labels`, which are then not empty."""

    values: Tensor = field(repr=False)
    labels: tuple[str, ...] = ()

    @property
    def label(self) -> str | None:
        """That of the highest score."""
        return self.labels[int(self.values.argmax())] if self.labels else None

    def agreement(self, other: Answer) -> dict[str, Any]:
        """How near another answer to the same text is: cosine and largest difference of the values, and whether the label is the same."""
        a, b = self.values.double(), other.values.double()
        found: dict[str, Any] = {
            "cosine": float(cosine_similarity(a, b, dim=0)),
            "largest": float((a - b).abs().max()),
        }
        return found | ({"same_label": self.label == other.label} if self.labels else {})

    def asdict(self) -> dict[str, Any]:
        """Fields of result.json."""
        kind = (
            {"kind": "label", "label": self.label, "labels": list(self.labels)}
            if self.labels
            else {"kind": "embedding"}
        )
        return kind | {"values": [float(value) for value in torch.as_tensor(self.values)]}
