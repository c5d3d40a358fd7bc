"""A flat netlist of gates (Yosys JSON) with mutants in it as two circuits, without and with one of them, and what differs between them.

The two share their inputs and, but for those in ``apart``, their registers. A memory is cut: both read the same of the same address, and
what is written must not differ.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Literal = int  # 2 * node, + 1 where it is inverted; 0 is false, 1 is true
_TRUE = 1
# Outputs that mean something only while another is 1.
_VALID = {"m_axi_ar": "m_axi_arvalid", "m_axi_aw": "m_axi_awvalid", "m_axi_w": "m_axi_wvalid"}
_VALID |= {"s_axil_r": "s_axil_rvalid", "s_axil_b": "s_axil_bvalid"}


@dataclass
class Aig:
    """And gates of two literals; a node without is a leaf. The operands of a node come before it."""

    gates: list[tuple[Literal, Literal] | None] = field(default_factory=lambda: [None])
    known: dict[tuple[Literal, Literal], Literal] = field(default_factory=dict)

    def leaf(self) -> Literal:
        self.gates.append(None)
        return 2 * len(self.gates) - 2

    def both(self, a: Literal, b: Literal) -> Literal:
        a, b = min(a, b), max(a, b)
        if a == 0 or a == b ^ 1:
            return 0
        if a in (_TRUE, b):
            return b
        found = self.known.get((a, b))
        if found is None:
            self.gates.append((a, b))
            found = self.known[a, b] = 2 * len(self.gates) - 2
        return found

    def any(self, a: Literal, b: Literal) -> Literal:
        return self.both(a ^ 1, b ^ 1) ^ 1

    def some(self, literals: Iterable[Literal]) -> Literal:
        result = 0
        for literal in literals:
            result = self.any(result, literal)
        return result

    def differ(self, a: Literal, b: Literal) -> Literal:
        turned, a, b = (a ^ b) & 1, a & ~1, b & ~1
        return turned if a == b else self.any(self.both(a, b ^ 1), self.both(a ^ 1, b)) ^ turned

    def choose(self, which: Literal, zero: Literal, one: Literal) -> Literal:
        return one if zero == one else self.any(self.both(which, one), self.both(which ^ 1, zero))

    def leaves(self, literals: Iterable[Literal]) -> set[Literal]:
        """Those that some of the literals depend on, not inverted."""
        return {2 * node for node in self.cone(literals) if self.gates[node] is None}

    def cone(self, literals: Iterable[Literal]) -> set[int]:
        seen: set[int] = {0}
        waiting = [literal >> 1 for literal in literals]
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += [operand >> 1 for operand in self.gates[node] or ()]
        return seen - {0}

    def fixed(self, literal: Literal, leaf: Literal, kept: dict[int, Literal]) -> Literal:
        """The literal where ``leaf`` is 1. ``kept``: what was found before, for the same leaf."""
        kept |= {0: 0, leaf >> 1: _TRUE}
        waiting = [literal >> 1]
        while waiting:
            node = waiting[-1]
            gate = self.gates[node]
            before = [x >> 1 for x in gate or () if x >> 1 not in kept]
            if node in kept or not before:
                waiting.pop()
                if node not in kept:
                    kept[node] = self.both(*(kept[x >> 1] ^ x & 1 for x in gate)) if gate else 2 * node
            else:
                waiting += before
        return kept[literal >> 1] ^ literal & 1


_GATES: dict[str, Callable[..., Literal]] = {
    "$_AND_": Aig.both,
    "$_OR_": Aig.any,
    "$_XOR_": Aig.differ,
    "$_XNOR_": lambda aig, a, b: aig.differ(a, b) ^ 1,
    "$_NOT_": lambda _, a: a ^ 1,
    "$_MUX_": lambda aig, a, b, s: aig.choose(s, a, b),
}


def _taint_and(aig: Aig, given: Sequence[Literal], may: Sequence[Literal]) -> Literal:
    (a, b), (x, y) = given, may
    return aig.any(aig.both(x, aig.any(b, y)), aig.both(y, aig.any(a, x)))


def _taint_mux(aig: Aig, given: Sequence[Literal], may: Sequence[Literal]) -> Literal:
    (a, b, s), (x, y, z) = given, may
    return aig.any(aig.choose(s, x, y), aig.both(z, aig.some([aig.differ(a, b), x, y])))


# Whether a result may differ, from the values of what is given and whether these may.
_TAINTS: dict[str, Callable[[Aig, Sequence[Literal], Sequence[Literal]], Literal]] = {
    "$_AND_": _taint_and,
    "$_OR_": lambda aig, given, may: _taint_and(aig, [literal ^ 1 for literal in given], may),
    "$_XOR_": lambda aig, _, may: aig.some(may),
    "$_XNOR_": lambda aig, _, may: aig.some(may),
    "$_NOT_": lambda aig, _, may: may[0],
    "$_MUX_": _taint_mux,
}


@dataclass(frozen=True)
class Operation:
    """A gate, or a read port of a memory (``kind`` "read": its address gives its data)."""

    kind: str
    given: list[Any]
    results: list[Any]


@dataclass(frozen=True)
class Written:
    """A write port of a memory. ``awake``: the bit that lets its clock through, or None."""

    memory: str
    enables: list[Any]
    data: list[Any]
    address: list[Any]
    awake: Any


@dataclass(frozen=True)
class Register:
    result: Any
    following: Any
    awake: Any


class Pair:
    """The two circuits of a module. ``value``: literal of each bit without a mutant."""

    def __init__(self, module: dict[str, Any]):
        self.aig = Aig()
        self._outputs = [
            (name, bit)
            for name, port in module["ports"].items()
            if port["direction"] == "output"
            for bit in port["bits"]
        ]
        inputs = {name: port["bits"] for name, port in module["ports"].items() if port["direction"] == "input"}
        self._number, clock = inputs.pop("mutant"), inputs["clk"][0]
        self._read(module["cells"], clock)
        self.value: dict[Any, Literal] = {"0": 0, "1": _TRUE, "x": 0, "z": 0} | dict.fromkeys(self._number, 0)
        free = [bit for bits in inputs.values() for bit in bits]
        free += [bit for each in self._operations if each.kind == "read" for bit in each.results]
        for bit in [*free, *(each.result for each in self._registers)]:
            self.value[bit] = self.aig.leaf()
        self._users: dict[Any, list[int]] = defaultdict(list)
        for place, each in enumerate(self._operations):
            for bit in each.given:
                self._users[bit].append(place)
            if each.kind != "read":
                self.value[each.results[0]] = _GATES[each.kind](self.aig, *map(self.value.__getitem__, each.given))
        self.reset = self.value[inputs["rst"][0]]
        self._of = {self.value[each.result]: each for each in self._registers}
        self.following = {register: self._next(each, self.value) for register, each in self._of.items()}
        self._fixed: dict[int, Literal] = {}  # what literals are during reset
        self._second: dict[Any, Literal] = {}  # data of reads of the circuit with a mutant, where the address differs
        self._after: dict[Any, list[Literal]] = defaultdict(list)
        for register, each in self._of.items():
            for bit in {each.following, each.awake}:
                self._after[bit].append(register)

    def _read(self, cells: dict[str, Any], clock: Any) -> None:
        drivers: dict[Any, tuple[str, list[Any]]] = {}
        latches: dict[Any, Any] = {}
        operations: list[Operation] = []
        found: list[tuple[Any, Any, Any]] = []
        writes: list[tuple[str, list[Any], list[Any], list[Any], Any]] = []
        for name, cell in cells.items():
            kind, pins = cell["type"], cell["connections"]
            if kind == "$_DFF_P_":
                found.append((pins["Q"][0], pins["D"][0], pins["C"][0]))
            elif kind == "$_DLATCH_N_":
                latches[pins["Q"][0]] = pins["D"][0]
            elif kind == "$mem_v2":
                width, bits, reads, own = (
                    int(cell["parameters"][each], 2) for each in ("WIDTH", "ABITS", "RD_PORTS", "WR_PORTS")
                )
                for port in range(reads):
                    part, at = slice(port * width, (port + 1) * width), slice(port * bits, (port + 1) * bits)
                    operations.append(Operation("read", pins["RD_ADDR"][at], pins["RD_DATA"][part]))
                for port in range(own):
                    part, at = slice(port * width, (port + 1) * width), slice(port * bits, (port + 1) * bits)
                    writes.append(
                        (name, pins["WR_EN"][part], pins["WR_DATA"][part], pins["WR_ADDR"][at], pins["WR_CLK"][port])
                    )
            elif kind in _GATES:
                drivers[pins["Y"][0]] = kind, [pins[port][0] for port in ("A", "B", "S") if port in pins]
            elif kind != "$scopeinfo":
                raise ValueError(f"a cell must be a gate, a register or a memory, not {kind}")

        def awake(clocked: Any) -> Any:
            """A clock gate lets an edge through where its latch, open before it, was 1."""
            if clocked == clock:
                return None
            kind, given = drivers[clocked]
            latch = set(given) - {clock}
            if kind != "$_AND_" or clock not in given or len(latch) != 1:
                raise ValueError("a clock must come through a clock gate: no mutant of one can be asked for")
            return latches[latch.pop()]

        operations += [Operation(kind, given, [bit]) for bit, (kind, given) in drivers.items()]
        gates = {clocked: awake(clocked) for clocked in {each[-1] for each in (*found, *writes)}}
        self._operations = list(_sorted([each for each in operations if not set(each.given) & latches.keys()]))
        self._registers = [Register(result, following, gates[at]) for result, following, at in found]
        self._writes = [Written(*own, gates[at]) for *own, at in writes]  # pyright: ignore[reportCallIssue]

    def _next(self, register: Register, value: Any) -> Literal:
        following = value[register.following]
        if register.awake is None:
            return following
        return self.aig.choose(value[register.awake], value[register.result], following)

    def differences(
        self, number: int, apart: dict[Literal, Literal]
    ) -> tuple[dict[object, Literal], dict[Literal, Literal]]:
        """Where a mutant differs: output or memory -> whether it does, register (as the literal of the circuit without) -> whether what
        follows does. And what follows in the registers ``apart``, which map to the literals that they have with the mutant."""
        aig, changed = self.aig, _Changed(self.value)
        waiting: list[int] = []
        seen: set[int] = set()

        def change(bit: Any, value: Literal) -> None:
            if value == self.value[bit]:
                return
            changed.own[bit] = value
            for place in self._users[bit]:
                if place not in seen:
                    seen.add(place)
                    heapq.heappush(waiting, place)

        for place, bit in enumerate(self._number):
            change(bit, number >> place & 1)
        for register, other in apart.items():
            change(self._of[register].result, other)
        while waiting:
            each = self._operations[heapq.heappop(waiting)]
            if each.kind != "read":
                change(each.results[0], _GATES[each.kind](aig, *map(changed.__getitem__, each.given)))
                continue
            moved = 0
            for bit in each.given:
                moved = aig.any(moved, aig.differ(self.value[bit], changed[bit]))
            for bit in each.results:
                if bit not in self._second:
                    self._second[bit] = aig.leaf()
                change(bit, aig.choose(moved, self.value[bit], self._second[bit]))
        found: dict[object, Literal] = {}
        for name, bit in self._outputs:
            if bit in changed.own:
                found[name] = aig.any(
                    found.get(name, 0), aig.both(self._shown(name), aig.differ(self.value[bit], changed[bit]))
                )
        for each in self._writes:
            if {*each.enables, *each.data, *each.address, each.awake} & changed.own.keys():
                found[each.memory] = aig.any(found.get(each.memory, 0), self._written(each, changed))
        follows = {register: self._next(self._of[register], changed) for register in apart}
        for register in {register for bit in changed.own for register in self._after.get(bit, ())} - apart.keys():
            found[register] = aig.differ(self.following[register], self._next(self._of[register], changed))
        return {where: literal for where, literal in found.items() if literal}, follows

    def taints(
        self, number: int, apart: dict[Literal, Literal]
    ) -> tuple[dict[object, Literal], dict[Literal, Literal]]:
        """As :meth:`differences`, of one circuit: where the one with the mutant *may* differ from it. A gate's result may where an input
        may and the others let it through; ``apart`` maps to the literals that say whether a register may."""
        aig, value = self.aig, self.value
        other: dict[Any, Literal] = {}  # where both values are constants: the mutant's
        tainted: dict[Any, Literal] = {}
        waiting: list[int] = []

        def change(bit: Any, of: dict[Any, Literal], literal: Literal) -> None:
            of[bit] = literal
            for place in self._users[bit]:
                heapq.heappush(waiting, place)

        for place, bit in enumerate(self._number):
            if number >> place & 1:
                change(bit, other, _TRUE)
        for register, literal in apart.items():
            change(self._of[register].result, tainted, literal)

        def may(bit: Any) -> Literal:
            return tainted.get(bit, _TRUE if bit in other else 0)

        last = -1
        while waiting:
            place = heapq.heappop(waiting)
            if place == last:
                continue
            last, each = place, self._operations[place]
            if each.kind == "read":
                moved = aig.some(map(may, each.given))
                for bit in each.results if moved else ():
                    change(bit, tainted, moved)
                continue
            bit, given = each.results[0], [value[bit] for bit in each.given]
            if not any(bit in tainted for bit in each.given):
                changed = _GATES[each.kind](aig, *(other.get(bit, value[bit]) for bit in each.given))
                if {value[bit], changed} == {0, _TRUE}:
                    change(bit, other, changed)
                elif changed != value[bit]:
                    change(bit, tainted, aig.differ(value[bit], changed))
            elif literal := _TAINTS[each.kind](aig, given, [may(bit) for bit in each.given]):
                change(bit, tainted, literal)

        found: dict[object, Literal] = {}
        for name, bit in self._outputs:
            found[name] = aig.any(found.get(name, 0), aig.both(self._shown(name), may(bit)))
        for port in self._writes:
            found[port.memory] = aig.any(found.get(port.memory, 0), self._stray(port, may))
        follows = {register: self._stray_next(self._of[register], may) for register in apart}
        for register in {
            register for bit in (*tainted, *other) for register in self._after.get(bit, ())
        } - apart.keys():
            found[register] = self._stray_next(self._of[register], may)
        return {where: literal for where, literal in found.items() if literal}, follows

    def _stray(self, port: Written, may: Callable[[Any], Literal]) -> Literal:
        """Whether what a port writes may differ."""
        aig, value, result, writes = self.aig, self.value, 0, 0
        awake, stray = (_TRUE, 0) if port.awake is None else (value[port.awake], may(port.awake))
        for enable, data in zip(port.enables, port.data, strict=True):
            on = aig.both(value[enable], awake)
            other = _TAINTS["$_AND_"](aig, [value[enable], awake], [may(enable), stray])
            result, writes = aig.some([result, other, aig.both(on, may(data))]), aig.any(writes, on)
        return aig.any(result, aig.both(writes, aig.some(map(may, port.address))))

    def _stray_next(self, register: Register, may: Callable[[Any], Literal]) -> Literal:
        if register.awake is None:
            return may(register.following)
        given = register.result, register.following, register.awake
        return _TAINTS["$_MUX_"](self.aig, [self.value[bit] for bit in given], [may(bit) for bit in given])

    def _shown(self, output: str) -> Literal:
        for prefix, valid in _VALID.items():
            if output.startswith(prefix) and output != valid and not output.endswith("ready"):
                return next(self.value[bit] for name, bit in self._outputs if name == valid)
        return _TRUE

    def _written(self, port: Written, changed: "_Changed") -> Literal:
        aig, result, writes = self.aig, 0, 0
        awake = (_TRUE, _TRUE) if port.awake is None else (self.value[port.awake], changed[port.awake])
        for enable, data in zip(port.enables, port.data, strict=True):
            before, after = (aig.both(on, of[enable]) for on, of in zip(awake, (self.value, changed), strict=True))
            other = aig.both(before, aig.differ(self.value[data], changed[data]))
            result, writes = aig.any(result, aig.any(aig.differ(before, after), other)), aig.any(writes, before)
        for bit in port.address:
            result = aig.any(result, aig.both(writes, aig.differ(self.value[bit], changed[bit])))
        return result

    def write(
        self,
        path: Path,
        wrong: list[Literal],
        apart: dict[Literal, Literal],
        follows: dict[Literal, Literal],
        depth: int,
        same: bool = False,
    ) -> None:
        """A file (AIGER) whose outputs are ``wrong``. The registers ``apart`` are in it, and others within ``depth`` registers; what is
        further away is free. They begin as reset leaves them, and those that it does not set with any value, the same in both circuits.
        ``same``: ``apart`` maps to whether registers may differ, which they do not where they begin with any value."""
        aig, of = self.aig, {other: register for register, other in apart.items()}
        after = {**self.following, **{other: follows[register] for other, register in of.items()}}
        kept: dict[Literal, Literal] = {}
        seen = fresh = aig.leaves(wrong)
        while fresh:
            own = {each for each in fresh if each in after and (depth > 0 or each in apart or each in of)}
            depth -= 1
            kept |= {each: after[each] for each in own}
            fresh = aig.leaves(kept[each] for each in own) - seen
            seen = seen | fresh
        begin = {each: aig.fixed(following, self.reset, self._fixed) for each, following in kept.items()}
        begin |= {each: 0 for each in begin if same and each in of and begin[each] > 1}
        names, gates = {0: 0}, list[tuple[int, int, int]]()
        free = sorted(seen - kept.keys())
        unknown = sorted({of.get(each, each) for each in kept if begin[each] > 1})
        names |= {each >> 1: 2 * place for place, each in enumerate(free, 1)}
        starts = {each: 2 * place for place, each in enumerate(unknown, 1 + len(free))}
        started = 2 * (1 + len(free) + len(unknown))  # a register that is 0 in the first cycle
        states = {each: started + 2 * place for place, each in enumerate(kept, 1)}

        def gate(a: int, b: int) -> int:
            gates.append((started + 2 * len(kept) + 2 * len(gates) + 2, max(a, b), min(a, b)))
            return gates[-1][0]

        for each, state in states.items():
            if begin[each] > 1:
                names[each >> 1] = gate(gate(state, started) ^ 1, gate(starts[of.get(each, each)], started ^ 1) ^ 1) ^ 1
            else:
                names[each >> 1] = state ^ begin[each]

        def name(literal: Literal) -> int:
            return names[literal >> 1] ^ literal & 1

        for node in sorted(aig.cone([*wrong, *kept.values()])):
            if operands := aig.gates[node]:
                names[node] = gate(*map(name, operands))
        lines = [_TRUE, *(name(after) ^ (begin[each] == 1) for each, after in kept.items()), *map(name, wrong)]
        inputs, latches = len(free) + len(unknown), 1 + len(kept)
        head = f"aig {inputs + latches + len(gates)} {inputs} {latches} {len(wrong)} {len(gates)}\n"
        text = head + "".join(f"{line}\n" for line in lines)
        path.write_bytes(text.encode() + b"".join(_number(r - a) + _number(a - b) for r, a, b in gates))


@dataclass
class _Changed:
    """Literals of the circuit with a mutant: ``own`` where they are others than without."""

    base: dict[Any, Literal]
    own: dict[Any, Literal] = field(default_factory=dict)

    def __getitem__(self, bit: Any) -> Literal:
        return self.own[bit] if bit in self.own else self.base[bit]


def _sorted(operations: list[Operation]) -> Iterator[Operation]:
    """Each after those whose results it is given."""
    source = {bit: place for place, each in enumerate(operations) for bit in each.results}
    done = [False] * len(operations)
    for first in range(len(operations)):
        waiting = [first]
        while waiting:
            place = waiting[-1]
            before = [source[bit] for bit in operations[place].given if bit in source and not done[source[bit]]]
            if before and not done[place]:
                waiting += before
                continue
            waiting.pop()
            if not done[place]:
                done[place] = True
                yield operations[place]


def _number(value: int) -> bytes:
    """As AIGER writes it: 7 bits a byte, low ones first."""
    result = bytearray()
    while value >= 128:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])
