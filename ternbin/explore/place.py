"""One configuration for one model: which hardware, mapped and counted."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from ternbin.contract.hw import REFERENCE_BITS, HwConfig, ReferenceConfig
from ternbin.contract.memories import made_of
from ternbin.contract.program import Program
from ternbin.counting.cycles import predict_calls
from ternbin.counting.external import MemoryModel
from ternbin.counting.phases import Phase, phase_calls, predicted_phase
from ternbin.energy.lines import Line, Precision, value_pj
from ternbin.energy.model import account
from ternbin.errors import InputError
from ternbin.explore.quality import Score
from ternbin.graph.ir import Lowered, Node
from ternbin.graph.ops.codes import Quant
from ternbin.graph.ops.linear import Product
from ternbin.graph.ops.registry import typed
from ternbin.graph.shape import shape
from ternbin.mapping.mapper import map_model
from ternbin.models.task.paper import Parameters

MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A precision: bits of weights and activations, and the model that is lowered for it."""

    name: str
    weight_bits: int
    act_bits: int
    model: str
    reference: str = ""


CASES = (
    Case("FP32", 32, 32, "2-2", "fp32"),
    Case("BF16", 16, 16, "2-2", "bf16"),
    Case("W8A16", 8, 16, "2-2", "w8a16"),
    Case("W4A16", 4, 16, "2-2", "w4a16"),
    Case("FP8", 8, 8, "2-2", "fp8"),
    Case("INT8", 8, 8, "2-2", "int8"),
    Case("W4A8", 4, 8, "2-2", "w4a8"),
    Case("W2A8", 2, 8, "2-8"),
    Case("W1A8", 1, 8, "1-8"),
    Case("W2A2", 2, 2, "2-2"),
    Case("W1A1", 1, 1, "1-1"),
)


@dataclass(frozen=True)
class Subject:
    """What is audited: a model by its bits, on ``hw``, ``source_len`` tokens in and ``new_tokens`` out. ``lengths`` and ``capacities``
    (times those of ``hw``) are the values of the break-even curves, ``parameters`` the paper's count, ``scores`` what is known of its
    quality, ``others`` models of the same task in other shapes, at the precisions that they are scored at."""

    name: str
    model: Callable[[str], Lowered]
    hw: HwConfig
    source_len: int
    new_tokens: int
    lengths: tuple[int, ...]
    capacities: tuple[float, ...]
    parameters: Parameters
    memory: MemoryModel = MemoryModel()
    scores: tuple[Score, ...] = ()
    others: tuple["Subject", ...] = ()


@dataclass(frozen=True)
class Mapped:
    """A case on a configuration: its program and what that does. ``slices``: of the hidden layer of each FFN, one after the other.
    ``known``: phases of the program by cycles of a step and number, also of what is made of it with ``dataclasses.replace``."""

    case: Case
    hw: HwConfig
    program: Program
    lowered: Lowered
    memory: MemoryModel
    slices: int = 1
    known: dict[tuple[float, int], Phase] = field(
        default_factory=dict[tuple[float, int], Phase], repr=False, compare=False
    )

    def phase(self, number: int) -> Phase:
        """What the program does in prefill (0) or decoding (1), counted from its instructions and timed by the cycle model, once."""
        key = self.hw.step_cycles, number
        if key not in self.known:
            phase = self._of(phase_calls(self.program, len(self.program.calls))[number])
            self.known[key] = phase if number else self._with_partial_sums(phase)
        return self.known[key]

    def _of(self, calls: range) -> Phase:
        return predicted_phase(self.program, self.lowered, calls, predict_calls(self.program, self.memory, calls))

    @property
    def phases(self) -> list[Phase]:
        return [self.phase(number) for number, _ in enumerate(phase_calls(self.program, len(self.program.calls)))]

    def _with_partial_sums(self, phase: Phase) -> Phase:
        """Sums of 32 bits wait in RBUF between the slices of an FFN: each is read and written once for every slice but one."""
        if self.slices == 1:
            return phase
        graph, weights = shape(self.lowered).prefill.graph, self.lowered.weights
        shapes = [weights[node.op.weight].shape for node in graph.nodes() if isinstance(node.op, Product)]
        sums = phase.tokens * sum(rows for rows, columns in shapes if columns > rows)
        words = (self.slices - 1) * sums * 32 // self.hw.res_word_bits
        more = {name: phase.counters[name] + words for name in ("rbuf_reads", "rbuf_writes")}
        return replace(phase, counters=phase.counters | more)

    @cached_property
    def last(self) -> Phase:
        """Of the phases the last call alone: a token, however many came before."""
        count = len(self.program.calls)
        return self._of(range(count - 1, count))

    def lines(self, phase: Phase, dram: str) -> list[Line]:
        return account(phase.counters, phase.traffic, self.hw, weight_bits=min(self.case.weight_bits, 2), dram=dram)

    def system_pj(self, dram: str) -> float:
        return sum(value_pj(self.lines(phase, dram)) for phase in self.phases)


