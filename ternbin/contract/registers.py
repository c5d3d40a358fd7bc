"""The registers of the AXI4-Lite slave: their fields, and what a write to them does. Offsets are those of :mod:`ternbin.contract.isa`."""

from dataclasses import dataclass
from enum import IntEnum

from ternbin.contract import isa

READ, WRITE, BOTH, STROBE, CLEARED = (
    "read",  # the hardware says it
    "write",  # the host says it
    "both",  # the host says it and can read it back
    "strobe",  # a 1 that is written acts once; it reads as 0
    "cleared",  # the hardware says it; a write of anything to the register clears it
)


@dataclass(frozen=True)
class Field:
    """``bits`` bits of a register from bit ``low`` on. ``access``: READ ... CLEARED. ``values``: what its values mean. ``constant``: it is
    always that."""

    name: str
    low: int
    bits: int
    access: str
    what: str
    values: type[IntEnum] | None = None
    constant: int | None = None

    @property
    def mask(self) -> int:
        """The field's bits in its register."""
        return ((1 << self.bits) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """32 bits at byte ``offset``."""

    name: str
    offset: int
    what: str
    fields: tuple[Field, ...]

    def mask(self, field: str) -> int:
        """The bits of the field of that name."""
        return next(own.mask for own in self.fields if own.name == field)


REGISTERS = (
    Register(
        "ID",
        isa.REG_ID,
        "Says that this is an accelerator of this kind",
        (Field("value", 0, 32, READ, "the constant", constant=isa.ID_VALUE),),
    ),
    Register(
        "CTRL",
        isa.REG_CTRL,
        "Starts the core",
        (
            Field("start", 0, 1, STROBE, "run the program at PROGRAM; ignored while busy"),
            Field("irq_enable", 1, 1, BOTH, "raise irq while done or error is 1"),
            Field("clear_counters", 2, 1, STROBE, "set all counters to 0"),
        ),
    ),
    Register(
        "STATUS",
        isa.REG_STATUS,
        "What the core does; a write of anything clears done and error",
        (
            Field("busy", 0, 1, READ, "a program runs, or the bus is not yet quiet after an error"),
            Field("done", 1, 1, CLEARED, "the program came to its END"),
            Field("error", 2, 1, CLEARED, "the program was stopped: see ERROR"),
        ),
    ),
    Register(
        "ERROR",
        isa.REG_ERROR,
        "Why the program was stopped",
        (Field("code", 0, 4, READ, "error code", values=isa.ErrorCode),),
    ),
    Register(
        "ERROR_ADDR",
        isa.REG_ERROR_ADDR,
        "Byte address of the instruction, or of the bus transfer for BUS_READ and BUS_WRITE",
        (Field("low", 0, 32, READ, "low 32 bits"),),
    ),
    Register(
        "ERROR_ADDR_HI",
        isa.REG_ERROR_ADDR_HI,
        "Byte address of the instruction, or of the bus transfer for BUS_READ and BUS_WRITE",
        (Field("high", 0, 32, READ, "high 32 bits"),),
    ),
    Register(
        "PROGRAM",
        isa.REG_PROGRAM,
        "Byte address of the first instruction; counts at the next start",
        (Field("low", 0, 32, BOTH, "low 32 bits"),),
    ),
    Register(
        "PROGRAM_HI",
        isa.REG_PROGRAM_HI,
        "Byte address of the first instruction; counts at the next start",
        (Field("high", 0, 32, BOTH, "high 32 bits"),),
    ),
)

_BY_NAME = {register.name: register for register in REGISTERS}
START, IRQ_ENABLE, CLEAR = (_BY_NAME["CTRL"].mask(name) for name in ("start", "irq_enable", "clear_counters"))
BUSY, DONE, ERROR = (_BY_NAME["STATUS"].mask(name) for name in ("busy", "done", "error"))
