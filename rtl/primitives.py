"""Amaranth wrappers of the Verilog primitives in rtl/primitives/: modules with a body for simulation and one for synthesis."""

from amaranth.hdl import Instance, Module, Signal, Value


def balance(m: Module, name: str, bits: Value, negate: Value, width: int) -> Signal:
    """Ones less zeros of ``bits``, negated with ``negate``: two's complement in ``width`` bits, driven by submodule ``name``."""
    result = Signal(width, name=f"{name}_balance")
    m.submodules[name] = Instance(
        "ternbin_balance", p_WIDTH=len(bits), p_OUT=width, i_bits=bits, i_negate=negate, o_balance=result
    )
    return result


def difference(m: Module, name: str, plus: Value, minus: Value, negate: Value, width: int) -> Signal:
    """Ones of ``plus`` less ones of ``minus`` (equally long), negated with ``negate``: two's complement in ``width`` bits."""
    result = Signal(width, name=f"{name}_difference")
    m.submodules[name] = Instance(
        "ternbin_difference", p_WIDTH=len(plus), p_OUT=width, i_plus=plus, i_minus=minus, i_negate=negate,
        o_difference=result,
    )
    return result
