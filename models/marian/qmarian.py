"""Quantized Marian."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, AutoModelForSeq2SeqLM, MarianConfig, MarianMTModel

from ternbin.models.bart.qbart import QuantSeq2Seq
from ternbin.models.marian.layout import LAYOUT


@strict
class QuantMarianConfig(MarianConfig):
    """MarianConfig and `quant`: a QuantConfig as a dict."""

    model_type = "ternbin_marian"

    quant: dict | None = None


class QuantMarianMTModel(QuantSeq2Seq, MarianMTModel):
    config_class = QuantMarianConfig
    stock_class = MarianMTModel
    layout = LAYOUT
    _keys_to_ignore_on_save = []  # positions are quantized, and saved


AutoConfig.register(QuantMarianConfig.model_type, QuantMarianConfig)
AutoModelForSeq2SeqLM.register(QuantMarianConfig, QuantMarianMTModel)
