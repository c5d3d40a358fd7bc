"""What mutants are run through: random instructions of tests/sim/test_refusals.py, models with several memories, registers, errors, resets.

What models compute is compared with the interpreter when it is first run, without a mutant; of the random instructions the test does that.
"""

import hashlib
import mmap
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ternbin.contract import isa
from ternbin.contract.counters import counters
from ternbin.contract.effects.table import broken_rule
from ternbin.contract.hw import NAMED
from ternbin.contract.isa import FIELDS, INSTRUCTION_BYTES, UNIT_OF, ErrorCode, Instruction, Mem, Op, Unit, encode
from ternbin.contract.memories import TABLES, memories
from ternbin.contract.pipeline import MAX_TOKENS
from ternbin.contract.program import Probe, Program, Region, View
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import CallRun, RunResult
from ternbin.decoding.beam import together
from ternbin.decoding.greedy import greedy
from ternbin.decoding.search import Policy, Search
from ternbin.emulation.machine import Machine, MachineError, Undefined
from ternbin.errors import CheckError
from ternbin.graph.ir import Lowered
from ternbin.mapping.mapper import map_model
from ternbin.models.bart.lower import lower
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.passes import fold
from ternbin.sim.check import check
from ternbin.sim.host import Host
from ternbin.sim.simulator import CYCLE_LIMIT, CoreError, HostCycle, Simulator

sys.path.append(str(Path(__file__).parents[1] / "tests" / "sim"))
import test_refusals as refusals  # noqa: E402  # pyright: ignore[reportMissingImports]  # found by the line above

# All that an accelerator can have: lists for beams, masks, packed weights.
HW = replace(NAMED["tiny"].searching(2), weight_pack="5trit")
IDS = [3, 7, 9, 11, 5]
EXTREMES = (0x7FFF, 0x7FFF, 0x8000, 0x8000, 0x7FFE, 0x8001, 0x7F7F, 0x8080, 0xFFFF, 0, 1)  # 16-bit words
BEAMS = Search(beams=2, no_repeat_ngram_size=2)


class Killed(Exception):
    """Something is not as it is without a mutant."""


@dataclass
class Seen:
    """What a run showed, in order; given what is ``expected``, the first difference raises Killed."""

    expected: list[Any] | None = None
    values: list[Any] = field(default_factory=list)

    def __call__(self, what: str, value: Any) -> None:
        self.values.append((what, value))
        if self.expected is not None and self.expected[len(self.values) - 1 : len(self.values)] != self.values[-1:]:
            raise Killed(what)

    def limit(self) -> int:
        """Cycles that the next call may take."""
        if self.expected is None:
            return CYCLE_LIMIT
        following = self.expected[len(self.values) : len(self.values) + 1]
        return 1000 + 2 * following[0][1][0] if following and isinstance(following[0][1], tuple) else 1000


class Watched:
    """A simulator of which everything is seen that calls do. ``parts``: the bytes of external memory that are looked at."""

    def __init__(self, simulator: Simulator, seen: Seen, what: str, parts: Sequence[slice] = (slice(None),)):
        self.simulator, self.memory, self.seen, self.what = simulator, simulator.memory, seen, what
        self.parts = parts

    def call(self, address: int, count: int, probes: Sequence[Probe] = (), **_: object) -> CallRun:
        limit = self.seen.limit()
        try:
            result = self.simulator.call(address, count, probes, limit=limit)
        except CoreError as error:
            self.seen(self.what, (self.simulator.counters()["cycles"], error.code, error.address))
            raise
        digest = hashlib.sha256(repr((result.counters, result.records)).encode())
        for part in (*result.raw, *(self.memory[each] for each in self.parts)):
            digest.update(part)
        self.seen(self.what, (result.cycles, digest.hexdigest()))
        return result


