"""Cells of a library by function, what is built from gates, what is refused; whole blocks on libraries that are not Nangate's."""

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ternbin.cli import main
from ternbin.contract.hw import HwConfig
from ternbin.energy import figures
from ternbin.energy.gates.blocks import mac_block, trits_block
from ternbin.energy.gates.cells import Cell, Gate, Table
from ternbin.energy.gates.engine import Simulator, pack, unpack
from ternbin.energy.gates.fingerprint import structure
from ternbin.energy.gates.liberty import Library
from ternbin.energy.gates.measure import WARMUP, Measured
from ternbin.energy.gates.power import domain_energy
from ternbin.energy.gates.roles import open_library, roles
from ternbin.energy.gates.rtl_run import check_equal, run
from ternbin.energy.gates.stimuli import UNITS, forms, random_rows, sequence
from ternbin.energy.gates.synthesis import synthesize
from ternbin.energy.gates.timing import analyse
from ternbin.energy.library import Declared, declared_for, read_declared
from ternbin.errors import InputError
from ternbin.rtl.parts.primitives import primitives

HERE = Path(__file__).parent
PLAIN = HERE / "plain.lib"
OSU = Path("/usr/share/qflow/tech/osu035/osu035_stdcells.lib")  # Debian: qflow-tech-osu035

_TABLES = "".join(
    f"""{table} (by_load) {{ index_1 ("0.0, 50.0"); index_2 ("0.01, 0.5"); values ("0.1, 0.1", "0.2, 0.2"); }}
"""
    for table in ("cell_rise", "cell_fall", "rise_transition", "fall_transition")
)


def _output(name: str, what: str, *inputs: str) -> str:
    arcs = "".join(f'timing () {{ related_pin : "{pin}"; {_TABLES} }}\n' for pin in inputs)
    power = f'internal_power () {{ related_pin : "{" ".join(inputs)}"; power (s) {{ values ("1.0"); }} }}'
    return f"pin ({name}) {{ direction : output; {what} {arcs} {power} }}"


FULL_ADDER = f"""
  cell (FULL) {{ area : 9.0;
    pin (X) {{ direction : input; capacitance : 1.0; }} pin (Y) {{ direction : input; capacitance : 1.0; }}
    pin (C) {{ direction : input; capacitance : 1.0; }}
    {_output("NC", 'function : "!(X Y + C (X + Y))";', "X", "Y", "C")}
    {_output("SUM", 'function : "X ^ Y ^ C";', "X", "Y", "C")} }}
"""
CLOCK_GATE = f"""
  cell (ICG) {{ area : 7.0; clock_gating_integrated_cell : "latch_posedge_precontrol";
    pin (P) {{ direction : input; clock_gate_clock_pin : true; capacitance : 1.0; }}
    pin (Q) {{ direction : input; clock_gate_enable_pin : true; capacitance : 1.0; }}
    pin (T) {{ direction : input; clock_gate_test_pin : true; capacitance : 1.0; }}
    {_output("R", 'clock_gate_out_pin : true; state_function : "P Q";', "P")} }}
"""


def _changed(tmp_path, *edits: tuple[str, str], more: str = "") -> Path:
    """The plain library with regular expressions replaced, and with ``more`` cells."""
    text = PLAIN.read_text()
    for pattern, by in edits:
        text, count = re.subn(pattern, by, text, flags=re.S)
        assert count, pattern
    path = tmp_path / "changed.lib"
    path.write_text(text.rstrip().removesuffix("}") + more + "}\n")
    return path


def _without(cell: str) -> tuple[str, str]:
    return rf"  cell \({cell}\).*?(?=  cell |\}}\n\Z)", ""


def _clock_gate(library: Library) -> tuple[Cell, Gate]:
    cell = roles(library).clock_gate
    assert cell.gate
    return cell, cell.gate


def test_what_the_library_has_not_is_built_from_gates():
    found = roles(open_library(PLAIN))
    assert (found.flip_flop, found.buffer, found.full_adder) == ("KEEP", "DRIVER", None)
    assert found.gate_parts == ("HOLD", "NOT", "TWICE")
    assert found.described()["full_adder"] == "gates" and found.described()["clock_gate"] == "HOLD + NOT + TWICE"