def whole_codes(lowered: Lowered) -> Lowered:
    """The model as reference arrays run it: no bit planes, and one operand tensor for all that read a hidden state."""
    table = dict(lowered.weights)

    def visit(node: Node, src: tuple[Node, ...]) -> Node:
        op = node.op
        if isinstance(op, Quant):
            op = Quant(name=f"{src[0].name}.operand", kind="ternary", thresholds=(0, 1), mul=0, shift=0)
        return typed(table, op, *src)

    return replace(lowered, stacks=tuple(graph.rebuild(visit) for graph in lowered.stacks), weights=table)


def with_code_bits(hw: HwConfig, weights: float, codes: float) -> dict[str, int]:
    """Words of the code memories of the same capacity in bits when a weight and another code take so many times as many."""
    factors = {"wbuf": weights, "abuf": codes, "kbuf": codes}
    return {f"{name}_words": int(getattr(hw, f"{name}_words") / factor) for name, factor in factors.items()}


def reference_config(hw: HwConfig, kind: str) -> ReferenceConfig:
    weight_bits, act_bits = REFERENCE_BITS[kind]
    room = with_code_bits(hw, weight_bits / hw.weight_planes, act_bits / hw.planes)
    values: dict[str, Any] = hw.asdict() | {"kind": kind, "weight_pack": "2bit"} | room
    return ReferenceConfig(**values)


def candidates(case: Case, hw: HwConfig) -> list[HwConfig]:
    """Configurations on which ``case`` might do best, all with the room and the peak of the ternary ``hw``."""
    if case.reference:
        return [reference_config(hw, case.reference)]
    if case.weight_bits == 2:
        kinds = ("ternary", "ternary8") if case.act_bits == 8 else ("ternary",)
        return [replace(hw, kind=kind, weight_pack=pack) for kind in kinds for pack in ("2bit", "5trit")]
    whole = [replace(hw, kind="ternary8", weight_pack="2bit")] if case.act_bits == 8 else []
    return [
        replace(hw, weight_pack="2bit"),
        *whole,
        replace(hw, kind="binary", weight_pack="2bit", **with_code_bits(hw, 1 / hw.planes, 1 / hw.planes)),
    ]


def place(subject: Subject, case: Case, hw: HwConfig, *, sizes: bool = True) -> Mapped:
    """``case`` on ``hw``, keys and values of decoding in external memory if they do not fit. Raises InputError where it cannot run, with
    ``sizes`` that would do."""
    lowered = subject.model(case.model)
    lowered = whole_codes(lowered) if case.reference else lowered
    given = subject.source_len, subject.new_tokens
    program = map_model(lowered, hw, *given, anywhere=True, contents=False, sizes=sizes)
    return Mapped(case, program.hw, program, lowered, subject.memory)


def best(subject: Subject, case: Case, dram: str) -> Mapped:
    """The candidate that needs the least energy in all. Raises InputError where none can run."""
    found: list[Mapped] = []
    reasons: list[str] = []
    for hw in candidates(case, subject.hw):
        try:
            found.append(place(subject, case, hw))
        except InputError as error:
            reasons.append(str(error))
    if not found:
        raise InputError(f"{subject.name} {case.name}: {reasons[0]}")
    return min(found, key=lambda mapped: mapped.system_pj(dram))


def levels(mapped: Mapped, phase: Phase) -> dict[str, float]:
    """Bits moved by where: external memory by what they carry, each memory read and written, operand registers."""
    hw, counters = mapped.hw, phase.counters
    bits: dict[str, float] = {f"external {name}": 8 * size for name, size in asdict(phase.traffic).items()}
    bits["external program"] = counters["axi_fetch_beats"] * hw.axi_data_bits  # beats past its end come too
    for name, memory in made_of(hw).items():
        bits |= {f"{name} {kind}": counters.get(f"{name}_{kind}", 0) * memory.bits for kind in ("reads", "writes")}
    precision = Precision.of(hw)
    steps, columns = counters["execute_array_active"], counters["execute_array_columns"]
    bits["operand registers"] = hw.lanes * (steps * hw.rows * precision.weight_bits + columns * precision.column_bits)
    return bits