@dataclass(frozen=True)
class Model:
    """A model's run. ``text``: what must come out, checked without a mutant."""

    name: str
    lowered: Lowered
    program: Program
    policy: Policy
    search: Search | None
    memory: MemoryModel

    def __call__(self, library: Path, seen: Seen) -> None:
        image = self.program.with_ids(IDS, self.policy.prompt[0])
        with Simulator(HW, library, image, self.memory, seed=0) as simulator:  # words that nothing writes are the same
            host = Host(self.program, Watched(simulator, seen, self.name), None, True, lambda: None)  # type: ignore[arg-type]
            host.call(0)
            if self.search is None:
                tokens, found = greedy(self.policy, host.step), []
            else:
                found = together(self.policy, self.search, 1, host.beam_step, self.search.beams)
                tokens = found[0].tokens
        seen(f"{self.name}: tokens", tokens)
        if seen.expected is None:
            result = RunResult(tokens, host.calls, image, 0.0, 0.0, found, host.trace)
            verdict = check(self.program, self.lowered, IDS, self.policy.prompt[0], result)
            if not verdict.bit_exact:
                raise CheckError(f"{self.name}: the reference must be equal, not {verdict.first_divergence}")


def _models() -> list[Model]:
    result = []
    for bits, new, search, memory in (
        ("2-2", 3, BEAMS, MemoryModel(latency=9, stall_seed=7)),
        ("1-8", 1, None, MemoryModel(latency=1)),
        ("2-8", 2, None, MemoryModel(latency=40, bandwidth=0.5)),
        ("1-1", 1, None, MemoryModel(latency=3, stall_seed=2)),
    ):
        lowered = fold(lower(random_quant_bart(bits)))
        program = map_model(lowered, HW, len(IDS), new, search.beams if search else 1)
        result.append(Model(f"model {bits}", lowered, program, Policy.of(lowered.meta, new), search, memory))
    return result


def put(memory: bytearray, address: int, program: Sequence[Instruction | int]) -> None:
    words = [each if isinstance(each, int) else encode(each) for each in program]
    data = b"".join(word.to_bytes(INSTRUCTION_BYTES, "little") for word in words)
    memory[address : address + len(data)] = data


