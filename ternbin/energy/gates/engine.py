"""The compiled event simulator of engine.cpp, and what it needs of a netlist as arrays."""

import ctypes
import functools
import hashlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ternbin.energy.gates.netlist import Netlist, Placed, Ram
from ternbin.energy.gates.timing import Timing
from ternbin.errors import InputError
from ternbin.sim.toolchain import compiler_version
from ternbin.storage import cache_dir, working_folder

_SOURCE = Path(__file__).with_name("engine.cpp")


@functools.cache
def _library() -> ctypes.CDLL:
    text = _SOURCE.read_text(encoding="utf-8")
    name = hashlib.sha256((text + compiler_version()).encode()).hexdigest()[:16]
    path = cache_dir() / f"gates-{name}.so"
    if not path.exists():
        with working_folder("gates") as folder:
            fresh = folder / "engine.so"
            subprocess.run(["g++", "-O2", "-std=c++20", "-shared", "-fPIC", "-o", str(fresh), str(_SOURCE)], check=True)
            os.replace(fresh, path)
    return ctypes.CDLL(str(path))


_COUNTS = ("nets", "gates", "flops", "inputs", "outputs", "groups", "clocks", "rams")
_ARRAYS = {
    "gate_out": np.int32,
    "gate_first": np.int32,
    "gate_in": np.int32,
    "table": np.uint64,
    "rise": np.int32,
    "fall": np.int32,
    "flop_d": np.int32,
    "flop_q": np.int32,
    "flop_qn": np.int32,
    "flop_delay": np.int32,
    "flop_clock": np.int32,
    "clock_enable": np.int32,
    "clock_parent": np.int32,
    "clock_energy": np.float64,
    "ram": np.int32,
    "input_net": np.int32,
    "output_net": np.int32,
    "weight": np.float32,
    "group": np.int32,
}


class _Struct(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in _COUNTS] + [(name, ctypes.c_void_p) for name in _ARRAYS]


@dataclass(frozen=True)
class Activity:
    """What a simulation gave: ``outputs`` (cycles x output bits), ``toggles`` by net, ``energy`` (cycles x groups, of toggles and, where
    the simulator has ``clock_energy``, of the clock; no rows unless it was asked for)."""

    outputs: np.ndarray
    toggles: np.ndarray
    energy: np.ndarray


