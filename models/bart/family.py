"""BART as a family: what the protocol asks, from the modules of this folder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import BartForConditionalGeneration, PreTrainedModel

from ternbin.errors import InputError
from ternbin.graph.ir import Lowered
from ternbin.models.bart import checkpoint, lower, qbart, random_model, reference
from ternbin.models.bart.qbart import QuantBartConfig, QuantBartForConditionalGeneration
from ternbin.models.config import QuantConfig
from ternbin.models.family import Family, Sizes
from ternbin.models.fidelity import Pair

CALIBRATION_TEXTS = 16  # random ones, where there is no tokenizer
CALIBRATION_LENGTH = 64


class Bart(Family[QuantBartForConditionalGeneration]):
    stock_types = ("bart",)
    quant_type = QuantBartConfig.model_type

    def load_stock(self, folder: Path) -> BartForConditionalGeneration:
        return BartForConditionalGeneration.from_pretrained(folder).eval()

    def load(self, folder: Path, quant: QuantConfig | None = None) -> QuantBartForConditionalGeneration:
        return checkpoint.load_any(folder, quant)

    def quantize(self, stock: PreTrainedModel, quant: QuantConfig) -> QuantBartForConditionalGeneration:
        if not isinstance(stock, BartForConditionalGeneration):
            raise InputError(f"model to quantize must be a BartForConditionalGeneration, not {type(stock).__name__}")
        return qbart.quantize_model(stock, quant)

    def stock(self, model: QuantBartForConditionalGeneration) -> BartForConditionalGeneration:
        return qbart.stock_model(model)

    def batches(self, model: QuantBartForConditionalGeneration, pairs: Sequence[Pair]) -> list[dict]:
        limit = min(CALIBRATION_LENGTH, model.config.max_position_embeddings)
        if not pairs:
            generator = torch.Generator().manual_seed(0)
            ids = torch.randint(0, model.config.vocab_size, (CALIBRATION_TEXTS, limit), generator=generator)
            return [dict(input_ids=ids, decoder_input_ids=ids.flip(0))]
        return [
            dict(input_ids=torch.tensor([source[:limit]]), labels=torch.tensor([target[:limit]]))
            for source, target in pairs
        ]

    def lower(self, model: QuantBartForConditionalGeneration) -> Lowered:
        return lower.lower(model)

    def node_modules(self, model: QuantBartForConditionalGeneration) -> dict[str, Any]:
        return reference.node_modules(model)

    def draw(self, rng: random.Random, activation: str) -> Sizes:
        sizes = Sizes(
            heads=rng.randint(1, 3),
            head_dim=rng.randint(3, 20),
            ffn=rng.randint(5, 70),
            layers=(rng.randint(1, 2), rng.randint(1, 2)),
            vocab=rng.randint(20, 90),
            activation=activation,
        )
        rng.randrange(2)  # where the activation function was drawn: a seed stays the case it was
        return replace(sizes, options={"scale_embedding": rng.random() < 0.5})

    def random(self, bits: str, sizes: Sizes, *, seed: int, res_bits: int = 16) -> QuantBartForConditionalGeneration:
        encoder, decoder = sizes.layers
        return random_model.random_quant_bart(
            bits,
            d_model=sizes.heads * sizes.head_dim,
            heads=sizes.heads,
            ffn=sizes.ffn,
            layers=(encoder, decoder),
            vocab=sizes.vocab,
            activation=sizes.activation,
            res_bits=res_bits,
            seed=seed,
            **sizes.options,
        )