def external(contents: Sequence[int] | None = None) -> bytearray:
    """External memory as the tests of refusals begin with, or of 16-bit words of ``contents``."""
    rng = np.random.default_rng(1)
    if contents is not None:
        memory = bytearray(rng.choice(contents, refusals.SIZE // 2).astype("<u2").tobytes())
    else:
        memory = bytearray(rng.integers(0, 256, refusals.SIZE, dtype=np.uint8).tobytes())
    ids = next(i["dram"] for i in refusals.fill(HW) if i["mem"] == Mem.IDBUF)
    for entry in range(refusals.SMALL_IDS):
        at = ids + entry * HW.axi_bytes
        memory[at : at + HW.axi_bytes] = (entry * 7 % 11).to_bytes(HW.axi_bytes, "little")
    return memory


def all_memories(unit: Unit) -> list[Probe]:
    """Every word of the memories that instructions address, after the first instruction of a unit."""
    return [
        Probe(0, unit, 0, mem.name, Region(mem, 0, memory.words, 0, memory.banks), View("ids", 0, 0), ())
        for mem, memory in memories(HW).items()
        if mem not in TABLES
    ]


@dataclass(frozen=True)
class Instructions:
    """Instructions, each a program of its own; after each every word of every memory is looked at."""

    name: str
    chosen: tuple[Instruction, ...]
    contents: Sequence[int] | None = None

    def __call__(self, library: Path, seen: Seen) -> None:
        with Simulator(HW, library, external(self.contents), MemoryModel(latency=3)) as simulator:
            watched, program = Watched(simulator, seen, "all memories filled"), refusals.fill(HW)
            put(simulator.memory, 0, program)
            watched.call(0, len(program), all_memories(UNIT_OF[program[-2].op]))
            kept = simulator.save(), bytes(simulator.memory)
            for i in self.chosen:
                put(simulator.memory, 0, [refusals.END, i, refusals.END])
                watched.what = f"{i.op.name} alone"
                try:
                    watched.call(INSTRUCTION_BYTES, 2, all_memories(UNIT_OF[i.op]))
                except CoreError as error:
                    if error.code != ErrorCode.FIELD:
                        simulator.restore(kept[0])
                        simulator.memory[:] = kept[1]


def tried(machine: Machine, candidates: Iterable[Instruction]) -> Iterator[tuple[Instruction, MachineError | None]]:
    """Each executed from the memories that ``machine`` has now, and what stopped it."""
    kept = bytes(machine.dram), {mem: value.copy() for mem, value in machine.memories.items()}
    for i in candidates:
        machine.dram[:], machine.memories = kept[0], {mem: value.copy() for mem, value in kept[1].items()}
        machine.reset_units()
        try:
            machine.execute(i)
        except MachineError as error:
            yield i, error
        else:
            yield i, None


def _defined(candidates: Sequence[Instruction], contents: Sequence[int] | None = None) -> tuple[Instruction, ...]:
    """Those whose outcome is defined."""
    machine = Machine(HW, external(contents))
    machine.run(refusals.fill(HW))
    return tuple(
        i
        for i, error in tried(machine, candidates)
        if not isinstance(error, Undefined) and (error is not None or refusals.settled(HW, i))
    )


def _each_bit(seed: int) -> list[Instruction]:
    """Legal instructions of all operations with one bit of one field inverted: every bit of every field."""
    rng, result = random.Random(seed), []
    for op, make in refusals.LEGAL.items():
        for name, width in FIELDS[op]:
            for bit in range(abs(width)):
                fields = {key: int(value) for key, value in make(HW, rng).items()}
                value = fields.get(name, 0) ^ 1 << bit
                if width < 0:
                    value = (value + (1 << -width - 1)) % (1 << -width) - (1 << -width - 1)
                i = Instruction(op, fields | {name: value})
                if broken_rule(HW, i) or refusals.quick(i):
                    result.append(i)
    return result


def registers(library: Path, seen: Seen) -> None:
    """Every word of the register file, what may be written, and what must not be."""
    with Simulator(HW, library, external(), MemoryModel()) as simulator:
        kept = (isa.REG_PROGRAM, isa.REG_PROGRAM_HI, isa.REG_CTRL, isa.REG_STATUS)
        for value in (0xFFFF_FFFD, 0xA5C3_0F82, 0x5A3C_F07E, 0, 0x0000_FFFA):  # none starts the core
            for offset in kept[:3]:
                simulator.write(offset, value & ~1 if offset == isa.REG_CTRL else value)
                for each in kept:
                    seen("registers written", simulator.read(each))
        between = [at + part for at in (*kept, isa.REG_COUNTERS, isa.REG_COUNTERS + 8) for part in (1, 2, 3)]
        for offset in (*range(0, isa.REG_COUNTERS + 8 * len(counters(HW)) + 16, 4), *between, 0x801, 0xFFC):
            seen("registers read", _answer(lambda at=offset: simulator.read(at)))
        for offset in (isa.REG_ID, isa.REG_ERROR, isa.REG_COUNTERS, isa.REG_PROGRAM + 1, 0x800, 0xFFC):
            seen("registers not written", _answer(lambda at=offset: simulator.write(at, 0xFFFF_FFFF)))
        for offset in kept:
            seen("registers kept", simulator.read(offset))


def _answer(access: Callable[[], object]) -> object:
    try:
        return access()
    except CheckError as error:
        return str(error)


def errors(library: Path, seen: Seen) -> None:
    """Every error, in the middle of work too; a good program after each."""
    big = {"mem": Mem.KBUF, "inner": 64, "outer": HW.rows}
    load, store = (Instruction(op, big | {"dram": at}) for op, at in ((Op.LOAD, 0x4000), (Op.STORE, 0xC000)))
    work = [load, store, load, store]
    good = [load, replace(store, wait=frozenset({Unit.LOAD})), refusals.END]
    good[0] = replace(load, signal=frozenset({Unit.STORE}))
    programs: list[list[Instruction | int]] = [
        [*work[:number], encode(load) ^ 1 << bit, refusals.END]
        for number, bit in ((0, 3), (1, 77), (2, 200), (3, 391), (4, 511), (4, 500))
    ]
    programs += [[*work, 0x7E57 << 16, refusals.END]]
    for giver in Unit:  # a token too many
        op = {Unit.LOAD: Op.LOAD, Unit.STORE: Op.STORE}.get(giver)
        if op is not None:
            taker = Unit.VECTOR
            one = Instruction(op, {"mem": Mem.RBUF, "inner": 1, "outer": 1, "dram": 0x4000}, signal=frozenset({taker}))
            programs.append([*[one] * 20, refusals.END])
    with Simulator(HW, library, external(), MemoryModel(latency=5, stall_seed=3)) as simulator:
        watched, program = Watched(simulator, seen, "errors"), refusals.fill(HW)
        put(simulator.memory, 0, program)
        watched.call(0, len(program))
        for program in programs:
            put(simulator.memory, 0x1000, program)
            put(simulator.memory, 0x800, good)
            watched.what = "errors"
            try:
                watched.call(0x1000, len(program))
            except CoreError:
                pass
            watched.what = "a good run after an error"
            watched.call(0x800, len(good), all_memories(Unit.STORE))
        for at in (1 << 30, (1 << 32) - 64, 1 << 35):
            watched.what = "program that is nowhere"
            try:
                watched.call(at, 1)
            except CoreError:
                pass


def far(library: Path, seen: Seen) -> None:
    """Reads, writes and programs at addresses where nothing answers: one for each bit of an address."""
    with Simulator(HW, library, external(), MemoryModel(latency=2)) as simulator:
        watched = Watched(simulator, seen, "far addresses")
        for bit in range(16, HW.axi_addr_bits):
            for op in (Op.LOAD, Op.STORE):
                one = Instruction(op, {"mem": Mem.RBUF, "inner": 1, "outer": 1, "dram": 1 << bit})
                put(simulator.memory, 0, [one, refusals.END])
                try:
                    watched.call(0, 2)
                except CoreError:
                    pass
            try:
                watched.call(1 << bit, 1)
            except CoreError:
                pass


def resets(library: Path, seen: Seen) -> None:
    """Reset in the middle of work, then a good run."""
    with Simulator(HW, library, external(), MemoryModel(latency=4)) as simulator:
        program = refusals.fill(HW)
        put(simulator.memory, 0, program)
        for limit in (70, 400, 1500):
            try:
                simulator.call(0, len(program), limit=limit)
            except CheckError:
                pass
            simulator.reset(2)
            for offset in (isa.REG_STATUS, isa.REG_CTRL, isa.REG_ERROR, isa.REG_PROGRAM):
                seen("registers after reset", simulator.read(offset))
        Watched(simulator, seen, "a run after resets").call(0, len(program), all_memories(UNIT_OF[program[-2].op]))


def deadlock(library: Path, seen: Seen) -> None:
    """The watchdog; last, for it takes long."""
    waits = Instruction(Op.STORE, {"mem": Mem.RBUF, "inner": 1, "outer": 1}, wait=frozenset({Unit.VECTOR}))
    with Simulator(HW, library, bytearray(1 << 14), MemoryModel()) as simulator:
        put(simulator.memory, 0, [waits, refusals.END])
        try:
            Watched(simulator, seen, "deadlock").call(0, 2)
        except CoreError:
            pass


def reach(library: Path, seen: Seen) -> None:
    """Transfers and programs all over an external memory of 4 GB: every bit of an address, a stride and a sum of them."""
    rng, size = random.Random(1), 1 << HW.axi_addr_bits
    with mmap.mmap(-1, size) as memory, Simulator(HW, library, memory, MemoryModel(latency=2), seed=0) as simulator:  # type: ignore[arg-type]
        watched = Watched(simulator, seen, "transfers far away")
        places = [(1 << bit) - 24 for bit in range(14, HW.axi_addr_bits)] + [size - 72 - 4096 * n for n in range(3)]
        for number in range(150):
            rows, words = rng.randint(1, 4), rng.randint(1, 24)
            bytes_of = words * 8
            transfers = []
            for op in (Op.LOAD, Op.STORE):
                at = rng.choice(places) if rng.random() < 0.4 else rng.randrange(0x8000, size, 4) & ~3
                room = (size - at - bytes_of) // max(1, rows - 1)
                stride = (
                    rng.choice([1 << bit for bit in range(2, 32)]) if rng.random() < 0.5 else rng.randrange(1 << 32)
                )
                stride = min(stride, max(0, room)) & ~3
                if op == Op.STORE and stride < bytes_of:
                    rows = 1
                transfers.append((at, stride))
            (source, step), (target, back) = transfers
            fields = {"mem": Mem.RBUF, "inner": words, "outer": rows, "addr": rng.randrange(900)}
            spots = [slice(source + row * step, source + row * step + bytes_of) for row in range(rows)]
            if source + (rows - 1) * step + bytes_of > size or target + (rows - 1) * back + bytes_of > size:
                continue
            for spot in spots:
                simulator.memory[spot] = rng.randbytes(bytes_of)
            load = Instruction(Op.LOAD, fields | {"dram": source, "stride": step}, signal=frozenset({Unit.STORE}))
            store = Instruction(Op.STORE, fields | {"dram": target, "stride": back}, wait=frozenset({Unit.LOAD}))
            program: list[Instruction | int] = [load, store, refusals.END]
            where = min(size - 3 * INSTRUCTION_BYTES, rng.choice([0x1000, *places]) & ~63)
            if number % 5 == 4:
                program[1] = encode(store) ^ 1 << 511  # the address of an error
            put(simulator.memory, where, program)
            watched.parts = [slice(target + row * back, target + row * back + bytes_of) for row in range(rows)]
            try:
                watched.call(where, 3, all_memories(Unit.STORE))
            except CoreError:
                pass
    with Simulator(HW, library, external(), MemoryModel(latency=2)) as simulator:
        watched = Watched(simulator, seen, "programs far away")
        for bit in range(16, 64):
            for low in (0, rng.randrange(1 << bit) & ~63):
                try:
                    watched.call(1 << bit | low, 1)
                except CoreError:
                    pass


def short(unit: Unit, wait: Sequence[Unit] = (), signal: Sequence[Unit] = ()) -> Instruction:
    """A short instruction of a unit."""
    transfer = {"mem": Mem.RBUF, "inner": 1, "outer": 1, "dram": 0x4000}
    rows = {"tokens": 1, "words": 1, "features": HW.rows, "src_stride": 1, "dst_addr": 8, "dst_stride": 1}
    gemm = {"row_planes": 1, "col_planes": 1, "chunks": 1, "row_tiles": 1, "col_tiles": 1, "tokens": 1, "row_stride": 1}
    op, fields = {
        Unit.LOAD: (Op.LOAD, transfer),
        Unit.STORE: (Op.STORE, transfer | {"dram": 0xC000}),
        Unit.VECTOR: (Op.EMBED, rows),
        Unit.EXECUTE: (Op.GEMM, gemm | {"epilogue": isa.Epilogue.SCORES, "row_kbuf": 1}),
    }[unit]
    return Instruction(op, fields, wait=frozenset(wait), signal=frozenset(signal))


def tokens(library: Path, seen: Seen) -> None:
    """Every unit gives every other tokens: a few, as many as there may be, one too many; several at once; waits for itself."""
    with Simulator(HW, library, external(), MemoryModel(latency=1)) as simulator:
        watched, fill = Watched(simulator, seen, "tokens"), refusals.fill(HW)
        put(simulator.memory, 0, fill)
        watched.call(0, len(fill))

        def run(program: list[Instruction]) -> None:
            put(simulator.memory, 0x1000, [*program, refusals.END])
            try:
                watched.call(0x1000, len(program) + 1)
            except CoreError:
                pass  # no token is left, as later runs show

        pairs = [(giver, taker) for giver in Unit for taker in Unit if giver != taker]
        for giver, taker in pairs:
            give, take = short(giver, signal=[taker]), short(taker, wait=[giver])
            for count in (1, 3, 9, 65):
                run([give] * count + [take] * count)
            run([give, take] * 9)
            run([give] * 4 + [take, give] * 6 + [take] * 4)
        for giver, taker in [*pairs, *pairs[:1]]:
            run([short(giver, signal=[taker])] * (MAX_TOKENS + 1))
        rng = random.Random(1)
        for _ in range(60):  # each token that is waited for was given before
            there, program = dict.fromkeys(pairs, 0), []
            for _ in range(rng.randint(4, 30)):
                unit = rng.choice(list(Unit))
                waits = [each for each in Unit if there.get((each, unit)) and rng.random() < 0.6]
                gives = [each for each in Unit if each != unit and rng.random() < 0.4]
                for each in waits:
                    there[each, unit] -= 1
                for each in gives:
                    there[unit, each] += 1
                waits += [unit] if rng.random() < 0.2 else []
                program.append(short(unit, waits, gives))
            run(program)


def host(library: Path, seen: Seen) -> None:
    """The register port with requests and answers at odd times, while programs run: everything it shows in every cycle."""
    rng, program = random.Random(1), refusals.fill(HW)
    reads = [*range(0, isa.REG_COUNTERS + 8 * len(counters(HW)) + 16, 4), 1, 0x802, 0xFFC]
    with Simulator(HW, library, external(), MemoryModel(latency=3)) as simulator:
        put(simulator.memory, 0, program)
        put(simulator.memory, 0x1000, [encode(program[0]) ^ 1 << 511, refusals.END])
        port = HostCycle()
        for pace in (1.0, 0.7, 0.3, 0.7):
            for number in range(6000):
                if port.awvalid and port.awready:
                    port.awvalid = 0
                if port.wvalid and port.wready:
                    port.wvalid = 0
                if port.arvalid and port.arready:
                    port.arvalid = 0
                if not port.awvalid and not port.wvalid and rng.random() < pace / 3:
                    values = {
                        isa.REG_PROGRAM: rng.choice([0, 0, 0x1000, rng.randrange(1 << 32)]),
                        isa.REG_PROGRAM_HI: rng.choice([0, 0, 0, rng.randrange(1 << 32)]),
                        isa.REG_CTRL: rng.choice([3, 7, 2, 6, 0, rng.randrange(1 << 32)]),
                        isa.REG_STATUS: rng.randrange(1 << 32),
                        rng.choice(reads): rng.randrange(1 << 32),
                    }
                    port.awaddr, port.wdata = rng.choice(list(values.items()))
                    port.wstrb = rng.choice([15, 15, 15, rng.randrange(16)])
                    port.awvalid = port.wvalid = 1
                if not port.arvalid and rng.random() < pace:
                    port.araddr = rng.choice(reads)
                    port.arvalid = 1
                port.bready, port.rready = rng.random() < pace, rng.random() < pace
                simulator.host_cycle(port)
                seen(
                    "the register port",
                    (
                        number,
                        port.awready,
                        port.wready,
                        port.arready,
                        port.bvalid and 4 + port.bresp,
                        port.rvalid and (port.rresp, port.rdata),
                        port.irq,
                    ),
                )
            simulator.reset(3)
            port = HostCycle()


Step = Callable[[Path, Seen], None]


def name(step: Step) -> str:
    return getattr(step, "name", "") or step.__name__


def suite(instructions: int) -> list[Step]:
    """The steps, those that are quick first."""
    torch.set_num_threads(1)
    many, models = _defined(refusals.instructions(HW, 1, instructions)), _models()
    return [
        registers,
        errors,
        far,
        Instructions("some instructions", many[: instructions // 8]),
        *models,
        Instructions("instructions", many),
        resets,
        deadlock,
        host,
        reach,
        Instructions("extreme words", _defined(refusals.instructions(HW, 3, 2 * instructions), EXTREMES), EXTREMES),
        Instructions("more instructions", _defined(refusals.instructions(HW, 2, 2 * instructions))),
        Instructions("every bit of every field", _defined(_each_bit(1))),
        tokens,
    ]


def outcome(step: Step, library: Path, expected: list[Any]) -> str:
    """Of a mutant: "" or what showed it."""
    try:
        step(library, Seen(expected))
    except Killed as difference:
        return str(difference)
    except (CheckError, ValueError, IndexError, KeyError) as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return ""


def learnt(step: Step, library: Path) -> list[Any]:
    """What a step shows without a mutant."""
    seen = Seen()
    step(library, seen)
    return seen.values
