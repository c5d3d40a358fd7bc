"""A tiny random encoder-decoder built of real ops, for tests of passes, interpreter and export."""

from dataclasses import dataclass, field

import torch

from ternbin.graph.activations import ACTIVATIONS
from ternbin.graph.build import Builder
from ternbin.graph.ir import Codes, Graph, Ids, Lowered, Node, features

NN = {"ternary": "ternary_nn", "binary": "binary_nn", "int8": "uint8"}


@dataclass
class Tiny:
    """Random weights throughout; ``act`` and ``weight`` are code kinds, ``head_dim`` must divide ``d``."""

    act: str = "ternary"
    weight: str = "ternary"
    fn: str = "gelu"
    d: int = 16
    heads: int = 2
    ffn: int = 24
    vocab: int = 40
    positions: int = 20
    layers: int = 1
    seed: int = 0
    frac: int = 8
    b: Builder = field(default_factory=lambda: Builder({}))

    def __post_init__(self):
        self.g = torch.Generator().manual_seed(self.seed)

    def uniform(self, lo: float, hi: float, *shape: int) -> torch.Tensor:
        return lo + (hi - lo) * torch.rand(*shape, generator=self.g, dtype=torch.float64).float().double()

    def scalar(self, lo: float, hi: float) -> float:
        return self.uniform(lo, hi, 1).item()

    def codes(self, *shape: int) -> torch.Tensor:
        if self.weight == "binary":
            return torch.randint(0, 2, shape, generator=self.g) * 2 - 1
        return torch.randint(-1, 2, shape, generator=self.g)

    def step(self, spread: float) -> float:
        """A plausible alpha for values of about this size."""
        return self.scalar(0.8, 1.2) * spread * (1 / 40 if self.act == "int8" else 1)

    def lowered(self) -> Lowered:
        encoder, decoder = Graph("encoder", self.encoder()), Graph("decoder", self.decoder())
        meta = dict(
            vocab_size=self.vocab,
            max_positions=self.positions,
            decoder_start_id=2,
            eos_id=2,
            pad_id=1,
            forced_bos_id=0,
            forced_eos_id=2,
        )
        return Lowered((encoder, decoder), self.b.weights, meta)

    def embedding(self, prefix: str, ids: Node, past: int | str) -> Node:
        if "table" not in self.b.weights:
            self.b.codes("table", self.codes(self.vocab, self.d), self.weight)
        x = self.b.op(
            "real_embed",
            ids,
            name=f"{prefix}.embed",
            table="table",
            table_kind=self.weight,
            scale=self.b.weight(f"{prefix}.embed.scale", self.uniform(0.2, 2, self.vocab)),
            pos=self.b.weight(f"{prefix}.embed.pos", self.uniform(-1, 1, self.positions + 2, self.d)),
            pos_offset=2,
            past=past,
            frac=self.frac,
            bits=16,
        )
        return self.layernorm(f"{prefix}.embed_ln", x)

    def layernorm(self, name: str, x: Node) -> Node:
        return self.b.op(
            "real_layernorm",
            x,
            name=name,
            gamma=self.b.weight(f"{name}.g", self.uniform(-1.5, 2, self.d)),
            beta=self.b.weight(f"{name}.b", self.uniform(-1, 1, self.d)),
            eps=1e-5,
            frac=self.frac + 1,
            bits=16,
        )

    def linear(self, name: str, x: Node, rows: int, alpha_x: float, zero: float = 0.0, extra: float = 1.0) -> Node:
        return self.b.linear(
            x,
            name,
            self.codes(rows, features(x.type)),
            self.weight,
            self.uniform(0, 0.4, rows),
            alpha_x,
            self.uniform(-1, 1, rows),
            zero,
            extra,
        )

    def project(self, name: str, h: Node, extra: float = 1.0) -> tuple[Node, float]:
        alpha_x, alpha = self.step(1), self.step(1 if extra == 1 else 0.4)
        x = self.b.quantize(h, f"{name}_in", alpha_x, self.act)
        return self.b.quantize(self.linear(name, x, self.d, alpha_x, extra=extra), name, alpha, self.act), alpha

    def attention(self, name: str, h: Node, kv: tuple[Node, Node] | None, causal: bool) -> Node:
        q, alpha_q = self.project(f"{name}.q", h, extra=(self.d / self.heads) ** -0.5)
        if kv is None:
            k, v = self.project(f"{name}.k", h)[0], self.project(f"{name}.v", h)[0]
            if causal:
                k, v = (self.b.op("cache", x, name=f"{name}.{c}_cache") for x, c in ((k, "k"), (v, "v")))
            kv = k, v
        s = self.b.op("scores", q, kv[0], name=f"{name}.scores", heads=self.heads)
        alpha_p = self.scalar(0.1, 0.3) if self.act != "int8" else self.scalar(1 / 255, 1 / 200)
        p = self.b.probabilities(s, f"{name}.probs", alpha_q * self.step(1), causal, alpha_p, NN[self.act])
        alpha = self.step(0.3)
        c = self.b.context(p, kv[1], f"{name}.ctx", self.heads, alpha_p * self.step(1), alpha, self.act)
        return self.b.add_sat(h, self.linear(f"{name}.out", c, self.d, alpha), f"{name}.out")

    def feed_forward(self, name: str, h: Node) -> Node:
        alpha_x, alpha = self.step(1), self.step(0.4)
        y = self.linear(f"{name}.fc1", self.b.quantize(h, f"{name}.fc1_in", alpha_x, self.act), self.ffn, alpha_x)
        if self.act == "int8" and ACTIVATIONS[self.fn].smooth:
            y = self.b.op("snap", y, delta=self.scalar(0.02, 0.04))
        zero = ACTIVATIONS[self.fn].minimum
        x = self.b.quantize(self.b.op("act", y, fn=self.fn), f"{name}.fc1", alpha, NN[self.act], zero)
        return self.b.add_sat(h, self.linear(f"{name}.fc2", x, self.d, alpha, zero), f"{name}.fc2")

    def encoder(self) -> tuple[Node, ...]:
        h = self.embedding("enc", self.b.input("ids", Ids(("S",))), 0)
        for i in range(self.layers):
            h = self.layernorm(f"enc.{i}.ln1", self.attention(f"enc.{i}.self", h, None, causal=False))
            h = self.layernorm(f"enc.{i}.ln2", self.feed_forward(f"enc.{i}", h))
        return tuple(
            self.b.op("output", self.project(f"dec.{i}.cross.{c}", h)[0], name=f"cross_{c}.{i}")
            for i in range(self.layers)
            for c in "kv"
        )

    def decoder(self) -> tuple[Node, ...]:
        h = self.embedding("dec", self.b.input("ids", Ids(("T",))), "P")
        for i in range(self.layers):
            k, v = (self.b.input(f"cross_{c}.{i}", Codes(("S", self.d), self.act)) for c in "kv")
            h = self.layernorm(f"dec.{i}.ln1", self.attention(f"dec.{i}.self", h, None, causal=True))
            h = self.layernorm(f"dec.{i}.ln2", self.attention(f"dec.{i}.cross", h, (k, v), causal=False))
            h = self.layernorm(f"dec.{i}.ln3", self.feed_forward(f"dec.{i}", h))
        x = self.b.quantize(h, "lm_head.in", 1 / 40, "int8")
        acc = self.b.op("matmul", x, weight="table", weight_kind=self.weight)
        logits = self.b.op(
            "affine",
            acc,
            scale=self.b.weight("lm_head.scale", self.uniform(0.001, 0.01, self.vocab)),
            bias=self.b.weight("lm_head.bias", self.uniform(-0.1, 0.1, self.vocab)),
        )
        return (self.b.op("output", self.b.op("argmax", logits, name="lm_head"), name="next"),)
