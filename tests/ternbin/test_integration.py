"""The package of an accelerator for other people's designs: what their tools read equals the contract and the RTL."""

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from amaranth.sim import Simulator
from peakrdl_ipxact import IPXACTImporter
from systemrdl.compiler import RDLCompiler
from systemrdl.node import RegNode

from ternbin.cli import main
from ternbin.contract import isa
from ternbin.contract.counters import counters
from ternbin.contract.hw import NAMED
from ternbin.contract.registers import BOTH, CLEARED, REGISTERS, STROBE
from ternbin.errors import MissingToolError
from ternbin.integration.registers import derived
from ternbin.rtl.control.registers import Registers
from ternbin.rtl.verilog.generate import manifest

HW, PREFIX = NAMED["tiny"], "mine"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "rtl"
    assert main(["rtl", "--hw", "tiny", "--prefix", PREFIX, "--package", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def registers(folder) -> dict[str, RegNode]:
    """Registers by name, as a compiler of SystemRDL sees them."""
    compiler = RDLCompiler()
    compiler.compile_file(str(folder / f"{PREFIX}.rdl"))
    return {node.inst_name: node for node in compiler.elaborate().top.children() if isinstance(node, RegNode)}


def test_the_table_is_the_contracts():
    own = {name.removeprefix("REG_"): value for name, value in vars(isa).items() if name.startswith("REG_")}
    assert own.pop("COUNTERS") == manifest(HW)["counters"][0]["offset"]
    assert {register.name: register.offset for register in REGISTERS} == own
    page = (DOCS / "instruction-set.md").read_text()
    for register in REGISTERS:
        row = re.search(rf"\| `{register.name}` \| 0x{register.offset:03X} \| (.*) \|", page)
        assert row, register.name
        for field in register.fields if len(register.fields) > 1 else ():
            assert re.search(rf"bit {field.low} [\w ]*{field.name.split('_')[-1]}|bit {field.low} interrupt", row[1])


def test_systemrdl_is_the_contracts(registers):
    expected = {register.name: register.offset for register in REGISTERS}
    for number, name in enumerate(counters(HW)):
        low = isa.REG_COUNTERS + 8 * number
        expected |= {name.upper(): low, f"{name.upper()}_HI": low + 4}
    assert {name: node.address_offset for name, node in registers.items()} == expected
    assert {node.size for node in registers.values()} == {4}
    for register in REGISTERS:
        found = [(field.inst_name, field.low, field.width) for field in registers[register.name].fields()]
        assert found == [(field.name, field.low, field.bits) for field in register.fields]
    for entry in manifest(HW)["counters"]:
        name = entry["name"].upper()
        widths = [next(iter(registers[own].fields())).width for own in (name, f"{name}_HI")]
        assert sum(widths) == entry["bits"]
    (code,) = registers["ERROR"].fields()
    assert [(own.name, own.value) for own in code.get_property("encode")] == [(own.name, own) for own in isa.ErrorCode]


def test_the_rtl_answers_as_the_map_says(registers):
    """Every word of the address space, read and written: which exist, what can be written, and what of it stays."""
    dut, values = Registers(len(counters(HW))), {}
    bits = {"busy": 1, "done": 1, "error": 9, "error_addr": (1 << 64) - 1, "value": (1 << 48) - 1}
    strobes = {"start": dut.start, "clear_counters": dut.clear_counters, "done": dut.clear_status}

    async def bench(ctx):
        async def write(address: int) -> tuple[int, frozenset[str]]:
            for name, value in (
                ("awaddr", address),
                ("wdata", 0xFFFFFFFF),
                ("wstrb", 15),
                ("awvalid", 1),
                ("wvalid", 1),
            ):
                ctx.set(getattr(dut, f"s_axil_{name}"), value)
            pulsed = frozenset(name for name, signal in strobes.items() if ctx.get(signal))
            await ctx.tick()
            ctx.set(dut.s_axil_awvalid, 0)
            ctx.set(dut.s_axil_wvalid, 0)
            await ctx.tick()
            return ctx.get(dut.s_axil_bresp), pulsed

        async def read(address: int) -> tuple[int, int]:
            ctx.set(dut.s_axil_araddr, address)
            ctx.set(dut.s_axil_arvalid, 1)
            await ctx.tick()
            ctx.set(dut.s_axil_arvalid, 0)
            await ctx.tick().until(dut.s_axil_rvalid)
            return ctx.get(dut.s_axil_rresp), ctx.get(dut.s_axil_rdata)

        for name, value in bits.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.s_axil_bready, 1)
        ctx.set(dut.s_axil_rready, 1)
        for address in range(0, 0x1000, 4):
            values[address] = (*await write(address), *await read(address))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    tables = {register.name: register for register in REGISTERS}
    for name, node in registers.items():
        fields = tables[name].fields if name in tables else ()
        response, pulsed, *read = values.pop(node.address_offset)
        assert response == (0 if any(f.access in (BOTH, STROBE, CLEARED) for f in fields) else 2), name
        assert pulsed == {f.name for f in fields if f.access in (STROBE, CLEARED) and f.name in strobes}, name
        expected = {"ID": isa.ID_VALUE, "ERROR": bits["error"]}.get(
            name, sum(((1 << f.width) - 1) << f.low for f in node.fields() if f.is_sw_readable)
        )
        assert read == [0, expected], name
    assert set(values.values()) == {(2, frozenset(), 2, 0)}


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_c_header(folder, registers, tmp_path):
    lines = [f'#include "{PREFIX}.h"', "#include <stddef.h>"]
    for name, node in registers.items():
        lines.append(f'_Static_assert(offsetof({PREFIX}_t, {name}) == {node.address_offset}, "{name}");')
    for register in REGISTERS:
        for field in register.fields:
            macro = f"{PREFIX}__{register.name}__{field.name}_bm".upper().replace("_BM", "_bm")
            lines.append(f'_Static_assert({macro} == {field.mask}u, "{macro}");')
    (tmp_path / "offsets.c").write_text("\n".join(lines))
    command = ["cc", "-std=c11", "-Wall", "-Werror", "-fsyntax-only", f"-I{folder}", "offsets.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pages_and_ip_xact(folder):
    xml = (folder / f"{PREFIX}.xml").read_text()
    offsets = re.findall(r"<ipxact:addressOffset>'h(\w+)<", xml)
    assert len(offsets) == len(REGISTERS) + 2 * len(counters(HW)) and "<ipxact:width>32<" in xml
    assert (folder / "html" / "index.html").is_file()
    for path in folder.rglob("*.*"):
        if path.suffix in (".h", ".xml", ".rdl", ".core", ".html"):
            assert str(folder.parent) not in path.read_text() and "/tmp/" not in path.read_text(), path


def test_ip_xact_has_the_ports(folder, registers, tmp_path):
    """Read back as other tools do: by the element names of the standard, and the memory map by PeakRDL."""
    root = ElementTree.parse(folder / f"{PREFIX}.xml").getroot()
    space = {"ipxact": "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"}
    order = [each.tag.rpartition("}")[2] for each in root if isinstance(each.tag, str)]
    assert order == ["vendor", "library", "name", "version", "busInterfaces", "addressSpaces", "memoryMaps", "model"]
    ports = {}
    for port in root.iterfind("ipxact:model/ipxact:ports/ipxact:port", space):
        left = port.findtext(".//ipxact:left", "0", space)
        ports[port.findtext("ipxact:name", "", space)] = (
            port.findtext(".//ipxact:direction", "", space),
            int(left) + 1,
        )
    assert ports == {
        port["name"]: (port["direction"].removesuffix("put"), port["bits"]) for port in manifest(HW)["ports"]
    }
    buses = {each.findtext("ipxact:name", "", space): each for each in root.iterfind(".//ipxact:busInterface", space)}
    assert list(buses) == ["m_axi", "s_axil"]
    for name, bus in buses.items():
        maps = {
            each.findtext("ipxact:logicalPort/ipxact:name", "", space): each.findtext(
                "ipxact:physicalPort/ipxact:name", "", space
            )
            for each in bus.iterfind(".//ipxact:portMap", space)
        }
        assert maps.pop("ACLK") == "clk"
        assert set(maps.values()) == {port for port in ports if port.startswith(f"{name}_")}
        assert all(physical == f"{name}_{logical.lower()}" for logical, physical in maps.items())
    memory_map = root.findtext("ipxact:memoryMaps/ipxact:memoryMap/ipxact:name", None, space)
    reference = buses["s_axil"].find("ipxact:slave/ipxact:memoryMapRef", space)
    assert reference is not None and reference.get("memoryMapRef") == memory_map
    compiler = RDLCompiler()
    IPXACTImporter(compiler).import_file(str(folder / f"{PREFIX}.xml"))
    read = {node.inst_name: node for node in compiler.elaborate().top.descendants() if isinstance(node, RegNode)}
    assert {name: node.absolute_address for name, node in read.items()} == {
        name: node.absolute_address for name, node in registers.items()
    }
    for name, node in read.items():
        assert [(each.low, each.width) for each in node.fields()] == [
            (each.low, each.width) for each in registers[name].fields()
        ]


def test_fusesoc_takes_the_core(folder, tmp_path):
    command = [sys.executable, "-m", "fusesoc.main", "--cores-root", str(folder), "run", "--setup", "--target=lint"]
    done = subprocess.run(
        [*command, "--build-root", str(tmp_path), f"ternbin::{PREFIX}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (project,) = (path for path in tmp_path.rglob("*.vc"))
    names = {Path(line).name for line in project.read_text().split()}
    assert {path.name for path in folder.glob("*.v")} | {"lint.vlt"} <= names


def test_without_peakrdl(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "peakrdl_cheader.exporter", None)
    with pytest.raises(MissingToolError, match="pip install 'ternbin\\[integration\\]'"):
        derived("", PREFIX)
    assert main(["rtl", "--hw", "tiny", "--package", "--out", str(tmp_path / "rtl")]) == 3
    assert capsys.readouterr().err.count("\n") == 1
