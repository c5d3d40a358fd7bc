"""Amaranth wrappers of the Verilog primitives in rtl/primitives/: modules with a body for simulation and one for synthesis."""

from pathlib import Path

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Instance, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

PLANE_RAM = "ternbin_plane_ram.v"  # of an array that takes whole 8-bit codes
_FOLDER = Path(__file__).parent / "primitives"


def primitives(form: str = "asic") -> dict[str, str]:
    """File name -> text. ``form`` "fpga": without latches, with memories that infer as block RAM."""
    folders = (_FOLDER, _FOLDER / form) if form != "asic" else (_FOLDER,)
    return {path.name: path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.glob("*.v"))}


def popcount(m: Module, name: str, bits: Value) -> Signal:
    """Number of ones of ``bits``, driven by submodule ``name``."""
    result = Signal(range(len(bits) + 1), name=f"{name}_count")
    m.submodules[name] = Instance("ternbin_popcount", p_WIDTH=len(bits), i_bits=bits, o_count=result)
    return result


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
        "ternbin_difference",
        p_WIDTH=len(plus),
        p_OUT=width,
        i_plus=plus,
        i_minus=minus,
        i_negate=negate,
        o_difference=result,
    )
    return result


def shared_inputs(m: Module, values: dict[str, Value]) -> dict[str, Signal]:
    """Inputs that many instances of a module have in common, each a signal: keyword arguments of ``instance``."""
    signals = {f"i_{name}": Signal.like(Value.cast(value), name=f"lane_{name}") for name, value in values.items()}
    m.d.comb += [signal.eq(value) for signal, value in zip(signals.values(), values.values(), strict=True)]
    return signals


def instance(m: Module, name: str, module: str, **ports) -> None:
    """Submodule ``name``: one more use of a ``module`` that is built once (rtl/verilog/shared.py), in the clock domain of ``m``."""
    m.submodules[name] = Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)


def apart(module: str, part: wiring.Component) -> Instance:
    """``part`` as an instance of ``module``, which is converted apart; the ports of ``part`` are the instance's."""
    ports = {
        f"{'io'[member.flow == Out]}_{'__'.join(map(str, path))}": value
        for path, member, value in part.signature.flatten(part)
    }
    return Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)


def gated(m: Module, name: str, enable: Value, reset: Value | None = None) -> DomainRenamer:
    """What moves a part into the new clock domain ``name`` of ``m``: its edges are those of ``sync`` in cycles with ``enable``.

    ``reset``: resets the part, one cycle later than it comes, through a register of its own; a part without registers that need
    a reset has none. ``enable`` must be 1 whenever something in the part may change.
    """
    domain = ClockDomain(name, reset_less=reset is None)
    m.domains += domain
    if reset is not None:
        register = Signal(name=f"{name}_reset", reset_less=True)
        m.d[name] += register.eq(reset)
        m.d.comb += domain.rst.eq(register)  # pyright: ignore[reportAttributeAccessIssue]  # not in the stub
        enable = enable | reset | register
    clock = domain.clk  # pyright: ignore[reportAttributeAccessIssue]  # not in the stub
    m.submodules[f"{name}_gate"] = Instance("ternbin_clock_gate", i_clk=ClockSignal(), i_enable=enable, o_gated=clock)
    return DomainRenamer(name)
