"""More of what mutants are run through: the largest sizes, extreme and small values, all units at once, programs far away that fail."""

import mmap
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path

import numpy as np
from mutant_suite import (
    EXTREMES,
    HW,
    Instructions,
    Seen,
    Step,
    Watched,
    all_memories,
    external,
    put,
    refusals,
    short,
    tried,
)

from ternbin.contract import isa
from ternbin.contract.effects.access import READ, Access
from ternbin.contract.effects.table import broken_rule, touches
from ternbin.contract.isa import FIELDS, UNIT_OF, Dest, Epilogue, Instruction, Kind, Mem, Op, Unit
from ternbin.contract.memories import TABLES, ceil_div
from ternbin.contract.program import Probe
from ternbin.contract.transfers import row_bytes, transfer_words
from ternbin.counting.external import MemoryModel
from ternbin.emulation.machine import Machine
from ternbin.errors import CheckError
from ternbin.sim.simulator import CoreError, HostCycle, Simulator

SMALL = tuple(n & 0xFFFF for n in (*range(-9, 10), -100, 100, 0, 0, 0))  # 16-bit words
BYTES = tuple(range(256))
Program = tuple[Instruction, ...]
_LOWEST, _HIGHEST = -(1 << 23), (1 << 23) - 1  # of an accumulator


def rich(rng: random.Random, op: Op) -> Instruction:
    """A legal instruction, with values that those of the tests of refusals have seldom or never."""
    fields = {name: int(value) for name, value in refusals.LEGAL[op](HW, rng).items()}
    if op in (Op.LOAD, Op.STORE) and fields["mem"] in (Mem.RBUF, Mem.PBUF, Mem.IDBUF) and not fields.get("indirect"):
        fields |= {"inner": rng.randint(1, 40), "addr": rng.randrange(24), "stride": 4 * rng.randrange(80, 99)}
    if op == Op.GEMM:
        far = [_LOWEST, _LOWEST + 9, -(1 << 22), 1 << 22, _HIGHEST - 9, _HIGHEST]
        fields["acc_init"] = rng.choice([*4 * [fields["acc_init"]], *far, rng.randint(_LOWEST, _HIGHEST)])
        fields |= {"index": rng.randrange(1 << 24), "features": rng.randrange(1 << 24), "last": rng.randrange(4) and 1}
        fields |= {"base": rng.randrange(-2, 2), "dirs": rng.randrange(16), "thresholds": rng.choice([1, 2, 3, 4, 4])}
        if fields["epilogue"] in (Epilogue.ARGMAX, Epilogue.TOP):
            fields |= {
                "row_tiles": rng.randint(1, 7),
                "features": min(fields["index"] + rng.randrange(40), (1 << 24) - 1),
            }
        fields["key"] = rng.randrange(12 if fields["epilogue"] != Epilogue.CODES8 else 40)
        if fields["epilogue"] not in (Epilogue.CODES, Epilogue.TOP):
            fields["shift"] = rng.choice([fields["shift"], rng.randrange(64), rng.randrange(20, 44)])
    if op == Op.SOFTMAX:
        fields["mask_bit"] = rng.randrange(17 - fields["queries"])  # elements of a mask have 16 bits
        if rng.random() < 0.3:  # a sum that is one exponential, and what is equal to it
            fields |= {"keys": 1, "causal": 0, "c1": rng.choice([65535, 65536]), "c2": rng.choice([65536, 65537])}
    if op == Op.LAYERNORM:
        fields |= {"eps": 1 << rng.randrange(30), "shift": rng.randrange(18, 42)}
    if op == Op.QUANT and fields["kind"] == Kind.INT8:
        fields["mul"] = rng.randrange(1 << rng.randrange(1, 24))
        fields["shift"] = max(0, fields["mul"].bit_length() + rng.randrange(-12, 9))
    return Instruction(op, fields)


