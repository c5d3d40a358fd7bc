"""Compare every tensor that a simulated run wrote with the integer reference, bit for bit."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

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

Reference = list[dict[str, Tensor | tuple[Tensor, ...]]]


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


def _written(values: dict) -> dict:
    """Tensors that a call writes, by node name."""
    return {
        node.op.label: value
        for node, value in values.items()
        if node.op.label is not None and node.op.opname not in _NOT_WRITTEN
    }


def reference(
    lowered: Lowered, source: Given, fed: Sequence[int] | Sequence[Fed], lengths: Sequence[int] = ()
) -> Reference:
    """Tensors by node name for each call of a program: prefill on ``source``, then decode on one token of ``fed`` at a time, or on the
    beams of a trace. ``lengths``: of the texts, where ``source`` is that of several."""
    model = shape(lowered)
    prefill = Interpreter(model.prefill.graph, lowered.weights)
    given = model.prefill.given(source, lengths=lengths)
    parts = {name: value.split(list(lengths) or len(value)) for name, value in given.items()}
    encoded = [prefill({name: part[text] for name, part in parts.items()}) for text in range(len(lengths) or 1)]
    each = [outputs(model.prefill.graph, values) for values in encoded]
    gave, caches = {name: torch.cat([own[name] for own in each]) for name in each[0]}, {}
    result = [_written(values) for values in encoded]
    if model.decode is None:
        return result
    decode = Interpreter(model.decode.graph, lowered.weights)
    trace = [step for step in fed if not isinstance(step, int)]
    for past, step in enumerate(fed):
        if isinstance(step, int):
            values = decode({IDS: torch.tensor([step]), **gave}, past, caches)
        else:
            tokens, _ = step
            values = decode(
                {IDS: torch.tensor(tokens), **gave},
                past,
                caches,
                mask=visible(trace[: past + 1]),
                sources=_sources(len(tokens), lengths),
                top=top_tokens(len(tokens)),
            )
        result.append(_written(values))
    return result


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
    expected = reference(lowered, source, fed_tokens(program, start, result), program.source_lens)
    verdict = compare(program, expected, result.calls)
    if verdict.bit_exact:
        _check_read(program, lowered, expected, result)
    return verdict


def _check_read(program: Program, lowered: Lowered, expected: Reference, result: RunResult) -> None:
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


def compare(program: Program, expected: Reference, calls: Sequence[CallRun]) -> Check:
    """Compare the probes of ``calls`` (program call i at index i) with ``expected``."""
    values = mismatches = complete = 0
    first, partial = None, []
    for number, call in enumerate(calls):
        probes = program.probes_of_call[number]
        tensors = expected[number]
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
