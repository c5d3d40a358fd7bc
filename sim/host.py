"""The driver of a run."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial

from ternbin.contract.program import Program
from ternbin.counting.runs import CallRun
from ternbin.decoding.beam import visible
from ternbin.decoding.lists import candidates
from ternbin.decoding.rules import Candidates
from ternbin.decoding.search import Fed
from ternbin.sim.check import Comparison
from ternbin.sim.simulator import Simulator


class Host:
    """The driver's part of a run: puts ids in place, starts calls, reads tokens.

    ``calls``: the runs of the calls done so far, also those of an earlier process, which are not done again. ``trace``: what the steps of
    a beam search fed. ``progress(call, cycles, instructions done)`` hears of a call while it runs and when it is done, ``after_call()``
    when the state of the run is complete again. Not ``probing``: probes of the program are not copied. ``comparison`` hears of all calls.
    """

    def __init__(
        self,
        program: Program,
        simulator: Simulator,
        progress: Callable[[int, int, int], None] | None,
        probing: bool,
        after_call: Callable[[], None],
        comparison: Comparison | None = None,
    ):
        self.program, self.simulator, self.progress, self.probing = program, simulator, progress, probing
        self.after_call, self.comparison = after_call, comparison
        self.calls: list[CallRun] = []
        self.trace: list[Fed] = []

    @cached_property
    def _id_bytes(self) -> int:
        return min(4, self.program.hw.axi_bytes)

    def call(self, number: int) -> None:
        call = self.program.calls[number]
        probes = self.program.probes_of_call[number] if self.probing else ()
        report = None if self.progress is None else partial(self.progress, number)
        where = self.program.title(number)
        self.calls.append(self.simulator.call(call.address, call.count, probes, where=where, progress=report))
        self.finished(number)
        self.after_call()

    def finished(self, number: int) -> None:
        if self.comparison is not None:
            self.comparison.done(self.calls[number])
        if self.progress is not None:
            self.progress(number, self.calls[number].cycles, self.program.calls[number].count)

    def step(self, tokens: Sequence[int], past: int) -> int:
        """Decoder calls for tokens at positions ``past ..``, but those done before; returns what follows the last one."""
        memory = self.simulator.memory
        for position, token in enumerate(tokens, start=past):
            self._feed(token)
            if 1 + position >= len(self.calls):
                self.program.put_id(memory, self.program.slot_addr(position), token)
                self.call(1 + position)
        address = self.program.slot_addr(past + len(tokens))
        return int.from_bytes(memory[address : address + self._id_bytes], "little")

    def beam_step(self, tokens: Sequence[int], parents: Sequence[int], position: int) -> list[Candidates]:
        """The decoder call at ``position``, unless it was done before; the best tokens of every beam."""
        memory = self.simulator.memory
        self.trace.append((tuple(tokens), tuple(parents)))
        self._feed(self.trace[-1])
        number = self.program.encoders + position
        if number >= len(self.calls):
            self.program.put_beams(memory, position, tokens, visible(self.trace))
            self.call(number)
        return candidates(self.program.read_top(memory, position), self.program.info["logit_scale_log2"])

    def _feed(self, step: int | Fed) -> None:
        if self.comparison is not None:
            self.comparison.fed(step)
