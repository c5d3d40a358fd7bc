"""Which module of a BERT becomes which node of its graph."""

from __future__ import annotations

from typing import Any

from ternbin.models.bert.qbert import Layer, QuantBert


def node_modules(model: QuantBert) -> dict[str, Any]:
    """Module by name of the node, as `ternbin.models.fidelity.Reference` wants them."""
    modules: dict[str, Any] = {"enc.embed": model, "enc.embed_ln": model.layernorm_embedding}
    for index, layer in enumerate(model.layers):
        modules |= _of_layer(f"enc.{index}", layer)
    return modules


def _of_layer(name: str, layer: Layer) -> dict[str, Any]:
    attn = layer.self_attn
    modules: dict[str, Any] = {f"{name}.self.{block}": attn for block in ("probs", "ctx")}
    for letter in "qkv":
        projection = getattr(attn, f"{letter}_proj")
        modules |= {f"{name}.self.{letter}_in": projection.x_quant, f"{name}.self.{letter}": projection}
    modules |= {f"{name}.self.out": attn.out_proj, f"{name}.ln1": layer.self_attn_layer_norm}
    modules |= {f"{name}.fc1_in": layer.fc1.x_quant, f"{name}.fc1": layer, f"{name}.fc2": layer.fc2}
    return modules | {f"{name}.ln2": layer.final_layer_norm}
