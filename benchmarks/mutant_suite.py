"""What mutants are run through: random instructions of tests/sim/test_refusals.py, models with several memories, registers, errors, resets.

What models compute is compared with the interpreter when it is first run, without a mutant; of the random instructions the test does that.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ternbin.contract import isa
from ternbin.contract.counters import counters
from ternbin.contract.hw import NAMED
from ternbin.contract.isa import INSTRUCTION_BYTES, UNIT_OF, ErrorCode, Instruction, Mem, Op, Unit, encode
from ternbin.contract.memories import TABLES, memories
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
from ternbin.sim.simulator import CYCLE_LIMIT, CoreError, Simulator

sys.path.append(str(Path(__file__).parents[1] / "tests" / "sim"))
import test_refusals as refusals  # noqa: E402  # pyright: ignore[reportMissingImports]  # found by the line above

# All that an accelerator can have: lists for beams, masks, packed weights.
HW = replace(NAMED["tiny"].searching(2), weight_pack="5trit")
IDS = [3, 7, 9, 11, 5]
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
    """A simulator of which everything is seen that calls do."""

    def __init__(self, simulator: Simulator, seen: Seen, what: str):
        self.simulator, self.memory, self.seen, self.what = simulator, simulator.memory, seen, what

    def call(self, address: int, count: int, probes: Sequence[Probe] = (), **_: object) -> CallRun:
        limit = self.seen.limit()
        try:
            result = self.simulator.call(address, count, probes, limit=limit)
        except CoreError as error:
            self.seen(self.what, (self.simulator.counters()["cycles"], error.code, error.address))
            raise
        digest = hashlib.sha256(repr((result.counters, result.records)).encode())
        for part in (*result.raw, self.memory):
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


def _put(memory: bytearray, address: int, program: Sequence[Instruction | int]) -> None:
    words = [each if isinstance(each, int) else encode(each) for each in program]
    data = b"".join(word.to_bytes(INSTRUCTION_BYTES, "little") for word in words)
    memory[address : address + len(data)] = data


def _memory() -> bytearray:
    """External memory as the tests of refusals begin with."""
    memory = bytearray(np.random.default_rng(1).integers(0, 256, refusals.SIZE, dtype=np.uint8).tobytes())
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
    """Random instructions, each a program of its own; after each every word of every memory is looked at."""

    chosen: tuple[Instruction, ...]

    def __call__(self, library: Path, seen: Seen) -> None:
        with Simulator(HW, library, _memory(), MemoryModel(latency=3)) as simulator:
            watched, program = Watched(simulator, seen, "all memories filled"), refusals.fill(HW)
            _put(simulator.memory, 0, program)
            watched.call(0, len(program), all_memories(UNIT_OF[program[-2].op]))
            kept = simulator.save(), bytes(simulator.memory)
            for i in self.chosen:
                _put(simulator.memory, 0, [refusals.END, i, refusals.END])
                watched.what = f"{i.op.name} alone"
                try:
                    watched.call(INSTRUCTION_BYTES, 2, all_memories(UNIT_OF[i.op]))
                except CoreError as error:
                    if error.code != ErrorCode.FIELD:
                        simulator.restore(kept[0])
                        simulator.memory[:] = kept[1]


def _instructions(count: int) -> Instructions:
    """Those whose outcome is defined."""
    chosen, machine = [], Machine(HW, _memory())
    machine.run(refusals.fill(HW))
    kept = bytes(machine.dram), {mem: value.copy() for mem, value in machine.memories.items()}
    for i in refusals.instructions(HW, 1, count):
        machine.dram[:], machine.memories = kept[0], {mem: value.copy() for mem, value in kept[1].items()}
        machine.reset_units()
        try:
            machine.execute(i)
        except Undefined:
            continue
        except MachineError:
            chosen.append(i)
            continue
        if refusals.settled(HW, i):
            chosen.append(i)
    return Instructions(tuple(chosen))


def registers(library: Path, seen: Seen) -> None:
    """Every word of the register file, what may be written, and what must not be."""
    with Simulator(HW, library, _memory(), MemoryModel()) as simulator:
        kept = (isa.REG_PROGRAM, isa.REG_PROGRAM_HI, isa.REG_CTRL, isa.REG_STATUS)
        for value in (0xFFFF_FFFD, 0xA5C3_0F82, 0x5A3C_F07E, 0, 0x0000_FFFA):  # none starts the core
            for offset in kept[:3]:
                simulator.write(offset, value & ~1 if offset == isa.REG_CTRL else value)
                for each in kept:
                    seen("registers written", simulator.read(each))
        for offset in (*range(0, isa.REG_COUNTERS + 8 * len(counters(HW)) + 16, 4), 0x801, 0xFFC):
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
    with Simulator(HW, library, _memory(), MemoryModel(latency=5, stall_seed=3)) as simulator:
        watched, program = Watched(simulator, seen, "errors"), refusals.fill(HW)
        _put(simulator.memory, 0, program)
        watched.call(0, len(program))
        for program in programs:
            _put(simulator.memory, 0x1000, program)
            _put(simulator.memory, 0x800, good)
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
    with Simulator(HW, library, _memory(), MemoryModel(latency=2)) as simulator:
        watched = Watched(simulator, seen, "far addresses")
        for bit in range(16, HW.axi_addr_bits):
            for op in (Op.LOAD, Op.STORE):
                one = Instruction(op, {"mem": Mem.RBUF, "inner": 1, "outer": 1, "dram": 1 << bit})
                _put(simulator.memory, 0, [one, refusals.END])
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
    with Simulator(HW, library, _memory(), MemoryModel(latency=4)) as simulator:
        program = refusals.fill(HW)
        _put(simulator.memory, 0, program)
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
        _put(simulator.memory, 0, [waits, refusals.END])
        try:
            Watched(simulator, seen, "deadlock").call(0, 2)
        except CoreError:
            pass


Step = Callable[[Path, Seen], None]


def suite(instructions: int) -> list[Step]:
    """The steps, those that are quick first."""
    torch.set_num_threads(1)
    many, models = _instructions(instructions), _models()
    return [registers, errors, far, Instructions(many.chosen[: instructions // 8]), *models, many, resets, deadlock]


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