def executed(make: Callable[[], Instruction], count: int, contents: Sequence[int] | None = None) -> list[Instruction]:
    """``count`` that are executed to their end, and whose outcome is defined, from memories as they are filled."""
    drawn = (make() for _ in repeat(None))
    legal = (i for i in drawn if not broken_rule(HW, i) and refusals.settled(HW, i))
    return list(islice((i for i, error in tried(filled(contents), legal) if error is None), count))


def largest() -> list[Instruction]:
    """The largest sizes that memories hold, and loops as long as their counters."""
    ones = ("row_planes", "col_planes", "chunks", "row_tiles", "col_tiles", "tokens", "param_stride")
    one = dict.fromkeys(ones, 1) | {"row_kbuf": 1, "thresholds": 2, "base": -1, "dirs": 3}
    scores = one | {"epilogue": Epilogue.SCORES}
    codes = one | {"epilogue": Epilogue.CODES, "kind": Kind.TERNARY, "shift": 1}
    argmax = one | {"epilogue": Epilogue.ARGMAX, "param_stride": 0, "first": 1, "last": 1, "index": 5}
    gemms = [
        scores | {"chunks": 500},
        scores | {"chunks": 250, "row_kbuf": 0},
        scores | {"tokens": 255, "col_tiles": 128, "col_stride": 1, "dst_stride": 1},
        scores | {"row_tiles": 128, "row_stride": 1, "acc_init": 300},  # fills SBUF
        scores | {"tokens": 2046, "col_tiles": 1023},
        scores | {"tokens": 2046, "col_tiles": 1023, "chunks": 4},
        codes | {"tokens": 1200, "col_tiles": 600},
        codes | {"tokens": 600, "col_tiles": 300, "dst_stride": 1},
        codes | {"tokens": 1500, "col_tiles": 750, "dest": Dest.KEYS},
        codes | {"tokens": 1100, "col_tiles": 550, "dest": Dest.TRANSPOSED},
        codes | {"row_tiles": 60, "row_stride": 8, "param_stride": 4, "dest": Dest.TRANSPOSED, "dst_stride": 8},
        argmax | {"row_tiles": 65535},
        *(argmax | {"row_tiles": 600 + 77 * n, "tokens": 2, "index": 1 << 20, "chunks": n} for n in (1, 2, 3, 5)),
    ]
    few = {"tokens": 1, "words": 1, "features": HW.rows, "src_stride": 1}
    fields = {
        Op.GEMM: gemms,
        Op.SOFTMAX: [
            {"queries": 1, "keys": keys, "granules": 128, "kind": kind, "c1": 300, "c2": 900, "recip": recip}
            for keys in (40, 200, 512)
            for kind, recip in ((Kind.UINT8, 1 << 40), (Kind.TERNARY, 0), (Kind.UINT8, (1 << 48) - 1))
        ]
        + [{"queries": 255, "keys": 4, "granules": 1, "src_stride": 1, "dst_stride": 1, "c1": 9000, "c2": 30000}],
        Op.QUANT: [
            few | {"tokens": 1000, "dst_stride": 1},
            few | {"tokens": 4095, "src_stride": 0},
            few | {"words": 1023, "features": 4091},
            few | {"tokens": 126, "dst_stride": 1, "dst_plane": 64, "kind": Kind.INT8, "mul": 9, "shift": 3},
        ],
        Op.EMBED: [few | {"tokens": 256, "dst_stride": 1}, few | {"words": 1023, "features": 4092}],
        Op.LAYERNORM: [
            few | {"tokens": 999, "dst_stride": 1, "eps": 1, "shift": 9},
            few
            | {"words": 64, "features": 256, "tokens": 16, "src_stride": 64, "dst_stride": 64, "eps": 1, "shift": 33},
        ],
    }
    for op in (Op.LOAD, Op.STORE):
        to = {"dram": 0x6000 if op == Op.STORE else 0x1000}
        fields[op] = [
            to | {"mem": Mem.RBUF, "inner": 1, "outer": 1024, "stride": 8},
            to | {"mem": Mem.KBUF, "inner": 1, "outer": 2047, "stride": 4},
            to | {"mem": Mem.KBUF, "inner": 512, "outer": 4, "stride": 2048},
        ]
    return [Instruction(op, each) for op, every in fields.items() for each in every]


