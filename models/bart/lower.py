"""Lowering: a quantized BART or relative to the encoder and decoder graphs of docs/graph.md, built explicitly from its modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ternbin.graph.ir import Codes, Graph, Ids, Lowered, Node
from ternbin.models.bart.layout import DECODER_TABLE, ENCODER_TABLE, HEAD, SHARED, target_vocab
from ternbin.models.bart.structure import Layer, Seq2SeqModel, Stack, embedding_norm, final_norm, head_of, stacks
from ternbin.models.lowering import Lowering, check_lowerable, describe_generation, describe_quantization
from ternbin.models.modules import QuantLayerNorm

TABLES = {SHARED: "embed.table", ENCODER_TABLE: "enc.table", DECODER_TABLE: "dec.table", HEAD: "lm_head.weight"}


def lower(model: Seq2SeqModel) -> Lowered:
    """The graphs of a calibrated `deploy` model, packed or not."""
    check_lowerable(model)
    lowering = Seq2SeqLowering(model)
    encoder, decoder = Graph("encoder", lowering.encode()), Graph("decoder", lowering.decode())
    return Lowered((encoder, decoder), lowering.b.weights, describe(model), lowering.origins)


def describe(model: Seq2SeqModel) -> dict:
    """`meta` of a lowered model: dimensions, bits, token ids, and how the generation config wants beams to search."""
    config = model.config
    return dict(
        vocab_size=config.vocab_size,
        target_vocab_size=target_vocab(config),
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


Block = Callable[[Node, Node], Node]  # the residual stream plus what the block makes of its second argument


class Seq2SeqLowering(Lowering):
    """Of models with the module names of BART."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.model = model
        self.encoder, self.decoder = stacks(model)

    def encode(self) -> tuple[Node, ...]:
        """The source to the keys and values of every cross-attention."""
        h = self.source()
        for index, layer in enumerate(self.encoder.layers):
            h = self.layer(layer, f"enc.{index}", h, cross=None)
        h = self.normed(final_norm(self.encoder), "enc.final_ln", h)
        outputs = []
        for index, layer in enumerate(self.decoder.layers):
            k, v = self.projections(layer.encoder_attn, f"dec.{index}.cross", "kv", h)
            outputs += [
                self.b.op("output", k, name=f"cross_k.{index}"),
                self.b.op("output", v, name=f"cross_v.{index}"),
            ]
        return tuple(outputs)

    def source(self) -> Node:
        """What the first layer of the encoder reads."""
        return self.embedded(self.encoder, "enc", ENCODER_TABLE, self.b.input("ids", Ids(("S",))), past=0)

    def decode(self) -> tuple[Node, ...]:
        """Target ids, cached keys and values to the next token."""
        h = self.embedded(self.decoder, "dec", DECODER_TABLE, self.b.input("ids", Ids(("T",))), past="P")
        for index, layer in enumerate(self.decoder.layers):
            attn = layer.encoder_attn
            k, v = (
                self.b.input(f"cross_{side}.{index}", Codes(("S", attn.embed_dim), projection.head_quant.kind))
                for side, projection in (("k", attn.k_proj), ("v", attn.v_proj))
            )
            h = self.layer(layer, f"dec.{index}", h, (k, v))
        h = self.normed(final_norm(self.decoder), "dec.final_ln", h)
        head = head_of(self.model)
        shared = head.bits == self.quant.weight_bits
        weight = self.table(HEAD) if shared else TABLES[HEAD]
        token = self.lm_head(head, self.model.final_logits_bias, h, weight=weight)
        return (self.b.op("output", token, name="next"),)

    def table(self, module: str) -> str:
        """The name of the weight of an embedding or of the head: one for all that share it."""
        return TABLES[self.model.tied.get(module, module)]

    def embedded(self, stack: Stack, prefix: str, table: str, ids: Node, past: int | str) -> Node:
        """Embedding and its LayerNorm."""
        weight, name = self.table(table), f"{prefix}.embed"
        x = self.embedding(stack.embed_tokens, stack.embed_positions, name, ids, weight=weight, past=past)
        return self.normed(embedding_norm(stack), f"{prefix}.embed_ln", x)

    def normed(self, norm: QuantLayerNorm | None, name: str, h: Node) -> Node:
        return h if norm is None else self.layernorm(norm, name, h)

    def layer(self, layer: Layer, name: str, h: Node, cross: tuple[Node, Node] | None) -> Node:
        """One encoder layer, or with `cross` keys and values one decoder layer."""

        def attend(h: Node, x: Node) -> Node:
            q, k, v = self.projections(layer.self_attn, f"{name}.self", "qkv", x)
            if cross is not None:
                k = self.b.op("cache", k, name=f"{name}.self.k_cache")
                v = self.b.op("cache", v, name=f"{name}.self.v_cache")
            return self.attention(layer.self_attn, f"{name}.self", h, q, k, v, causal=cross is not None)

        def across(k: Node, v: Node) -> Block:
            def attend(h: Node, x: Node) -> Node:
                (q,) = self.projections(layer.encoder_attn, f"{name}.cross", "q", x)
                return self.attention(layer.encoder_attn, f"{name}.cross", h, q, k, v, causal=False)

            return attend

        blocks: list[tuple[Block, QuantLayerNorm]] = [(attend, layer.self_attn_layer_norm)]
        if cross is not None:
            blocks.append((across(*cross), layer.encoder_attn_layer_norm))
        blocks.append((lambda h, x: self.feed_forward(layer, name, h, x), layer.final_layer_norm))
        for number, (block, norm) in enumerate(blocks, 1):
            h = self.sublayer(block, norm, f"{name}.ln{number}", h)
        return h

    def sublayer(self, block: Block, norm: QuantLayerNorm, name: str, h: Node) -> Node:
        """A block and its LayerNorm, which stands before it or after it."""
        if self.model.layout.pre_norm:
            return block(h, self.layernorm(norm, name, h))
        return self.layernorm(norm, name, block(h, h))
