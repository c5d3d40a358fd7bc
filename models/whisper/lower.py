"""Lowering: a QuantWhisper to its graphs: an encoder that is given the residual stream, and a decoder as BART's."""

from __future__ import annotations

from ternbin.graph.ir import Graph, Lowered, Node, Residual
from ternbin.models.bart.layout import DECODER_TABLE
from ternbin.models.bart.lower import TABLES, Seq2SeqLowering
from ternbin.models.lowering import check_lowerable, describe_generation, describe_quantization
from ternbin.models.whisper.qwhisper import QuantWhisper

STREAM = "stream"  # the input: what the host makes of the sound


def lower(model: QuantWhisper) -> Lowered:
    """The graphs of a calibrated `deploy` model, packed or not."""
    check_lowerable(model)
    lowering = _Lowering(model)
    encoder, decoder = Graph("encoder", lowering.encode()), Graph("decoder", lowering.decode())
    return Lowered((encoder, decoder), lowering.b.weights, describe(model), lowering.origins)


def describe(model: QuantWhisper) -> dict:
    """`meta` of a lowered model: dimensions, bits, token ids."""
    config = model.config
    return dict(
        vocab_size=config.vocab_size,
        d_model=config.d_model,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_heads=config.encoder_attention_heads,
        decoder_heads=config.decoder_attention_heads,
        encoder_ffn=config.encoder_ffn_dim,
        decoder_ffn=config.decoder_ffn_dim,
        max_positions=config.max_source_positions,
        max_target_positions=config.max_target_positions,
        activation=config.activation_function,
        **describe_quantization(model.quant_config),
        **generation(model),
    )


def generation(model: QuantWhisper) -> dict:
    """The part of `meta` that running the decoder needs."""
    told = describe_generation(model.config, model.generation_config)
    told["search"].pop("suppress_tokens", None)  # the bias of the head does that
    return told | {"prompt_ids": model.prompt_ids}


class _Lowering(Seq2SeqLowering):
    def source(self) -> Node:
        site, config = self.model.model.encoder.site, self.model.config
        return self.b.input(STREAM, Residual(("S", config.d_model), site.bits, site.frac))

    def table(self, module: str) -> str:
        return TABLES[DECODER_TABLE]
