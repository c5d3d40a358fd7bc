"""Compare every tensor that a simulated run wrote with the integer reference, bit for bit."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ternbin.contract.hw import top_tokens
from ternbin.contract.isa import Unit
from ternbin.contract.program import Probe, Program, decode_probe, expected_part
from ternbin.counting.runs import CallRun, RunResult
from ternbin.decoding.beam import visible
from ternbin.decoding.search import Fed
from ternbin.errors import CheckError
from ternbin.graph.given import IDS, Given
from ternbin.graph.ir import HEAD, Lowered
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.graph.shape import shape

Tensors = dict[str, Tensor | tuple[Tensor, ...]]  # of a call, by node name
Item = TypeVar("Item")


@dataclass(frozen=True)
class Divergence:
    """The first difference: program call, tensor (node of the call's graph), index in it, both values, and the instruction."""

    call: int
    op: str
    index: tuple[int, ...]
    expected: int
    actual: int
    unit: str
    instruction: int

    def __str__(self) -> str:
        return (
            f"call {self.call}, {self.op}{list(self.index)}: expected {self.expected}, not {self.actual} "
            f"({self.unit} instruction {self.instruction})"
        )


@dataclass(frozen=True)
class Check:
    """``tensors_checked`` counts tensors (of each call) of which every element was compared; ``partial`` names those of which
    only a part was, or nothing, as (call, tensor). ``mismatches`` counts values."""

    tensors_checked: int
    values_checked: int
    mismatches: int
    first_divergence: Divergence | None
    partial: tuple[tuple[int, str], ...]

    @property
    def bit_exact(self) -> bool:
        return self.mismatches == 0 and self.tensors_checked > 0

    def asdict(self) -> dict:
        """The fields of result.json."""
        first = None if self.first_divergence is None else asdict(self.first_divergence)
        return {
            "bit_exact": self.bit_exact,
            "tensors_checked": self.tensors_checked,
            "values_checked": self.values_checked,
            "mismatches": self.mismatches,
            "first_divergence": first,
        }


_NOT_WRITTEN = ("input", "output", "cache")  # other names for what another op wrote, or an earlier call


def _written(values: dict) -> Tensors:
    """Tensors that a call writes."""
    return {
        node.op.label: value
        for node, value in values.items()
        if node.op.label is not None and node.op.opname not in _NOT_WRITTEN
    }


def reference(
    lowered: Lowered, source: Given, fed: Iterable[int | Fed], lengths: Sequence[int] = ()
) -> Iterator[Tensors]:
    """Tensors of each call of a program, one call after the other: prefill on ``source``, then decode on one token of ``fed`` at a time,
    or on the beams of a step. ``lengths``: of the texts, where ``source`` is that of several."""
    model = shape(lowered)
    prefill = Interpreter(model.prefill.graph, lowered.weights)
    given = model.prefill.given(source, lengths=lengths)
    parts = {name: value.split(list(lengths) or len(value)) for name, value in given.items()}
    each: list[dict[str, Tensor]] = []
    for text in range(len(lengths) or 1):
        values = prefill({name: part[text] for name, part in parts.items()})
        each.append(outputs(model.prefill.graph, values))
        yield _written(values)
    if model.decode is None:
        return
    gave, caches = {name: torch.cat([own[name] for own in each]) for name in each[0]}, {}
    decode = Interpreter(model.decode.graph, lowered.weights)
    trace: list[Fed] = []
    for past, step in enumerate(fed):
        if isinstance(step, int):
            values = decode({IDS: torch.tensor([step]), **gave}, past, caches)
        else:
            tokens, _ = step
            trace.append(step)
            values = decode(
                {IDS: torch.tensor(tokens), **gave},
                past,
                caches,
                mask=visible(trace),
                sources=_sources(len(tokens), lengths),
                top=top_tokens(len(tokens)),
            )
        yield _written(values)


def _sources(beams: int, lengths: Sequence[int]) -> Tensor | None:
    """Which source tokens of several texts each of the beams of all sees, bool ``[beams, tokens]``."""
    if len(lengths) < 2:
        return None
    text = torch.arange(len(lengths))
    return text.repeat_interleave(beams // len(lengths))[:, None] == text.repeat_interleave(torch.tensor(lengths))


def fed_tokens(program: Program, start: int | None, result: RunResult) -> list[int] | list[Fed]:
    """What each decode call of a run read, given the start token; nothing where the model does not generate."""
    if start is None:
        return []
    if result.found:
        return result.trace
    return [start, *result.tokens][: len(result.calls) - program.encoders]


def check(program: Program, lowered: Lowered, source: Given, start: int | None, result: RunResult) -> Check:
    """Compare all probes of a run with the reference, which is fed the very tokens that the run used.

    ``start``: the start token, None for a model that does not generate. The reference recomputes everything from ``source`` and those
    tokens, so one wrong value shows up at the instruction that wrote it first. Raises CheckError where the host did not read what the
    core wrote.
    """
    expected = list(reference(lowered, source, fed_tokens(program, start, result), program.source_lens))
    verdict = compare(program, expected, result.calls)
    if verdict.bit_exact:
        _check_read(program, lowered, expected, result)
    return verdict


class Comparison:
    """What :func:`check` does, beside a run and in a thread of its own. Use as a context manager around the run.

    ``fed`` is told what each decoder call is given, ``done`` of each call when it is over; then ``verdict`` has the result. The simulation
    needs one core, and Python not at all while a call lasts.
    """

    def __init__(self, program: Program, lowered: Lowered, source: Given):
        self._program, self._lowered = program, lowered
        self._fed: SimpleQueue[int | Fed | None] = SimpleQueue()
        self._calls: SimpleQueue[CallRun | None] = SimpleQueue()
        self._expected: list[Tensors] = []
        self._left = False
        self._pool = ThreadPoolExecutor(1)
        self._compared = self._pool.submit(self._compare, source)

    def __enter__(self) -> "Comparison":
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True  # whatever was not compared is not wanted any more
        self._end()
        self._pool.shutdown()

    def fed(self, step: int | Fed) -> None:
        self._fed.put(step)

    def done(self, call: CallRun) -> None:
        self._calls.put(call)

    def verdict(self, result: RunResult) -> Check:
        """Of the whole run. Raises CheckError as :func:`check` does."""
        self._end()
        verdict = self._compared.result()
        if verdict.bit_exact:
            _check_read(self._program, self._lowered, self._expected, result)
        return verdict

    def _end(self) -> None:
        self._fed.put(None)
        self._calls.put(None)

    def _compare(self, source: Given) -> Check:
        return compare(self._program, self._reference(source), self._items(self._calls))

    def _reference(self, source: Given) -> Iterator[Tensors]:
        for tensors in reference(self._lowered, source, self._items(self._fed), self._program.source_lens):
            self._expected.append(tensors)
            yield tensors

    def _items(self, queue: SimpleQueue[Item | None]) -> Iterator[Item]:
        while (item := queue.get()) is not None and not self._left:
            yield item


def _check_read(program: Program, lowered: Lowered, expected: Sequence[Tensors], result: RunResult) -> None:
    """What the host finds in external memory must be what the reference has."""
    for port, node in zip(program.outputs, shape(lowered).prefill.streams, strict=True):
        found = np.split(program.read(result.memory, port), np.cumsum(program.lengths)[:-1])
        for text, own in enumerate(found):
            if not np.array_equal(own, np.asarray(expected[text][node.src[0].name])):
                raise CheckError(f"{port.name} of text {text + 1}: rows in external memory must be those on chip")
    for position in range(len(result.trace)):
        best = expected[program.encoders + position][HEAD]
        top = torch.from_numpy(program.read_top(result.memory, position))
        if not (isinstance(best, Tensor) and torch.equal(top, best)):
            raise CheckError(f"decoder position {position}: the best tokens in external memory must be those on chip")


def compare(program: Program, expected: Iterable[Tensors], calls: Iterable[CallRun]) -> Check:
    """Compare the probes of ``calls``, which are the program's first ones, with ``expected``."""
    values = mismatches = complete = 0
    first, partial = None, []
    for number, (tensors, call) in enumerate(zip(expected, calls, strict=True)):
        probes = program.probes_of_call[number]
        seen = {name: np.zeros(_shape(value), dtype=bool) for name, value in tensors.items()}
        done = {(record.unit, record.index): record.done for record in call.records}
        differing: list[tuple[int, Divergence]] = []
        for probe, raw in zip(probes, call.raw, strict=True):
            wanted = expected_part(probe, tensors[probe.tensor])
            got = decode_probe(program.hw, probe, raw)
            wrong = wanted != got if wanted.shape == got.shape else np.ones_like(wanted, dtype=bool)
            values += wanted.size
            seen[probe.tensor][_slices(probe)] = True
            if wrong.any():
                mismatches += int(wrong.sum())
                differing.append((done[probe.unit, probe.index], _divergence(number, probe, wanted, got, wrong)))
        if differing and first is None:
            first = min(differing, key=lambda entry: entry[0])[1]
        complete += sum(bool(mask.all()) for mask in seen.values())
        partial += [(number, name) for name, mask in seen.items() if not mask.all()]
    return Check(complete, values, mismatches, first, tuple(partial))


def _shape(value: Tensor | tuple[Tensor, ...]) -> tuple[int, ...]:
    return (*value[0].shape, len(value)) if isinstance(value, tuple) else tuple(value.shape)


def _slices(probe: Probe) -> tuple[slice, ...]:
    return tuple(slice(*part) for part in probe.part)


def _divergence(call: int, probe: Probe, wanted: np.ndarray, got: np.ndarray, wrong: np.ndarray) -> Divergence:
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    index = tuple(i + start for i, (start, _) in zip(place, [*probe.part, *[(0, 0)] * len(place)], strict=False))
    actual = int(got[place]) if got.shape == wanted.shape else 0
    return Divergence(call, probe.tensor, index, int(wanted[place]), actual, Unit(probe.unit).name.lower(), probe.index)
