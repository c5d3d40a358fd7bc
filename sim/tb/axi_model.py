"""External memory for cocotb benches with the very timing of the compiled simulation (sim/harness/axi_memory.h).

Use ``cocotbext.axi`` where realism of the protocol counts, this where cycle counts must agree.
"""

from collections import deque
from dataclasses import dataclass

import cocotb
from cocotb.triggers import RisingEdge

from ternbin.counting.external import OPEN_BURSTS, MemoryModel

AR, R, AW, W, B = range(5)
OKAY, DECERR = 0, 3
_MASK = (1 << 64) - 1


@dataclass
class _Burst:
    addr: int
    beats: int
    id: int
    due: int = 0
    bad: bool = False


class CycleMemory:
    """Serves the ports ``m_axi_*`` of the top from ``data``; starts at the next rising edge, when reset must be over."""

    def __init__(self, dut, data: bytearray, model: MemoryModel, axi_bytes: int):
        self.dut, self.data, self.model, self.bytes = dut, data, model, axi_bytes
        self.cycle = 0
        self._random = model.stall_state
        self._reads: deque[_Burst] = deque()
        self._writes: deque[_Burst] = deque()
        self._replies: deque[_Burst] = deque()
        self._r_credit = self._w_credit = 64  # in 1/64 of a beat
        self._ar_ready = self._r_valid = self._aw_ready = self._w_ready = self._b_valid = False
        self._driven: dict[str, int] = {}
        cocotb.start_soon(self._run())

    def _get(self, name: str) -> int:
        return int(getattr(self.dut, f"m_axi_{name}").value)

    def _set(self, name: str, value: int) -> None:
        if self._driven.get(name) != value:
            getattr(self.dut, f"m_axi_{name}").value = value
            self._driven[name] = value

    async def _run(self) -> None:
        clock = RisingEdge(self.dut.clk)
        while True:
            await clock
            self._draw()
            self._step_read()
            self._step_write()
            self._drive()
            self.cycle += 1

    def _draw(self) -> None:
        self._random ^= self._random << 13 & _MASK
        self._random ^= self._random >> 7
        self._random ^= self._random << 17 & _MASK

    def _stall(self, channel: int) -> bool:
        return self._random != 0 and (self._random >> 8 * channel & 0xFF) < 96

    def _gain(self, credit: int) -> int:
        """What the next cycle adds."""
        return min(credit, 63) + self.model.beats

    def _inside(self, addr: int) -> bool:
        return addr + self.bytes <= len(self.data)

    def _burst(self, prefix: str, due: int = 0) -> _Burst:
        return _Burst(self._get(f"{prefix}addr"), self._get(f"{prefix}len") + 1, self._get(f"{prefix}id"), due)

    def _step_read(self) -> None:
        if self._r_valid and self._get("rready"):
            self._r_valid = False
            burst = self._reads[0]
            burst.addr += self.bytes
            burst.beats -= 1
            if burst.beats == 0:
                self._reads.popleft()
        if self._ar_ready and self._get("arvalid"):
            self._reads.append(self._burst("ar", self.cycle + self.model.latency))
        self._r_credit = self._gain(self._r_credit)
        if (
            not self._r_valid
            and self._reads
            and self.cycle + 1 >= self._reads[0].due
            and self._r_credit >= 64
            and not self._stall(R)
        ):
            self._r_valid = True
            self._r_credit -= 64
        self._ar_ready = len(self._reads) < OPEN_BURSTS and not self._stall(AR)

    def _step_write(self) -> None:
        if self._b_valid and self._get("bready"):
            self._b_valid = False
            self._replies.popleft()
        if self._w_ready and self._get("wvalid"):
            self._write_beat()
        if self._aw_ready and self._get("awvalid"):
            self._writes.append(self._burst("aw"))
        if not self._b_valid and self._replies and self.cycle + 1 >= self._replies[0].due and not self._stall(B):
            self._b_valid = True
        self._aw_ready = len(self._writes) + len(self._replies) < OPEN_BURSTS and not self._stall(AW)
        self._w_credit = self._gain(self._w_credit)
        self._w_ready = bool(self._writes) and self._w_credit >= 64 and not self._stall(W)

    def _write_beat(self) -> None:
        self._w_credit -= 64
        burst = self._writes[0]
        strobe, value = self._get("wstrb"), self._get("wdata").to_bytes(self.bytes, "little")
        burst.bad |= not self._inside(burst.addr)
        for i in range(self.bytes if self._inside(burst.addr) else 0):
            if strobe >> i & 1:
                self.data[burst.addr + i] = value[i]
        burst.addr += self.bytes
        burst.beats -= 1
        if burst.beats == 0:
            burst.due = self.cycle + self.model.latency
            self._replies.append(self._writes.popleft())

    def _drive(self) -> None:
        self._set("arready", int(self._ar_ready))
        self._set("rvalid", int(self._r_valid))
        if self._r_valid:
            burst = self._reads[0]
            inside = self._inside(burst.addr)
            self._set(
                "rdata", int.from_bytes(self.data[burst.addr : burst.addr + self.bytes], "little") if inside else 0
            )
            self._set("rresp", OKAY if inside else DECERR)
            self._set("rlast", int(burst.beats == 1))
            self._set("rid", burst.id)
        self._set("awready", int(self._aw_ready))
        self._set("wready", int(self._w_ready))
        self._set("bvalid", int(self._b_valid))
        if self._b_valid:
            self._set("bresp", DECERR if self._replies[0].bad else OKAY)
            self._set("bid", self._replies[0].id)
