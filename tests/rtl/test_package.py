"""The emitted folder in a larger design: names, standards, other people's tools."""

import re
import shutil
import subprocess

import pytest

from ternbin.contract.hw import NAMED
from ternbin.errors import InputError
from ternbin.rtl.verilog.generate import manifest, own_prefix, package
from ternbin.sim.toolchain import verilator

HARDWARE = NAMED["tiny"], NAMED["tiny-binary"]
SOC = """
module soc(input clk, rst, output first, second);
  ternbin_tiny u0 (.clk(clk), .rst(rst), .irq(first));
  ternbin_tiny_binary u1 (.clk(clk), .rst(rst), .irq(second));
endmodule
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two configurations, one of them for FPGAs, and a design that has both."""
    folder = tmp_path_factory.mktemp("packages")
    for hw, form in zip(HARDWARE, ("asic", "fpga"), strict=True):
        (folder / form).mkdir()
        for name, text in package(hw, form).items():
            (folder / form / name).write_text(text)
    (folder / "soc.v").write_text(SOC)
    return folder


def sources(folder) -> list[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.glob("*/*.v"))]


def test_names(folder):
    modules = re.findall(r"^module (\\?\S+)", "".join((folder / path).read_text() for path in sources(folder)), re.M)
    assert len(set(modules)) == len(modules) > 40
    assert all(name.lstrip("\\").startswith("ternbin_tiny") for name in modules)
    assert len({path.rpartition("/")[2] for path in sources(folder)}) == len(sources(folder))


def test_lint_of_two_in_one_design(folder):
    """By default, with the waivers of both."""
    command = [
        verilator().executable,
        "--lint-only",
        "-Wno-PINMISSING",
        "--top-module",
        "soc",
        "asic/lint.vlt",
        "fpga/lint.vlt",
    ]
    done = subprocess.run(
        [*command, "soc.v", *sources(folder)],
        cwd=folder,
        env={"VERILATOR_ROOT": str(verilator().root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("defines", [(), ("-DSYNTHESIS",)], ids=["simulation", "synthesis"])
def test_slang(folder, defines):
    pytest.importorskip("pyslang")
    from pyslang.driver import Driver

    driver = Driver()
    driver.addStandardArgs()
    top, files = own_prefix(HARDWARE[0]), [str(folder / path) for path in sources(folder) if path.startswith("asic")]
    assert driver.parseCommandLine(" ".join(["slang", "--top", top, "-Werror", *defines, *files]))
    assert driver.processOptions() and driver.parseAllSources() and driver.runFullCompilation()


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("form", ["asic", "fpga"])
def test_standards_of_the_manifest(folder, form):
    """What tools of the older standard see is of the older standard."""
    assert manifest(HARDWARE[0], form)["verilog"] == {
        "standard": "IEEE 1800-2012",
        "with SYNTHESIS defined": "IEEE 1364-2005",
    }
    files = [path for path in sources(folder) if path.startswith(form)]
    command = ["iverilog", "-g2005", "-DSYNTHESIS", "-t", "null", "-s", own_prefix(HARDWARE[form == "fpga"]), *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_fpga_form_has_no_latch(folder):
    text = "".join((folder / path).read_text() for path in sources(folder) if path.startswith("fpga"))
    assert "open = enable" not in text and "mem[waddr] & ~bits" not in text
    assert '"form": "fpga"' in (folder / "fpga" / "manifest.json").read_text()


def test_bad_arguments():
    with pytest.raises(InputError, match=r"^form must be one of asic, fpga, not 'fpgs'$"):
        package(NAMED["tiny"], "fpgs")
    with pytest.raises(InputError, match=r"^prefix must be letters, digits and _, no digit first, not '1a'$"):
        package(NAMED["tiny"], prefix="1a")
