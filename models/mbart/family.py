"""mBART as a family."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from ternbin.models.bart.family import Seq2Seq
from ternbin.models.family import Sizes
from ternbin.models.mbart.layout import LAYOUT

if TYPE_CHECKING:
    from ternbin.models.bart.qbart import QuantSeq2Seq


class MBart(Seq2Seq):
    layout = LAYOUT
    stock_types = ("mbart",)
    quant_type = "ternbin_mbart"

    @property
    def quant_class(self) -> type[QuantSeq2Seq]:
        from ternbin.models.mbart.qmbart import QuantMBartForConditionalGeneration

        return QuantMBartForConditionalGeneration

    def vary(self, rng: random.Random, sizes: Sizes) -> dict[str, Any]:
        """Often without a LayerNorm after the embedding, as relatives have none, and often with a language to begin with."""
        options = super().vary(rng, sizes)
        if rng.random() < 0.3:
            options["normalize_embedding"] = False
        if rng.random() < 0.5:
            options["forced_bos_token_id"] = rng.randrange(sizes.vocab)
        return options
