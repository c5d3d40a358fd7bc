"""Fake-quant model against integer model: op by op on identical inputs, and by likelihood.

Every op of a folded graph gets the inputs it has in the integer run; the module it came from computes the same step in
float64.  Codes then agree except at rounding ties and at the fixed-point steps that docs/numerics.md lists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ternbin.graph import golden
from ternbin.graph.given import IDS, Given
from ternbin.graph.ir import Lowered, Node, Residual
from ternbin.graph.ops.attention import ContextCodes, ContextCodes8, SoftmaxCodes
from ternbin.graph.ops.codes import LinearCodes, LinearCodes8, Quant
from ternbin.graph.ops.ends import Embed, EmbedAt, LmHead
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.graph.ops.stream import Layernorm, LinearResidual
from ternbin.graph.shape import shape
from ternbin.models.model import QuantModel
from ternbin.models.modules import Attention, QuantLinear
from ternbin.models.quantizers import ActQuantizer, nearest_codes, step_of

Pair = tuple[Given, Sequence[int]]
CHECKED = (
    Embed,
    EmbedAt,
    Layernorm,
    Quant,
    LinearCodes,
    LinearCodes8,
    LinearResidual,
    SoftmaxCodes,
    ContextCodes,
    ContextCodes8,
    LmHead,
)
"""The ops that compute; the others are ends and copies."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One op on identical inputs: `equal` of `total` results, the largest difference, and how near the others were.

    `farthest` is the largest distance, in steps of the result, between the real value and the rounding boundary that
    separates it from the integer result, over all unequal results (0 for lm_head, whose result is a token).
    """

    name: str
    op: str
    total: int
    equal: int
    largest: int
    farthest: float

    @property
    def rate(self) -> float:
        return self.equal / self.total

    def fields(self) -> dict[str, Any]:
        """As the field `fidelity` of a result has it."""
        return dict(
            name=self.name, op=self.op, values=self.total, agree=self.rate, largest=self.largest, farthest=self.farthest
        )


ROWS = 1024  # of weights at a time: a head's in float64 are eight times what is packed
WANTED, WANTED_HEAD = 0.95, 0.99
"""Shares of equal results below which an op has lost precision; documented differences of one step stay above."""


def losing(agreements: Sequence[Agreement]) -> list[Agreement]:
    """The ops that agree less than they should."""
    return [a for a in agreements if a.rate < (WANTED_HEAD if a.op == LmHead.opname else WANTED)]


def compare(reference: Reference, lowered: Lowered, pairs: Sequence[Pair]) -> list[Agreement]:
    """Agreement of every op of the folded graphs `lowered` with the reference, over (source, decoder input ids); the latter say nothing
    to a model that does not generate."""
    model = shape(lowered)
    prefill = Interpreter(model.prefill.graph, lowered.weights)
    decode = Interpreter(model.decode.graph, lowered.weights) if model.decode else None
    table: dict[str, Agreement] = {}
    for source, target in pairs:
        kept = prefill(model.prefill.given(source))
        _tally(table, reference, kept)
        if decode is not None:
            kept = decode({IDS: torch.as_tensor(target)} | outputs(model.prefill.graph, kept))
            _tally(table, reference, kept)
    return list(table.values())


def _tally(table: dict[str, Agreement], reference: Reference, values: dict[Node, Tensor]) -> None:
    for node, got in values.items():
        if not isinstance(node.op, CHECKED):
            continue
        inputs = [values[source] for source in node.src]
        real, want = reference.result(node, inputs)
        got = got[..., 0] if isinstance(node.op, LmHead) else got
        wrong = want != got
        one = Agreement(
            name=node.name,
            op=node.op.opname,
            total=got.numel(),
            equal=int((~wrong).sum()),
            largest=int((want - got).abs().max()),
            farthest=0.0 if isinstance(node.op, LmHead) else _farthest(real[wrong], got[wrong]),
        )
        before = table.get(node.name)
        table[node.name] = one if before is None else _sum(before, one)


def _farthest(real: Tensor, got: Tensor) -> float:
    """How far beyond the interval that rounds to `got` the values `real` lie, at most."""
    return max(0.0, ((real - got).abs().max() - 0.5).item()) if got.numel() else 0.0


def _sum(a: Agreement, b: Agreement) -> Agreement:
    return Agreement(
        name=a.name,
        op=a.op,
        total=a.total + b.total,
        equal=a.equal + b.equal,
        largest=max(a.largest, b.largest),
        farthest=max(a.farthest, b.farthest),
    )


@dataclass(frozen=True)
class Reference:
    """The modules of a float64 model by the name of the graph node they become, as its family names them (`node_modules`).

    Keys are names of nodes; two names share a module where a block is more than one node:

    - ``<stack>.embed``: a stack, with `embed_tokens` and `embed_positions`; the latter is called with ids, or with chosen places
    - ``....in``, ``...._in``: an ActQuantizer, of the node that quantizes the stream
    - ``....probs``, ``....ctx``: an attention block;  ``....fc1``: a layer, with fc1, `activation_fn` and fc2
    - ``lm_head``: the model, with `lm_head` and `final_logits_bias`
    - others: the QuantLinear or QuantLayerNorm
    """

    modules: Mapping[str, Any]

    @torch.no_grad()
    def result(self, node: Node, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """`(real, codes)`: the result in steps before rounding and clipping, and the integers it rounds to."""
        module = self.modules[node.name]
        values = [x.double() for x in inputs]
        match node.op:
            case Embed():
                x = module.embed_tokens(inputs[0][None])[0] + module.embed_positions(inputs[0][None])[0]
                return _on_grid(x, node.expect(Residual))
            case EmbedAt():
                x = module.embed_tokens(inputs[0]) + module.embed_positions(inputs[1])
                return _on_grid(x, node.expect(Residual))
            case Layernorm():
                x = _real(node.src[0], values[0])
                y = F.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)
                return _on_grid(y, node.expect(Residual))
            case Quant():
                return _codes(_real(node.src[0], values[0]), module)
            case LinearResidual():
                return self.residual(module, values[0], values[1], node.expect(Residual))
            case SoftmaxCodes(causal=causal):
                return self.probabilities(module, values[0], causal)
            case ContextCodes() | ContextCodes8():
                return self.context(module, values[0], values[1])
            case LmHead():
                return self.next_token(module, values[0])
            case _:
                return self.projection(module, values[0])

    def residual(self, linear: QuantLinear, x: Tensor, h: Tensor, grid: Residual) -> tuple[Tensor, Tensor]:
        y = _product(linear, x, linear.x_quant) * 2.0**grid.frac
        return h + y, golden.sat((h + y.round()).long(), grid.bits)

    def probabilities(self, attn: Attention, scores: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        real = scores * step_of(attn.q_proj.head_quant) * step_of(attn.k_proj.head_quant)
        if causal:
            hidden = torch.ones(real.shape[-2:]).triu(1 + real.shape[-1] - real.shape[-2]).bool()
            real = real.masked_fill(hidden, -math.inf)
        return _codes(F.softmax(real, -1), attn.p_quant)

    def context(self, attn: Attention, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        heads = attn.embed_dim // attn.head_dim
        value = _value(v, attn.v_proj.head_quant).unflatten(-1, (heads, -1)).transpose(0, 1)
        mixed = (_value(p, attn.p_quant) @ value).transpose(0, 1).flatten(-2)
        return _codes(mixed, attn.out_proj.x_quant)

    def next_token(self, model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        best = (_product(model.lm_head, x, model.lm_head.x_quant) + model.final_logits_bias).argmax(-1)
        return best.double(), best

    def projection(self, module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """q, k, v; or fc1 with activation function, where the module is the layer."""
        if isinstance(module, QuantLinear):
            return _codes(_product(module, x, module.x_quant) * module.y_scale, module.head_quant)
        y = _product(module.fc1, x, module.fc1.x_quant)
        return _codes(module.activation_fn(y), module.fc2.x_quant)


def _real(node: Node, integers: Tensor) -> Tensor:
    """The values of a node on the residual stream."""
    return integers * 2.0 ** -node.expect(Residual).frac


def _value(codes: Tensor, quantizer: ActQuantizer) -> Tensor:
    return codes * step_of(quantizer) + quantizer.zero


def _product(linear: QuantLinear, codes: Tensor, quantizer: ActQuantizer) -> Tensor:
    weight, scale = linear.weight_parts()  # quantized_weight() would be kept, for all layers
    x, bias = _value(codes, quantizer), linear.bias
    some = [slice(first, first + ROWS) for first in range(0, len(weight), ROWS)]
    return torch.cat([F.linear(x, weight[i] * scale[i], None if bias is None else bias[i]) for i in some], -1)


def _codes(x: Tensor, quantizer: ActQuantizer) -> tuple[Tensor, Tensor]:
    codes = nearest_codes(x, step_of(quantizer), quantizer.zero, quantizer.kind).long()
    if quantizer.kind == "binary":
        # the boundary is at 0, between -1 and +1: half a step from either
        return x / step_of(quantizer) / 2 + 0.5 * x.sign(), codes
    return (x - quantizer.zero) / step_of(quantizer), codes


def _on_grid(x: Tensor, grid: Residual) -> tuple[Tensor, Tensor]:
    steps = x * 2.0**grid.frac
    return steps, golden.sat(steps.round().long(), grid.bits)


# -- likelihood --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Mean negative log-likelihood in nats a target token, and how often the arg-max is the same token."""

    tokens: int
    integer: float
    fake_quant: float
    same_argmax: float