def test_cells_are_found_by_function(tmp_path):
    found = roles(open_library(_changed(tmp_path, more=FULL_ADDER + CLOCK_GATE)))
    adder = found.full_adder
    assert adder and (adder.cell, adder.inputs, adder.sum, adder.carry) == ("FULL", ("X", "Y", "C"), "SUM", "NC")
    assert adder.inverted == (False, True)
    assert found.clock_gate.gate == Gate("P", "Q", "R", low=("T",)) and found.gate_parts == ()


def test_the_energy_of_a_built_clock_gate_by_hand():
    library = open_library(PLAIN)
    cell, gate = _clock_gate(library)
    pins, edge = cell.pins, library.clock_slew
    assert edge == 0.02 and gate == Gate("CK", "E", "GCK")
    assert cell.area == 5 + 1 + 6 and cell.leakage == 120
    # The inverter's and the AND's pin. An edge: the inverter's 1, the latch's 0.25, half C V^2 of the latch's pin.
    assert pins["CK"].cap == 2 and pins["CK"].internal(edge, 0) == pytest.approx(1 + 0.25 + 0.5)
    # The latch's 1 and half C V^2 of the AND's pin; the setup of a latch.
    assert pins["E"].cap == 1 and pins["E"].internal(edge, 0) == pytest.approx(1 + 0.5)
    assert pins["E"].setup and pins["E"].setup[0](0.0, 0.0) == 0.04
    assert pins["GCK"].internal(edge, 9) == 1.5


@pytest.mark.parametrize(
    ("edits", "parts", "share"),
    [
        ([(r'enable : "G"', 'enable : "G\'"')], ("HOLD", "TWICE"), 1.0),  # open while the clock is low: no inverter
        ([_without("TWICE")], ("HOLD", "NOT", "NAND", "NOT"), 1.0),
        ([_without("HOLD")], ("KEEP", "NOT", "TWICE"), 0.5),  # a flip-flop behind an inverter
        ([(r"(cell \(HOLD\) \{\s+area : )5.0", r"\g<1>0.0")], ("KEEP", "NOT", "TWICE"), 0.5),  # its area is not known
        ([_without("HOLD"), (r'clocked_on : "T"', 'clocked_on : "!T"')], None, 0.0),
    ],
)
def test_clock_gates_of_other_parts(tmp_path, edits, parts, share):
    path = _changed(tmp_path, *edits)
    if parts is None:  # the only flip-flop takes its data at the falling edge
        with pytest.raises(InputError, match="must have a rising-edge flip-flop"):
            open_library(path)
        return
    library = open_library(path)
    assert roles(library).gate_parts == parts
    assert _clock_gate(library)[1].share == share


def test_a_flip_flop_of_the_falling_edge_holds_the_enable_for_half_a_cycle(tmp_path):
    falling = re.findall(r"  cell \(KEEP\).*?(?=  cell )", PLAIN.read_text(), re.S)[0]
    falling = falling.replace("KEEP", "LATE").replace('clocked_on : "T"', 'clocked_on : "!T"').replace("8.0", "9.0")
    library = open_library(_changed(tmp_path, _without("HOLD"), more=falling))
    assert roles(library).gate_parts == ("LATE", "TWICE") and _clock_gate(library)[1].share == 0.5
    source = "module top (input clk, input [7:0] d, input e, output reg [7:0] q); always @(posedge clk) if (e) q <= d; endmodule"
    gated = synthesize({"top.v": source}, "top", library, gating=True)
    (gate,) = gated.clock_gates
    assert gate.cell.name == "ternbin_built_clock_gate" and len(gated.flops) == 8
    setup = gate.cell.pins["E"].setup
    assert setup and analyse(gated).critical_path >= 2 * setup[0](0.02, 0.02)  # the enable has half of the cycle


