"""The devices that designs are made for: of the ECP5 family, on the board ULX3S."""

from dataclasses import dataclass

from ternbin.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Device:
    """``size`` and ``package`` as nextpnr-ecp5 names them; ``memory_kb``: block RAM that serves as external memory by default."""

    name: str
    size: str
    package: str
    memory_kb: int


# Pins of the ULX3S, which comes with each of these.
CONSTRAINTS = """LOCATE COMP "clk_25mhz" SITE "G2";
IOBUF PORT "clk_25mhz" IO_TYPE=LVCMOS33 PULLMODE=NONE;
FREQUENCY PORT "clk_25mhz" 25 MHZ;
LOCATE COMP "btn_pwr_n" SITE "D6";
IOBUF PORT "btn_pwr_n" IO_TYPE=LVCMOS33 PULLMODE=UP;
LOCATE COMP "ftdi_txd" SITE "M1";
IOBUF PORT "ftdi_txd" IO_TYPE=LVCMOS33 PULLMODE=UP;
LOCATE COMP "ftdi_rxd" SITE "L4";
IOBUF PORT "ftdi_rxd" IO_TYPE=LVCMOS33 PULLMODE=UP DRIVE=4;
LOCATE COMP "led" SITE "B2";
IOBUF PORT "led" IO_TYPE=LVCMOS33 PULLMODE=NONE DRIVE=4;
"""
BOARD_TOP = "ternbin_ulx3s"
CLOCK_MHZ = 50  # of the accelerator: what the board's phase-locked loop makes of 25 MHz
BAUD = 1_000_000

DEVICES = {
    device.name: device
    for device in (
        Device(name="ecp5-25k", size="25k", package="CABGA381", memory_kb=32),
        Device(name="ecp5-45k", size="45k", package="CABGA381", memory_kb=64),
        Device(name="ecp5-85k", size="85k", package="CABGA381", memory_kb=128),
    )
}


def device_named(name: str) -> Device:
    """Raises InputError for another name."""
    if name not in DEVICES:
        raise InputError(f"--device must be one of {', '.join(DEVICES)}, not {name!r}")
    return DEVICES[name]
