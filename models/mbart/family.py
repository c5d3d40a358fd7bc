"""mBART as a family."""

from __future__ import annotations

from ternbin.models.bart.family import Seq2Seq
from ternbin.models.mbart.qmbart import QuantMBartConfig, QuantMBartForConditionalGeneration


class MBart(Seq2Seq):
    quant_class = QuantMBartForConditionalGeneration
    stock_types = ("mbart",)
    quant_type = QuantMBartConfig.model_type
