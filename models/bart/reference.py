"""Which module of a BART or relative becomes which node of its graphs."""

from __future__ import annotations

from typing import Any

from ternbin.models.bart.structure import Layer, embedding_norm, final_norm, head_of, stacks


def node_modules(model: Any) -> dict[str, Any]:
    """Module by name of the node, of a QuantSeq2Seq or a model with its names, as `ternbin.models.fidelity.Reference` wants them."""
    modules: dict[str, Any] = {"lm_head.in": head_of(model).x_quant, "lm_head": model}
    for prefix, stack in zip(("enc", "dec"), stacks(model), strict=True):
        modules |= {f"{prefix}.embed": stack, f"{prefix}.embed_ln": embedding_norm(stack)}
        modules[f"{prefix}.final_ln"] = final_norm(stack)
        for index, layer in enumerate(stack.layers):
            modules |= _of_layer(f"{prefix}.{index}", layer)
    return modules


def _of_layer(name: str, layer: Layer) -> dict[str, Any]:
    modules: dict[str, Any] = {}
    blocks = [("self", layer.self_attn, layer.self_attn_layer_norm)]
    if hasattr(layer, "encoder_attn"):
        blocks.append(("cross", layer.encoder_attn, layer.encoder_attn_layer_norm))
    for number, (block, attn, norm) in enumerate(blocks, 1):
        for letter in "qkv":
            projection = getattr(attn, f"{letter}_proj")
            modules |= {f"{name}.{block}.{letter}_in": projection.x_quant, f"{name}.{block}.{letter}": projection}
        modules |= {f"{name}.{block}.probs": attn, f"{name}.{block}.ctx": attn, f"{name}.{block}.out": attn.out_proj}
        modules[f"{name}.ln{number}"] = norm
    modules[f"{name}.ln{len(blocks) + 1}"] = layer.final_layer_norm
    return modules | {f"{name}.fc1_in": layer.fc1.x_quant, f"{name}.fc1": layer, f"{name}.fc2": layer.fc2}
