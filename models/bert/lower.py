"""Lowering: a QuantBert to one graph, built explicitly from its modules."""

from __future__ import annotations

from ternbin.graph.given import IDS, PLACES
from ternbin.graph.ir import Graph, Ids, Lowered, Node
from ternbin.models.bert.qbert import Layer, QuantBert
from ternbin.models.lowering import Lowering, check_lowerable, describe_quantization

HIDDEN = "hidden"  # the output: the residual stream after the last layer


def lower(model: QuantBert) -> Lowered:
    """The graph of a calibrated `deploy` model, packed or not."""
    check_lowerable(model)
    lowering = Lowering(model)
    graph = Graph("encoder", (_encode(lowering, model),))
    return Lowered((graph,), lowering.b.weights, describe(model), lowering.origins)


def describe(model: QuantBert) -> dict:
    """`meta` of a lowered model: dimensions and bits."""
    config = model.config
    return dict(
        vocab_size=config.vocab_size,
        d_model=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        ffn=config.intermediate_size,
        max_positions=config.max_position_embeddings,
        token_types=config.type_vocab_size,
        activation=config.hidden_act,
        head=config.head,
        pooling=config.pooling,
        **describe_quantization(model.quant_config),
    )


def _encode(lowering: Lowering, model: QuantBert) -> Node:
    """Ids and places to the stream."""
    b = lowering.b
    ids, places = b.input(IDS, Ids(("S",))), b.input(PLACES, Ids(("S",)))
    rows = model.embed_positions.rows()
    h = lowering.embedding_at(model.embed_tokens, rows, "enc.embed", ids, places, weight="embed.table")
    h = lowering.layernorm(model.layernorm_embedding, "enc.embed_ln", h)
    for index, layer in enumerate(model.layers):
        h = _layer(lowering, layer, f"enc.{index}", h)
    return b.op("output", h, name=HIDDEN)


def _layer(lowering: Lowering, layer: Layer, name: str, h: Node) -> Node:
    q, k, v = lowering.projections(layer.self_attn, f"{name}.self", "qkv", h)
    h = lowering.attention(layer.self_attn, f"{name}.self", h, q, k, v, causal=False)
    h = lowering.layernorm(layer.self_attn_layer_norm, f"{name}.ln1", h)
    h = lowering.feed_forward(layer, name, h, h)
    return lowering.layernorm(layer.final_layer_norm, f"{name}.ln2", h)
