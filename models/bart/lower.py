"""Lowering: a QuantBart to the encoder and decoder graphs of docs/architecture.md, built explicitly from its modules.

The graphs hold real ops (ternbin/graph/ir.py); the passes fold them into integer ops.
"""

from __future__ import annotations

from torch import nn

from ternbin.errors import InputError
from ternbin.graph.build import Builder
from ternbin.graph.ir import Codes, Graph, Ids, Lowered, Node
from ternbin.models.bart.qbart import QuantBartForConditionalGeneration, QuantLayerNorm, QuantLinear
from ternbin.models.quantizers import MIN_ALPHA, SIGNED_KIND, ActQuantizer

TABLE = "embed.table"


def lower(model: QuantBartForConditionalGeneration) -> Lowered:
    """The graphs of a calibrated `deploy` model, packed or not."""
    check_lowerable(model)
    return _Lowering(model).run()


def check_lowerable(model: QuantBartForConditionalGeneration) -> None:
    """Raise InputError unless every scale and grid of the model is known and static."""
    quant = model.quant_config
    if quant.form != "deploy":
        raise InputError(f"form must be 'deploy' to lower a model, not {quant.form!r}")
    if not quant.fracs:
        raise InputError("residual grids must be calibrated (ternbin.models.bart.calibrate), not unset")
    for name, module in model.named_modules():
        if isinstance(module, ActQuantizer) and not module.alpha.item() > 0:
            raise InputError(f"{name}.alpha must be positive, not {module.alpha.item()!r}: calibrate the model first")


SEARCH = ("length_penalty", "no_repeat_ngram_size", "early_stopping", "min_length")


def describe(model: QuantBartForConditionalGeneration) -> dict:
    """`meta` of a lowered model: dimensions, bits, token ids, and how the generation config wants beams to search."""
    config, quant, generation = model.config, model.quant_config, model.generation_config
    ids = {key: getattr(generation, f"{key}_token_id") for key in ("forced_bos", "forced_eos", "eos")}
    # bos, pad and decoder start exist in both; the generation config wins because generate() follows it
    for key in ("pad", "bos", "decoder_start"):
        value = getattr(generation, f"{key}_token_id")
        ids[key] = getattr(config, f"{key}_token_id") if value is None else value
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
        bits=quant.bits,
        weight_bits=quant.weight_bits,
        act_bits=quant.act_bits,
        head_act_bits=quant.head_act_bits,
        res_bits=quant.res_bits,
        fracs=dict(quant.fracs),
        search={key: value for key in SEARCH if (value := getattr(generation, key)) is not None},
        **{f"{key}_id": _single(f"{key}_token_id", value) for key, value in ids.items()},
    )


def _single(name: str, value: int | list[int] | None) -> int | None:
    """One token id or None; the library also allows lists, the host does not."""
    if isinstance(value, list):
        if len(value) != 1:
            raise InputError(f"{name} must be one token id, not {value!r}")
        return value[0]
    return value


def alpha(quantizer: ActQuantizer) -> float:
    """The step that the forward pass uses."""
    return max(quantizer.alpha.item(), MIN_ALPHA)


