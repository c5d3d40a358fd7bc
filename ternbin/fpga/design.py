"""The files of a design: accelerator, memory and bridge, board."""

from pathlib import Path

from ternbin import rtl
from ternbin.contract.hw import HwConfig
from ternbin.errors import InputError
from ternbin.fpga.devices import BAUD, CLOCK_MHZ, CONSTRAINTS, Device
from ternbin.rtl.board.board import BOARD, Board
from ternbin.rtl.verilog.convert import convert
from ternbin.rtl.verilog.generate import generate

_BOARD_TOP = Path(rtl.__file__).parent / "board" / "ulx3s.v"
CONSTRAINTS_FILE = "ulx3s.lpf"


def memory_words(hw: HwConfig, kb: int) -> int:
    """Words of the bus in ``kb`` KB. Raises InputError unless they are a power of two."""
    words = kb * 1024 // hw.axi_bytes
    if words < 64 or words & words - 1:
        raise InputError(f"--memory-kb must be a power of two, with at least 64 words of the bus, not {kb}")
    return words


def sources(hw: HwConfig, device: Device, memory_kb: int | None) -> dict[str, str]:
    """File name -> text: Verilog in the form for FPGAs, and the constraints of the board. Raises InputError."""
    board = Board(hw, memory_words(hw, memory_kb or device.memory_kb), round(CLOCK_MHZ * 1e6 / BAUD))
    return {
        **generate(hw, "fpga"),
        f"{BOARD}.v": convert({BOARD: board}),
        _BOARD_TOP.name: _BOARD_TOP.read_text(encoding="utf-8"),
        CONSTRAINTS_FILE: CONSTRAINTS,
    }
