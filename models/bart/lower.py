"""Lowering: a QuantBart to the encoder and decoder graphs of docs/graph.md, built explicitly from its modules."""

from __future__ import annotations

from ternbin.graph.ir import Codes, Graph, Ids, Lowered, Node
from ternbin.models.bart.qbart import Layer, QuantBartForConditionalGeneration, Stack, head_of, stacks
from ternbin.models.lowering import Lowering, check_lowerable, describe_generation, describe_quantization

TABLE = "embed.table"


def lower(model: QuantBartForConditionalGeneration) -> Lowered:
    """The graphs of a calibrated `deploy` model, packed or not."""
    check_lowerable(model)
    lowering = _BartLowering(model)
    encoder, decoder = Graph("encoder", lowering.encode()), Graph("decoder", lowering.decode())
    return Lowered((encoder, decoder), lowering.b.weights, describe(model), lowering.origins)


def describe(model: QuantBartForConditionalGeneration) -> dict:
    """`meta` of a lowered model: dimensions, bits, token ids, and how the generation config wants beams to search."""
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
        max_positions=config.max_position_embeddings,
        activation=config.activation_function,
        scale_embedding=bool(config.scale_embedding),
        **describe_quantization(model.quant_config),
        **describe_generation(config, model.generation_config),
    )


class _BartLowering(Lowering):
    def __init__(self, model: QuantBartForConditionalGeneration):
        super().__init__(model)
        self.model = model
        self.encoder, self.decoder = stacks(model)

    def encode(self) -> tuple[Node, ...]:
        """Source ids to the keys and values of every cross-attention."""
        h = self.embedded(self.encoder, "enc", self.b.input("ids", Ids(("S",))), past=0)
        for index, layer in enumerate(self.encoder.layers):
            h = self.layer(layer, f"enc.{index}", h, cross=None)
        outputs = []
        for index, layer in enumerate(self.decoder.layers):
            k, v = self.projections(layer.encoder_attn, f"dec.{index}.cross", "kv", h)
            outputs += [
                self.b.op("output", k, name=f"cross_k.{index}"),
                self.b.op("output", v, name=f"cross_v.{index}"),
            ]
        return tuple(outputs)

    def decode(self) -> tuple[Node, ...]:
        """Target ids, cached keys and values to the next token."""
        h = self.embedded(self.decoder, "dec", self.b.input("ids", Ids(("T",))), past="P")
        for index, layer in enumerate(self.decoder.layers):
            attn = layer.encoder_attn
            k, v = (
                self.b.input(f"cross_{side}.{index}", Codes(("S", attn.embed_dim), projection.head_quant.kind))
                for side, projection in (("k", attn.k_proj), ("v", attn.v_proj))
            )
            h = self.layer(layer, f"dec.{index}", h, (k, v))
        head = self.lm_head(head_of(self.model), self.model.final_logits_bias, h, weight=TABLE)
        return (self.b.op("output", head, name="next"),)

    def embedded(self, stack: Stack, prefix: str, ids: Node, past: int | str) -> Node:
        """Embedding and its LayerNorm; one table for both stacks."""
        x = self.embedding(stack.embed_tokens, stack.embed_positions, f"{prefix}.embed", ids, weight=TABLE, past=past)
        return self.layernorm(stack.layernorm_embedding, f"{prefix}.embed_ln", x)

    def layer(self, layer: Layer, name: str, h: Node, cross: tuple[Node, Node] | None) -> Node:
        """One encoder layer, or with `cross` keys and values one decoder layer."""
        q, k, v = self.projections(layer.self_attn, f"{name}.self", "qkv", h)
        if cross is not None:
            k = self.b.op("cache", k, name=f"{name}.self.k_cache")
            v = self.b.op("cache", v, name=f"{name}.self.v_cache")
        h = self.attention(layer.self_attn, f"{name}.self", h, q, k, v, causal=cross is not None)
        h = self.layernorm(layer.self_attn_layer_norm, f"{name}.ln1", h)
        if cross is not None:
            (q,) = self.projections(layer.encoder_attn, f"{name}.cross", "q", h)
            h = self.attention(layer.encoder_attn, f"{name}.cross", h, q, *cross, causal=False)
            h = self.layernorm(layer.encoder_attn_layer_norm, f"{name}.ln2", h)
        h = self.feed_forward(layer, name, h)
        return self.layernorm(layer.final_layer_norm, f"{name}.ln2" if cross is None else f"{name}.ln3", h)
