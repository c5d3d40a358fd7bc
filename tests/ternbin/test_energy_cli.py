"""The verb `ternbin energy` and the claim of `ternbin report`."""

import json

from ternbin.cli import main
from ternbin.energy import figures


def test_energy_lists_every_block_as_data(tmp_path, capsys):
    path = tmp_path / "blocks.json"
    assert main(["energy", "--json", str(path)]) == 0
    blocks = json.loads(path.read_text())
    fields = {"name", "kind", "area_um2", "critical_path_ns", "leakage_nw", "fj_per_event", "tier", "provenance"}
    assert all(fields <= block.keys() for block in blocks)
    assert {"ternary", "binary", "int8", "bf16", "fp32"} <= {block["kind"] for block in blocks}
    text = capsys.readouterr().out
    assert all(block["name"] in text for block in blocks)


def test_a_library_without_rebuild_is_refused(capsys):
    assert main(["energy", "--lib", "x.lib"]) == 2
    assert "--lib, --cells and --store must be given with --rebuild or --placed" in capsys.readouterr().err


def test_figures_of_another_library_do_not_replace_the_stored_ones_unasked(capsys):
    assert main(["energy", "--rebuild", "--lib", "x.lib"]) == 2
    assert "--store must be given with --lib" in capsys.readouterr().err


def test_energy_names_the_library_and_lists_another_characterisation(tmp_path, capsys):
    assert main(["energy"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("NangateOpenCellLibrary, 45 nm, 1.1 V, 25 C; pyosys ")
    assert "flip flop DFF_X1, buffer BUF_X4, full adder FA_X1, clock gate CLKGATE_X1; wire load 5K_hvratio_1_1" in text
    other = tmp_path / "other.json"
    other.write_text(figures.STORED.read_text().replace("NangateOpenCellLibrary", "another"))
    assert main(["energy", "--characterisation", str(other)]) == 0
    assert capsys.readouterr().out.startswith("another, 45 nm")
    assert main(["run", "--characterisation", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "none: cannot be read" in capsys.readouterr().err


def test_rebuild_names_an_unreadable_library(tmp_path, capsys):
    store = str(tmp_path / "new.json")
    assert main(["energy", "--rebuild", "--lib", str(tmp_path / "none.lib"), "--store", store]) == 2
    assert "none.lib: cannot be read: No such file or directory" in capsys.readouterr().err


def test_report_needs_results_unless_it_audits_the_claim(capsys):
    assert main(["report"]) == 2
    assert "RESULT must be given, except with --claim" in capsys.readouterr().err
