"""Marian as a family."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from ternbin.models.bart.family import Seq2Seq
from ternbin.models.family import Sizes
from ternbin.models.marian.layout import LAYOUT

if TYPE_CHECKING:
    from ternbin.models.bart.qbart import QuantSeq2Seq


class Marian(Seq2Seq):
    layout = LAYOUT
    stock_types = ("marian",)
    quant_type = "ternbin_marian"

    @property
    def quant_class(self) -> type[QuantSeq2Seq]:
        from ternbin.models.marian.qmarian import QuantMarianMTModel

        return QuantMarianMTModel

    def vary(self, rng: random.Random, sizes: Sizes) -> dict[str, Any]:
        """Often a vocabulary a side; the decoder starts with the pad token."""
        options = super().vary(rng, sizes) | {"decoder_start_token_id": 1}
        if rng.random() < 0.4:
            options |= {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": rng.randint(20, 90)}
        return options
