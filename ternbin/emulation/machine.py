"""Functional model of the accelerator, instruction by instruction, without time.

Executes every instruction as docs/instruction-set.md says: what is legal is contract/effects' business, where values lie
contract/rows', what is computed golden's. Used to check programs without RTL, and as expected values for single instructions.
"""

import random
from collections.abc import Callable, Sequence

from ternbin.contract.effects.table import broken_rule, out_of_range
from ternbin.contract.isa import UNIT_OF, ErrorCode, Instruction, Op, Unit
from ternbin.contract.program import Program
from ternbin.emulation import gemm, transfer, vector
from ternbin.emulation.order import Tokens, program_order, random_order
from ternbin.emulation.state import MachineError, State, Undefined
from ternbin.graph.given import Given

__all__ = ["Machine", "MachineError", "Undefined", "run_call", "run_program"]

Observer = Callable[[Unit, int, Instruction], None]
_DO: dict[Op, Callable[[State, Instruction], None]] = {
    Op.LOAD: transfer.load,
    Op.STORE: transfer.store,
    Op.GEMM: gemm.gemm,
    Op.LAYERNORM: vector.layernorm,
    Op.SOFTMAX: vector.softmax,
    Op.QUANT: vector.quant,
    Op.EMBED: vector.embed,
}
_MOVES = (Op.LOAD, Op.STORE)


class Machine(State):
    """One accelerator that executes instructions."""

    def execute(self, instruction: Instruction) -> None:
        """Do one instruction; ``accesses`` then lists what it touched. Raises MachineError as the core would stop."""
        self.accesses = []
        broken = broken_rule(self.hw, instruction)
        if broken is not None:
            raise MachineError(ErrorCode.FIELD, broken)
        outside = out_of_range(self.hw, instruction)
        if outside is not None and instruction.op not in _MOVES:  # these may find worse outside
            raise MachineError(ErrorCode.ADDRESS, outside)
        if instruction.op != Op.END:
            _DO[instruction.op](self, instruction)

    def run(
        self, instructions: Sequence[Instruction], observer: Observer | None = None, rng: random.Random | None = None
    ) -> None:
        """Run a call to END, in program order, or with ``rng`` in a random order that the tokens allow.

        ``observer(unit, index within the unit, instruction)`` is called after each. Raises MachineError (TOKEN) where an
        instruction's token can never come, where a counter overflows and where tokens are left at the end.
        """
        queues = {unit: [i for i in instructions if i.op != Op.END and UNIT_OF[i.op] == unit] for unit in Unit}
        tokens, done = Tokens(), dict.fromkeys(Unit, 0)
        order = program_order(instructions) if rng is None else random_order(rng)
        while waiting := [unit for unit in Unit if done[unit] < len(queues[unit])]:
            ready = [unit for unit in waiting if tokens.there(unit, queues[unit][done[unit]].wait)]
            unit = order(ready)
            if unit is None or unit not in ready:
                late = (waiting if unit is None else [unit])[0]
                raise MachineError(ErrorCode.TOKEN, f"no token for {late.name} instruction {done[late]}")
            instruction = queues[unit][done[unit]]
            tokens.take(unit, instruction.wait)
            self.execute(instruction)
            tokens.give(unit, instruction.signal)
            done[unit] += 1
            if observer:
                observer(unit, done[unit] - 1, instruction)
        tokens.check_none_left()


def run_program(
    program: Program,
    source: Given,
    start_id: int | None = None,
    calls: int | None = None,
    on_probe: Callable | None = None,
    rng: random.Random | None = None,
) -> list[int]:
    """Run prefill of one text and ``calls`` decoder calls; the ids they produce.

    ``on_probe(probe, raw)`` is called for every probe at its instant.
    """
    machine = Machine(program.hw, program.with_ids(source, start_id))
    count = program.max_new_tokens if calls is None else calls
    for call in range(count + 1):
        run_call(machine, program, call, on_probe, rng)
    return [program.get_id(machine.dram, program.slot_addr(slot)) for slot in range(1, count + 1)]


def run_call(
    machine: Machine, program: Program, call: int, on_probe: Callable | None = None, rng: random.Random | None = None
) -> None:
    """Run one call on a machine that holds the program's image and has run the calls before."""
    instants: dict[tuple[Unit, int], list] = {}
    for probe in program.probes_of_call[call]:
        instants.setdefault((probe.unit, probe.index), []).append(probe)

    def observe(unit: Unit, index: int, instruction: Instruction) -> None:
        for probe in instants.get((unit, index), ()):
            if on_probe is not None:
                on_probe(probe, machine.raw(probe.region))

    machine.run(program.instructions(call), observe, rng)
