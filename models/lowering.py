"""Lowering: the modules of a quantized model to real ops of a graph (ternbin/graph), whatever the family.

A family puts them together to its graphs (see `ternbin.models.bart.lower`); the passes fold them into integer ops.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import Tensor

from ternbin.decoding.rules import MIN_NEW, OTHERS, SEARCH, Rules
from ternbin.errors import InputError
from ternbin.graph.build import Builder
from ternbin.graph.ir import HEAD, Node
from ternbin.models.config import QuantConfig
from ternbin.models.model import QuantModel
from ternbin.models.modules import Attention, FeedForward, QuantEmbedding, QuantLayerNorm, QuantLinear, QuantPositions
from ternbin.models.quantizers import MAX_STEP, ActQuantizer, step_of

SETTINGS = (*(each.name for each in fields(Rules)), *SEARCH, MIN_NEW, *OTHERS)
"""Settings of a generation config that change the text."""


def check_lowerable(model: QuantModel) -> None:
    """Raise InputError unless every scale and grid of the model is known and static."""
    quant = model.quant_config
    if quant.form != "deploy":
        raise InputError(f"form must be 'deploy' to lower a model, not {quant.form!r}")
    if not quant.fracs:
        raise InputError("residual grids must be calibrated (ternbin.models.calibrate), not unset")
    for name, module in model.named_modules():
        if not isinstance(module, ActQuantizer):
            continue
        step = module.step.item()
        if not step > 0:
            raise InputError(f"{name}.alpha must be positive, not {step!r}: calibrate the model first")
        if not step <= MAX_STEP:
            raise InputError(f"{name}.alpha must be at most {MAX_STEP:g}, not {step!r}")


# -- meta --------------------------------------------------------------------------------------


def describe_quantization(quant: QuantConfig) -> dict:
    """The part of `meta` that says how a model is quantized."""
    return dict(
        bits=quant.bits,
        weight_bits=quant.weight_bits,
        act_bits=quant.act_bits,
        head_act_bits=quant.head_act_bits,
        head_weight_bits=quant.head_bits,
        res_bits=quant.res_bits,
        fracs=dict(quant.fracs),
    )


def describe_generation(config: Any, generation: Any) -> dict:
    """The part of `meta` that running a decoder needs: token ids, and every setting of the generation config that changes the text.

    Whether the host follows a setting is for `ternbin.decoding.rules` to say, where a text is generated.
    """
    ids = {key: getattr(generation, f"{key}_token_id") for key in ("forced_bos", "forced_eos", "bos", "decoder_start")}
    if ids["decoder_start"] is None:  # as generate() does
        ids["decoder_start"] = ids["bos"]
    for key in ("pad", "bos"):
        value = getattr(generation, f"{key}_token_id")
        ids[key] = getattr(config, f"{key}_token_id", None) if value is None else value
    eos = generation.eos_token_id
    ends = eos if isinstance(eos, list) and len(eos) > 1 else _single("eos_token_id", eos)
    return dict(
        search={key: value for key in SETTINGS if (value := getattr(generation, key, None)) is not None},
        **{f"{key}_id": _single(f"{key}_token_id", value) for key, value in ids.items()},
        eos_id=ends,
    )


def _single(name: str, value: int | list[int] | None) -> int | None:
    """One token id or None; the library also allows lists, the host only of end tokens."""
    if isinstance(value, list):
        if len(value) != 1:
            raise InputError(f"{name} must be one token id, not {value!r}")
        return value[0]
    return value


# -- modules -----------------------------------------------------------------------------------


class Lowering:
    """Lowers the modules of one model into the weights of one Builder; `origins` as in `Lowered`."""

    def __init__(self, model: QuantModel):
        self.quant = model.quant_config
        self.b = Builder({})
        self.origins: dict[str, str] = {}
        self.paths = {module: model.tied.get(name, name) for name, module in model.named_modules()}

    def product(self, name: str, module: QuantLinear, bias: str) -> None:
        """Say what scale and bias of the product `name` were."""
        self.origins[f"{name}.scale"] = f"row scales of {self.paths[module]} times {self.paths[module.x_quant]}.alpha"
        self.origins[f"{name}.bias"] = bias

    def embedding(
        self, table: QuantEmbedding, positions: QuantPositions, name: str, ids: Node, *, weight: str, past: int | str
    ) -> Node:
        """Tokens and positions to the residual stream; `weight`: the table's name, one for all that share it."""
        codes, row_scale = table.weight_parts()
        scale = row_scale.double().flatten() * table.embed_scale
        return self.b.op(
            "real_embed",
            ids,
            name=name,
            table=self.b.codes(weight, codes, table.kind),
            table_kind=table.kind,
            scale=self.b.weight(f"{name}.scale", scale),
            pos=self.b.weight(f"{name}.pos", positions.weight),
            pos_offset=positions.offset,
            past=past,
            frac=table.site.frac,
            bits=self.quant.res_bits,
        )

    def embedding_at(
        self, table: QuantEmbedding, positions: Tensor, name: str, ids: Node, places: Node, *, weight: str
    ) -> Node:
        """Tokens and the rows of `positions` [any, d] that `places` names to the residual stream."""
        codes, row_scale = table.weight_parts()
        return self.b.op(
            "real_embed_at",
            ids,
            places,
            name=name,
            table=self.b.codes(weight, codes, table.kind),
            table_kind=table.kind,
            scale=self.b.weight(f"{name}.scale", row_scale.double().flatten() * table.embed_scale),
            pos=self.b.weight(f"{name}.pos", positions),
            frac=table.site.frac,
            bits=self.quant.res_bits,
        )

    def layernorm(self, norm: QuantLayerNorm, name: str, x: Node) -> Node:
        path = self.paths[norm]
        self.origins[f"{name}.gamma"], self.origins[f"{name}.beta"] = f"{path}.weight", f"{path}.bias"
        self.origins[f"{name}.eps"] = f"eps of {path}"
        return self.b.op(
            "real_layernorm",
            x,
            name=name,
            gamma=self.b.weight(f"{name}.gamma", norm.weight),
            beta=self.b.weight(f"{name}.beta", norm.bias),
            eps=float(norm.eps),
            frac=norm.site.frac,
            bits=norm.site.bits,
        )

    def linear(self, module: QuantLinear, name: str, x: Node) -> Node:
        """The real output of a projection of the codes `x` of its input quantizer, times `y_scale`."""
        codes, row_scale = module.weight_parts()
        quantizer = module.x_quant
        self.product(name, module, f"{self.paths[module]}.bias")
        return self.b.linear(
            x,
            name,
            codes,
            module.kind,
            row_scale,
            step_of(quantizer),
            module.bias,
            zero_x=quantizer.zero,
            extra=module.y_scale,
        )

    def codes(self, quantizer: ActQuantizer, name: str, x: Node) -> Node:
        return self.b.quantize(x, name, step_of(quantizer), quantizer.kind, quantizer.zero)

    def projections(self, attn: Attention, name: str, which: str, h: Node) -> list[Node]:
        """Codes of the q, k, v projections named in `which`; equal input scales share one code tensor."""
        shared: dict[float, Node] = {}
        results = []
        for letter in which:
            module: QuantLinear = getattr(attn, f"{letter}_proj")
            step = step_of(module.x_quant)
            if step not in shared:
                shared[step] = self.codes(module.x_quant, f"{name}.{letter}_in", h)
            y = self.linear(module, f"{name}.{letter}", shared[step])
            results.append(self.codes(module.head_quant, f"{name}.{letter}", y))
        return results

    def attention(self, attn: Attention, name: str, h: Node, q: Node, k: Node, v: Node, *, causal: bool) -> Node:
        """Scores to the residual `h` plus the attended values."""
        heads, out = attn.embed_dim // attn.head_dim, attn.out_proj
        step_q, step_k, step_v = (step_of(p.head_quant) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
        scores = self.b.op("scores", q, k, name=f"{name}.scores", heads=heads)
        alpha_p, kind = step_of(attn.p_quant), attn.p_quant.kind
        self.origins[f"{name}.probs.alpha"] = f"{self.paths[attn.p_quant]}.alpha"
        p = self.b.probabilities(scores, f"{name}.probs", step_q * step_k, causal, alpha_p, kind)
        context = self.b.context(p, v, f"{name}.ctx", heads, alpha_p * step_v, step_of(out.x_quant), out.x_quant.kind)
        return self.b.add_sat(h, self.linear(out, f"{name}.out", context), f"{name}.out")

    def feed_forward(self, layer: FeedForward, name: str, h: Node, x: Node) -> Node:
        """The residual `h` plus what the layer makes of `x`."""
        y = self.linear(layer.fc1, f"{name}.fc1", self.codes(layer.fc1.x_quant, f"{name}.fc1_in", x))
        activation = layer.activation_fn
        if activation.x_quant is not None:
            y = self.b.op("snap", y, delta=step_of(activation.x_quant))
        y = self.codes(layer.fc2.x_quant, f"{name}.fc1", self.b.op("act", y, fn=activation.fn.name))
        return self.b.add_sat(h, self.linear(layer.fc2, f"{name}.fc2", y), f"{name}.fc2")

    def lm_head(self, head: QuantLinear, bias: Tensor, h: Node, *, weight: str) -> Node:
        """Arg-max over the vocabulary; `weight`: the name of the head's matrix, the table's where they share it."""
        codes, row_scale = head.weight_parts()
        self.product("lm_head", head, "final_logits_bias")
        x = self.codes(head.x_quant, "lm_head.in", h)
        acc = self.b.op("matmul", x, weight=self.b.codes(weight, codes, head.kind), weight_kind=head.kind)
        logits = self.b.op(
            "affine",
            acc,
            scale=self.b.weight("lm_head.scale", row_scale.double().flatten() * step_of(head.x_quant)),
            bias=self.b.weight("lm_head.bias", bias.flatten().double()),
        )
        return self.b.op("argmax", logits, name=HEAD)
