"""The claim audit: reference precisions on the same schedule, accounts that add up, a page whose links lead somewhere."""

import json
import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from accounts import check_counts, check_links, check_records
from mapped import lowered

from ternbin.cli import main
from ternbin.contract.counters import TIMED
from ternbin.contract.hw import NAMED, HwConfig
from ternbin.counting.cycles import predict
from ternbin.counting.external import MemoryModel
from ternbin.energy.area import array_mm2
from ternbin.energy.claim import claim_report
from ternbin.energy.lines import total_pj
from ternbin.energy.model import MULTIPLY
from ternbin.errors import InputError
from ternbin.explore import audit as audits
from ternbin.explore.audit import audit_subject
from ternbin.explore.place import CASES, Subject, best, place, reference_config, same_area, whole_codes
from ternbin.explore.sweeps import batched, crossing
from ternbin.graph.ir import as_op
from ternbin.graph.ops.codes import Quant
from ternbin.mapping.mapper import map_model
from ternbin.models import prepare
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.models.bart.shape import shape_model
from ternbin.models.task.paper import bart_base, count, paper_table
from ternbin.report.audit import page, terminal
from ternbin.rtl.verilog.generate import generate

torch.set_num_threads(1)
CASE = {case.name: case for case in CASES}
SUBJECT = Subject("little", cache(lowered), NAMED["small"], 15, 3, (8, 15), (1, 2), count(bart_base()))


@pytest.fixture(scope="module")
def mapped():
    return {name: best(SUBJECT, CASE[name], "lpddr4") for name in ("FP32", "INT8", "W2A2", "W1A1")}


@pytest.fixture(scope="module")
def report() -> dict:
    subject = audit_subject(SUBJECT, "lpddr4")
    found = audits.audit_sources([subject])
    whole = claim_report(paper_table(), []) | {"subjects": [subject], "published": audits.PUBLISHED, "sources": found}
    return json.loads(json.dumps(whole))


def test_references_are_no_hardware():
    with pytest.raises(InputError, match="kind must be one of ternary, binary, not 'fp32'"):
        HwConfig(kind="fp32")
    with pytest.raises(InputError, match="kind must be one of ternary, binary for Verilog, not 'fp32'"):
        generate(reference_config(NAMED["tiny"], "fp32"))


@pytest.mark.parametrize("kind, bits", [("int8", 8), ("bf16", 16), ("fp32", 32)])
def test_references_have_the_same_room_in_bits(kind, bits):
    own, other = NAMED["small"], reference_config(NAMED["small"], kind)
    assert other.code_word_bits == bits * other.lanes and other.peak_macs == own.peak_macs
    for name in ("abuf", "wbuf", "kbuf"):
        assert (
            getattr(other, f"{name}_words") * other.code_word_bits == getattr(own, f"{name}_words") * own.code_word_bits
        )
    assert other.rbuf_words == own.rbuf_words


@pytest.mark.parametrize("pack", ["2bit", "5trit"])
@pytest.mark.parametrize("bits", ["2-2", "1-1"])
def test_a_program_without_contents_has_the_same_instructions(bits, pack):
    hw = replace(NAMED["tiny"], weight_pack=pack)
    full, bare = (map_model(lowered(bits), hw, 7, 2, contents=contents) for contents in (True, False))
    assert len(full.image) == len(bare.image) and full.image != bare.image
    assert [full.words(call) for call in range(3)] == [bare.words(call) for call in range(3)]


def test_shape_model_has_the_shapes_of_the_model_itself():
    dims: dict[str, Any] = dict(d_model=32, heads=2, ffn=64, layers=2, vocab=211, activation="gelu", positions=64)
    shape = shape_model("2-2", **dims)
    real = prepare.fold(prepare.lower(random_quant_bart("2-2", **dims)))
    for graph in ("encoder", "decoder"):
        nodes = {node.name: node for node in getattr(real, graph).nodes()}
        for node in getattr(shape, graph).nodes():
            if node.op.opname == "quant":  # the steps of q, k and v differ, as after training
                continue
            other = nodes[node.name]
            assert node.op.opname == other.op.opname
            names = other.op.weight_names()
            for attr, name in node.op.weight_names().items():
                if attr != "thresholds":  # as many as the steps of its function need
                    assert shape.weights[name].shape == real.weights[names[attr]].shape, (node.name, attr)
    assert (
        shape.meta["vocab_size"] == real.meta["vocab_size"]
        and shape.meta["encoder_layers"] == real.meta["encoder_layers"]
    )


