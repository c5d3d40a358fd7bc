"""BERT as a family: what the protocol asks, from the modules of this folder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedModel

from ternbin.errors import InputError
from ternbin.graph.given import IDS, PLACES, Given, rows
from ternbin.graph.ir import Lowered
from ternbin.models import files
from ternbin.models.answer import Answer
from ternbin.models.bert import checkpoint, fields, lower, qbert, random_model, reference
from ternbin.models.bert.qbert import QuantBert, QuantBertConfig, Stock
from ternbin.models.config import QuantConfig
from ternbin.models.family import Family, Sizes
from ternbin.models.fidelity import Pair

CALIBRATION_TEXTS = 16  # random ones, where there is no tokenizer
CALIBRATION_LENGTH = 64


class Bert(Family[QuantBert]):
    stock_types = ("bert",)
    quant_type = QuantBertConfig.model_type
    generates = False
    pairs = True

    def load_stock(self, folder: Path) -> Stock:
        return checkpoint.load_stock(folder)

    def limits(self, folder: Path) -> dict[str, int]:
        values, path = files.read_config(folder), folder / files.CONFIG_FILE
        fields.check(values, path)
        config = files.built(path, lambda: BertConfig.from_dict(values))
        return dict(vocab_size=config.vocab_size, max_positions=config.max_position_embeddings)

    def load(self, folder: Path, quant: QuantConfig | None = None) -> QuantBert:
        return checkpoint.load_any(folder, quant)

    def quantize(self, stock: PreTrainedModel, quant: QuantConfig) -> QuantBert:
        if not isinstance(stock, BertModel | BertForSequenceClassification):
            raise InputError(
                f"model to quantize must be a BertModel or BertForSequenceClassification, not {type(stock).__name__}"
            )
        return qbert.quantize_model(stock, quant)

    def requantize(self, model: QuantBert, bits: str) -> QuantBert:
        new = super().requantize(model, bits)
        for name in ("pooling", "normalize"):
            setattr(new.config, name, getattr(model.config, name))
        return new

    def stock(self, model: QuantBert) -> Stock:
        return qbert.stock_model(model)

    def batches(self, model: QuantBert, pairs: Sequence[Pair]) -> list[dict]:
        limit = min(CALIBRATION_LENGTH, model.config.max_position_embeddings)
        if not pairs:
            generator = torch.Generator().manual_seed(0)
            ids = torch.randint(0, model.config.vocab_size, (CALIBRATION_TEXTS, limit), generator=generator)
            return [dict(input_ids=ids)]
        return [dict(input_ids=torch.from_numpy(rows(source, [IDS])[IDS][None, :limit])) for source, _ in pairs]

    def lower(self, model: QuantBert) -> Lowered:
        return lower.lower(model)

    def node_modules(self, model: QuantBert) -> dict[str, Any]:
        return reference.node_modules(model)

    # -- on the host ---------------------------------------------------------------------------

    def answer(self, model: QuantBert, streams: dict[str, Tensor]) -> Answer:
        values = model.answer(streams[lower.HIDDEN].to(model.dtype))
        labels = model.config.id2label if model.config.head == "label" else {}
        return Answer(values=values, labels=tuple(labels[number] for number in sorted(labels)))

    @torch.no_grad()
    def streams(self, model: QuantBert, source: Given) -> dict[str, Tensor]:
        ids, types = _ids_and_types(model, source)
        return {lower.HIDDEN: model(ids, types)[0]}

    @torch.no_grad()
    def stock_streams(self, model: QuantBert, stock: PreTrainedModel, source: Given) -> dict[str, Tensor]:
        ids, types = _ids_and_types(model, source)
        return {lower.HIDDEN: qbert.bare(cast(Stock, stock))(input_ids=ids, token_type_ids=types).last_hidden_state[0]}

    # -- random models -------------------------------------------------------------------------

    def draw(self, rng: random.Random, activation: str) -> Sizes:
        return Sizes(
            heads=rng.randint(1, 3),
            head_dim=rng.randint(3, 20),
            ffn=rng.randint(5, 70),
            layers=(rng.randint(1, 3),),
            vocab=rng.randint(20, 90),
            activation=activation,
            options={"types": rng.randint(1, 3), "labels": rng.choice([0, 2, 3])},
        )

    def random(self, bits: str, sizes: Sizes, *, seed: int, res_bits: int = 16) -> QuantBert:
        (layers,) = sizes.layers
        return random_model.random_quant_bert(
            bits,
            d_model=sizes.heads * sizes.head_dim,
            heads=sizes.heads,
            ffn=sizes.ffn,
            layers=layers,
            vocab=sizes.vocab,
            activation=sizes.activation,
            res_bits=res_bits,
            seed=seed,
            **sizes.options,
        )


def _ids_and_types(model: QuantBert, source: Given) -> tuple[Tensor, Tensor]:
    """Of one text, [1, S] each. Raises InputError where places are not positions counted up from 0."""
    found = rows(source, [IDS, PLACES])
    ids, places = (torch.from_numpy(found[name])[None] for name in (IDS, PLACES))
    positions = model.config.max_position_embeddings
    if not torch.equal(places % positions, torch.arange(ids.shape[1])[None]):
        raise InputError(f"{PLACES} must be positions counted up from 0, each plus {positions} times a token type")
    return ids, places // positions