class Simulator:
    """``netlist`` with delays from ``timing``. ``weights``: energy of a toggle of each net; ``group_of(cell)``: its group number
    (of ``groups``), which the energy per cycle of the nets that the cell drives goes to; input ports' go to group 0.
    ``clock_energy``: as ``power.domain_energy`` gives it."""

    def __init__(
        self,
        netlist: Netlist,
        timing: Timing,
        weights: np.ndarray | None = None,
        *,
        group_of: Callable[[Placed], int] = lambda placed: 0,
        groups: int = 1,
        clock_energy: np.ndarray | None = None,
    ):
        self.netlist, self._groups = netlist, groups
        self._arrays = {
            name: np.ascontiguousarray(values, dtype=_ARRAYS[name])
            for name, values in _pack(netlist, timing, weights, group_of).items()
        }
        if clock_energy is None:
            clock_energy = np.zeros((len(netlist.domains), groups))
        self._arrays["clock_energy"] = np.ascontiguousarray(clock_energy)
        a = self._arrays
        counts = {
            "nets": netlist.nets,
            "gates": len(a["gate_out"]),
            "flops": len(a["flop_d"]),
            "inputs": len(a["input_net"]),
            "outputs": len(a["output_net"]),
            "groups": groups,
            "clocks": len(a["clock_enable"]),
            "rams": len(netlist.rams),
        }
        self._struct = _Struct(**counts, **{name: a[name].ctypes.data for name in _ARRAYS})

    def pack_inputs(self, stimuli: Mapping[str, Sequence[int]]) -> np.ndarray:
        """Port -> one integer a cycle (any Python size), to rows of bits in the order of the netlist's inputs."""
        return pack({name: len(nets) for name, nets in self.netlist.inputs.items()}, stimuli)

    def run(self, rows: np.ndarray, *, timed: bool, start: int = 0, per_cycle: bool = False) -> Activity:
        """Simulates ``rows`` (cycles x input bytes); toggles count from cycle ``start`` on."""
        rows, declared = np.ascontiguousarray(rows), self.netlist.library.declared
        outputs = len(self._arrays["output_net"])
        results = np.zeros((len(rows), (outputs + 7) // 8), np.uint8)
        toggles = np.zeros(self.netlist.nets, np.uint64)
        energy = np.zeros((len(rows) if per_cycle else 0, self._groups))
        failed = _library().simulate(
            ctypes.byref(self._struct),
            int(timed),
            ctypes.c_int64(len(rows)),
            ctypes.c_int64(start),
            _picoseconds(declared.input_delay_ns, 1e-9),
            _picoseconds(declared.ram_access_ns, 1e-9),
            ctypes.c_void_p(rows.ctypes.data),
            ctypes.c_void_p(results.ctypes.data),
            ctypes.c_void_p(toggles.ctypes.data),
            ctypes.c_void_p(energy.ctypes.data if per_cycle else None),
        )
        if failed:
            raise InputError("a netlist must be free of combinational loops")
        return Activity(results, toggles, energy)


def pack(widths: Mapping[str, int], stimuli: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Port values to rows of bytes, ports in the order of ``widths``, low bits first; absent ports are 0."""
    cycles = len(next(iter(stimuli.values())))
    total = sum(widths.values())
    size = (total + 7) // 8
    words = [0] * cycles
    at = 0
    for name, width in widths.items():
        if name in stimuli:
            mask = (1 << width) - 1
            words = [word | (int(value) & mask) << at for word, value in zip(words, stimuli[name], strict=True)]
        at += width
    return np.frombuffer(b"".join(word.to_bytes(size, "little") for word in words), np.uint8).reshape(cycles, size)


def unpack(widths: Mapping[str, int], rows: np.ndarray) -> dict[str, list[int]]:
    """The inverse of ``pack``."""
    words = [int.from_bytes(row.tobytes(), "little") for row in rows]
    result: dict[str, list[int]] = {}
    at = 0
    for name, width in widths.items():
        result[name] = [word >> at & (1 << width) - 1 for word in words]
        at += width
    return result


def _picoseconds(delay: float, unit: float) -> int:
    return max(1, round(delay * unit * 1e12))


def _ram(ram: Ram, domains: Mapping[int, int]) -> list[int]:
    sizes = [ram.parameters[name] for name in ("DEPTH", "WIDTH", "ADDR", "ELEMENTS", "PLANES")]
    ports = ("ren", "raddr", "wen", "waddr", "wdata", "wmask", "rdata")
    return [domains[ram.pins["clk"][0]], *sizes, *(net for port in ports for net in ram.pins[port])]


def _pack(
    netlist: Netlist, timing: Timing, weights: np.ndarray | None, group_of: Callable[[Placed], int]
) -> dict[str, Any]:
    unit = netlist.library.time_unit
    a: dict[str, Any] = {name: [] for name in _ARRAYS}
    a["gate_first"].append(0)
    group = [0] * netlist.nets
    for placed in netlist.cells:
        number = group_of(placed)
        for pin in placed.cell.outputs:
            group[placed.pins[pin]] = number
    for placed, pin, table in netlist.gates:
        a["gate_out"].append(placed.pins[pin])
        a["table"].append(table)
        delays = timing.delays[placed.name, pin]
        for name in placed.cell.inputs:
            a["gate_in"].append(placed.pins[name])
            rise, fall = delays.get(name, (0.0, 0.0))
            a["rise"].append(_picoseconds(rise, unit))
            a["fall"].append(_picoseconds(fall, unit))
        a["gate_first"].append(len(a["gate_in"]))
    for placed in netlist.flops:
        state = placed.cell.state
        if state is None:
            raise RuntimeError(f"{placed.name}: cell must be a flip-flop, not {placed.cell.name}")
        pin_of = {placed.cell.pins[pin].function.strip("() "): pin for pin in placed.cell.outputs}
        q = pin_of[state.q]
        a["flop_d"].append(placed.pins[state.data])
        a["flop_q"].append(placed.pins[q])
        a["flop_qn"].append(placed.pins[pin_of[state.qn]] if state.qn in pin_of else -1)
        a["flop_delay"].append(_picoseconds(max(next(iter(timing.delays[placed.name, q].values()))), unit))
        a["flop_clock"].append(netlist.domains[placed.clock])
    for placed in netlist.clock_gates:
        a["clock_enable"].append(placed.pins[placed.cell.data])
        a["clock_parent"].append(netlist.domains[placed.clock])
    a["ram"] = [value for ram in netlist.rams for value in _ram(ram, netlist.domains)]
    a["input_net"] = [net for nets in netlist.inputs.values() for net in nets]
    a["output_net"] = [net for nets in netlist.outputs.values() for net in nets]
    a["weight"] = np.zeros(netlist.nets) if weights is None else weights
    a["group"] = group
    return a
