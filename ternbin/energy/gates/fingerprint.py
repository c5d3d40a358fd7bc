"""A fingerprint of generated hardware that names and the order of the text have no part in.

Renaming a signal, moving Python sources, another numbering of Amaranth's unnamed nets or a gate that only doubles another leave it as it
is; another gate, width, constant or wire does not.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ternbin.energy.gates.yosys import run_passes, sources
from ternbin.storage import cache_dir, working_folder, write_text

Modules = dict[str, dict[str, Any]]  # by name, as Yosys's JSON has them
Bit = int | str  # the number of a net, or a constant
# No ROMs, whose names have numbers; equal gates with equal inputs count once, as synthesis has them.
_PASSES = ("proc -norom", "opt_merge", "opt_clean")
_ROUNDS = 4  # steps over cells that a difference spreads, and so is told from one elsewhere


def structure(verilog: Mapping[str, str], top: str) -> str:
    """Of module ``top`` of ``verilog`` (file name -> text), its ports by name. Cached. Raises MissingToolError without pyosys."""
    texts = sources(verilog)
    key = hashlib.sha256(json.dumps([_PASSES, _ROUNDS, top, texts], sort_keys=True).encode()).hexdigest()
    kept = cache_dir() / f"structure-{key[:24]}.txt"
    if not kept.exists():
        found = _Structure(_words(texts, top)).top(top)
        write_text(kept, found)
    return kept.read_text(encoding="utf-8")


def _words(texts: Mapping[str, str], top: str) -> Modules:
    """The modules as operators on words, as Yosys's JSON has them."""
    with working_folder("structure") as folder:
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        read = f"read_verilog -sv -DSYNTHESIS {' '.join(sorted(texts))}"
        run_passes([read, f"hierarchy -check -top {top}", *_PASSES, "write_json words.json"], folder)
        return json.loads((folder / "words.json").read_text(encoding="utf-8"))["modules"]


def _hash(*what: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest(), "little")


class _Structure:
    """Colours nets by what hangs on them, again and again, module by module from the leaves up."""

    def __init__(self, modules: Modules):
        self._modules = modules
        self._known: dict[str, tuple[int, dict[str, int]]] = {}

    def top(self, name: str) -> str:
        ports = self._modules[name]["ports"]
        return f"{self._module(name, {port: _hash(port) for port in ports})[0]:016x}"

    def _of(self, name: str) -> tuple[int, dict[str, int]]:
        """Hash of a module, and of each of its ports, by what it is good for."""
        if name not in self._known:
            ports = self._modules[name]["ports"]
            first = {port: _hash(ports[port]["direction"], len(ports[port]["bits"])) for port in ports}
            self._known[name] = self._module(name, first)
        return self._known[name]

    def _cell(self, cell: dict[str, Any]) -> tuple[int, list[tuple[int, list[Bit]]]]:
        """What kind of cell it is, and its pins: (hash, bits)."""
        inner = self._modules.get(cell["type"])
        if inner is None or not inner["cells"] and "blackbox" in inner["attributes"]:
            kind = _hash(cell["type"], sorted(cell["parameters"].items()))
            return kind, [(_hash(pin), bits) for pin, bits in cell["connections"].items()]
        kind, pins = self._of(cell["type"])
        return kind, [(pins[pin], bits) for pin, bits in cell["connections"].items()]

    def _module(self, name: str, ports: Mapping[str, int]) -> tuple[int, dict[str, int]]:
        module = self._modules[name]
        nets: dict[str, list[Bit]] = {port: module["ports"][port]["bits"] for port in ports}
        cells = [self._cell(cell) for cell in module["cells"].values()]
        colour = defaultdict[Bit, int](int, {bit: _hash(bit) for bit in "01xz"})
        for port, bits in nets.items():
            for place, bit in enumerate(bits):
                if isinstance(bit, int):
                    colour[bit] = _hash(colour[bit], ports[port], place)
        hashes: list[int] = []
        for _ in range(_ROUNDS):
            hashes = [
                _hash(kind, sorted((pin, [colour[b] for b in bits]) for pin, bits in pins)) for kind, pins in cells
            ]
            seen = defaultdict[int, list[tuple[int, int, int]]](list)
            for own, (_, pins) in zip(hashes, cells, strict=True):
                for pin, bits in pins:
                    for place, bit in enumerate(bits):
                        if isinstance(bit, int):
                            seen[bit].append((own, pin, place))
            for bit, uses in seen.items():
                colour[bit] = _hash(colour[bit], sorted(uses))
        found = {port: _hash(ports[port], [colour[bit] for bit in bits]) for port, bits in nets.items()}
        return _hash(sorted(hashes), sorted(found.values())), found
