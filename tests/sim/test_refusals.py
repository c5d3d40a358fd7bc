"""The functional machine and the core, instruction by instruction: both execute it alike, or both refuse it for the same reason.

Random instructions of all operations, most of them one or two fields away from a legal one, so that both sides of every rule are met.
"""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ternbin.contract.effects.access import READ, WRITE
from ternbin.contract.effects.table import EFFECTS, broken_rule, touches
from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.isa import (
    FIELDS,
    INSTRUCTION_BYTES,
    UNIT_OF,
    Dest,
    Epilogue,
    ErrorCode,
    Instruction,
    Kind,
    Mem,
    Op,
    encode,
)
from ternbin.contract.memories import TABLES, ceil_div, memories
from ternbin.contract.program import Probe, Region, View
from ternbin.contract.transfers import (
    LOADABLE,
    STORABLE,
    can_expand,
    expand_words,
    packs_trits,
    row_bytes,
    tile_rows,
    transfer_banks,
    transfer_words,
)
from ternbin.counting.external import MemoryModel
from ternbin.emulation.machine import Machine, MachineError, Undefined
from ternbin.rtl.verilog.generate import generate, manifest
from ternbin.sim.build import build, model_spec
from ternbin.sim.simulator import CoreError, Simulator
from ternbin.sim.toolchain import compile_model

SIZE, DATA, CASES = 1 << 16, 1 << 12, 2500
SMALL_IDS = 16  # entries of IDBUF that lead to rows within the memory
CONFIGS = {
    "tiny": NAMED["tiny"],
    "tiny-binary": NAMED["tiny-binary"],
    "tiny-ternary8": NAMED["tiny-ternary8"],
    "beams, packed trits": replace(NAMED["tiny"].searching(2), weight_pack="5trit"),
    "beams, packed trits, form for FPGAs": replace(NAMED["tiny"].searching(2), weight_pack="5trit"),
}
END = Instruction(Op.END)
CODES, PLANE = 170, 30  # where codes go, away from those that are read; words between two planes of them


# ---- instructions -----------------------------------------------------------------------------------------------------