def test_whole_codes_have_no_bit_planes():
    model = whole_codes(lowered("2-2"))
    for graph in (model.encoder, model.decoder):
        quants = [node for node in graph.nodes() if node.op.opname == "quant"]
        assert quants and all(as_op(node, Quant).op.kind == "ternary" for node in quants)
        assert len({node.src[0] for node in quants}) == len(quants)  # one for each hidden state


def test_references_do_the_same_products_and_move_wider_codes(mapped):
    ours, theirs = mapped["W2A2"], mapped["FP32"]
    for own, other in zip(ours.phases, theirs.phases, strict=True):
        assert other.macs == own.macs
        assert (
            other.counters["execute_array_columns"]
            == other.counters["columns_single_plane"]
            == own.counters["columns_single_plane"]
        )
        assert other.traffic.weights >= 32 / 2 * own.traffic.weights  # of trits less; some are loaded again
    (line,) = [line for line in theirs.lines(theirs.phases[0], "lpddr4") if line.event == MULTIPLY]
    assert (line.counter, line.factor, line.record.name) == (
        "columns_single_plane",
        theirs.hw.rows * theirs.hw.lanes,
        "fp32 x1",
    )


def test_the_best_configuration_is_chosen(mapped):
    assert mapped["W1A1"].hw.kind == "binary"
    others = [
        place(SUBJECT, CASE["W2A2"], replace(SUBJECT.hw, weight_pack=pack)).system_pj("lpddr4")
        for pack in ("2bit", "5trit")
    ]
    assert mapped["W2A2"].system_pj("lpddr4") == min(others)


def test_fewer_lanes_take_longer_and_count_the_same(mapped):
    wide = mapped["FP32"]
    array = sum(array_mm2(mapped["W2A2"].hw).values())
    narrow = same_area(wide, array)
    assert sum(array_mm2(narrow.hw).values()) == pytest.approx(array, rel=1e-3)
    assert same_area(narrow, array).hw == narrow.hw
    assert predict(narrow.program, MemoryModel()).cycles > predict(wide.program, MemoryModel()).cycles
    for one, other in zip(narrow.phases, wide.phases, strict=True):
        assert {k: v for k, v in one.counters.items() if k not in TIMED} == {
            k: v for k, v in other.counters.items() if k not in TIMED
        }


def test_projections_begin_at_what_was_counted(mapped):
    one = mapped["W2A2"]
    decode = one.phases[1]
    measured = total_pj(one.lines(decode, "lpddr4"))["pj"] / decode.tokens
    assert batched(one, decode, "lpddr4", 1) == pytest.approx(measured)
    series = [batched(one, decode, "lpddr4", batch) for batch in (1, 2, 4, 8)]
    assert series == sorted(series, reverse=True)


def test_crossing():
    assert crossing([(1, 10.0), (2, 20.0), (4, 10.0)], 15) == 1.5
    assert crossing([(1, 10.0), (2, 12.0)], 16) is None


def test_accounts_add_up(report):
    (subject,) = report["subjects"]
    assert [record["name"] for record in subject["precisions"]] == list(CASE)
    for record in subject["precisions"] + subject["equal_area"]:
        for phase in record["phases"]:
            energy = phase["energy"]
            parts = [energy[group]["pj"] for group in ("arithmetic", "on-chip", "external")]
            assert (
                sum(parts)
                == pytest.approx(energy["system"]["pj"])
                == pytest.approx(sum(line["pj"] for line in phase["lines"]))
            )
            assert energy["system"]["low"] < energy["system"]["pj"] < energy["system"]["high"]
            external = sum(line["count"] for line in phase["lines"] if line["group"] == "external")
            assert external == pytest.approx(phase["external_bits"])
            assert all(line["tier"] and line["source"] for line in phase["lines"])
    for table in (subject["ratios"], subject["ratios_equal_area"]):
        assert table["FP32"]["FP32"]["decode"]["system"] == {"value": 1, "low": 1, "high": 1}
    assert report["paper_sizes_mib"]["2-2-2"] == 39.6 and report["paper_flops_factors"]["2-2-2"] == 0.0625


