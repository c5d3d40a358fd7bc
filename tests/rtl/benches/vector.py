"""Bench of the vector unit: random instructions on random memories, every word compared.

Expected values come twice: from plain Python integers written from docs/architecture.md alone (:class:`Plain`), and from
ternbin.emulation.machine wherever its 64-bit arithmetic reaches. Parameters: ``hw`` (fields of HwConfig), ``ops`` (names), ``count`` (of
rounds over ``ops``), ``stall``.
"""

import math
import random
from dataclasses import replace

import cocotb
from cocotb.triggers import RisingEdge

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import FIELDS, Instruction, Kind, Mem, Op, encode
from ternbin.emulation.machine import Machine
from ternbin.rtl.vector.vector import SCORES, VectorUnit
from ternbin.sim.tb import drivers

LIMIT = 40000  # cycles an instruction may take in a bench
REQUESTS = dict.fromkeys(("rbuf_r", *SCORES, "pbuf_r", "abuf_r"), ())
REQUESTS |= dict.fromkeys(("rbuf_w", "abuf_w", "sbuf_w"), ("data", "lane_mask"))


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


class Bench:
    """The unit with its memories; every instruction is checked word by word."""

    def __init__(self, dut, hw: HwConfig, stall: float):
        self.dut, self.hw, self.plain = dut, hw, Plain(hw)
        model = lambda *a, **k: drivers.MemoryModel(dut, *a, stall=stall, **k)  # noqa: E731
        self.rbuf = model(banks=1, depth=hw.rbuf_words, word_bits=hw.res_word_bits, elements=hw.rows)
        self.sbuf = model(banks=hw.cols, depth=hw.sbuf_words, word_bits=hw.score_word_bits, elements=1)
        self.pbuf = model(banks=1, depth=hw.pbuf_words, word_bits=hw.param_word_bits, elements=hw.rows)
        self.abuf = model(
            banks=hw.cols, depth=hw.abuf_words, word_bits=hw.code_word_bits, elements=hw.lanes, planes=hw.planes
        )
        for name in REQUESTS:
            memory = getattr(self, name[:4])
            (memory.write_port if name.endswith("_w") else memory.read_port)(name)
        self.port = drivers.Source(dut, "port__instruction", stall=stall)
        self.table = drivers.PortMaster(dut, "lutv_w", stall=stall)
        self.events = dict.fromkeys(VectorUnit.EVENTS, 0)
        self.done = self.faults = self.cycle = 0
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        """Count pulses and events; a request that was not taken must stay as it is."""
        held = {}
        while True:
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            self.done += drivers.get(self.dut, "port__done")
            self.faults += drivers.get(self.dut, "port__fault")
            for name in self.events:
                self.events[name] += drivers.get(self.dut, f"ev_{name}")
            for name, members in REQUESTS.items():
                now = None
                if drivers.get(self.dut, f"{name}__valid"):
                    now = [drivers.get(self.dut, f"{name}__{member}") for member in ("addr", "mask", *members)]
                if held.get(name) is not None:
                    assert now == held[name], f"{name}: a request must be held until it is taken"
                held[name] = None if drivers.get(self.dut, f"{name}__ready") else now

    def _words(self, values: list[list[int]], bits: int) -> list[int]:
        return [sum((v & (1 << bits) - 1) << bits * e for e, v in enumerate(word)) for word in values]

    def _images(self, plain: Plain) -> dict[str, list[list[int]]]:
        hw = self.hw
        return {
            "rbuf": [self._words(plain.rbuf, hw.res_container)],
            "sbuf": [self._words(bank, hw.acc_bits) for bank in plain.sbuf],
            "pbuf": [self._words(plain.pbuf, 16)],
            "abuf": [self._words([sum(word, []) for word in bank], 1) for bank in plain.abuf],
        }

    def preload(self) -> None:
        for name, banks in self._images(self.plain).items():
            getattr(self, name).words = [list(words) for words in banks]

    def compare(self, what: str) -> None:
        for name, banks in self._images(self.plain).items():
            for bank, words in enumerate(banks):
                for addr, (want, got) in enumerate(zip(words, getattr(self, name).words[bank], strict=True)):
                    assert want == got, f"{what}: {name} bank {bank} word {addr} must be {want:#x}, not {got:#x}"

    async def load_table(self) -> None:
        per_beat = self.hw.axi_data_bits // 16
        for beat in range(256 // per_beat):
            entries = self.plain.lut[beat * per_beat : (beat + 1) * per_beat]
            await self.table.request(addr=beat, mask=1, lane_mask=1, data=self._words([entries], 16)[0])

    async def issue(self, word: int) -> None:
        """Send one instruction and wait until the unit is idle again."""
        before = self.done + self.faults
        self.port.send([word])
        await drivers.until(self.dut, lambda: self.done + self.faults > before, LIMIT)

    async def execute(self, i: Instruction) -> dict[str, int]:
        """Run ``i`` on the unit and on the models, compare everything; returns its event counts."""
        self.preload()
        done, faults, events = self.done, self.faults, dict(self.events)
        check_machine(self.hw, self.plain, i)
        self.plain.clipped = 0
        self.plain.run(i)
        await self.issue(encode(i))
        assert (self.done, self.faults) == (done + 1, faults), f"{i}: must end with done"
        self.compare(str(i))
        return {name: count - events[name] for name, count in self.events.items()}


def check_machine(hw: HwConfig, plain: Plain, i: Instruction) -> None:
    """The functional model of the accelerator must agree with the plain integers (both start from ``plain``)."""
    if i["eps"] >= 1 << 59 or i["shift"] > 40 or hw.res_bits > 16:
        return  # beyond the 64-bit arithmetic of the model
    import numpy as np

    machine = Machine(hw, bytearray())
    machine.memories[Mem.RBUF] = np.array(plain.rbuf)
    machine.memories[Mem.SBUF] = np.array(plain.sbuf)
    machine.memories[Mem.PBUF] = np.array([[drivers.signed(v, 16) for v in word] for word in plain.pbuf])
    machine.memories[Mem.LUTV] = np.array(plain.lut)
    machine.memories[Mem.ABUF] = np.array(plain.abuf, dtype=np.uint8)
    machine.execute(i)
    after = Plain.__new__(Plain)
    after.__dict__ = {k: [list(w) for w in v] if k in ("rbuf", "sbuf") else v for k, v in plain.__dict__.items()}
    after.abuf = [[[list(p) for p in word] for word in bank] for bank in plain.abuf]
    after.run(i)
    assert machine.memories[Mem.RBUF].tolist() == after.rbuf, f"functional model, RBUF: {i}"
    assert machine.memories[Mem.ABUF].tolist() == after.abuf, f"functional model, ABUF: {i}"
    assert machine.memories[Mem.SBUF].tolist() == after.sbuf, f"functional model, SBUF: {i}"


def check_events(hw: HwConfig, i: Instruction, counts: dict[str, int], clipped: int) -> None:
    expected = dict.fromkeys(VectorUnit.EVENTS, 0)
    words = i["tokens"] * i["words"]
    if i.op == Op.LAYERNORM:
        expected |= {"ln_sum_words": words, "ln_norm_words": words, "ln_rsqrt": i["tokens"], "saturations": clipped}
    elif i.op == Op.QUANT:
        expected |= {"quant_words": words, "saturations": clipped, "plane_writes": 8 * words * (i["kind"] == Kind.INT8)}
    elif i.op == Op.EMBED:
        expected |= {"embed_words": words, "saturations": clipped}
    else:
        valid = [-(-(i["keys"] + i["causal"] * t) // hw.rows) for t in range(i["queries"])]
        uint8 = int(i["kind"] == Kind.UINT8)
        expected |= {
            "softmax_max_words": sum(valid),
            "softmax_exp_words": sum(valid),
            "divides": uint8 * i["queries"],
            "softmax_code_words": i["queries"] * i["granules"],
            "plane_writes": 8 * uint8 * i["queries"] * i["granules"],
        }
    for name in expected.keys() - {"stall_read", "stall_write"}:
        assert counts[name] == expected[name], f"{i}: {name} must be {expected[name]}, not {counts[name]}"


async def begin(dut) -> tuple[Bench, Cases]:
    p = drivers.parameters()
    hw = HwConfig(**p["hw"])
    await drivers.start(dut)
    bench = Bench(dut, hw, p["stall"])
    return bench, Cases(bench.plain)


@cocotb.test()
async def bench_random(dut):
    """Random instructions, the operations by turns."""
    p = drivers.parameters()
    bench, cases = await begin(dut)
    cases.table()
    await bench.load_table()
    for op in [Op[name] for name in p["ops"]] * p["count"]:
        if op == Op.SOFTMAX and random.random() < 0.2:
            cases.table()
            await bench.load_table()
        i = cases.make(op)
        counts = await bench.execute(i)
        check_events(bench.hw, i, counts, bench.plain.clipped)
        if p["stall"] == 0:
            assert counts["stall_read"] == counts["stall_write"] == 0


@cocotb.test()
async def bench_faults(dut):
    """An instruction with one impossible field raises fault, writes nothing and leaves the unit usable."""
    bench, cases = await begin(dut)
    rows, binary = bench.hw.rows, bench.hw.kind == "binary"
    impossible = {
        Op.LAYERNORM: [
            {"tokens": 0},
            {"words": 0},
            {"features": 0},
            {"eps": 0},
            {"words": 1, "features": rows + 1},
            {"words": 2, "features": rows},
        ],
        Op.SOFTMAX: [
            {"queries": 0},
            {"keys": 0},
            {"granules": 0},
            {"kind": Kind.INT8},
            {"granules": 1, "keys": rows + 1},
            {"granules": 1, "keys": rows, "queries": 2, "causal": 1},
        ],
        Op.QUANT: [
            {"tokens": 0},
            {"words": 0},
            {"features": 0},
            {"kind": Kind.UINT8},
            {"words": 1, "features": rows + 1},
        ],
        Op.EMBED: [{"tokens": 0}, {"words": 0}, {"features": 0}, {"words": 1, "features": rows + 1}],
    }
    if binary:
        impossible[Op.SOFTMAX].append({"kind": Kind.TERNARY})
        impossible[Op.QUANT].append({"kind": Kind.TERNARY})
    cases.table()
    await bench.load_table()
    for op, changes in impossible.items():
        good = cases.make(op)
        bench.preload()
        for change in changes:
            done, faults = bench.done, bench.faults
            await bench.issue(encode(replace(good, fields=good.fields | change)))
            await drivers.cycles(dut, 20)
            assert (bench.done, bench.faults) == (done, faults + 1), f"{op.name} with {change} must raise fault once"
            assert drivers.get(dut, "port__busy") == 0
            bench.compare(f"{op.name} with {change}")
        await bench.execute(good)
    for opcode in (0, Op.END, Op.LOAD, Op.GEMM, 255):
        faults = bench.faults
        await bench.issue(opcode)
        assert bench.faults == faults + 1, f"opcode {opcode} must raise fault"


@cocotb.test()
async def bench_table_bounds(dut):
    """A beat beyond the exp table is an error and changes nothing."""
    bench, cases = await begin(dut)
    cases.table()
    await bench.load_table()
    beats = 256 * 16 // bench.hw.axi_data_bits
    errors = []

    async def watch() -> None:
        while True:
            await RisingEdge(dut.clk)
            errors.append(drivers.get(dut, "lutv_error"))

    cocotb.start_soon(watch())
    for addr in (beats, 2 * beats, 1 << 19):
        await bench.table.request(addr=addr, mask=1, lane_mask=1, data=0x5A5A)
    await drivers.cycles(dut, 3)
    assert sum(errors) == 3
    for _ in range(3):
        await bench.execute(cases.make(Op.SOFTMAX))


@cocotb.test()
async def bench_throughput(dut):
    """Cycles of undisturbed instructions stay within what the docstring of VectorUnit promises."""
    bench, cases = await begin(dut)
    cases.table()
    await bench.load_table()
    hw, tokens, words = bench.hw, 8, 5
    limits = []
    for op, fields, cycles in (
        (Op.LAYERNORM, {"tokens": tokens, "words": words, "features": words * hw.rows}, max(2 * words, 14) * tokens),
        (Op.LAYERNORM, {"tokens": 1, "words": words, "features": words * hw.rows}, 5 * words + 26),
        (
            Op.QUANT,
            {"tokens": tokens, "words": words, "features": words * hw.rows, "kind": Kind.BINARY},
            words * tokens,
        ),
        (
            Op.QUANT,
            {"tokens": tokens, "words": words, "features": words * hw.rows, "kind": Kind.INT8},
            8 * words * tokens,
        ),
        (Op.EMBED, {"tokens": tokens, "words": words, "features": words * hw.rows}, words * tokens),
        (
            Op.SOFTMAX,
            {"queries": tokens, "keys": words * hw.rows, "granules": words, "kind": Kind.BINARY},
            words * tokens,
        ),
        (
            Op.SOFTMAX,
            {"queries": tokens, "keys": words * hw.rows, "granules": words, "kind": Kind.UINT8},
            max(26, 8 * words) * tokens,
        ),
    ):
        base = {
            "src_stride": words,
            "dst_stride": words,
            "dst_addr": 0,
            "dst_plane": hw.abuf_words // 8,
            "eps": 1,
            "param_addr": 0,
            "shift": 30,
            "c1": 1,
            "c2": 1,
            "recip": 1,
            "mul": 1,
            "scale_addr": 0,
        }
        names = {name for name, _ in FIELDS[op]}
        i = Instruction(op, {name: value for name, value in (base | fields).items() if name in names})
        bench.preload()
        bench.port.send([encode(i)])
        start, done = bench.cycle, bench.done
        await drivers.until(dut, lambda done=done: bench.done > done, LIMIT)
        limits.append((op.name, fields, bench.cycle - start, cycles))
    for name, fields, took, cycles in limits:
        assert took <= cycles + 60, f"{name} {fields} must take at most {cycles} + 60 cycles, not {took}"
