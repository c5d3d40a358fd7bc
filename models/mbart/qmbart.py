"""Quantized mBART."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, AutoModelForSeq2SeqLM, MBartConfig, MBartForConditionalGeneration

from ternbin.models.bart.qbart import QuantSeq2Seq
from ternbin.models.mbart.layout import LAYOUT


@strict
class QuantMBartConfig(MBartConfig):
    """MBartConfig and `quant`: a QuantConfig as a dict."""

    model_type = "ternbin_mbart"

    quant: dict | None = None


class QuantMBartForConditionalGeneration(QuantSeq2Seq, MBartForConditionalGeneration):
    config_class = QuantMBartConfig
    stock_class = MBartForConditionalGeneration
    layout = LAYOUT


AutoConfig.register(QuantMBartConfig.model_type, QuantMBartConfig)
AutoModelForSeq2SeqLM.register(QuantMBartConfig, QuantMBartForConditionalGeneration)
