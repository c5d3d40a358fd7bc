"""The verb `ternbin energy` and the claim of `ternbin report`."""

import json

from ternbin.cli import main


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
    assert "--lib and --store must be given with --rebuild" in capsys.readouterr().err


def test_rebuild_names_an_unreadable_library(tmp_path, capsys):
    assert main(["energy", "--rebuild", "--lib", str(tmp_path / "none.lib")]) == 2
    assert "none.lib: cannot be read: No such file or directory" in capsys.readouterr().err


def test_report_needs_results_unless_it_audits_the_claim(capsys):
    assert main(["report"]) == 2
    assert "RESULT must be given, except with --claim" in capsys.readouterr().err
