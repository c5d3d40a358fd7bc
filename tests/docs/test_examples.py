"""The scripts of examples/ and the notebook run, in small, and give what they say."""

import importlib.util
from pathlib import Path

import nbclient
import nbformat
import pytest
from pages import ROOT, run_blocks

EXAMPLES = ROOT / "examples"


def _main(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_all_of_them_are_tested_and_named():
    source, page = Path(__file__).read_text(), (ROOT / "docs" / "python.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb"):
            assert f'"{path.stem}"' in source or f'"{path.name}"' in source, path.name
            assert f"examples/{path.name}" in page, path.name


def test_count(capsys):
    (short, long) = _main("count")((4, 40))
    assert short[:1] == (4,) and long[:1] == (40,) and short[1] < long[1] and short[2] > 0
    assert f"{long[1]:,}" in capsys.readouterr().out


def test_own_hardware(capsys):
    rows = _main("own_hardware")(4, ({}, {"weight_pack": "2bit"}, {"wbuf_words": 16}))
    assert rows["accelerator"][1] < rows["weight_pack = 2bit"][1]  # decoding waits for weights
    assert rows["wbuf_words = 16"] is None and "refused: enc.0.fc2" in capsys.readouterr().out


@pytest.mark.build
def test_summarise(tmp_path, capsys):
    run = _main("summarise")("A tool to draw maps.", 2, str(tmp_path))
    assert run.bit_exact and run.summary and len(run.tokens) == 2
    assert f"summary    {run.summary}" in capsys.readouterr().out
    assert (tmp_path / "index.html").exists()


@pytest.mark.build
def test_bit_widths(capsys):
    runs = _main("bit_widths")(("1-1",), "small", None)
    assert runs["1-1"].bit_exact and runs["1-1"].result["bits"] == "1-1"
    assert "bit-exact True" in capsys.readouterr().out


@pytest.mark.parametrize("page", [pytest.param("python.md", marks=pytest.mark.build), "numerics.md"])
def test_blocks_of_a_page_run(page):
    names = run_blocks(ROOT / "docs" / page)
    if page == "python.md":
        cycles = [call.cycles for call in names["result"].calls]
        assert names["run"].bit_exact
        assert names["predicted"] == pytest.approx(cycles, rel=0.005)


@pytest.mark.build
def test_the_notebook_runs():
    notebook = nbformat.read(EXAMPLES / "ternbin.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # committed without outputs
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output["data"] for output in outputs if output.output_type == "execute_result"]
    assert "<td>" in shown[0]["text/html"] and "equal" in shown[0]["text/html"]
    assert any("image/png" in output["data"] for output in outputs if output.output_type == "display_data")
    assert not [output for output in outputs if output.output_type == "error"]