def endless() -> tuple[Instruction, ...]:
    """Transfers of one region of 2^11 beats and more, refused where RBUF ends."""
    result = []
    for bit in range(11, 31):
        rows = 1 << max(0, bit - 16)
        for beats in (0, 16, 32, 48, 64):
            inner = ((1 << bit) + beats) // 2 // rows
            for op, dram in ((Op.LOAD, 0x1000), (Op.STORE, 0x6000)):
                fields = {"mem": Mem.RBUF, "inner": inner, "outer": rows, "stride": 8 * inner, "dram": dram}
                result += [Instruction(op, fields)] if inner < 1 << 16 else []
    return tuple(result)


def picked() -> Program:
    """Rows picked by all ids of IDBUF."""
    ids = next(i["dram"] for i in refusals.fill(HW) if i["mem"] == Mem.IDBUF)
    load = Instruction(Op.LOAD, {"mem": Mem.IDBUF, "inner": 13, "outer": 4, "dram": ids, "stride": 4})
    rows = {"mem": Mem.RBUF, "inner": 2, "outer": 52, "stride": 8, "dram": 0x2000, "indirect": 1}
    return finished([load, Instruction(Op.LOAD, rows, frozenset({Unit.LOAD}))])


def _conflict(one: Instruction, other: Instruction) -> bool:
    """Whether the order of two matters. A unit does its instructions in order, LOADs one after the other."""
    if one.op == other.op == Op.LOAD:
        return False
    return any(_overlap(a, b) for a in touches(HW, one) for b in touches(HW, other))


def _overlap(one: Access, other: Access) -> bool:
    if one.mem != other.mem or one.kind == other.kind == READ:
        return False
    if one.mem is None:
        return one.words[0] < other.words[1] and other.words[0] < one.words[1]
    if one.mem in TABLES:  # of which one word stands for all
        return True
    return bool(np.intersect1d(one.words, other.words).size)


def filled(contents: Sequence[int] | None = None) -> Machine:
    """A machine after the program that fills all memories."""
    machine, program = Machine(HW, external(contents)), refusals.fill(HW)
    put(machine.dram, 0, program)
    machine.run(program)
    return machine


def finished(work: Sequence[Instruction]) -> Program:
    """``work``, and a STORE that waits for all of it."""
    program = list(work)
    last = {UNIT_OF[i.op]: number for number, i in enumerate(work) if UNIT_OF[i.op] != Unit.STORE}
    for number in last.values():
        program[number] = replace(program[number], signal=program[number].signal | {Unit.STORE})
    return (*program, short(Unit.STORE, wait=[*last, Unit.STORE]), refusals.END)


# What wants the same memory at the same time: LOAD and STORE of it, epilogues, operations of the vector unit.
Crowd = tuple[Mem, Sequence[Epilogue], Sequence[Op]]
CROWDS: Sequence[Crowd] = (
    (Mem.RBUF, (Epilogue.RESIDUAL,), (Op.EMBED, Op.LAYERNORM, Op.QUANT)),
    (Mem.ABUF, (Epilogue.CODES, Epilogue.CODES8), (Op.QUANT, Op.EMBED, Op.SOFTMAX)),
    (Mem.KBUF, (Epilogue.CODES, Epilogue.SCORES), (Op.EMBED,)),
    (Mem.PBUF, (Epilogue.RESIDUAL, Epilogue.CODES, Epilogue.ARGMAX), (Op.SOFTMAX,)),
    (Mem.IDBUF, (Epilogue.ARGMAX, Epilogue.TOP), (Op.SOFTMAX, Op.QUANT)),
)


