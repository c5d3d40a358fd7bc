"""Random vector instructions for the bench of the vector unit."""

import math
import random

from benches.vector_plain import Plain, clip
from ternbin.contract.isa import Instruction, Kind, Op


def pick(*choices):
    return random.choice(choices)


class Cases:
    """Random instructions that fit the memories, and memory contents that make them interesting."""

    def __init__(self, plain: Plain):
        self.plain, self.hw = plain, plain.hw

    def make(self, op: Op) -> Instruction:
        return Instruction(
            op,
            {Op.LAYERNORM: self.layernorm, Op.SOFTMAX: self.softmax, Op.QUANT: self.quant, Op.EMBED: self.embed}[op](),
        )

    def region(self, depth: int, rows: int, width: int) -> tuple[int, int]:
        """(addr, stride) of ``rows`` rows of ``width`` words; often against the end of the memory."""
        stride = width + pick(0, 0, 1, 3)
        room = depth - ((rows - 1) * stride + width)
        assert room >= 0
        return pick(room, random.randint(0, room)), stride

    def shape(self) -> dict:
        features = random.randint(1, 5 * self.hw.rows)
        return {"tokens": pick(1, random.randint(1, 11)), "words": -(-features // self.hw.rows), "features": features}

    def rows_of(self, f: dict, side: str, spread: int) -> None:
        """Values of up to 2^spread, zero beyond the features."""
        rows = self.hw.rows
        for t in range(f["tokens"]):
            bound, middle = (1 << random.randint(0, spread)) - 1, random.randint(-(1 << spread), (1 << spread) - 1)
            for n in range(f["words"] * rows):
                value = clip(middle + random.randint(-bound, bound), -(1 << spread), (1 << spread) - 1)
                word = self.plain.rbuf[f[f"{side}_addr"] + t * f[f"{side}_stride"] + n // rows]
                word[n % rows] = value if n < f["features"] else 0

    def layernorm(self) -> dict:
        f, half = self.shape(), self.hw.rbuf_words // 2
        f["src_addr"], f["src_stride"] = self.region(half, f["tokens"], f["words"])
        f["dst_addr"], f["dst_stride"] = self.region(half, f["tokens"], f["words"])
        f["dst_addr"] += half
        if random.random() < 0.2:  # in place
            f["dst_addr"], f["dst_stride"] = f["src_addr"], f["src_stride"]
        self.rows_of(f, "src", self.hw.res_bits - 1)
        f["param_addr"], _ = self.region(self.hw.pbuf_words, 1, 4 * f["words"])
        for n in range(f["words"] * self.hw.rows):
            gamma, beta = random.getrandbits(24), random.getrandbits(40)
            if random.random() < 0.7:
                gamma, beta = random.randint(-(1 << 20), 1 << 20), random.randint(-(1 << 30), 1 << 30)
            value = (beta & (1 << 40) - 1) << 24 | gamma & 0xFFFFFF
            for j in range(4):
                word = self.plain.pbuf[f["param_addr"] + n // self.hw.rows * 4 + j]
                word[n % self.hw.rows] = value >> 16 * j & 0xFFFF if n < f["features"] else 0
        f["shift"] = pick(0, 63, *[random.randint(20, 36)] * 6)
        f["eps"] = pick(1, random.getrandbits(random.randint(1, 40)) | 1, (1 << 60) + random.getrandbits(59))
        return f

    def writes(self, f: dict, tokens: int, codes: int, planes: int) -> None:
        """Destination of ``codes`` codes a token in ABUF."""
        width, groups = -(-codes // self.hw.lanes), -(-tokens // self.hw.cols)
        each, f["dst_stride"] = self.region(self.hw.abuf_words // planes, groups, width)
        f["dst_plane"] = self.hw.abuf_words // planes
        f["dst_addr"] = each

    def quant(self) -> dict:
        f = self.shape()
        f["src_addr"], f["src_stride"] = self.region(self.hw.rbuf_words, f["tokens"], f["words"])
        kinds = [Kind.BINARY, Kind.INT8] + [Kind.TERNARY] * (self.hw.planes == 2)
        f["kind"] = random.choice(kinds)
        spread = random.randint(2, self.hw.res_bits - 1)
        self.rows_of(f, "src", spread)
        bound = 1 << spread - 1
        f["t0"] = pick(-(1 << 23), 0, random.randint(-bound, 0))
        f["t1"] = pick((1 << 23) - 1, 1, random.randint(0, bound))
        f["shift"] = random.randint(0, 40)
        f["mul"] = pick((1 << 24) - 1, random.randint(0, min((1 << 24) - 1, 256 << max(0, f["shift"] - spread))))
        self.writes(f, f["tokens"], f["words"] * self.hw.rows, 8 if f["kind"] == Kind.INT8 else 1)
        return f

    def embed(self) -> dict:
        f = self.shape()
        f["dst_addr"], f["dst_stride"] = self.region(self.hw.rbuf_words, f["tokens"], f["words"])
        width, groups = -(-f["features"] // self.hw.lanes), -(-f["tokens"] // self.hw.cols)
        f["src_addr"], f["src_stride"] = self.region(self.hw.abuf_words, groups, width)
        f["scale_addr"], _ = self.region(self.hw.pbuf_words, f["tokens"], 1)
        self.rows_of(f, "dst", self.hw.res_bits - 1)
        for t in range(f["tokens"]):
            scale = pick(-(1 << 31), (1 << 31) - 1, *[random.randint(-5000, 5000)] * 6)
            self.plain.pbuf[f["scale_addr"] + t][:2] = [scale & 0xFFFF, scale >> 16 & 0xFFFF]
        return f

    def softmax(self) -> dict:
        hw = self.hw
        kinds = [Kind.BINARY, Kind.UINT8] + [Kind.TERNARY] * (hw.planes == 2)
        f = {
            "queries": pick(1, random.randint(1, 9)),
            "keys": pick(1, random.randint(1, 4 * hw.rows)),
            "causal": pick(0, 1),
            "kind": random.choice(kinds),
            "power": pick(0, 1),
        }
        most = f["keys"] + f["causal"] * (f["queries"] - 1)
        words = -(-most // hw.rows)
        f["granules"] = words + pick(0, 1, 2)
        f["src_addr"], f["src_stride"] = self.region(hw.sbuf_words, -(-f["queries"] // hw.cols), words)
        self.writes(f, f["queries"], f["granules"] * hw.rows, 8 if f["kind"] == Kind.UINT8 else 1)
        if hw.beams > 1 and random.random() < 0.7:
            f |= {"queries": min(f["queries"], hw.beams), "causal": 0, "masked": 1}
            f |= {
                "mask_addr": self.region(hw.pbuf_words, 1, words)[0],
                "mask_bit": random.randint(0, 16 - f["queries"]),
            }
            for n in range(words * hw.rows):  # of some words no query sees anything
                dense = n // hw.rows % 2 or random.random() < 0.3
                self.plain.pbuf[f["mask_addr"] + n // hw.rows][n % hw.rows] = random.getrandbits(16) if dense else 0
            for t in range(f["queries"]):  # each at least one key
                n = random.randrange(f["keys"])
                self.plain.pbuf[f["mask_addr"] + n // hw.rows][n % hw.rows] |= 1 << f["mask_bit"] + t
        spread = pick(3, 6, 10, hw.acc_bits - 1)
        for t in range(f["queries"]):
            for w in range(words):
                self.plain.sbuf[t % hw.cols][f["src_addr"] + t // hw.cols * f["src_stride"] + w] = [
                    random.randint(-(1 << spread), (1 << spread) - 1) for _ in range(hw.rows)
                ]
        f["mul"], f["shift"] = random.getrandbits(16), pick(0, random.randint(0, 40), spread + 4)
        f["c1"] = random.randint(1, (1 << random.randint(1, 20)) - 1)
        f["c2"] = min(f["c1"] * 3, (1 << 20) - 1)
        f["recip"] = pick((1 << 48) - 1, random.randint(1, (1 << 46) - 1))
        return f

    def table(self) -> None:
        """An exp table as the compiler makes them, or a random one with a first entry that is not 0."""
        decay = random.choice([0.02, 0.2, 1.0])
        self.plain.lut = [round(2**15 * math.exp(-decay * d)) for d in range(256)]
        if random.random() < 0.3:
            self.plain.lut = [1 << 15] + [random.getrandbits(16) for _ in range(255)]
