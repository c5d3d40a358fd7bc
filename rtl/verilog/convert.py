"""Amaranth to Verilog."""

import gc
import re
from collections.abc import Iterable, Mapping
from unittest.mock import patch

from amaranth.back import rtlil, verilog  # pyright: ignore[reportAttributeAccessIssue]  # rtlil is not in the stubs
from amaranth.hdl import Elaboratable
from amaranth.hdl._nir import Net, Netlist, Value

from ternbin.rtl.verilog.clocked import clocked

_REGISTER = re.compile(r"^(  reg (?!\\\$auto\$verilog_backend)[^;=\n]*?) *= [^;\n]*;$", re.M)
_ZEROS = re.compile(r"^  initial begin\n(?:    \S+ ?\[\d+\] = \d+'[dh]0+;\n)+  end\n", re.M)


def convert(parts: Mapping[str, Elaboratable]) -> str:
    """Verilog of ``parts`` by the name of their modules, their submodules included; of instances only the use."""
    collecting = gc.isenabled()
    gc.disable()  # millions of objects that live to the end: looking for garbage among them takes a third of the time
    try:
        return started(without_initial_values(clocked(without_idle_attributes(renumbered(_convert(parts))))))
    finally:
        if collecting:
            gc.enable()


def _convert(parts: Mapping[str, Elaboratable]) -> str:
    """What ``amaranth.back.verilog.convert`` does, but for several parts at once and without what goes bit by bit through the netlist
    and changes nothing.

    The only place that uses what Amaranth keeps to itself. Yosys takes longer to start than to translate a small part. The search for
    combinational loops takes a quarter of the time, and within a part only: Verilator's lint (tests/rtl/test_verilog.py) looks at the
    whole. That every value is made of nets is looked at whenever one is copied, for a third of the time.
    """
    with patch.object(Netlist, "check_comb_cycles"), patch.object(Value, "__new__", staticmethod(_value)):
        texts = [rtlil.convert(part, name=name, emit_src=False) for name, part in parts.items()]
    translate = verilog._convert_rtlil_text  # pyright: ignore[reportAttributeAccessIssue]  # private
    return translate("\n".join(texts), strip_internal_attrs=True)


def _value(cls: type[Value], nets: Net | Iterable[Net] = ()) -> Value:
    return tuple.__new__(cls, (nets,) if isinstance(nets, Net) else nets)


def renumbered(text: str) -> str:
    """Ports without a name are called after cells of Amaranth's netlist; numbered in order of appearance instead, they stay what they are
    when a change elsewhere moves those cells, and compiled simulators stay valid."""
    numbers: dict[str, str] = {}
    return re.sub(r"(?<=\\port\$)\d+", lambda cell: numbers.setdefault(cell[0], str(len(numbers))), text)


def without_idle_attributes(text: str) -> str:
    """``text`` without attributes of cases that are none: Yosys leaves an empty line for a switch without branches, and what stands above
    it would be said of the next statement, such as that a reset is always there."""
    return re.sub(r"^ *\(\* [^\n]* \*\)\n *\n", "", text, flags=re.M)


def without_initial_values(text: str) -> str:
    """``text`` in which no register, and no memory but those of constants, has a value before it is reset or written: silicon has none,
    and simulators show what depends on one."""
    return _ZEROS.sub("", _REGISTER.sub(r"\1 ;", text))


def started(text: str) -> str:
    """``text`` with every ``always @*`` evaluated once when a simulation begins, in simulators that wait for an input to change.

    Yosys writes for that a register into each such block that never changes either. Here it does, as soon as all blocks wait for it.
    Verilator evaluates all blocks anyway, and knows no delays; synthesis needs none.
    """
    return re.sub(
        r"^(  reg (\\\$auto\$verilog_backend\S+ ) *= 0;\n)",
        r"\1`ifndef SYNTHESIS\n`ifndef VERILATOR\n  initial #0 \2 = 1;\n`endif\n`endif\n",
        text,
        flags=re.M,
    )