# What the parts of a built clock gate do beside the RTL's gate: each clocks a counter. The enable changes after the edge.
_BEHAVIOUR = """
module latch_gate (input clk, input enable, output gated);
  reg held; wire low = ~clk;
  always @* if (low) held = enable;
  assign gated = held & clk;
endmodule
module flop_gate (input clk, input enable, output gated);
  reg held;
  always @(negedge clk) held <= enable;
  assign gated = held & clk;
endmodule
module top (input clk, input e, output reg [9:0] a, output reg [9:0] b, output reg [9:0] c);
  reg enable; wire x, y, z;
  always @(posedge clk) enable <= e;
  ternbin_clock_gate one (clk, enable, x);
  latch_gate two (clk, enable, y);
  flop_gate three (clk, enable, z);
  always @(posedge x) a <= a + 1;
  always @(posedge y) b <= b + 1;
  always @(posedge z) c <= c + 1;
endmodule
"""


def test_built_clock_gates_give_the_edges_of_the_rtl_gate():
    rng = random.Random(5)
    counts = {"a": 10, "b": 10, "c": 10}
    verilog = {"top.v": _BEHAVIOUR, "gate.v": primitives()["ternbin_clock_gate.v"]}
    rows = run(verilog, "top", {"e": 1}, counts, pack({"e": 1}, {"e": [rng.getrandbits(1) for _ in range(500)]}))
    a, b, c = ([(n - values[4]) % 1024 for n in values[4:]] for values in unpack(counts, rows).values())
    assert a == b == c and a[-1] > 200


def test_declared_cells_win(tmp_path):
    path = _changed(tmp_path, more=FULL_ADDER + CLOCK_GATE)
    beside = path.with_suffix(".cells.toml")
    beside.write_text(
        'full_adder = "gates"\nclock_gate = "gates"\nnode_nm = 130\ndont_use = ["TW*"]\nclock_slew_ns = 0.05\n'
    )
    library = open_library(path)
    assert (roles(library).full_adder, roles(library).gate_parts) == (None, ("HOLD", "NOT", "NAND", "NOT"))
    assert library.declared.node_nm == 130 and library.clock_slew == 0.05 and "TWICE" in roles(library).dont_use
    other = tmp_path / "other.toml"
    other.write_text('clock_gate = "ICG"\n')
    assert roles(open_library(path, other)).clock_gate.name == "ICG"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node_nm = 'small'", "node_nm must be a number above 0, at most 100000, not 'small'"),
        ("ram_access_ns = -1", "ram_access_ns must be above 0, at most 1000, not -1"),
        ("dont_use = 'PAD'", "dont_use must be a list, not 'PAD'"),
        ("buffer = 3", "buffer must be a text, not 3"),
        ("fulladder = 'FA'", "unknown field 'fulladder'"),
        ("node_nm = inf", "node_nm must be above 0, at most 100000, not inf"),
        ("node_nm = true", "node_nm must be a number above 0, at most 100000, not true"),
        ("dont_use = ['PAD', 3]", r"dont_use\[1\] must be a text, not 3"),
        ("buffer = ''", "buffer must be a text of 1 to 200 printable characters, not ''"),
        ("= 3", "must be TOML, not broken "),
        ("full_adder = 'NAND'", r"full_adder must be 'gates' or a cell with sum and carry .*\(none here\), not 'NAND'"),
        ("clock_gate = 'NAND'", r"clock_gate must be 'gates' or a cell with .*\(none here\), not 'NAND'"),
        ("buffer = 'NOT'", r"buffer must be a cell that gives its input \(DRIVER\), not 'NOT'"),
        ("wire_load = 'small'", "the wire load must be one of none, not 'small'"),
    ],
)
def test_wrong_declarations_are_refused(tmp_path, text, message):
    path = tmp_path / "x.cells.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        open_library(PLAIN, path)