class _Lowering:
    def __init__(self, model: QuantBartForConditionalGeneration):
        self.model, self.quant = model, model.quant_config
        self.kind_w = SIGNED_KIND[self.quant.weight_bits]
        self.b = Builder({})

    def run(self) -> Lowered:
        encoder, decoder = Graph("encoder", self.encoder()), Graph("decoder", self.decoder())
        return Lowered((encoder, decoder), self.b.weights, describe(self.model))

    def encoder(self) -> tuple[Node, ...]:
        """Source ids to the keys and values of every cross-attention."""
        h = self.embedding("encoder", "enc", self.b.input("ids", Ids(("S",))), past=0)
        for index, layer in enumerate(self.model.model.encoder.layers):
            h = self.layer(layer, f"enc.{index}", h, cross=None)
        outputs = []
        for index, layer in enumerate(self.model.model.decoder.layers):
            k, v = self.projections(layer.encoder_attn, f"dec.{index}.cross", "kv", h)
            outputs += [
                self.b.op("output", k, name=f"cross_k.{index}"),
                self.b.op("output", v, name=f"cross_v.{index}"),
            ]
        return tuple(outputs)

    def decoder(self) -> tuple[Node, ...]:
        """Target ids, cached keys and values to the next token."""
        h = self.embedding("decoder", "dec", self.b.input("ids", Ids(("T",))), past="P")
        for index, layer in enumerate(self.model.model.decoder.layers):
            attn = layer.encoder_attn
            cross = tuple(
                self.b.input(f"cross_{side}.{index}", Codes(("S", attn.embed_dim), projection.y_quant.kind))
                for side, projection in (("k", attn.k_proj), ("v", attn.v_proj))
            )
            h = self.layer(layer, f"dec.{index}", h, cross)
        return (self.b.op("output", self.lm_head(h), name="next"),)

    def embedding(self, stack: str, prefix: str, ids: Node, past: int | str) -> Node:
        stack = getattr(self.model.model, stack)
        table, positions = stack.embed_tokens, stack.embed_positions
        codes, row_scale = table.weight_parts()
        scale = row_scale.double().flatten() * table.embed_scale
        x = self.b.op(
            "real_embed",
            ids,
            name=f"{prefix}.embed",
            table=self.b.weight(TABLE, codes.char()),
            table_kind=self.kind_w,
            scale=self.b.weight(f"{prefix}.embed.scale", scale),
            pos=self.b.weight(f"{prefix}.embed.pos", positions.weight),
            pos_offset=positions.offset,
            past=past,
            frac=table.site.frac,
            bits=self.quant.res_bits,
        )
        return self.layernorm(stack.layernorm_embedding, f"{prefix}.embed_ln", x)

    def layernorm(self, norm: QuantLayerNorm, name: str, x: Node) -> Node:
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

    def layer(self, layer: nn.Module, name: str, h: Node, cross: tuple[Node, Node] | None) -> Node:
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

    def linear(self, module: QuantLinear, name: str, x: Node) -> Node:
        """The real output of a projection of the codes `x` of its input quantizer, times `y_scale`."""
        codes, row_scale = module.weight_parts()
        quantizer = module.x_quant
        return self.b.linear(
            x,
            name,
            codes,
            self.kind_w,
            row_scale,
            alpha(quantizer),
            module.bias,
            zero_x=quantizer.zero,
            extra=module.y_scale,
        )

    def codes(self, quantizer: ActQuantizer, name: str, x: Node) -> Node:
        return self.b.quantize(x, name, alpha(quantizer), quantizer.kind, quantizer.zero)

    def projections(self, attn: nn.Module, name: str, which: str, h: Node) -> list[Node]:
        """Codes of the q, k, v projections named in `which`; equal input scales share one code tensor."""
        shared: dict[float, Node] = {}
        results = []
        for letter in which:
            module = getattr(attn, f"{letter}_proj")
            step = alpha(module.x_quant)
            if step not in shared:
                shared[step] = self.codes(module.x_quant, f"{name}.{letter}_in", h)
            y = self.linear(module, f"{name}.{letter}", shared[step])
            results.append(self.codes(module.y_quant, f"{name}.{letter}", y))
        return results

    def attention(self, attn: nn.Module, name: str, h: Node, q: Node, k: Node, v: Node, causal: bool) -> Node:
        """Scores to the residual `h` plus the attended values."""
        heads, out = attn.embed_dim // attn.head_dim, attn.out_proj
        steps = {letter: alpha(getattr(attn, f"{letter}_proj").y_quant) for letter in "qkv"}
        scores = self.b.op("scores", q, k, name=f"{name}.scores", heads=heads)
        alpha_p, kind = alpha(attn.p_quant), attn.p_quant.kind
        p = self.b.probabilities(scores, f"{name}.probs", steps["q"] * steps["k"], causal, alpha_p, kind)
        context = self.b.context(p, v, f"{name}.ctx", heads, alpha_p * steps["v"], alpha(out.x_quant), out.x_quant.kind)
        return self.b.add_sat(h, self.linear(out, f"{name}.out", context), f"{name}.out")

    def feed_forward(self, layer: nn.Module, name: str, h: Node) -> Node:
        y = self.linear(layer.fc1, f"{name}.fc1", self.codes(layer.fc1.x_quant, f"{name}.fc1_in", h))
        activation = layer.activation_fn
        if activation.x_quant is not None:
            y = self.b.op("snap", y, delta=alpha(activation.x_quant))
        y = self.codes(layer.fc2.x_quant, f"{name}.fc1", self.b.op("act", y, fn=activation.fn.name))
        return self.b.add_sat(h, self.linear(layer.fc2, f"{name}.fc2", y), f"{name}.fc2")

    def lm_head(self, h: Node) -> Node:
        """Arg-max over the vocabulary; the weight is the table of the embedding."""
        head, bias = self.model.lm_head, self.model.final_logits_bias.flatten().double()
        x = self.codes(head.x_quant, "lm_head.in", h)
        row_scale = head.weight_parts()[1].double().flatten() * alpha(head.x_quant)
        acc = self.b.op("matmul", x, weight=TABLE, weight_kind=self.kind_w)
        logits = self.b.op(
            "affine",
            acc,
            scale=self.b.weight("lm_head.scale", row_scale),
            bias=self.b.weight("lm_head.bias", bias),
        )
        return self.b.op("argmax", logits, name="lm_head")