def test_every_count_can_be_computed_again(report):
    (subject,) = report["subjects"]
    for record in subject["precisions"] + subject["equal_area"]:
        for phase in record["phases"]:
            check_counts(phase["lines"], {basis: phase[basis] for basis in ("counters", "traffic")})
            check_records(phase["lines"], report["sources"])


def test_break_even_curves_pass_through_the_audit_itself(report):
    (subject,) = report["subjects"]
    own = {
        record["name"]: {p["name"]: p["per_token_pj"]["pj"] for p in record["phases"]}
        for record in subject["equal_area"]
    }
    values = {"source length": 15, "capacity of the code memories": 1, "batch": 1}
    for sweep in subject["break_even"]:
        for point in sweep["points"]:
            if point["value"] == values.get(sweep["name"]):
                for name, phases in point["per_token_pj"].items():
                    assert phases == pytest.approx({phase: own[name][phase] for phase in phases})
    (memory,) = [sweep for sweep in subject["break_even"] if sweep["name"].startswith("external memory")]
    assert [point["value"] for point in memory["points"]] == [5, 8, 30]
    assert {curve["phase"] for curve in memory["curves"]} == {"prefill", "decode"}
    (stays,) = [sweep for sweep in subject["break_even"] if sweep["name"] == "weights kept on chip"]
    decode = [point["per_token_pj"]["W2A2"]["decode"] for point in stays["points"] if "W2A2" in point["per_token_pj"]]
    assert decode[0] < own["W2A2"]["decode"] / 2 and decode == sorted(
        decode
    )  # all fits in the least; a larger memory costs


def test_parts_in_full_precision_bring_the_count_down(report):
    (subject,) = report["subjects"]
    for phase in subject["kept_in_fp32"]:
        steps = phase["steps"]
        assert steps[0]["operation_ratio"] == 16
        assert all(a["operation_ratio"] >= b["operation_ratio"] for a, b in zip(steps, steps[1:], strict=False))
    decode = subject["precisions"][5]["phases"][1]
    head = subject["kept_in_fp32"][1]["steps"][1]
    assert head["operation_ratio"] == pytest.approx(
        decode["macs"] / (head["operations"] + (decode["macs"] - head["operations"]) / 16)
    )


def test_every_link_of_the_page_leads_somewhere(report):
    text = page(report)
    lines, shown = [], {}
    (subject,) = report["subjects"]
    for suffix, records in (("", subject["precisions"]), ("-area", subject["equal_area"])):
        for record in records:
            for phase in record["phases"]:
                lines += [line for line in phase["lines"] if line["count"]]
                prefix = f"e0-{record['name']}-{phase['name']}{suffix}"
                for basis, name in (("counters", "counter"), ("traffic", "traffic")):
                    shown |= {f"{prefix}-{name}-{key}": f"{value:,}" for key, value in phase[basis].items()}
    check_links(text, lines, shown)
    anchors = re.findall(r" id='?([\w-]+)", re.sub(r"<svg.*?</svg>", "", text, flags=re.S))
    links = set(re.findall(r"href='#([^']+)'", text))
    assert len(links) > 50 and links <= set(anchors)
    assert len(set(anchors)) == len(anchors)
    assert {f"e0-W2A2-decode-{group}" for group in ("arithmetic", "on-chip", "external")} <= links
    assert any(link.startswith("records-") for link in links) and any(link.startswith("cacti-") for link in links)
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.S).replace("Nangate", "").lower()


def test_terminal_has_a_line_for_each_precision(report):
    lines = terminal(report).splitlines()
    assert all(sum(line.split()[:1] == [name] for line in lines) == 2 for name in CASE)


def test_command_line(tmp_path, capsys):
    assert (
        main(["report", "--claim", "--models", "none", "--json", str(tmp_path / "c.json"), "--out", str(tmp_path)]) == 0
    )
    data = json.loads((tmp_path / "c.json").read_text())
    assert {"paper_sizes_mib", "paper_flops_factors", "ratios", "gate_level_error", "subjects"} <= set(data)
    assert "39.6" in capsys.readouterr().out and (tmp_path / "claim.html").exists()
    assert main(["report", "--dram", "hbm2", str(tmp_path)]) == 2
    assert "--models, --dram and --characterisation must be given with --claim" in capsys.readouterr().err
