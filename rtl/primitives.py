"""Amaranth wrappers of the Verilog primitives in rtl/primitives/: modules with a body for simulation and one for synthesis."""

from amaranth.hdl import Instance, Module, Signal, Value, signed


def popcount(m: Module, name: str, bits: Value) -> Signal:
    """Number of ones of ``bits``: a signal of just enough bits, driven by submodule ``name``."""
    count = Signal(range(len(bits) + 1), name=f"{name}_count")
    m.submodules[name] = Instance(
        "ternbin_popcount", p_WIDTH=len(bits), p_COUNT=len(count), i_bits=bits, o_count=count
    )
    return count


def difference(m: Module, name: str, plus: Value, minus: Value) -> Signal:
    """Ones of ``plus`` less ones of ``minus`` (equal widths): a signed signal, driven by submodule ``name``."""
    width = len(plus)
    result = Signal(signed(width.bit_length() + 1), name=f"{name}_difference")
    m.submodules[name] = Instance(
        "ternbin_difference", p_WIDTH=width, p_OUT=len(result), i_plus=plus, i_minus=minus, o_difference=result
    )
    return result