def _crowding(rng: random.Random, crowd: Crowd) -> Instruction:
    """A longer instruction that wants the memory of a crowd."""
    mem, epilogues, ops = crowd
    i = rich(rng, rng.choice([Op.LOAD, Op.STORE, Op.GEMM, rng.choice(ops)]))
    words = transfer_words(HW, mem)
    if i.op in (Op.LOAD, Op.STORE):
        inner, outer = rng.choice([(1, words // 5), (words // 5, 1), (words // 20, 4)])
        fields = {"mem": mem, "inner": inner, "outer": outer, "addr": rng.randrange(words)}
        fields |= {"dram": i["dram"], "stride": row_bytes(HW, mem, inner) + 4 * rng.randrange(2)}
        return replace(i, fields=fields)
    if i.op == Op.GEMM:
        epilogue, tokens, chunks = rng.choice(epilogues), rng.randint(1, 30), rng.choice([1, 1, 1, 2, 5])
        if epilogue in (Epilogue.ARGMAX, Epilogue.TOP):
            tokens = rng.randint(1, HW.cols)
        more = {"epilogue": epilogue, "tokens": tokens, "col_tiles": ceil_div(tokens, HW.cols), "chunks": chunks}
        more |= dict.fromkeys(("row_planes", "col_planes"), 1) | dict.fromkeys(("row_signed", "col_signed"), 0)
        more |= {"row_tiles": rng.randint(1, 8), "dst_stride": rng.randint(8, 9), "last": 1}
        more |= {"shift": rng.randrange(16) if epilogue == Epilogue.TOP else rng.randrange(20, 36)}
        more |= {"kind": Kind.TERNARY if epilogue == Epilogue.CODES else Kind.INT8, "thresholds": rng.randint(1, 4)}
        more |= {"dst_addr": rng.randrange(900 if epilogue == Epilogue.RESIDUAL else 60)}
        return replace(i, fields=i.fields | more)
    if i.op == Op.SOFTMAX:
        return replace(i, fields=i.fields | {"masked": int(not i["causal"])})
    tokens, source = rng.randint(1, 30), rng.randrange(800)
    more = {"tokens": tokens} | ({"src_addr": source} if i.op != Op.EMBED else {"dst_addr": source})
    return replace(
        i,
        fields=i.fields | more | ({"dst_addr": source, "dst_stride": i["src_stride"]} if i.op == Op.LAYERNORM else {}),
    )


def mixes(seed: int, count: int, crowds: Sequence[Crowd] = CROWDS) -> list[Program]:
    """Instructions of all units that have nothing to do with each other but that they want the same memory."""
    rng, result = random.Random(seed), []
    for number in range(count):
        crowd = crowds[number % len(crowds)]
        chosen = [short(Unit.STORE)]
        for i in executed(lambda crowd=crowd: _crowding(rng, crowd), 30):
            alike = sum(UNIT_OF[i.op] == UNIT_OF[each.op] for each in chosen)
            if alike < 6 and not any(_conflict(i, each) for each in chosen):
                chosen.append(i)
        result.append(finished(chosen))
    return result


@dataclass(frozen=True)
class Programs:
    """Programs, each from memories as they are filled with ``contents``. Without a mutant the machine must agree."""

    name: str
    programs: Sequence[Program]
    contents: Sequence[int] | None = None
    memory: MemoryModel = MemoryModel(latency=3)

    def __call__(self, library: Path, seen: Seen) -> None:
        with Simulator(HW, library, external(self.contents), self.memory) as simulator:
            watched, fill = Watched(simulator, seen, "all memories filled"), refusals.fill(HW)
            put(simulator.memory, 0, fill)
            watched.call(0, len(fill))
            kept = simulator.save(), bytes(simulator.memory)
            for program in self.programs:
                simulator.restore(kept[0])
                simulator.memory[:] = kept[1]
                put(simulator.memory, 0, program)
                watched.what = " ".join(dict.fromkeys(i.op.name for i in program))
                index = sum(UNIT_OF.get(i.op) == Unit.STORE for i in program) - 1
                probes = [replace(probe, index=index) for probe in all_memories(Unit.STORE)]
                run = watched.call(0, len(program), probes)
                if seen.expected is None:
                    self._compare(program, simulator.memory, zip(probes, run.raw, strict=True))

    def _compare(self, program: Program, memory: bytearray, found: Iterable[tuple[Probe, bytes]]) -> None:
        machine = filled(self.contents)
        put(machine.dram, 0, program)
        machine.run(program)
        wrong = [probe.tensor for probe, raw in found if raw != machine.raw(probe.region)]
        wrong += ["external memory"] if machine.dram != memory else []
        if wrong:
            raise CheckError(f"{self.name}: machine and core must agree, not differ in {', '.join(wrong)}: {program}")


def far_scores(seed: int, count: int) -> list[Program]:
    """SOFTMAX of scores that are far apart: two GEMMs write them with other sums to begin with."""
    rng, result = random.Random(seed), []
    for _ in range(count):
        top = rng.choice([_HIGHEST - 400, 1 << 22, rng.randint(0, _HIGHEST - 400)])
        bottom = rng.choice([_LOWEST + 400, top - (1 << 23) + rng.randrange(300), rng.randint(_LOWEST + 400, top)])
        one = {
            "row_planes": 1,
            "col_planes": 1,
            "chunks": 1,
            "row_tiles": 1,
            "col_tiles": 1,
            "tokens": 2,
            "row_kbuf": 1,
        }
        one |= {"epilogue": Epilogue.SCORES, "row_addr": rng.randrange(500), "col_addr": rng.randrange(500)}
        gemms = [
            Instruction(Op.GEMM, one | {"acc_init": init, "dst_addr": word}) for word, init in enumerate([top, bottom])
        ]
        gemms[1] = replace(gemms[1], signal=frozenset({Unit.VECTOR}))
        fields = {
            "queries": 2,
            "keys": rng.randint(5, 8),
            "granules": 2,
            "dst_addr": refusals.CODES,
            "dst_plane": refusals.PLANE,
        }
        fields |= {
            "power": rng.randrange(2),
            "mul": rng.randrange(1 << 16),
            "shift": rng.randrange(20, 40),
            "kind": Kind.UINT8,
        }
        fields |= {"recip": rng.randrange(1 << 40)}
        result.append(finished([*gemms, Instruction(Op.SOFTMAX, fields, frozenset({Unit.EXECUTE}))]))
    return result


def far_errors(library: Path, seen: Seen) -> None:
    """Programs all over 4 GB that every unit refuses, or that wait for a token that never comes."""
    rng, size = random.Random(1), 1 << HW.axi_addr_bits
    with mmap.mmap(-1, size) as memory, Simulator(HW, library, memory, MemoryModel(latency=2), seed=0) as simulator:  # type: ignore[arg-type]
        watched = Watched(simulator, seen, "errors far away", [])

        def run(place: int, instruction: Instruction) -> None:
            put(memory, place, [instruction, refusals.END])  # type: ignore[arg-type]
            try:
                watched.call(place, 2)
            except CoreError:
                pass

        for bit in range(4, 29):  # rows that ids lead to
            ids = [1 << bit | rng.randrange(1 << bit) for _ in range(4)]
            memory[0x8000:0x8010] = b"".join(each.to_bytes(4, "little") for each in ids)
            for each in ids:
                memory[0x10000 + 8 * each : 0x10008 + 8 * each] = rng.randbytes(8)
            picks = {"mem": Mem.RBUF, "inner": 1, "outer": 4, "stride": 8, "dram": 0x10000, "indirect": 1}
            loads = [Instruction(Op.LOAD, {"mem": Mem.IDBUF, "inner": 4, "outer": 1, "dram": 0x8000})]
            loads += [Instruction(Op.LOAD, picks, frozenset({Unit.LOAD}), frozenset({Unit.STORE}))]
            store = Instruction(
                Op.STORE, {"mem": Mem.RBUF, "inner": 4, "outer": 1, "dram": 0x9000}, frozenset({Unit.LOAD})
            )
            put(memory, 0, [*loads, store, refusals.END])  # type: ignore[arg-type]
            watched.parts = [slice(0x9000, 0x9020)]
            watched.call(0, 4)
        watched.parts = []
        beyond = {Unit.LOAD: "addr", Unit.STORE: "addr", Unit.VECTOR: "src_addr", Unit.EXECUTE: "col_addr"}
        for unit, field in beyond.items():
            refused = short(unit)
            refused = replace(refused, fields=refused.fields | {field: 1 << 19})
            for place in (*(rng.randrange(1 << 16, size - 128) & ~63 for _ in range(12)), size - 128):
                run(place, refused)
            for place in (0x5AA5_5A80, 0xA55A_A540):
                run(place, short(unit, wait=[Unit((unit + 1) % len(Unit))]))


def _long(unit: Unit) -> Instruction:
    """Some hundred cycles of work."""
    more = {
        Unit.LOAD: {"inner": 150},
        Unit.STORE: {"inner": 150},
        Unit.VECTOR: {"words": 250, "features": 250 * HW.rows},
        Unit.EXECUTE: {"chunks": 300},
    }
    i = short(unit)
    return replace(i, fields=i.fields | more[unit])


def late_tokens(library: Path, seen: Seen) -> None:
    """Tokens that are taken after all were given, and one more that is waited for: its giver has other work first."""
    with Simulator(HW, library, external(), MemoryModel(latency=1)) as simulator:
        watched, fill = Watched(simulator, seen, "late tokens"), refusals.fill(HW)
        put(simulator.memory, 0, fill)
        watched.call(0, len(fill))
        for giver in Unit:
            for taker in Unit:
                if giver == taker:
                    continue
                give, take = short(giver, signal=[taker]), short(taker, wait=[giver])
                for count in (1, 2, 3, 5, 66, 130):
                    first, then = ([_long(unit)] * 3 for unit in (taker, giver))
                    program = [*first, *[give] * count, *[take] * (count + 1), *then, give, refusals.END]
                    put(simulator.memory, 0x1000, program)
                    watched.call(0x1000, len(program))


def _each_bit() -> tuple[Instruction, ...]:
    """Codes of several words and rows to every destination, and each bit inverted of address, stride and key."""
    rng, result = random.Random(7), []
    codes = {"thresholds": 2, "base": -1, "dirs": 3, "tokens": 9, "col_tiles": 5, "row_tiles": 6, "row_stride": 1}
    codes |= {"row_planes": 1, "col_planes": 1, "chunks": 1, "row_kbuf": 1, "dst_stride": 3, "dst_plane": 30}
    rows = {"tokens": 5, "words": 5, "features": 19, "src_stride": 5, "dst_stride": 2, "dst_plane": 30}
    softmax = {
        "queries": 5,
        "keys": 9,
        "granules": 5,
        "src_stride": 5,
        "dst_stride": 2,
        "dst_plane": 30,
        "kind": Kind.UINT8,
    }
    bases = [Instruction(Op.QUANT, rows), Instruction(Op.QUANT, rows | {"kind": Kind.INT8, "mul": 9})]
    bases += [Instruction(Op.SOFTMAX, softmax), Instruction(Op.SOFTMAX, softmax | {"masked": 1, "c1": 9, "c2": 20})]
    for kind, epilogue in ((Kind.TERNARY, Epilogue.CODES), (Kind.INT8, Epilogue.CODES8)):
        bases += [
            Instruction(Op.GEMM, codes | {"epilogue": epilogue, "kind": kind, "dest": dest, "key": 2}) for dest in Dest
        ]
    for i in bases:
        for name, width in FIELDS[i.op]:
            if name in ("dst_addr", "dst_stride", "key"):
                for bit in range(width):
                    result.append(replace(i, fields=i.fields | {name: i[name] ^ 1 << bit}))
    rng.shuffle(result)
    return tuple(i for i in result if broken_rule(HW, i) or refusals.quick(i))


def backlog(library: Path, seen: Seen) -> None:
    """Many transfers of all sizes one after the other, so that all that a unit holds is full."""
    rng = random.Random(1)
    with Simulator(HW, library, external(), MemoryModel(latency=30, stall_seed=1)) as simulator:
        watched, fill = Watched(simulator, seen, "many transfers"), refusals.fill(HW)
        put(simulator.memory, 0, fill)
        watched.call(0, len(fill))
        for op in (Op.STORE, Op.LOAD) * 12:
            program, at = [], 0x4000
            for _ in range(16):
                outer, inner = rng.choice([(1, 1), (1, 2), (1, 30), (2, 1), (300, 1), (70, 2), (3, 9)])
                fields = {"mem": Mem.RBUF, "inner": inner, "outer": outer, "addr": rng.randrange(100), "dram": at}
                program.append(Instruction(op, fields | {"stride": 8 * inner}))
                at += 8 * inner * outer
            put(simulator.memory, 0x1000, [*program, refusals.END])
            watched.call(0x1000, len(program) + 1)


def held_answers(library: Path, seen: Seen) -> None:
    """Registers whose answers the host takes late."""
    with Simulator(HW, library, external(), MemoryModel()) as simulator:
        for value in (0xFFFF_FFFF, 0x5A3C_A5C3, 0xA5C3_5A3C):
            for offset in (isa.REG_PROGRAM, isa.REG_PROGRAM_HI):
                simulator.write(offset, value)
            for offset in (isa.REG_ID, isa.REG_PROGRAM, isa.REG_PROGRAM_HI, isa.REG_COUNTERS, 0xFFC):
                port = HostCycle(araddr=offset, arvalid=1)
                for cycle in range(12):
                    port.rready = cycle > 9
                    simulator.host_cycle(port)
                    port.arvalid &= 1 - port.arready
                    seen("held answers", port.rvalid and (port.rresp, port.rdata))


def _fixed(rng: random.Random, op: Op, **fields: int) -> Instruction:
    i = rich(rng, op)
    return replace(i, fields=i.fields | fields)


def more() -> list[Step]:
    rng = random.Random(4)
    compute = [op for op in refusals.LEGAL if op not in (Op.LOAD, Op.STORE)]
    result: list[Step] = [
        Programs("the largest sizes", [picked(), *(finished([i]) for i in largest())]),
        Instructions("endless transfers", endless()),
        Programs("all units at once", mixes(1, 60)),
        Programs("all units at once, with pauses", mixes(2, 60), memory=MemoryModel(latency=1, stall_seed=5)),
        Programs("codes of all units at once", mixes(3, 40, [(Mem.ABUF, (Epilogue.CODES,), (Op.QUANT,))])),
        Programs("scores far apart", far_scores(1, 30)),
        backlog,
        late_tokens,
        far_errors,
        held_answers,
        Instructions("each bit of places", _each_bit()),
    ]
    for name, contents in (("any", None), ("extreme", EXTREMES), ("small", SMALL)):
        work = executed(lambda: rich(rng, rng.choice([*compute, Op.GEMM])), 300, contents)
        result.append(Programs(f"every operation, {name} words", [finished([i]) for i in work], contents))
    norms = executed(lambda: rich(rng, Op.LAYERNORM), 200, BYTES)
    result.append(Programs("normalised bytes", [finished([i]) for i in norms], BYTES))
    top = {
        "epilogue": Epilogue.TOP,
        "tokens": HW.beams,
        "col_tiles": 1,
        "row_tiles": 6,
        "last": 1,
        "lut": 0,
        "index": 5,
    }
    tops = executed(lambda: _fixed(rng, Op.GEMM, **top, features=rng.randrange(12, 40), shift=rng.randrange(16)), 60)
    masked = executed(lambda: _fixed(rng, Op.SOFTMAX, masked=1, causal=0), 150)
    store = Instruction(Op.STORE, {"mem": Mem.PBUF, "inner": 100, "outer": 1, "dram": 0xA000})
    result.append(
        Programs("lists and masks", [*(finished([i]) for i in tops), *(finished([store, i]) for i in masked)])
    )
    return result