def likelihood(model: QuantModel, lowered: Lowered, pairs: Sequence[Pair]) -> Likelihood:
    """Score (source ids, target ids) with the folded graphs and with the model, both forced to the target."""
    totals = torch.zeros(3, dtype=torch.float64)
    tokens = 0
    for integer, real, labels in _logits(model, lowered, pairs):
        totals[0] += F.cross_entropy(integer, labels, reduction="sum")
        totals[1] += F.cross_entropy(real, labels, reduction="sum")
        totals[2] += (integer.argmax(-1) == real.argmax(-1)).sum()
        tokens += labels.numel()
    integer, real, same = (totals / tokens).tolist()
    return Likelihood(tokens=tokens, integer=integer, fake_quant=real, same_argmax=same)


@torch.no_grad()
def _logits(model: QuantModel, lowered: Lowered, pairs: Sequence[Pair]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Per text: logits of the integer model, logits of the fake-quant model (both [T, V], float64), labels [T]."""
    stacks = shape(lowered)
    encoder, decoder = (Interpreter(s.graph, lowered.weights) for s in (stacks.prefill, stacks.generating))
    head = stacks.head
    mul, bias = lowered.weights[head.op.mul], lowered.weights[head.op.bias]
    weight = lowered.weights[head.op.weight]
    for source, target in pairs:
        labels = torch.as_tensor(target)
        shifted = torch.cat([torch.tensor([lowered.meta["decoder_start_id"]]), labels[:-1]])
        kept = decoder({IDS: shifted} | outputs(encoder.graph, encoder(stacks.prefill.given(source))))
        acc = golden.linear_acc(kept[head.src[0]], weight)
        integer = golden.lm_logits(acc, mul, bias) * 2.0**-head.op.logit_scale_log2
        real = model(input_ids=torch.as_tensor(source)[None], decoder_input_ids=shifted[None], use_cache=False).logits[
            0
        ]
        yield integer.double(), real.double(), labels
