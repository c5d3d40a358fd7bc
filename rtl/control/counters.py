"""Event counters: one register for each event, read by number."""

from collections.abc import Mapping

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

COUNTER_BITS = 48


class Counters(wiring.Component):
    """Adds ``inc_<name>`` to the register ``ctr_<name>`` every cycle; ``value`` is counter number ``index`` one cycle later.

    names: name -> bits of the increment, in the order of the numbers. ``clear`` sets all to 0. ``fpga``: it adds a cycle later.
    """

    clear: Signal
    index: Signal
    value: Signal

    def __init__(self, names: Mapping[str, int], *, fpga: bool = False):
        self.names, self._fpga = dict(names), fpga
        super().__init__(
            {
                **{f"inc_{name}": In(bits) for name, bits in self.names.items()},
                "clear": In(1),
                "index": In(range(max(2, len(self.names)))),
                "value": Out(COUNTER_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        registers = [Signal(COUNTER_BITS, name=f"ctr_{name}") for name in self.names]
        for register, name in zip(registers, self.names, strict=True):
            increment = getattr(self, f"inc_{name}")
            if self._fpga:
                later = Signal.like(increment, name=f"later_{name}")
                m.d.sync += later.eq(increment)
                increment = later
            with m.If(increment.any()):  # no clock where nothing is counted
                m.d.sync += register.eq(register + increment)
        with m.If(self.clear):
            m.d.sync += [register.eq(0) for register in registers]
        with m.Switch(self.index):
            for number, register in enumerate(registers):
                with m.Case(number):
                    m.d.sync += self.value.eq(register)
        return m
