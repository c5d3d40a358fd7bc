"""What a result.json holds, as types: what renderers rely on. More fields may be there. docs/result-schema.md says what they mean.

``result.schema.json`` beside docs/result-schema.md is the same as JSON Schema.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from ternbin.contract.hw import MAX_BEAMS
from ternbin.formats import RESULT
from ternbin.schema import OneOf

EARLIER = ("ternbin-result/1", "ternbin-result/2")

Count = Annotated[int, Field(ge=0, le=1 << 53)]  # what a double holds exactly
Some = Annotated[int, Field(ge=1, le=1 << 53)]
Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=1e-30, le=1e30, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\w .,:/()+-]+$")]  # of an op, a unit, an event
Unit = Literal["load", "execute", "vector", "store"]
Phase = Literal["prefill", "decode"]
Scalar = int | float | str | bool | None


class Audio(TypedDict):
    file: str
    tokens: Some


class Nearness(TypedDict):
    cosine: Annotated[float, Field(ge=-1.001, le=1.001, allow_inf_nan=False)]
    largest: Amount
    same_label: NotRequired[bool]


class Nearnesses(TypedDict):
    fake_quant: Nearness
    full_precision: NotRequired[Nearness]


class Answer(TypedDict):
    kind: Literal["label", "embedding"]
    values: Annotated[list[Number], Field(min_length=1)]
    label: NotRequired[str]
    labels: NotRequired[Annotated[list[str], Field(min_length=1)]]
    agreement: Nearnesses


class Text(TypedDict):
    text: str | None
    input_ids: list[Count]
    tokens: list[Count]
    summary: str | None
    audio: NotRequired[Audio]
    answer: NotRequired[Answer]


class BatchText(Text):
    steps: NotRequired[Count]
    score: NotRequired[Number]
    short: NotRequired[Count]


class Hardware(TypedDict):
    name: str
    peak_macs: Some
    axi_data_bits: Some


class Memory(TypedDict):
    latency: Count
    bandwidth: Annotated[float, Field(gt=0, le=1)]
    stall_seed: Count | None
    dram: str


class PhaseTotals(TypedDict):
    name: Phase
    calls: Count
    cycles: Count
    macs: Count
    utilization: Amount


class EarlierOp(TypedDict):
    phase: Phase
    name: Name
    macs: Count
    energy_pj: Amount
    cycles: dict[Unit, Count]
    bytes: NotRequired[Count]


class Op(TypedDict):
    phase: Phase
    name: Name
    macs: Count
    bytes: Count
    energy_pj: Amount
    cycles: dict[Unit, Count]


class Entry(TypedDict):
    call: Count
    unit: Unit
    op: Name
    start: Count
    end: Count


class Difference(TypedDict):
    call: Count
    op: str
    index: list[Count]
    expected: int
    actual: int
    unit: NotRequired[str]
    instruction: NotRequired[Count]


class Agreement(TypedDict):
    name: Name
    op: str
    values: Some
    agree: Share
    largest: Number
    farthest: Number


# ---- energy ---------------------------------------------------------------------------------------------------------


class EnergyPhase(TypedDict):
    name: Phase
    pj: Amount
    low: Amount
    high: Amount
    by_unit: dict[Name, Amount]
    by_group: dict[Name, Amount]
    not_by_op_pj: NotRequired[Number]
    gate_level_share: NotRequired[Amount]
    per_token_pj: Amount


class EarlierLine(TypedDict):
    phase: Phase
    unit: Name
    event: str
    group: Literal["arithmetic", "on-chip", "external"]
    count: Amount
    pj_each: Amount
    pj: Amount
    pj_low: Amount
    pj_high: Amount
    tier: str
    source: str


class Line(EarlierLine):
    basis: Literal["counters", "traffic"]
    counter: str
    factor: Amount
    table: str
    record: str
    varies: NotRequired[str]


class Figure(TypedDict):
    pj: Amount
    low: Amount
    high: Amount
    source: str


class Total(TypedDict):
    total: Number


class Modes(TypedDict):
    glitch: Total
    zero_delay: Total


class GateRecord(TypedDict):
    name: str
    kind: str
    event: str
    tier: str
    area_um2: Amount
    critical_path_ns: Amount
    leakage_nw: Amount
    clock_fj_per_flop: NotRequired[Amount]
    fj_per_event: Annotated[dict[str, Modes], Field(min_length=1)]


class SramRow(TypedDict):
    cell: str
    word_bits: Amount
    capacity_bytes: Amount
    read_pJ: Amount
    write_pJ: Amount
    leakage_mW: Amount
    area_mm2: Amount
    access_ns: Amount


class Compared(TypedDict):
    core: str
    workload: str
    call: str
    cycles: Count
    blind: NotRequired[bool]
    gates_pj: Amount
    model_pj: Amount
    error: Number


class Provenance(TypedDict):
    library: str
    volt: Amount
    celsius: Number
    tools: dict[str, str]
    created: str


class EarlierSources(TypedDict):
    provenance: Provenance
    records: dict[str, GateRecord]
    compared: list[Compared]
    cacti: dict[str, SramRow]
    dram: dict[str, Figure]


class Sources(EarlierSources):
    literature: dict[str, Figure]


class Clock(TypedDict):
    mhz: Amount
    meets_mhz: Amount
    core_ns: Amount
    memory: str
    access_ns: Amount


class _EnergyTotals(TypedDict):
    dram: str
    clock: NotRequired[Clock]
    pj: Amount
    low: Amount
    high: Amount
    phases: Annotated[list[EnergyPhase], Field(min_length=1, max_length=2)]


class EarlierEnergy(_EnergyTotals):
    lines: list[EarlierLine]
    sources: NotRequired[EarlierSources]


class Energy(_EnergyTotals):
    lines: list[Line]
    sources: Sources


# ---- claim ----------------------------------------------------------------------------------------------------------


class Paper(TypedDict):
    weight_bits: Some
    act_bits: Some
    operation_factor: Amount
    claimed_ratio: Ratio
    source: str


class Interval(TypedDict):
    low: Ratio
    high: Ratio


class Reference(TypedDict):
    operation_count: Ratio
    arithmetic: Ratio
    arithmetic_with_registers: Ratio
    bits_moved: Ratio
    chip: Ratio
    system: Ratio
    intervals: NotRequired[dict[str, Interval]]
    energy_pj: dict[str, Amount]


class References(TypedDict):
    fp32: Reference
    int8: Reference


class FullPrecisionHead(TypedDict):
    operation_ratio: Ratio
    system_pj: Amount
    system_ratio: Ratio


class ClaimPhase(TypedDict):
    name: Phase
    macs: Count
    head_macs: NotRequired[Count]
    ours_pj: dict[str, Amount]
    references: References
    full_precision_head: FullPrecisionHead


class Claim(TypedDict):
    paper: Paper
    dram: str
    phases: Annotated[list[ClaimPhase], Field(min_length=1, max_length=2)]


# ---- scores that come with a checkpoint -----------------------------------------------------------------------------


Marks = Annotated[dict[str, Number], Field(min_length=1)]  # score -> percent: those of the first model, everywhere


class Likelihood(TypedDict):
    test: Amount
    validation: NotRequired[Amount]


class IntegerScores(TypedDict):
    greedy: Marks
    searches: NotRequired[dict[str, Marks]]
    nll: Likelihood


class Scores(TypedDict):
    bits: NotRequired[str]
    model: Annotated[dict[str, Marks], Field(min_length=1)]
    nll: Likelihood
    integer: NotRequired[IntegerScores]
    samples: NotRequired[list[dict[str, str]]]


class Evaluation(TypedDict):
    """Of eval.json, too."""

    texts: Count
    baselines: dict[str, Marks]
    models: Annotated[dict[str, Scores], Field(min_length=1)]
    task: NotRequired[str]
    metric: NotRequired[str]


# ---- how texts were chosen ------------------------------------------------------------------------------------------


class Rules(TypedDict):
    no_repeat_ngram_size: Count
    min_length: Count
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    suppress_tokens: list[Count]
    begin_suppress_tokens: list[Count]
    bad_words_ids: list[Annotated[list[Count], Field(min_length=1)]]


class Search(TypedDict):
    """With the rules of the search; those that a result of an earlier version lacks are off."""

    beams: Annotated[int, Field(ge=2, le=MAX_BEAMS)]
    length_penalty: Annotated[float, Field(allow_inf_nan=False)]
    early_stopping: bool | Literal["never"]
    no_repeat_ngram_size: NotRequired[Count]
    min_length: NotRequired[Count]
    repetition_penalty: NotRequired[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    suppress_tokens: NotRequired[list[Count]]
    begin_suppress_tokens: NotRequired[list[Count]]
    bad_words_ids: NotRequired[list[Annotated[list[Count], Field(min_length=1)]]]
    score: NotRequired[Number]
    steps: NotRequired[Count]
    short: NotRequired[Count]


# ---- all of it ------------------------------------------------------------------------------------------------------


class _Common(Text):
    ternbin: str
    created: str
    name: str
    bits: str
    model: dict[str, Scalar]
    hardware: Hardware
    memory: Memory
    search: NotRequired[Search]
    rules: NotRequired[Rules]
    texts: NotRequired[Annotated[list[BatchText], Field(min_length=1)]]
    bit_exact: bool
    tensors_checked: Count
    values_checked: Count
    mismatches: Count
    first_divergence: Difference | None
    cycles: Count
    macs: Count
    utilization: Amount
    build_seconds: Amount
    sim_seconds: Amount
    sim_macs_per_second: Amount
    sim_cycles_per_second: Amount
    phases: Annotated[list[PhaseTotals], Field(min_length=1, max_length=2)]
    counters: dict[Phase, dict[str, Count]]
    claim: Claim
    fidelity: list[Agreement]
    evaluation: Evaluation | None
    timeline: Annotated[list[Entry], Field(min_length=1)]
    call_cycles: Annotated[list[Count], Field(min_length=1)]


class Result(_Common):
    schema: Annotated[str, OneOf(RESULT)]
    ops: list[Op]
    traffic: dict[Phase, dict[str, Count]]
    energy: Energy


class EarlierResult(_Common):
    schema: Annotated[str, OneOf(*EARLIER)]
    ops: list[EarlierOp]
    energy: EarlierEnergy


def json_schema() -> dict[str, Any]:
    """Of a result of the present schema."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:{RESULT.replace('/', ':')}"}
    return head | TypeAdapter(Result).json_schema() | {"title": f"result.json of {RESULT}"}