def a_transfer(hw: HwConfig, rng: random.Random, op: Op) -> dict[str, int]:
    mem = rng.choice(STORABLE if op == Op.STORE else LOADABLE)
    inner, outer, expand = rng.randint(1, 6), rng.randint(1, 9), 0
    if op == Op.LOAD and can_expand(hw, mem) and rng.random() < 0.3:
        inner, expand = expand_words(hw, mem, inner), 1
    banks = transfer_banks(hw, mem, bool(expand))
    bank = rng.randrange(banks)
    if packs_trits(hw, mem, expand) and op == Op.LOAD:
        bank, outer = 0, tile_rows(hw) * rng.randint(1, 2)
    rounds = ceil_div(bank + outer, banks)
    size = row_bytes(hw, mem, inner, bool(expand))
    fields = {"mem": mem, "bank": bank, "inner": inner, "outer": outer, "expand": expand}
    fields["addr"] = rng.randint(0, max(0, transfer_words(hw, mem) - rounds * inner))
    fields["dram"] = rng.randrange(DATA, SIZE // 2, hw.axi_bytes) + SIZE // 4 * (op == Op.STORE)
    if rng.random() < 0.08:
        fields["dram"] = rng.randrange(SIZE - 64, SIZE + (1 << 12), hw.axi_bytes)  # from there on, nothing answers
    fields["stride"] = size if rng.random() < 0.5 else size + hw.axi_bytes * rng.randrange(9)
    if op == Op.LOAD and rng.random() < 0.2:
        fields |= {"indirect": 1, "index": rng.randint(0, SMALL_IDS - outer)}
    return fields


def a_gemm(hw: HwConfig, rng: random.Random) -> dict[str, int]:
    planes = [rng.choice([1, 1, 1, 8]) for _ in range(2)]
    tokens, chunks, tiles = rng.randint(1, 2 * hw.cols + 1), rng.randint(1, 3), rng.randint(1, 3)
    epilogue = rng.choice([e for e in Epilogue if e != Epilogue.TOP or hw.beams > 1])
    tokens = {Epilogue.ARGMAX: rng.randint(1, hw.cols), Epilogue.TOP: rng.randint(1, hw.beams)}.get(epilogue, tokens)
    fields = {"chunks": chunks, "row_tiles": tiles, "tokens": tokens, "col_tiles": ceil_div(tokens, hw.cols)}
    for side, count in zip(("row", "col"), planes, strict=True):
        fields |= {
            f"{side}_addr": rng.randrange(60),
            f"{side}_stride": rng.randrange(9),
            f"{side}_plane": rng.randrange(9) if side == "row" else _plane(hw, rng, rng.randrange(9)),
        }
        fields |= {f"{side}_planes": count, f"{side}_signed": int(count == 8 and rng.random() < 0.5)}
    fields |= {"row_kbuf": rng.randrange(2), "rowsum": int(planes == [1, 1] and rng.random() < 0.3)}
    fields |= {"acc_init": rng.randint(-99, 99), "epilogue": epilogue, "shift": rng.randrange(16)}
    fields |= {"param_addr": rng.randrange(99), "param_stride": rng.choice([0, 4, 5]), "lut": rng.randrange(2)}
    to = codes_at(hw) if epilogue in (Epilogue.CODES, Epilogue.CODES8) else rng.randrange(9)
    fields |= {"dst_addr": to, "dst_stride": rng.randint(3, 5), "dst_plane": _plane(hw, rng, PLANE)}
    fields |= {"dest": rng.choice(list(Dest)), "lane": hw.rows * rng.randrange(9), "key": rng.randrange(12)}
    fields |= {
        "index": rng.randrange(99),
        "features": rng.randrange(199),
        "first": rng.randrange(2),
        "last": rng.randrange(2),
    }
    if epilogue == Epilogue.CODES:
        return fields | {"kind": _kind(hw, rng), "thresholds": rng.choice([1, 2, 2, 3, 4]), "base": -1, "dirs": 3}
    return fields | {"kind": rng.choice([Kind.INT8, Kind.UINT8])}


def _kind(hw: HwConfig, rng: random.Random) -> Kind:
    return Kind.BINARY if hw.kind == "binary" else rng.choice([Kind.BINARY, Kind.TERNARY])


def _rows(hw: HwConfig, rng: random.Random) -> dict[str, int]:
    words = rng.randint(1, 4)
    fields = {"tokens": rng.randint(1, 9), "words": words, "features": words * hw.rows - rng.choice([0, 0, 0, 1])}
    return fields | {"src_addr": rng.randrange(99), "src_stride": rng.randint(words, 6)}


def a_layernorm(hw: HwConfig, rng: random.Random) -> dict[str, int]:
    fields = _rows(hw, rng) | {
        "param_addr": rng.randrange(99),
        "eps": rng.randint(1, 1 << 30),
        "shift": rng.randrange(30),
    }
    in_place = {"dst_addr": fields["src_addr"], "dst_stride": fields["src_stride"]}
    return fields | (in_place if rng.random() < 0.5 else {"dst_addr": 200 + rng.randrange(99), "dst_stride": 5})


def a_quant(hw: HwConfig, rng: random.Random) -> dict[str, int]:
    t0, t1 = sorted(rng.randint(-30000, 30000) for _ in range(2))
    fields = _rows(hw, rng) | {
        "dst_addr": codes_at(hw),
        "dst_stride": rng.randint(2, 5),
        "dst_plane": _plane(hw, rng, PLANE),
        "shift": rng.randrange(30),
    }
    return fields | {"kind": rng.choice([_kind(hw, rng), Kind.INT8]), "t0": t0, "t1": t1, "mul": rng.randrange(1 << 23)}


def an_embed(hw: HwConfig, rng: random.Random) -> dict[str, int]:
    fields = _rows(hw, rng) | {"scale_addr": rng.randrange(99)}
    return fields | {"dst_addr": rng.randrange(99), "dst_stride": rng.randint(fields["words"], 6)}


def a_softmax(hw: HwConfig, rng: random.Random) -> dict[str, int]:
    masked, queries, keys = int(hw.beams > 1 and rng.random() < 0.4), rng.randint(1, 7), rng.randint(1, 20)
    causal = int(not masked and rng.random() < 0.4)
    fields = {
        "queries": queries,
        "keys": keys,
        "causal": causal,
        "masked": masked,
        "kind": rng.choice([_kind(hw, rng), Kind.UINT8]),
    }
    fields["granules"] = ceil_div(keys + (queries - 1) * causal, hw.rows) + rng.randrange(2)
    fields |= {"src_addr": rng.randrange(40), "src_stride": rng.randint(7, 9), "mask_addr": rng.randrange(99)}
    fields |= {"dst_addr": codes_at(hw), "dst_stride": rng.randint(3, 5), "dst_plane": _plane(hw, rng, PLANE)}
    fields |= {"power": rng.randrange(2), "mul": rng.randrange(1 << 16), "shift": rng.randrange(30)}
    return fields | {
        "c1": rng.randrange(1, 20000),
        "c2": rng.randrange(20000, 60000),
        "recip": rng.randrange(1, 1 << 40),
    }


LEGAL = {
    Op.LOAD: lambda hw, rng: a_transfer(hw, rng, Op.LOAD),
    Op.STORE: lambda hw, rng: a_transfer(hw, rng, Op.STORE),
    Op.GEMM: a_gemm,
    Op.LAYERNORM: a_layernorm,
    Op.SOFTMAX: a_softmax,
    Op.QUANT: a_quant,
    Op.EMBED: an_embed,
}


class Ruled(dict):
    """Fields that remember which of them the rules look at."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> int:
        self.names.add(name)
        return 0


def ruled(hw: HwConfig, op: Op) -> set[str]:
    fields = Ruled()
    EFFECTS[op].rules(hw, fields)
    return fields.names


def changed(hw: HwConfig, rng: random.Random, op: Op, fields: dict[str, int]) -> dict[str, int]:
    """One or two fields with other values: near ones, small ones, the largest, any. Most are of those that rules look at."""
    fields, names = dict(fields), ruled(hw, op)
    candidates = [field for field in FIELDS[op] if field[0] in names or rng.random() < 0.4]
    for name, width in rng.sample(candidates, rng.choice([1, 1, 1, 2])):
        low, high = (-(1 << -width - 1), (1 << -width - 1) - 1) if width < 0 else (0, (1 << width) - 1)
        old = fields.get(name, 0)
        choices = [0, 1, 2, 3, 4, high, old - 1, old + 1, old ^ 1 << rng.randrange(abs(width)), rng.randint(low, high)]
        fields[name] = rng.choice([value for value in choices if low <= value <= high])
    return fields


def quick(i: Instruction) -> bool:
    """Whether machine and core come to an end soon."""
    sizes = {
        Op.GEMM: ("row_tiles", "col_tiles", "chunks", "row_planes", "col_planes"),
        Op.SOFTMAX: ("queries", "granules"),
    }.get(i.op, ("inner", "outer") if i.op in (Op.LOAD, Op.STORE) else ("tokens", "words"))
    return bool(np.prod([i[name] for name in sizes]) <= 3000)


def one(hw: HwConfig, rng: random.Random) -> Instruction:
    op = rng.choice([*LEGAL, Op.GEMM, Op.LOAD, Op.STORE])  # the ones with the most rules more often
    fields = {name: int(value) for name, value in LEGAL[op](hw, rng).items()}
    return Instruction(op, changed(hw, rng, op, fields) if rng.random() < 0.7 else fields)


def rules_of(hw: HwConfig, i: Instruction) -> tuple[set[tuple[Op, str]], set[tuple[Op, str]]]:
    """The rules that an instruction keeps, and those that it breaks."""
    rules = EFFECTS[i.op].rules(hw, i)
    return {(i.op, rule.must) for rule in rules if not rule.broken}, {
        (i.op, rule.must) for rule in rules if rule.broken
    }


def can_break(hw: HwConfig, rule: tuple[Op, str]) -> bool:
    """Whether some instruction breaks the rule on this accelerator."""
    op, must = rule
    if "of a STORE" in must or "indirect" in must:
        return op == Op.STORE
    if "packed trits" in must:
        return op == Op.LOAD and hw.weight_pack == "5trit"
    return "of the array" not in must or hw.kind == "binary"


def codes_at(hw: HwConfig) -> int:
    return CODES if not hw.whole_columns else 90  # of plane_words


def _plane(hw: HwConfig, rng: random.Random, plane: int) -> int:
    """Words between planes: on an array that takes whole 8-bit codes mostly the one distance that it takes."""
    return hw.plane_words if hw.whole_columns and rng.random() < 0.9 else plane


def instructions(hw: HwConfig, seed: int, count: int) -> list[Instruction]:
    """``count`` random instructions, and more until each rule was broken that can be."""
    rng, result = random.Random(seed), []
    while len(result) < count:
        i = one(hw, rng)
        if broken_rule(hw, i) or quick(i):
            result.append(i)
    kept, broken = (set.union(*parts) for parts in zip(*(rules_of(hw, i) for i in result), strict=True))
    while missing := {rule for rule in kept if can_break(hw, rule)} - broken:
        i = one(hw, rng)
        _, more = rules_of(hw, i)
        if more & missing:
            result.append(i)
            broken |= more
    return result


def settled(hw: HwConfig, i: Instruction) -> bool:
    """Whether what a legal instruction leaves behind is defined: it writes no word twice, and none that it has yet to read."""
    touched = touches(hw, i)
    for write in (access for access in touched if access.kind == WRITE and access.mem is not None):
        if len(np.unique(write.words)) < write.words.size:
            return False
        others = [access.words for access in touched if access.kind == READ and access.mem == write.mem]
        if any(np.intersect1d(words, write.words).size and not np.array_equal(words, write.words) for words in others):
            return False
    # other elements of LAYERNORM must be 0, and the sums of the reference have 64 bits with their sign
    return i.op != Op.LAYERNORM or (i["features"] == i["words"] * hw.rows and i["eps"] < 1 << 60)


# ---- the two side by side ---------------------------------------------------------------------------------------------


def fill(hw: HwConfig) -> list[Instruction]:
    """A program that writes every word of every memory."""
    result, dram = [], DATA
    for mem in LOADABLE:
        words, banks = transfer_words(hw, mem), transfer_banks(hw, mem, False)
        fields = {"mem": mem, "inner": words, "outer": banks, "dram": dram, "stride": row_bytes(hw, mem, words)}
        result.append(Instruction(Op.LOAD, fields))
        dram += banks * fields["stride"]
    single = {"row_planes": 1, "col_planes": 1, "chunks": 1, "row_tiles": hw.sbuf_words, "row_stride": 1}
    scores = {"epilogue": Epilogue.SCORES, "tokens": hw.cols, "col_tiles": 1, "row_kbuf": 1, "acc_init": 5}
    wait = frozenset({UNIT_OF[Op.LOAD]})
    result[-1] = replace(result[-1], signal=frozenset({UNIT_OF[Op.GEMM]}))
    return [*result, Instruction(Op.GEMM, single | scores, wait), END]


class Pair:
    """A machine and a simulated core in the same state."""

    def __init__(self, hw: HwConfig, simulator: Simulator, machine: Machine):
        self.hw, self.core, self.machine, self.compared = hw, simulator, machine, Counter()
        self.regions = {
            mem: [Region(mem, 0, memory.words, 0, memory.banks)]
            for mem, memory in memories(hw).items()
            if mem not in TABLES
        }
        program = fill(hw)
        self._put(program)
        simulator.call(0, len(program))
        machine.run(program)
        self.kept = simulator.save(), bytes(machine.dram), {mem: v.copy() for mem, v in machine.memories.items()}
        self.again()

    def again(self) -> None:
        """Back to how it began."""
        state, external, contents = self.kept
        self.core.restore(state)
        self.core.memory[:] = self.machine.dram[:] = external
        self.machine.memories = {mem: value.copy() for mem, value in contents.items()}
        self.machine.reset_units()

    def _put(self, program: list[Instruction]) -> None:
        words = b"".join(encode(i).to_bytes(INSTRUCTION_BYTES, "little") for i in program)
        self.core.memory[: len(words)] = self.machine.dram[: len(words)] = words

    def execute(self, i: Instruction) -> ErrorCode:
        """Both do ``i``, the second instruction of a program; the verdict, which must be that of both."""
        self._put([END, i, END])
        probes = [
            Probe(0, UNIT_OF[i.op], 0, mem.name, region, View("ids", 0, 0), ())
            for mem, regions in self.regions.items()
            for region in regions
        ]
        raw: tuple[bytes, ...] = ()
        error = verdict = None
        try:
            raw = self.core.call(INSTRUCTION_BYTES, 2, probes).raw
        except CoreError as caught:
            error = caught
        try:
            self.machine.execute(i)
        except MachineError as caught:
            verdict = caught
        if verdict is None:
            assert error is None, f"{i}: {error}"
            self._compare(i, probes, raw)
        elif isinstance(verdict, Undefined):
            assert error is None, f"{i}: {error}, {verdict}"
        else:
            assert error is not None and error.code in verdict.codes, f"{i}: {error}, {verdict}"
            on_bus = error.code in (ErrorCode.BUS_READ, ErrorCode.BUS_WRITE)
            assert error.address == (verdict.address if on_bus else INSTRUCTION_BYTES), f"{i}: {error}, {verdict}"
        if verdict.code != ErrorCode.FIELD if verdict else not settled(self.hw, i):
            self.again()  # what they left in their memories differs
        elif error is not None:
            self.machine.reset_units()  # as the core did
        return ErrorCode.NONE if error is None else error.code

    def _compare(self, i: Instruction, probes: list[Probe], raw: tuple[bytes, ...]) -> None:
        if not settled(self.hw, i):
            return
        self.compared[i.op] += 1
        for probe, words in zip(probes, raw, strict=True):
            assert words == self.machine.raw(probe.region), f"{i}: {probe.tensor}"
        assert self.core.memory == self.machine.dram, f"{i}: external memory"


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    hw = CONFIGS[request.param]
    memory = bytearray(np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8).tobytes())
    ids = next(i["dram"] for i in fill(hw) if i["mem"] == Mem.IDBUF)
    for entry in range(SMALL_IDS):
        memory[ids + entry * hw.axi_bytes : ids + (entry + 1) * hw.axi_bytes] = (entry * 7 % 11).to_bytes(
            hw.axi_bytes, "little"
        )
    machine = Machine(hw, bytearray(memory))
    library = build(hw)
    if "FPGA" in request.param:
        library = compile_model(model_spec(generate(hw, "fpga"), manifest(hw, "fpga"), axi_bytes=hw.axi_bytes))
    with Simulator(hw, library, memory, MemoryModel(latency=3)) as simulator:
        yield Pair(hw, simulator, machine)


def test_machine_and_core_refuse_the_same_instructions(pair):
    verdicts, kept, broken = Counter(), set(), set()
    for i in instructions(pair.hw, 1, CASES):
        holds, breaks = rules_of(pair.hw, i)
        kept, broken = kept | holds, broken | breaks
        verdicts[i.op, pair.execute(i)] += 1
    assert broken == {rule for rule in kept if can_break(pair.hw, rule)}  # both sides of each were met
    for op in LEGAL:
        expected = {ErrorCode.NONE, ErrorCode.FIELD, ErrorCode.ADDRESS}
        expected |= {ErrorCode.BUS_READ} if op == Op.LOAD else {ErrorCode.BUS_WRITE} if op == Op.STORE else set()
        assert {code for own, code in verdicts if own == op} == expected
        assert pair.compared[op] > CASES // 40
