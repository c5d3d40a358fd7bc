"""Marian as a family."""

from __future__ import annotations

import random
from typing import Any

from ternbin.models.bart.family import Seq2Seq
from ternbin.models.family import Sizes
from ternbin.models.marian.qmarian import QuantMarianConfig, QuantMarianMTModel


class Marian(Seq2Seq):
    quant_class = QuantMarianMTModel
    stock_types = ("marian",)
    quant_type = QuantMarianConfig.model_type

    def vary(self, rng: random.Random, sizes: Sizes) -> dict[str, Any]:
        """Often a vocabulary a side; the decoder starts with the pad token."""
        options = super().vary(rng, sizes) | {"decoder_start_token_id": 1}
        if rng.random() < 0.4:
            options |= {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": rng.randint(20, 90)}
        return options
