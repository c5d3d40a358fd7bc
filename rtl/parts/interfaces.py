"""Signatures between units, memories and control.

All request ports use ready/valid: a request is taken in the cycle where both are 1. A requester may raise ``valid`` without
waiting for ``ready`` and must then hold the request. Read data is valid in the cycle after the request was taken, for that
cycle only. Reads see every write taken in earlier cycles. Addresses are checked by the memory, not by the units.

A component names its ports in its class body, each with the type that a type checker needs: ``Signal``, ``Stream[payload]``, or one of
the interfaces below; the signature that ``__init__`` builds gives direction and shape. Amaranth ignores such annotations.
"""

from typing import TYPE_CHECKING, Protocol, TypeVar

from amaranth.hdl import Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ternbin.contract.isa import ADDR, INSTRUCTION_BITS

Payload = TypeVar("Payload", bound=Value | data.View)


class Stream(Protocol[Payload]):
    """What ``stream.Signature`` creates."""

    payload: Payload
    valid: Signal
    ready: Signal
    signature: wiring.Signature


class Record(data.View):
    """View whose fields a subclass names, for a type checker: other fields are errors. At run time it is a ``data.View``."""

    if TYPE_CHECKING:
        __getattr__: None  # pyright: ignore[reportIncompatibleMethodOverride]  # the stub's gives any name


class ReadInterface(wiring.PureInterface):
    valid: Signal
    ready: Signal
    addr: Signal
    mask: Signal
    data: data.View


class ReadPort(wiring.Signature):
    """Read one address of the banks selected by ``mask``; ``data[b]`` is bank b's word (undefined where not selected)."""

    def __init__(self, banks: int, word_bits: int):
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "addr": Out(ADDR),
                "mask": Out(banks),
                "data": In(data.ArrayLayout(word_bits, banks)),
            }
        )

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> ReadInterface:
        return ReadInterface(self, path=path, src_loc_at=1 + src_loc_at)


class WriteInterface(wiring.PureInterface):
    valid: Signal
    ready: Signal
    addr: Signal
    mask: Signal
    data: Signal
    lane_mask: Signal


class WritePort(wiring.Signature):
    """Write ``data`` (of WBUF: a word for each of several banks, see ``Geometry``) to one address of every bank selected by ``mask``,
    elements selected by ``lane_mask``.

    A code word has ``lanes`` elements (both planes of a lane go together): data = [lanes bits nz][lanes bits neg], low part
    first (binary arrays: [lanes bits]). Residual and parameter words have ``rows`` elements; other words have one.
    """

    def __init__(self, banks: int, word_bits: int, elements: int):
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "addr": Out(ADDR),
                "mask": Out(banks),
                "data": Out(word_bits),
                "lane_mask": Out(elements),
            }
        )

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> WriteInterface:
        return WriteInterface(self, path=path, src_loc_at=1 + src_loc_at)


class TransposedInterface(wiring.PureInterface):
    valid: Signal
    ready: Signal
    addr: Signal
    mask: Signal
    lane: Signal
    codes: Signal


class TransposedWritePort(wiring.Signature):
    """Write code r of ``codes`` to bank r, at one address and one lane: [rows bits nz][rows bits neg] (binary: [rows bits]).
    A write at lane 0 also clears all other lanes of the word."""

    def __init__(self, rows: int, planes: int, lanes: int):
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "addr": Out(ADDR),
                "mask": Out(rows),
                "lane": Out(range(lanes)),
                "codes": Out(rows * planes),
            }
        )

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> TransposedInterface:
        return TransposedInterface(self, path=path, src_loc_at=1 + src_loc_at)


class UnitInterface(wiring.PureInterface):
    instruction: Stream[Value]
    done: Signal
    fault: Signal
    busy: Signal


class UnitPort(wiring.Signature):
    """Control's view of a unit: a stream of raw instructions whose tokens have arrived, and one ``done`` pulse for each, in order.

    A unit takes an instruction only when it can start it; ``done`` comes after its last write was taken. ``fault`` is a pulse for
    a field combination that the unit cannot execute (the unit then drops the instruction, without done).
    """

    def __init__(self):
        super().__init__(
            {
                "instruction": Out(stream.Signature(INSTRUCTION_BITS)),
                "done": In(1),
                "fault": In(1),
                "busy": In(1),
            }
        )

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> UnitInterface:
        return UnitInterface(self, path=path, src_loc_at=1 + src_loc_at)


def events_signature(names: dict[str, int]) -> dict[str, wiring.Member]:
    """Out ports ``ev_<name>`` of a unit: every cycle the amount that counter ``<name>`` grows by (``names``: name -> bits)."""
    return {f"ev_{name}": Out(bits) for name, bits in names.items()}