def test_facts_of_the_default_library_are_known():
    found = declared_for(Path("stdcells.lib"), "NangateOpenCellLibrary")
    assert (found.node_nm, found.ram_access_ns, found.buffer) == (45, 0.8, "BUF_X4")
    assert declared_for(PLAIN, "plain") == Declared()
    with pytest.raises(InputError, match="none.toml: cannot be read"):
        read_declared(Path("none.toml"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ((r'time_unit : "1ns";', ""), "time_unit must be a number and a unit, such as 1ns or 1nW, but is missing"),
        ((r'"1nW"', '"1 furlong"'), "leakage_power_unit must be a number and a unit, .* not '1 furlong'"),
        (
            (r"capacitive_load_unit \(1, ff\);", ""),
            "capacitive_load_unit must be a number and a unit, .* but is missing",
        ),
        ((r"nom_voltage : 1.0;", ""), "nom_voltage must be a supply of more than 0 V, not 0"),
        ((r"ff \(N, M\) \{", 'ff (N, M) { clear : "S";'), "must have a rising-edge flip-flop without set and reset"),
        ((r"area : 8.0;", ""), "must have a rising-edge flip-flop .* with area"),
        ((r"internal_power", "nothing"), r"must have a rising-edge flip-flop .* power tables \(internal_power\)"),
        (_without("NOT"), "must have an inverter"),
        (_without("DRIVER"), r"buffer must be a cell that gives its input \(\), not None"),
        ((r"\}\n\Z", ""), "must have an end for every group: "),
        ((r"\Alibrary|library \(plain\)", "cells (plain)"), "must be a Liberty library with cells"),
        (
            (r'values \("0.02, 0.03", "0.2, 0.3"\)', 'values ("0.02, 0.03")'),
            "cell KEEP must be readable, but: a table must",
        ),
        (
            (r'index_1 \("0.0, 50.0"\)', 'index_1 ("50.0, 0.0")'),
            "cell KEEP must be readable, but: the points of a table",
        ),
        ((r"0.03, 0.13", "0.03, x"), "cell .* must be readable, but: could not convert string to float"),
    ],
)
def test_a_library_that_cannot_serve_is_refused_in_one_line(tmp_path, capsys, edit, message):
    path = tmp_path / "bad.lib"
    pattern, by = edit
    text, count = re.subn(pattern, by, PLAIN.read_text(), flags=re.S)
    assert count
    path.write_text(text)
    assert main(["energy", "--rebuild", "--lib", str(path), "--store", str(tmp_path / "new.json")]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "bad.lib" in error and error.count("\n") == 1


def test_axes_of_a_table_are_those_of_its_template():
    table = open_library(PLAIN).cell("NOT").pins["O"].arcs[0].delay[0]
    assert isinstance(table, Table) and table.axes == ((0.01, 0.5), (0.0, 50.0))
    assert table(0.5, 0.0) == pytest.approx(0.13) and table(0.01, 50.0) == pytest.approx(0.23)


def _energies(path: Path, block, rows) -> tuple[Measured, dict]:
    measured = Measured.of(block, open_library(path))
    return measured, measured.energy(sequence(WARMUP + 64, *rows))


def operands(block, rng):
    """Random ones of its own kind."""
    if block.kind in UNITS:
        return UNITS[block.kind](block, rng)
    return tuple(random_rows(block, form, rng) for form in forms(block.kind))


@pytest.mark.build
@pytest.mark.parametrize("block", [mac_block("ternary", 16), trits_block()], ids=lambda block: block.kind)
def test_a_block_on_a_library_without_adder_and_gate_equals_its_rtl(block):
    """Synthesis, every output in every cycle, energy."""
    measured, energy = _energies(PLAIN, block, operands(block, random.Random(1)))
    assert {placed.cell.name for placed in measured.netlist.cells} <= {"NOT", "DRIVER", "NAND", "NOR", "TWICE", "KEEP"}
    assert energy["glitch"].element >= energy["zero_delay"].element > 0 and energy["zero_delay"].operands > 0


@pytest.mark.build
def test_a_full_adder_of_inverted_outputs_is_used(tmp_path):
    rng = random.Random(2)
    block = mac_block("ternary", 16)
    measured, _ = _energies(
        _changed(tmp_path, more=FULL_ADDER), block, tuple(random_rows(block, form, rng) for form in forms(block.kind))
    )
    assert "FULL" in {placed.cell.name for placed in measured.netlist.cells}


def test_gated_flip_flops_behind_a_built_gate_equal_their_rtl():
    source = """module top (input clk, input [15:0] d, input e, output reg [15:0] q, output reg [15:0] p);
      wire g; ternbin_clock_gate gate (.clk(clk), .enable(e), .gated(g));
      always @(posedge clk) if (e & d[0]) q <= d ^ 16'h1234; always @(posedge g) p <= d; endmodule"""
    verilog = {"top.v": source, "ternbin_clock_gate.v": primitives()["ternbin_clock_gate.v"]}
    library = open_library(PLAIN)
    netlist = synthesize(verilog, "top", library, gating=True)
    assert [gate.cell.name for gate in netlist.clock_gates] == ["ternbin_built_clock_gate"] * 2
    ports, rng = {"d": 16, "e": 1}, random.Random(3)
    rows = pack(ports, {name: [rng.getrandbits(bits) for _ in range(300)] for name, bits in ports.items()})
    expected = run(verilog, "top", ports, {"q": 16, "p": 16}, rows)
    netlist = replace(
        netlist,
        inputs={name: netlist.inputs[name] for name in ports},
        outputs={name: netlist.outputs[name] for name in ("q", "p")},
    )
    clock = domain_energy(netlist, lambda placed: 0, 1)
    assert (clock > 0).all()
    activity = Simulator(netlist, analyse(netlist), clock_energy=clock).run(rows, timed=True, per_cycle=True)
    check_equal("gated", expected, activity.outputs, 20)
    assert activity.energy.sum() > 0


@pytest.mark.soak
@pytest.mark.skipif(not OSU.exists(), reason="apt-get install qflow-tech-osu035")
@pytest.mark.parametrize("block", [*(mac_block(kind, 16) for kind in ("ternary", "int8", "bf16")), trits_block()])
def test_blocks_on_a_second_real_library(block):
    found = roles(open_library(OSU)).described()
    assert found == {
        "flip_flop": "DFFPOSX1",
        "buffer": "BUFX4",
        "full_adder": "FAX1",
        "clock_gate": "DFFNEGX1 + AND2X1",  # its latch has no area
    }
    _, energy = _energies(OSU, block, operands(block, random.Random(4)))
    assert energy["glitch"].element > 1000  # femtojoules: 3.3 V, 350 nm


def test_figures_come_from_another_characterisation_while_it_is_used(tmp_path):
    text = figures.STORED.read_text().replace("NangateOpenCellLibrary", "another")
    other = tmp_path / "other.json"
    other.write_text(text)
    hw = HwConfig(name="any")
    with figures.using(other):
        assert "on another, 1.1 V" in figures.mac("ternary", hw.lanes).source
    with figures.using(None):
        assert "NangateOpenCellLibrary" in figures.mac("ternary", hw.lanes).source
    for wrong, message in (
        (text[:99], "must be JSON"),
        ('{"schema": 1}', "schema must be 'ternbin-energy/1', not 1"),
        ('{"schema": "ternbin-energy/1"}', "provenance must be given, not left out"),
        (text.replace('"lanes": 16', '"lanes": 0', 1), r"blocks\[0\].lanes must be at least 1, not 0"),
        (text.replace('"volt": 1.1', '"volt": "1.1"', 1), "provenance.volt must be a number, not '1.1'"),
        (text.replace('"kind": "int8"', '"kind": "int9"'), "blocks must hold a block of the kind 'int8'"),
        (text.replace('"bit read"', '"bits read"'), "blocks must hold the event 'bit read' of core memories"),
    ):
        other.write_text(wrong)
        with pytest.raises(InputError, match=message), figures.using(other):
            pass
    assert figures.characterisation()["provenance"]["library"] == "NangateOpenCellLibrary"


_DESIGN = """module top (input clk, input [7:0] a, output reg [7:0] q);
  wire [7:0] b; part one (.x(a), .y(b)); always @(posedge clk) q <= b + 8'd3; endmodule
module part (input [7:0] x, output [7:0] y); assign y = x ^ (x >> 1); endmodule"""


def test_the_fingerprint_knows_hardware_and_not_names():
    same = structure({"a.v": _DESIGN}, "top")
    renamed = (
        re.sub(r"\bx\b", "data", _DESIGN)
        .replace("part one", "part two")
        .replace("[7:0] b", "[7:0] mid")
        .replace("(b)", "(mid)")
    )
    assert structure({"other.v": renamed.replace("<= b", "<= mid")}, "top") == same
    for old, new in (("8'd3", "8'd4"), (">> 1", ">> 2"), ("x ^ (", "x | ("), (".x(a)", ".x({a[0], a[7:1]})")):
        assert structure({"a.v": _DESIGN.replace(old, new)}, "top") != same
