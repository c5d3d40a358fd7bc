"""ABUF of an array that takes whole 8-bit codes: eight planes of a word in one read."""

from collections.abc import Mapping

from amaranth import Array, C, Cat, ClockSignal, Instance, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from ternbin.contract.counters import memory_events
from ternbin.contract.hw import BYTE_PLANES, HwConfig
from ternbin.contract.isa import Mem, Unit
from ternbin.contract.memories import PLANES, made_of, memories
from ternbin.rtl.parts.banks import BankedMemory, Grant
from ternbin.rtl.parts.interfaces import ReadPort, events_signature
from ternbin.rtl.parts.primitives import popcount


class PlaneMemory(BankedMemory):
    """A BankedMemory whose reader ``whole`` reads plane 0 of a word, and with ``whole_codes`` the seven words ``plane_words``, twice
    as many and so on behind it: a code word, then a bit a lane of each. Words behind ``plane_words`` have no negative plane: it reads as 0.

    An address of ``whole`` from ``plane_words`` on is out of range. Events ``planes_reads``, ``planes_writes``: of the banks
    of planes 1 to 7; ``reads`` and ``writes``: of those of plane 0.
    """

    whole_codes: Signal
    ev_planes_reads: Signal
    ev_planes_writes: Signal

    def __init__(
        self, hw: HwConfig, whole: str, *, readers: Mapping[str, Unit], writers: Mapping[str, Unit], fpga: bool = False
    ):
        self._hw, self._whole = hw, whole
        super().__init__(memories(hw)[Mem.ABUF], readers=readers, writers=writers, fpga=fpga)

    def _read_port(self, name: str) -> ReadPort:
        return ReadPort(self.memory.banks, self._hw.column_word_bits if name == self._whole else self.memory.bits)

    def _events(self) -> dict[str, wiring.Member]:
        planes = {f"planes_{event}": bits for event, bits in memory_events(made_of(self._hw)[PLANES]).items()}
        return {**super()._events(), **events_signature(planes), "whole_codes": In(1)}

    def _holds(self, requesters: dict, addr: Value) -> Value:
        port = getattr(self, f"r_{self._whole}")
        beyond = port.valid & port.ready & (addr >= self._hw.plane_words) if port in requesters else C(0, 1)
        return super()._holds(requesters, addr) & ~beyond

    def _banks(self, m: Module, read: Grant, write: Grant, data: list[Value], mask: Value) -> dict[str, Value]:
        hw, bits = self._hw, exact_log2(self._hw.plane_words)
        port = getattr(self, f"r_{self._whole}")
        words = [Signal(hw.column_word_bits, name=f"rdata{bank}") for bank in range(self.memory.banks)]
        plane = read.addr[bits : bits + 3]
        whole = port.valid & port.ready & self.whole_codes
        reads = self._planes(read, plane, whole)
        writes = self._planes(write, write.addr[bits : bits + 3], C(0, 1))
        self._accessed = {"reads": reads, "writes": writes}
        for bank in range(self.memory.banks):
            m.submodules[f"bank{bank}"] = Instance(
                "ternbin_plane_ram",
                p_DEPTH=hw.plane_words,
                p_LANES=hw.lanes,
                p_ADDR=bits,
                i_clk=ClockSignal(),
                i_ren=Cat(own[bank] for own in reads),
                i_raddr=read.addr[:bits],
                o_rdata=words[bank],
                i_wen=Cat(own[bank] for own in writes),
                i_waddr=write.addr[:bits],
                i_wdata=data[bank],
                i_wmask=mask,
            )
        return dict.fromkeys(self._readers, self._narrow(m, read.taken, plane, words)) | {self._whole: Cat(words)}

    def _planes(self, grant: Grant, plane: Value, all_planes: Value) -> list[list[Value]]:
        """Of each plane whether the banks are accessed."""
        banks = range(self.memory.banks)
        return [[grant.mask[bank] & ((plane == own) | all_planes) for bank in banks] for own in range(BYTE_PLANES)]

    def _narrow(self, m: Module, taken: Value, plane: Value, words: list[Signal]) -> Value:
        """What the other readers see: the plane that they asked for."""
        chosen = Signal(3, name="plane")
        with m.If(taken):
            m.d.sync += chosen.eq(plane)
        narrow = [Signal(self.memory.bits, name=f"narrow{bank}") for bank in range(self.memory.banks)]
        for word, own in zip(words, narrow, strict=True):
            others = (word.word_select(number + 1, self._hw.lanes) for number in range(1, BYTE_PLANES))
            m.d.comb += own.eq(Array([word[: len(own)], *others])[chosen])
        return Cat(narrow)

    def _count(self, m: Module, read: Grant, write: Grant) -> None:
        for kind, (first, *others) in self._accessed.items():
            planes = Cat(bank for own in others for bank in own)
            m.d.comb += [
                getattr(self, f"ev_{kind}").eq(popcount(m, f"banks_{kind}", Cat(first))),
                getattr(self, f"ev_planes_{kind}").eq(popcount(m, f"planes_{kind}", planes)),
            ]
