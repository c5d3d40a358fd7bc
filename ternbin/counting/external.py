"""The external memory that runs are simulated and predicted with."""

from dataclasses import dataclass

from ternbin.errors import InputError

OPEN_BURSTS = 8  # that the external memory takes, of reads and of writes; as QUEUE of sim/harness/axi_memory.h


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """External memory of the simulation.

    latency: cycles from an address to its first data, and from the last data to a write response (>= 1). bandwidth: data beats a
    cycle, from 1/64 to 1: each direction gains round(64*bandwidth)/64 of a beat a cycle and keeps less than one from cycle to
    cycle; each beat uses up one. stall_seed: every channel pauses at random, reproducibly; None: never.
    """

    latency: int = 40
    bandwidth: float = 1.0
    stall_seed: int | None = None

    def __post_init__(self) -> None:
        if self.latency < 1:
            raise InputError(f"memory latency must be at least 1 cycle, not {self.latency}")
        if not 1 / 64 <= self.bandwidth <= 1:
            raise InputError(f"memory bandwidth must be from 1/64 to 1 beat a cycle, not {self.bandwidth}")
        if self.stall_seed is not None and not 0 <= self.stall_seed < 1 << 32:
            raise InputError(f"stall seed must be from 0 to {(1 << 32) - 1}, not {self.stall_seed}")

    @property
    def beats(self) -> int:
        """Beats in 64 cycles."""
        return round(self.bandwidth * 64)

    @property
    def stall_state(self) -> int:
        """Start of the stall generator: 64 bits, 0 for no stalls."""
        return 0 if self.stall_seed is None else (self.stall_seed + 1) * 0x9E3779B97F4A7C15 % (1 << 64) or 1
