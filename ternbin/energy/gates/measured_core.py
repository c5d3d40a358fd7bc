"""Whole cores at gate level: what each part spends in every window of a workload, and the counters of the window.

Measuring is the long part of a characterisation. So it is kept in the cache, under a fingerprint of all that went into it: an interrupted
one goes on, and other events are fitted without measuring again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.program import Program
from ternbin.counting.external import MemoryModel
from ternbin.counting.traffic import Traffic, traffic
from ternbin.energy.block_events import events
from ternbin.energy.gates.fingerprint import structure
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.whole_core import PARTS, Core, Recording, record
from ternbin.energy.gates.yosys import tool_versions
from ternbin.graph.ir import Lowered
from ternbin.mapping.mapper import map_model
from ternbin.rtl.verilog.generate import TOP
from ternbin.sim.generated import generated
from ternbin.storage import replacing, writable_cache, write_text

WINDOW = 256  # cycles of one equation
COMPONENTS = ("clock", "settled", "glitches")
_AFTER = ("fitting.py", "characterise.py")  # modules of this folder that come after measuring


@dataclass(frozen=True)
class Workload:
    """The first ``calls`` program calls of a lowered model on a source text."""

    name: str
    lowered: Lowered
    ids: Sequence[int]
    calls: int
    memory: MemoryModel = MemoryModel()

    def record(self, hw: HwConfig) -> Recording:
        program = self._program(hw)
        return record(program, self.ids, self.lowered.meta["decoder_start_id"], range(self.calls), self.memory)

    def traffic(self, hw: HwConfig) -> Traffic:
        """What its calls move over the bus."""
        program = self._program(hw)
        return traffic(hw, [i for number in range(self.calls) for i in program.instructions(number)], 0)

    def _program(self, hw: HwConfig) -> Program:
        return map_model(self.lowered, hw, len(self.ids), self.calls)


@dataclass
class Measurement:
    """One workload on one core. ``windows``: counter -> its count in every window of WINDOW cycles; ``energy``: component -> part ->
    femtojoules of every window; ``calls``: the first window of each call; ``counters``: of each call."""

    workload: str
    hw: HwConfig
    calls: list[int]
    windows: dict[str, np.ndarray]
    energy: dict[str, dict[str, np.ndarray]]
    counters: list[dict[str, int]]

    @cached_property
    def events(self) -> dict[str, dict[str, np.ndarray]]:
        """Part -> event -> how often in every window."""
        return events(self.windows, self.hw)

    def save(self, path: Path) -> None:
        said = {"calls": self.calls, "counters": self.counters, "windows": list(self.windows)}
        energy = np.stack([np.stack([self.energy[name][part] for part in PARTS]) for name in COMPONENTS])
        with replacing(path) as fresh, fresh.open("wb") as file:
            np.savez_compressed(
                file, said=json.dumps(said), windows=np.stack(list(self.windows.values())), energy=energy
            )

    @classmethod
    def load(cls, path: Path, workload: str, hw: HwConfig) -> "Measurement":
        with np.load(path, allow_pickle=False) as held:
            said = json.loads(str(held["said"]))
            windows = dict(zip(said["windows"], held["windows"], strict=True))
            energy = {
                name: dict(zip(PARTS, own, strict=True)) for name, own in zip(COMPONENTS, held["energy"], strict=True)
            }
        return cls(workload, hw, said["calls"], windows, energy, said["counters"])


def measure(core: Core, name: str, recording: Recording) -> Measurement:
    first = np.arange(recording.starts[0], recording.cycles, WINDOW)
    windows = {counter: np.add.reduceat(steps, first) for counter, steps in recording.events.items()}
    windows["cycles"] = np.diff(np.append(first, recording.cycles))
    timed, settled = (core.energy(recording, timed=timed) for timed in (True, False))
    energy: dict[str, dict[str, np.ndarray]] = {component: {} for component in COMPONENTS}
    for part, cycles in timed.items():  # toggles and clock of every cycle; the clock is the same in both
        toggles, clock = np.add.reduceat(cycles, first, axis=0).T
        quiet = np.add.reduceat(settled[part][:, 0], first)
        energy["clock"][part], energy["settled"][part], energy["glitches"][part] = clock, quiet, toggles - quiet
    calls = [int(np.searchsorted(first, start)) for start in recording.starts]
    spans = zip(recording.starts, [*recording.starts[1:], recording.cycles], strict=True)
    counters = [{name: int(steps[start:end].sum()) for name, steps in recording.events.items()} for start, end in spans]
    return Measurement(name, core.hw, calls, windows, energy, counters)


class MeasuredCore:
    """A core, synthesized where something of it has not been measured before."""

    def __init__(self, hw: HwConfig, library: Library):
        self.hw, self.library = hw, library

    @cached_property
    def core(self) -> Core:
        return Core(self.hw, self.library)

    @cached_property
    def _fingerprint(self) -> str:
        """Of RTL, library, tools and the modules that measure."""
        ours = [path for path in sorted(Path(__file__).parent.glob("*.*")) if path.name not in _AFTER]
        texts = [path.read_text(encoding="utf-8") for path in ours if path.suffix in (".py", ".cpp")]
        said = [sorted(generated(self.hw).verilog.items()), self.library.declared, tool_versions(), texts]
        return hashlib.sha256(repr(said).encode() + self.library.path.read_bytes()).hexdigest()

    def _kept(self, what: str, suffix: str) -> Path:
        key = hashlib.sha256((self._fingerprint + what).encode()).hexdigest()[:24]
        return writable_cache() / f"gates-{key}.{suffix}"

    @cached_property
    def sizes(self) -> dict[str, Any]:
        """``core``: hardware, its structure's digest, cells, area and timing; ``parts``: cells, area and leakage of each."""
        path = self._kept("sizes", "json")
        if not path.exists():
            described = {"hardware": self.hw.asdict(), "structure": digest(self.hw)} | self.core.summary()
            found = {"core": described, "parts": {part: self.core.part(part) for part in PARTS}}
            write_text(path, json.dumps(found))
        return json.loads(path.read_text(encoding="utf-8"))

    def measure(self, workload: Workload, progress: Callable[[str], None]) -> Measurement:
        recording = workload.record(self.hw)
        held = hashlib.sha256(
            recording.inputs.tobytes() + recording.outputs.tobytes() + repr(recording.starts).encode()
        )
        path = self._kept(held.hexdigest(), "npz")
        if not path.exists():
            progress(f"core {self.hw.name}: {workload.name}")
            measure(self.core, workload.name, recording).save(path)
        return Measurement.load(path, workload.name, self.hw)


def digest(hw: HwConfig) -> str:
    """Of the hardware that was synthesized, whatever its names: other hardware needs a new characterisation."""
    return structure(generated(hw).verilog, TOP)
