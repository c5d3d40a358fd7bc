"""The vector instructions on plain Python integers, written from docs/instruction-set.md alone: nothing of the package computes here."""

import math
import random

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Instruction, Kind, Op
from ternbin.sim.tb import drivers


def rshift(v: int, s: int) -> int:
    return (v + (1 << s >> 1)) >> s


def clip(v: int, low: int, high: int) -> int:
    return min(max(v, low), high)


class Plain:
    """The memories as plain integers, and the vector instructions on them; ``clipped`` counts saturated elements."""

    def __init__(self, hw: HwConfig):
        self.hw, self.clipped = hw, 0
        r = random.getrandbits
        self.rbuf = [[self.residual(r(hw.res_bits)) for _ in range(hw.rows)] for _ in range(hw.rbuf_words)]
        self.sbuf = [
            [[drivers.signed(r(hw.acc_bits), hw.acc_bits) for _ in range(hw.rows)] for _ in range(hw.sbuf_words)]
            for _ in range(hw.cols)
        ]
        self.pbuf = [[r(16) for _ in range(hw.rows)] for _ in range(hw.pbuf_words)]
        self.lut = [0] * 256
        self.abuf = [
            [[[r(1) for _ in range(hw.lanes)] for _ in range(hw.planes)] for _ in range(hw.abuf_words)]
            for _ in range(hw.cols)
        ]

    def residual(self, value: int) -> int:
        return drivers.signed(value, self.hw.res_bits)

    def sat(self, value: int, low: int | None = None, high: int | None = None) -> int:
        top = 1 << self.hw.res_bits - 1
        result = clip(value, -top if low is None else low, top - 1 if high is None else high)
        self.clipped += result != value
        return result

    def run(self, i: Instruction) -> None:
        {Op.LAYERNORM: self.layernorm, Op.SOFTMAX: self.softmax, Op.QUANT: self.quant, Op.EMBED: self.embed}[i.op](i)

    def parameter(self, addr: int, feature: int) -> tuple[int, int]:
        rows = self.hw.rows
        value = sum(self.pbuf[addr + feature // rows * 4 + j][feature % rows] << 16 * j for j in range(4))
        return drivers.signed(value, 24), drivers.signed(value >> 24, 40)

    def layernorm(self, i: Instruction) -> None:
        n, rows = i["features"], self.hw.rows
        for t in range(i["tokens"]):
            base, out = i["src_addr"] + t * i["src_stride"], i["dst_addr"] + t * i["dst_stride"]
            x = [self.rbuf[base + f // rows][f % rows] for f in range(n)]
            s, q = sum(x), sum(v * v for v in x)
            variance = n * q - s * s + i["eps"]
            k = (48 - variance.bit_length()) // 2 * 2
            root = math.isqrt(variance << k if k >= 0 else variance >> -k)
            for f in range(i["words"] * rows):
                gamma, beta = self.parameter(i["param_addr"], f)
                value = 0
                if f < n:
                    normal = rshift((n * x[f] - s) * (2**47 // root), 27 - k // 2)
                    value = self.sat(rshift(normal * gamma + beta * 256, i["shift"]))
                self.rbuf[out + f // rows][f % rows] = value

    def put(self, i: Instruction, token: int, feature: int, bits: list[list[int]]) -> None:
        """Planes of one stored code: each a list of hw.planes bits. Lane 0 clears the word."""
        lanes, cols = self.hw.lanes, self.hw.cols
        word = i["dst_addr"] + token // cols * i["dst_stride"] + feature // lanes
        for plane, pair in enumerate(bits):
            target = self.abuf[token % cols][word + plane * i["dst_plane"]]
            for p in range(self.hw.planes):
                if feature % lanes == 0:
                    target[p] = [0] * lanes
                target[p][feature % lanes] = pair[p]

    def stored(self, kind: int, code: int, real: bool = True) -> list[list[int]]:
        both = self.hw.planes == 2
        if kind in (Kind.INT8, Kind.UINT8):
            planes = [[code >> p & 1, 0] for p in range(8)]
        elif both:
            planes = [[int(code != 0), int(code < 0)]]
        else:
            planes = [[int(code > 0)]]
        return [[bit if real else 0 for bit in plane[: self.hw.planes]] for plane in planes]

    def quant(self, i: Instruction) -> None:
        rows = self.hw.rows
        for t in range(i["tokens"]):
            for f in range(i["words"] * rows):
                x = self.rbuf[i["src_addr"] + t * i["src_stride"] + f // rows][f % rows]
                real = f < i["features"]
                if i["kind"] == Kind.INT8:
                    value = rshift(x * i["mul"], i["shift"])
                    code = self.sat(value, -127, 127) if real else 0
                elif i["kind"] == Kind.TERNARY:
                    code = -1 + (x >= i["t0"]) + (x >= i["t1"])
                else:
                    code = 1 if x >= i["t0"] else -1
                self.put(i, t, f, self.stored(i["kind"], code, real))

    def exponential(self, i: Instruction, distance: int) -> int:
        if not i["power"]:
            return self.lut[min(distance, 255)]
        t = distance * i["mul"] >> i["shift"]
        return self.lut[t % 256] >> min(t // 256, 31)

    def softmax(self, i: Instruction) -> None:
        rows = self.hw.rows
        for t in range(i["queries"]):
            bank, base = self.sbuf[t % self.hw.cols], i["src_addr"] + t // self.hw.cols * i["src_stride"]
            seen = i["keys"] + (t if i["causal"] else 0)
            keys = [
                n
                for n in range(seen)
                if not i["masked"] or self.pbuf[i["mask_addr"] + n // rows][n % rows] >> i["mask_bit"] + t & 1
            ]
            scores = {n: bank[base + n // rows][n % rows] for n in keys}
            e = {n: self.exponential(i, max(scores.values()) - score) for n, score in scores.items()}
            total = sum(e.values())
            for w in range(-(-seen // rows)):
                bank[base + w] = [drivers.signed(e.get(w * rows + lane, 0), self.hw.acc_bits) for lane in range(rows)]
            for n in range(i["granules"] * rows):
                valid = n in e
                if i["kind"] == Kind.UINT8:
                    code = min(rshift(e[n] * (i["recip"] // total), 36), 255) if valid else 0
                elif i["kind"] == Kind.TERNARY:
                    code = -1 + (valid and e[n] * 65536 > i["c1"] * total) + (valid and e[n] * 65536 >= i["c2"] * total)
                else:
                    code = 1 if valid and e[n] * 65536 > i["c1"] * total else -1
                self.put(i, t, n, self.stored(i["kind"], code))

    def embed(self, i: Instruction) -> None:
        hw = self.hw
        for t in range(i["tokens"]):
            low, high = self.pbuf[i["scale_addr"] + t][:2]
            scale = drivers.signed(low | high << 16, 32)
            for f in range(i["features"]):
                planes = self.abuf[t % hw.cols][i["src_addr"] + t // hw.cols * i["src_stride"] + f // hw.lanes]
                bits = [plane[f % hw.lanes] for plane in planes]
                code = bits[0] * (1 - 2 * bits[1]) if hw.planes == 2 else 2 * bits[0] - 1
                row = self.rbuf[i["dst_addr"] + t * i["dst_stride"] + f // hw.rows]
                row[f % hw.rows] = self.sat(row[f % hw.rows] + code * scale)
