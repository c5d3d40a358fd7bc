"""An accelerator with many mutants in it, of which an input chooses one, as a compiled simulator.

A mutant (Yosys `mutate`) is one bit of one port of one cell inverted, stuck, or inverted where another bit is 0 or 1.
"""

import ctypes
import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from mutant_liveness import Pin, live_pins

from ternbin.contract.hw import HwConfig
from ternbin.energy.gates.yosys import run_passes
from ternbin.sim.build import model_spec
from ternbin.sim.generated import generated
from ternbin.sim.toolchain import compile_model

# Unit -> its cells, as Yosys selects them; ? stands for what it writes before names.
UNITS = {
    "array": "ternbin/*execute.*array.*",
    "sequencer, drain": "ternbin/*execute.*sequencer.* ternbin/*execute.*drain.*",
    "epilogue": "ternbin/*execute.*epilogue.* ternbin/*execute.*epilogue.*top.* %d",
    "beam lists": "ternbin/*execute.*epilogue.*top.*",
    "softmax": "ternbin/*vector.*softmax.*",
    "LayerNorm": "ternbin/*vector.*layernorm.*",
    "quantize, embed": "ternbin/*vector.*quant.* ternbin/*vector.*embed.* ternbin/*vector.*writer.*",
    "load": "ternbin/$flatten?load.* ternbin/load.*",
    "store": "ternbin/$flatten?store.* ternbin/store.*",
    "memories": "ternbin/$flatten??buf.* ternbin/$flatten?idbuf.* *ternbin_ram/*",
    "control": "ternbin/$flatten?control.* ternbin/control.*",
    "axi": "ternbin/$flatten?axi.* ternbin/axi.*",
    "registers": "ternbin/$flatten?registers.* ternbin/registers.*",
    "counters": "ternbin.counters/*",
}
# Flat, and free of logic and bits that do nothing: a mutant there would be none. Of what the harness looks into, modules stay.
_TIDY = (
    "hierarchy -top ternbin",
    "proc",
    "setattr -mod -set keep_hierarchy 1 *ternbin_ram ternbin.counters",
    "opt_clean",
    "flatten",
    "opt_clean -purge",
    "opt -nodffe -nosdff",
    "wreduce",
    "splitcells",
    "opt_clean -purge",
    "opt -nodffe -nosdff",
)
_BITS = 16  # of the number of a mutant
_SPARE = 20  # for those that cannot be used
_CHOICE = """
static int chosen = 0;
extern "C" int mutant_number() { return chosen; }
extern "C" __attribute__((visibility("default"))) void tb_mutant(int number) { chosen = number; }
"""


@dataclass(frozen=True)
class Mutant:
    """``number``: what chooses it, from 1 on; ``how``: the command of Yosys; ``dead``: no output depends on its bit."""

    number: int
    unit: str
    how: str
    dead: bool


@dataclass(frozen=True)
class Mutants:
    """The compiled simulator ``library``, in which :meth:`choose` decides for the simulators made after it; 0: none."""

    library: Path
    mutants: tuple[Mutant, ...]

    def choose(self, number: int) -> None:
        ctypes.CDLL(str(self.library)).tb_mutant(number)


def _prepare(folder: Path, texts: dict[str, str], count: int, seed: int) -> None:
    """``design.il``, ``design.json`` and the lists of mutants, unless they are there for the same arguments."""
    share = -(-count // len(UNITS)) + _SPARE
    lists = [
        f"mutate -list {share} -seed {seed} -o list{number} {cells}" for number, cells in enumerate(UNITS.values())
    ]
    read = f"read_verilog -sv -DSYNTHESIS {' '.join(sorted(texts))}"
    steps = [read, *_TIDY, "write_rtlil design.il", *lists, "write_json design.json"]
    key = hashlib.sha256(repr((sorted(texts.items()), steps)).encode()).hexdigest()
    stamp = folder / "key"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != key:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        run_passes(steps, folder)
        stamp.write_text(key, encoding="utf-8")


def _listed(folder: Path, count: int) -> list[Mutant]:
    """``count`` mutants, as many of each unit as of any other; of a small unit fewer."""
    tables = set(re.findall(r"cell \$meminit\S* (\S+)", (folder / "design.il").read_text(encoding="utf-8")))
    live = live_pins(json.loads((folder / "design.json").read_text(encoding="utf-8"))["modules"]["ternbin"])
    found: list[Mutant] = []
    for position, unit in enumerate(UNITS):
        share = (count - len(found)) // (len(UNITS) - position)
        lines = dict.fromkeys((folder / f"list{position}").read_text(encoding="utf-8").splitlines())
        fit = [
            line for line in lines if "-mode none" not in line and not tables & set(line.split())
        ]  # they are constants
        found += [Mutant(len(found) + own, unit, line, _dead(line, live)) for own, line in enumerate(fit[:share], 1)]
    return found


def _dead(line: str, live: set[Pin]) -> bool:
    module, cell, port, bit = re.findall(r"-(?:module|cell|port|portbit) (\S+)", line)
    return module == "ternbin" and (cell, port, int(bit)) not in live


def _top(ports: list[dict]) -> str:
    declared = ", ".join(f"{port['direction']} wire [{port['bits'] - 1}:0] {port['name']}" for port in ports)
    pins = ", ".join(f".{port['name']}({port['name']})" for port in ports)
    return f"""module ternbin({declared});
  import "DPI-C" function int mutant_number();
  reg [{_BITS - 1}:0] mutant;
  initial mutant = mutant_number();
  ternbin_mutants mutants({pins}, .mutant(mutant));
endmodule
"""


def build(hw: HwConfig, count: int, seed: int, folder: Path) -> Mutants:
    """``hw`` with ``count`` mutants, in ``folder``; the same arguments give the same."""
    folder.mkdir(parents=True, exist_ok=True)
    found = generated(hw)
    _prepare(folder, found.verilog, count, seed)
    mutants = _listed(folder, count)
    steps = [each.how.replace("mutate ", f"mutate -ctrl mutant {_BITS} {each.number} ", 1) for each in mutants]
    (folder / "mutants.ys").write_text("\n".join(steps) + "\n", encoding="utf-8")
    run_passes(["read_rtlil design.il", "script mutants.ys", "write_verilog -noattr -sv mutants.v"], folder)
    text = (folder / "mutants.v").read_text(encoding="utf-8").replace("module ternbin(", "module ternbin_mutants(", 1)
    spec = model_spec(
        {"mutants.v": text, "top.v": _top(found.manifest["ports"])}, found.manifest, axi_bytes=hw.axi_bytes
    )
    spec = replace(
        spec,
        control=spec.control.replace('"ternbin_ram"', '"*ternbin_ram*"'),  # named by their sizes now
        cpp={**spec.cpp, "mutant.cpp": _CHOICE},
    )
    return Mutants(compile_model(spec), tuple(mutants))
