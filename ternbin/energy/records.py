"""What a characterisation file holds, as types: what figures are read from. More fields may be there. Imported where a file is read."""

from typing import Annotated, Any, NotRequired, cast

from pydantic import Discriminator, Field, Tag
from typing_extensions import TypedDict

from ternbin.contract.hw import KINDS
from ternbin.energy.block_events import EVENTS
from ternbin.energy.dots import DOTS
from ternbin.formats import ENERGY
from ternbin.schema import OneOf

Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Some = Annotated[int, Field(ge=1, le=1 << 53)]

ELEMENTS = (*KINDS, "int8", "int4x8", "fp8", "bf16", "fp32")  # with operands of their own
UNITS = ("trits", "top")  # the decoder of packed trits, what lists the best tokens of beams


class Parts(TypedDict):
    total: Number
    element: Number
    operands: Number
    operand_bit: Number


class Modes(TypedDict):
    glitch: Parts
    zero_delay: Parts


class Total(TypedDict):
    total: Number
    spread: NotRequired[Number]


class _Block(TypedDict):
    name: str
    kind: str
    event: str
    tier: str
    lanes: Some
    cells: Count
    area_um2: Amount
    critical_path_ns: Amount
    leakage_nw: Amount


class FlipFlops(TypedDict):
    element: Some
    operands: Some


Classes = TypedDict("Classes", {"flip-flop": Amount, "mux": Amount})
ElementEvents = TypedDict("ElementEvents", {"operand held": Modes, "real": Modes})
UnitEvents = TypedDict("UnitEvents", {"operand held": Modes})


class Element(_Block):
    flip_flops: FlipFlops
    element_leakage_nw: Amount
    clock_fj_per_flop: Amount
    area_by_class: Classes
    fj_per_event: ElementEvents


class Measured(_Block):
    entries: NotRequired[Some]
    flip_flops: FlipFlops
    element_leakage_nw: Amount
    clock_fj_per_flop: Amount
    fj_per_event: UnitEvents


class Size(TypedDict):
    core: str
    size: Amount
    area_um2: Amount
    leakage_nw: Amount


class Event(TypedDict):
    glitch: Total
    zero_delay: Total
    clock: NotRequired[Number]


class CorePart(_Block):
    sizes: Annotated[list[Size], Field(min_length=2, max_length=2)]
    fj_per_event: dict[str, Event]
    provenance: str


def _which(block: Any) -> str:
    kind = cast(dict[str, object], block).get("kind") if isinstance(block, dict) else None
    return (
        "unit"
        if kind in (*UNITS, *DOTS)
        else "part"
        if isinstance(kind, str) and kind.startswith("core ")
        else "element"
    )


Block = Annotated[
    Annotated[Element, Tag("element")] | Annotated[Measured, Tag("unit")] | Annotated[CorePart, Tag("part")],
    Discriminator(_which),
]


class Energies(TypedDict):
    gates_pj: Amount
    model_pj: Amount
    error: Number
    parts: dict[str, tuple[Amount, Amount]]


class Compared(TypedDict):
    core: str
    workload: str
    call: str
    cycles: Count
    counters: dict[str, Count]
    glitch: Energies


class Described(TypedDict):
    hardware: dict[str, Any]
    critical_path_ns: Amount


class Core(TypedDict):
    cores: Annotated[list[Described], Field(min_length=2)]
    blind: NotRequired[list[Described]]
    compared: Annotated[list[Compared], Field(min_length=1)]


class Provenance(TypedDict):
    library: str
    volt: Amount
    celsius: Number
    created: str
    tools: dict[str, str]
    node_nm: NotRequired[Amount | None]
    cells: NotRequired[dict[str, str]]
    wire_load: NotRequired[str | None]


class PlacedBlock(TypedDict):
    name: str
    tool: str
    cells: Count
    width_um: Amount
    height_um: Amount
    wires: Amount
    element: Amount
    operands: Amount
    total: Amount
    critical_path: Amount


class Placed(TypedDict):
    provenance: dict[str, str]
    blocks: Annotated[list[PlacedBlock], Field(min_length=1)]


class Characterisation(TypedDict):
    schema: Annotated[str, OneOf(ENERGY)]
    provenance: Provenance
    blocks: Annotated[list[Block], Field(min_length=1)]
    core: Core
    placed: NotRequired[Placed]


def missing(contents: dict[str, Any]) -> list[str]:
    """Kinds of blocks that figures need and that are not there, and events of parts of the core."""
    kinds = {block["kind"]: block for block in contents["blocks"]}
    parts = {f"core {part}": events for part, events in EVENTS.items() if part != "array"}
    lacking = [f"a block of the kind {kind!r}" for kind in (*ELEMENTS, *UNITS, *parts) if kind not in kinds]
    return lacking + [
        f"the event {event!r} of {kind}"
        for kind, events in parts.items()
        for event in events
        if kind in kinds and event not in kinds[kind]["fj_per_event"]
    ]
