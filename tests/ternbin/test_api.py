"""The Python API: the main job in a few lines, what the command line gives, and nothing loaded before it is needed."""

import json
import subprocess
import sys
from typing import Any, cast

import pytest

import ternbin
from ternbin import results
from ternbin.cli import main
from ternbin.errors import InputError

TWO_TOKENS = {"hw": "tiny", "ids": [0, 5, 9, 2], "max_new_tokens": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a small random model without tokenizer."""
    from ternbin.models.bart.random_model import random_quant_bart
    from ternbin.models.packed import save_packed

    return save_packed(random_quant_bart("2-2"), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def run(model):
    return ternbin.summarise(model=model, **TWO_TOKENS)


def test_import_loads_nothing_heavy():
    script = "import sys, ternbin; ternbin.__version__, dir(ternbin), hasattr(ternbin, 'nothing'); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/"
    ).stdout.split()
    assert not {"torch", "amaranth", "numpy", "transformers", "matplotlib", "ternbin.api"} & set(loaded)


def test_every_name_is_there_and_none_hides_a_module():
    for name in ternbin.__all__:
        assert getattr(ternbin, name) is not None
        with pytest.raises(ImportError):
            __import__(f"ternbin.{name}")
    with pytest.raises(AttributeError, match="module 'ternbin' has no attribute 'nothing'"):
        _ = ternbin.nothing


def test_a_run_says_what_its_result_says(run):
    result = run.result
    assert results.validate(result) is result
    assert run.bit_exact and result["mismatches"] == 0 and result["tensors_checked"] > 50
    assert run.tokens == result["tokens"] and len(run.tokens) == 2
    assert run.summary is None and run.summaries == [None]  # no tokenizer
    assert run.cycles == sum(run.cycles_by_phase.values()) == sum(result["call_cycles"])
    assert run.energy_uj == pytest.approx(sum(run.energy_by_phase_uj.values()))
    low, high = run.energy_range_uj
    assert 0 < low < run.energy_uj < high


def test_a_run_shows_itself(run):
    assert "bit-exact" in repr(run) and f"{run.cycles:,} cycles" in repr(run)
    assert str(run).startswith("ids") and "ternbin report --claim" in str(run)
    page = run._repr_html_()
    assert page.startswith("<table>") and page.endswith("</table>")
    for shown in (
        str(run.tokens),
        "equal",
        f"{run.energy_uj:.3g} µJ",
        *(f"{n:,}" for n in run.cycles_by_phase.values()),
    ):
        assert f">{shown}" in page or shown in page


def test_save_writes_what_the_command_line_writes(run, model, tmp_path, capsys):
    page = run.save(tmp_path / "api")
    argv = ["run", "--model", str(model), "--hw", "tiny", "--ids", "0,5,9,2", "--max-new-tokens", "2"]
    assert main([*argv, "--out", str(tmp_path / "cli")]) == 0
    capsys.readouterr()
    assert page == tmp_path / "api" / "index.html" and page.stat().st_size > 10_000

    def files(folder):
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    assert files(tmp_path / "api") == files(tmp_path / "cli") > {"result.json", "rtl/manifest.json", "program.txt"}
    timed = {"created", "build_seconds", "sim_seconds", "sim_macs_per_second", "sim_cycles_per_second"}
    ours, theirs = (results.load(tmp_path / name) for name in ("api", "cli"))
    assert {k: v for k, v in ours.items() if k not in timed} == {k: v for k, v in theirs.items() if k not in timed}
    again = ternbin.load_run(tmp_path / "api")
    assert again.result == run.result and again.files == {}


def test_reports_side_by_side(run, tmp_path):
    name = f"{run.result['name']}-2-2"
    run.save(tmp_path / name)
    page = ternbin.write_reports([run, tmp_path / name], tmp_path / "both")
    assert page.name == "comparison.html" and page.stat().st_size > 1000
    assert {p.parent.name for p in (tmp_path / "both").glob("*/index.html")} == {name, f"{name}-2"}
    with pytest.raises(InputError, match="runs must hold at least one run"):
        ternbin.write_reports([], tmp_path)


def test_a_batch(model):
    run = ternbin.summarise(model=model, hw="tiny", ids=[[0, 5, 9, 2], [7, 2]], max_new_tokens=2)
    assert run.bit_exact and len(run.summaries) == 2
    with pytest.raises(InputError, match="summary must be asked of a run of one text, not of 2: see summaries"):
        _ = run.summary
    assert run._repr_html_().count("<th>summary</th>") == 2


def test_lower_save_simulate(model, run, tmp_path):
    lowering = ternbin.lower(4, model=model, hw="tiny", max_new_tokens=2)
    assert {node.op.opname for node in lowering.model.encoder.nodes()} > {"embed", "linear_codes"}
    path = lowering.save(tmp_path / "program.tbn")
    for program in (lowering, lowering.program, path, str(path)):
        simulated = ternbin.simulate(program, [0, 5, 9, 2])
        assert simulated.tokens == run.tokens
        assert [call.cycles for call in simulated.calls] == run.result["call_cycles"]


def test_waves_by_the_api(model, tmp_path):
    lowering = ternbin.lower(4, model=model, hw="tiny", max_new_tokens=1)
    ternbin.simulate(lowering, [0, 5, 9, 2], waves=ternbin.Waves(path=tmp_path / "run.vcd", start=0, stop=300))
    assert (tmp_path / "run.vcd").read_text().count("#") > 100


def test_verilog_is_the_command_lines(tmp_path, capsys):
    files = ternbin.verilog("tiny")
    assert main(["rtl", "--hw", "tiny", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(" bytes") == len(files)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files
    assert json.loads(files["manifest.json"])["hardware"] == ternbin.load_hw("tiny").asdict()


def test_verify_cases_tells_each():
    told = []
    records = ternbin.verify_cases(1, seed=0, hw="tiny", each=told.append)
    assert records == told and records[0]["bit_exact"] and records[0]["seed"] == 0


def test_quantize(model, tmp_path):
    assert ternbin.quantize(model, tmp_path / "packed", bits="1-1") == tmp_path / "packed"
    lowering = ternbin.lower(3, model=tmp_path / "packed", hw="tiny-binary", max_new_tokens=1)
    assert lowering.model.meta["bits"] == "1-1"


def test_stored_figures():
    assert {block["kind"] for block in ternbin.characterisation()["blocks"]} > {"ternary", "binary", "fp32"}
    claim = ternbin.audit_claim(())
    assert claim["subjects"] == [] and claim["published"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ternbin.summarise("a text", ids=[1]), "text, ids and audio must not be mixed"),
        (lambda: ternbin.summarise("a text", early_stopping=True), "must come with beams of 2 or more"),
        (lambda: ternbin.summarise("a text", hw="huge"), "must be one of tiny, small"),
        (lambda: ternbin.summarise(ids=cast(Any, [1, [2]])), "not a mixture"),
        (lambda: ternbin.summarise(" "), "the text must not be empty"),
        (lambda: ternbin.audit_claim(["gpt"]), "models must be of bundled, bart-base, not 'gpt'"),
        (lambda: ternbin.load_run("/nonexistent/run"), "/nonexistent/run: cannot be read"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_ids_of_another_length_are_refused(model):
    lowering = ternbin.lower([4, 2], model=model, hw="tiny", max_new_tokens=1)
    with pytest.raises(InputError, match="ids must be those of texts of 4, 2 tokens, not 4"):
        ternbin.simulate(lowering, [0, 5, 9, 2])
