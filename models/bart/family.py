"""BART as a family, and what its relatives share with it: all that the protocol asks, from the modules of this folder."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ternbin.graph.ir import Lowered
from ternbin.models import files
from ternbin.models.bart import bare, fields, lower, reference
from ternbin.models.bart.layout import Layout
from ternbin.models.bart.structure import Seq2SeqModel
from ternbin.models.config import QuantConfig
from ternbin.models.family import Family, Sizes
from ternbin.models.fidelity import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ternbin.models.bart.qbart import QuantSeq2Seq

CALIBRATION_TEXTS = 16  # random ones, where there is no tokenizer
CALIBRATION_LENGTH = 64


class Seq2Seq(Family[Seq2SeqModel]):
    """A family of encoder-decoders with the module names of BART.  `layout` and `quant_class` say the rest; what needs the class, and so
    the library, imports it."""

    layout: Layout

    @property
    @abstractmethod
    def quant_class(self) -> type[QuantSeq2Seq]:
        """The class of its models as models of the library."""

    def load_stock(self, folder: Path) -> PreTrainedModel:
        from ternbin.models.bart import checkpoint

        return checkpoint.load_stock(folder, self.quant_class)

    def limits(self, folder: Path) -> dict[str, int]:
        values, path = files.read_config(folder), folder / files.CONFIG_FILE
        fields.check(values, path)
        if {"vocab_size", "max_position_embeddings"} <= values.keys():
            return dict(vocab_size=values["vocab_size"], max_positions=values["max_position_embeddings"])
        from ternbin.models.bart import qbart

        config = files.built(path, lambda: qbart.config_class(self.quant_class.stock_class).from_dict(values))
        return dict(vocab_size=config.vocab_size, max_positions=config.max_position_embeddings)

    def load(self, folder: Path, quant: QuantConfig | None = None) -> Seq2SeqModel:
        from ternbin.models.bart import checkpoint

        return checkpoint.load_any(folder, quant, self.quant_class)

    def load_bare(self, folder: Path) -> Seq2SeqModel:
        return bare.load(folder, self.layout) if bare.readable(folder, self.layout) else self.load(folder)

    def quantize(self, stock: PreTrainedModel, quant: QuantConfig) -> Seq2SeqModel:
        from ternbin.models.bart import qbart

        return qbart.quantize(self.quant_class, stock, quant)

    def stock(self, model: Seq2SeqModel) -> PreTrainedModel:
        from ternbin.models.bart import qbart

        return qbart.stock_model(cast("QuantSeq2Seq", model))

    def widen(self, model: Seq2SeqModel, bits: str, seed: int) -> Seq2SeqModel:
        from ternbin.models.bart import widen

        quant = replace(model.quant_config, bits=bits, fracs={})
        return widen.widen(cast("QuantSeq2Seq", model), quant, seed)

    def batches(self, model: Seq2SeqModel, pairs: Sequence[Pair]) -> list[dict]:
        limit = min(CALIBRATION_LENGTH, model.config.max_position_embeddings)
        if not pairs:
            generator = torch.Generator().manual_seed(0)
            vocab = min(model.config.vocab_size, model.final_logits_bias.shape[-1])
            ids = torch.randint(0, vocab, (CALIBRATION_TEXTS, limit), generator=generator)
            return [dict(input_ids=ids, decoder_input_ids=ids.flip(0))]
        shifted: Any = model  # not labels: the library's loss knows one vocabulary
        return [
            dict(
                input_ids=torch.tensor([list(cast(Sequence[int], source))[:limit]]),
                decoder_input_ids=shifted.prepare_decoder_input_ids_from_labels(torch.tensor([target[:limit]])),
            )
            for source, target in pairs
        ]

    def lower(self, model: Seq2SeqModel) -> Lowered:
        return lower.lower(model)

    def node_modules(self, model: Seq2SeqModel) -> dict[str, Any]:
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
        options = {"scale_embedding": rng.random() < 0.5}
        # drawn apart, for the same reason
        return replace(sizes, options=options | self.vary(random.Random(f"variations of {sizes}"), sizes))

    def vary(self, rng: random.Random, sizes: Sizes) -> dict[str, Any]:
        """Fields of config.json in which the models of the family differ, besides sizes: each often as it mostly is."""
        options: dict[str, Any] = {}
        if rng.random() < 0.3:
            width = sizes.heads * sizes.head_dim
            heads = [heads for heads in range(1, width + 1) if width % heads == 0 and 3 <= width // heads <= 20]
            options |= {"decoder_attention_heads": rng.choice(heads), "decoder_ffn_dim": rng.randint(5, 70)}
        return options | ({"tie_word_embeddings": False} if rng.random() < 0.2 else {})

    def random(self, bits: str, sizes: Sizes, *, seed: int, res_bits: int = 16) -> Seq2SeqModel:
        from ternbin.models.bart import random_model

        return random_model.random_quant(
            self.quant_class,
            bits,
            d_model=sizes.heads * sizes.head_dim,
            heads=sizes.heads,
            ffn=sizes.ffn,
            layers=sizes.layers,
            vocab=sizes.vocab,
            activation=sizes.activation,
            res_bits=res_bits,
            seed=seed,
            **sizes.options,
        )


class Bart(Seq2Seq):
    """BART, with variations that its relatives in other libraries have: no LayerNorm after the embedding, a vocabulary a side."""

    layout = Layout()
    stock_types = ("bart",)
    quant_type = "ternbin_bart"

    @property
    def quant_class(self) -> type[QuantSeq2Seq]:
        from ternbin.models.bart.qbart import QuantBartForConditionalGeneration

        return QuantBartForConditionalGeneration

    def vary(self, rng: random.Random, sizes: Sizes) -> dict[str, Any]:
        options = super().vary(rng, sizes)
        if rng.random() < 0.25:
            options["normalize_embedding"] = False
        if not options.get("tie_word_embeddings", True) and rng.random() < 0.5:
            options["decoder_vocab_size"] = rng.randint(20, 90)
        return options
