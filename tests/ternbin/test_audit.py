"""The claim audit: reference precisions on the same schedule, accounts that add up, a page whose links lead somewhere."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accounts import check_counts, check_links, check_records
from deadly import killed, refused
from mapped import lowered
from transformers import BartConfig

from ternbin.cli import main
from ternbin.contract.counters import TIMED
from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.memories import banked
from ternbin.counting.cycles import predict
from ternbin.counting.external import MemoryModel
from ternbin.energy import figures as tables
from ternbin.energy.area import area_mm2, array_mm2
from ternbin.energy.claim import claim_report
from ternbin.energy.dots import DOTS
from ternbin.energy.lines import value_pj
from ternbin.energy.model import MULTIPLY
from ternbin.energy.published import published
from ternbin.energy.scaling import fitted
from ternbin.energy.silicon import read_measured
from ternbin.energy.uncertainty import Spread
from ternbin.errors import InputError
from ternbin.explore import audit as audits
from ternbin.explore import references
from ternbin.explore.audit import audit_subject
from ternbin.explore.equal_quality import Size, at_equal_score, equal_quality, frontier
from ternbin.explore.place import CASES, Subject, best, place, reference_config, whole_codes
from ternbin.explore.quality import others, quality, scores
from ternbin.explore.references import Choice, Reference, fewer_lanes, of_rows, tiled
from ternbin.explore.subjects import of_shape
from ternbin.explore.sweeps import batched, crossing
from ternbin.graph.ir import as_op
from ternbin.graph.ops.codes import Quant
from ternbin.mapping.mapper import map_model
from ternbin.models import prepare
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.models.bart.shape import shape_model
from ternbin.models.task.paper import bart_base, count, paper_table
from ternbin.report import audit_plots
from ternbin.report.audit import TABLES, equal_quality_rows, page, quality_rows, terminal
from ternbin.rtl.verilog.generate import generate

torch.set_num_threads(1)
CASE = {case.name: case for case in CASES}
LITTLE: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "vocab_size": 99,
}
SUBJECT = Subject("little", cache(lowered), NAMED["small"], 15, 3, (8, 15), (1, 2), count(bart_base()))


@pytest.fixture(scope="module")
def mapped():
    return {name: best(SUBJECT, CASE[name], "lpddr4") for name in ("FP32", "INT8", "W2A2", "W1A1")}


@pytest.fixture(scope="module")
def report() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "FEWER", (16,))
        patch.setattr(references, "ROWS", (0.5,))
        subject = audit_subject(SUBJECT, "lpddr4")
    found = audits.audit_sources([subject])
    whole = claim_report(paper_table(), []) | {"subjects": [subject], "published": published(), "sources": found}
    return json.loads(json.dumps(whole))


@pytest.mark.parametrize(
    ("subject", "said"),
    [(refused, "this model cannot be audited"), (killed, "processes that audit first must not die, and one did")],
)
def test_what_goes_wrong_in_the_process_of_another_model_is_said(monkeypatch, subject, said):
    own = dict.fromkeys(("precisions", "equal_latency", "equal_area"), [])
    monkeypatch.setattr(audits, "SUBJECTS", {"first": subject, "last": lambda: None})
    monkeypatch.setattr(audits, "audit_subject", lambda *arguments: own)
    with pytest.raises(InputError, match=said):
        audits.audit(["first", "last"], "lpddr4")


def test_references_are_no_hardware():
    with pytest.raises(InputError, match="kind must be one of ternary, binary, ternary8, not 'fp32'"):
        HwConfig(kind="fp32")
    with pytest.raises(InputError, match="kind must be one of ternary, binary, ternary8 for Verilog, not 'fp32'"):
        generate(reference_config(NAMED["tiny"], "fp32"))


@pytest.mark.parametrize(
    "kind, weight_bits, bits", [("int8", 8, 8), ("w4a8", 4, 8), ("w4a16", 4, 16), ("fp32", 32, 32)]
)
def test_references_have_the_same_room_in_bits(kind, weight_bits, bits):
    own, other = NAMED["small"], reference_config(NAMED["small"], kind)
    assert other.code_word_bits == bits * other.lanes and other.peak_macs == own.peak_macs
    for name, memory in banked(other).items():
        assert memory.words * memory.bits == banked(own)[name].words * banked(own)[name].bits
    assert banked(other)["wbuf"].bits == weight_bits * other.lanes


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
        "fp32 x4",
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
    narrow = fewer_lanes(wide, 4)
    few, many = array_mm2(narrow.hw), array_mm2(wide.hw)
    assert few["array elements"] == many["array elements"] / 4
    assert few["array operand registers"] == pytest.approx(many["array operand registers"] / 4, rel=1e-3)
    assert predict(narrow.program, MemoryModel()).cycles > predict(wide.program, MemoryModel()).cycles
    for one, other in zip(narrow.phases, wide.phases, strict=True):
        assert {k: v for k, v in one.counters.items() if k not in TIMED} == {
            k: v for k, v in other.counters.items() if k not in TIMED
        }


def test_an_ffn_in_slices_loads_weights_once_and_keeps_sums():
    cramped = replace(SUBJECT, hw=replace(SUBJECT.hw, abuf_words=512), source_len=40)
    hw = reference_config(cramped.hw, "fp32")
    whole, sliced = place(cramped, CASE["FP32"], hw), tiled(cramped, CASE["FP32"], hw, 8)
    assert sliced.hw.abuf_words == whole.hw.abuf_words
    assert sliced.phases[0].traffic.weights < whole.phases[0].traffic.weights
    fc2 = [
        w.shape
        for name, w in sliced.lowered.weights.items()
        if "fc2" in name and w.ndim == 2 and name.startswith("enc")
    ]
    assert fc2
    sums = 40 * sum(rows for rows, columns in fc2 if columns > rows)
    roomy = place(cramped, CASE["FP32"], replace(hw, abuf_words=8 * hw.abuf_words)).phases[0]
    added = sliced.phases[0].counters["rbuf_writes"] - roomy.counters["rbuf_writes"]
    assert added == 7 * sums * 32 // hw.res_word_bits


def test_references_are_chosen_for_least_energy_within_latency_and_area(mapped):
    ours = mapped["W2A2"]
    for number, phase in enumerate(ours.phases):
        own = Choice(ours, phase, ours.lines(phase, "lpddr4"))
        full, latency, area = Reference(SUBJECT, CASE["FP32"], "lpddr4").chosen(number, own)
        assert latency.pj <= full.pj and latency.seconds <= 1.05 * full.seconds
        assert area.area_mm2 <= 1.25 * own.area_mm2 or area.mapped.hw.step_cycles == 64
        assert area.area_mm2 == sum(area_mm2(area.mapped.hw).values())


@pytest.mark.parametrize("times, array", [(0.5, (8, 4, 64)), (2, (32, 2, 32))])
def test_other_rows_have_the_same_peak_and_room(times, array):
    own = reference_config(NAMED["small"], "int8")
    other = of_rows(own, times)
    assert (other.rows, other.cols, other.lanes) == array and other.peak_macs == own.peak_macs
    for name, memory in banked(other).items():
        had, has = (m.banks * m.words * m.bits for m in (banked(own)[name], memory))
        assert has == had if name != "sbuf" else has / other.cols == had / own.cols
    with pytest.raises(InputError, match="rows must be a power of two from 4 to 64, not 128"):
        of_rows(own, 8)


def test_precisions_of_as_many_bits_share_what_was_mapped(mapped):
    known: dict = {}
    one, other = (Reference(SUBJECT, CASE[name], "lpddr4", known) for name in ("FP8", "INT8"))
    count = len(one.arrangements) and len(known)
    assert len(other.arrangements) == len(one.arrangements) and len(known) == count
    assert [mapped.hw.kind for mapped in other.arrangements] == ["int8"] * len(other.arrangements)
    apart = Reference(SUBJECT, CASE["INT8"], "lpddr4").arrangements[0]
    assert apart.hw == other.arrangements[0].hw and apart.phases == other.arrangements[0].phases


def test_projections_begin_at_what_was_counted(mapped):
    one = mapped["W2A2"]
    decode = one.phases[1]
    measured = value_pj(one.lines(decode, "lpddr4")) / decode.tokens
    assert batched(one, decode, "lpddr4", 1) == pytest.approx(measured)
    series = [batched(one, decode, "lpddr4", batch) for batch in (1, 2, 4, 8)]
    assert series == sorted(series, reverse=True)


def test_crossing():
    assert crossing([(1, 10.0), (2, 20.0), (4, 10.0)], 15) == 1.5
    assert crossing([(1, 10.0), (2, 12.0)], 16) is None


def test_accounts_add_up(report):
    (subject,) = report["subjects"]
    assert [record["name"] for record in subject["precisions"]] == list(CASE)
    for record in subject["precisions"] + subject["equal_latency"] + subject["equal_area"]:
        for phase in record["phases"]:
            energy = phase["energy"]
            parts = [energy[group]["pj"] for group in ("arithmetic", "on-chip", "external")]
            assert (
                sum(parts)
                == pytest.approx(energy["system"]["pj"])
                == pytest.approx(sum(line["pj"] for line in phase["lines"]))
            )
            assert energy["system"]["low"] < energy["system"]["pj"] < energy["system"]["high"]
            external = sum(
                line["count"]
                for line in phase["lines"]
                if line["group"] == "external" and line["event"].endswith(" bit")
            )
            assert external == pytest.approx(phase["external_bits"])
            assert all(line["tier"] and line["source"] for line in phase["lines"])
    for table in (subject["ratios"], subject["ratios_equal_latency"], subject["ratios_equal_area"]):
        assert table["FP32"]["FP32"]["decode"]["system"] == pytest.approx({"value": 1, "low": 1, "high": 1})
    assert {(row["reference"], row["phase"]) for row in subject["headline"]} == {
        (reference, phase) for reference in ("FP32", "BF16", "INT8", "W4A8") for phase in ("prefill", "decode")
    }
    for row in subject["headline"]:
        assert row["low"] < row["value"] < row["high"]
        assert row == row | subject["ratios_equal_latency"][row["reference"]][row["case"]][row["phase"]]["system"]
    assert report["paper_sizes_mib"]["2-2-2"] == 39.6 and report["paper_flops_factors"]["2-2-2"] == 0.0625


def test_every_count_can_be_computed_again(report):
    (subject,) = report["subjects"]
    for record in subject["precisions"] + subject["equal_latency"] + subject["equal_area"]:
        for phase in record["phases"]:
            check_counts(phase["lines"], {basis: phase[basis] for basis in ("counters", "traffic")})
            check_records(phase["lines"], report["sources"])


def test_break_even_curves_pass_through_the_audit_itself(report):
    (subject,) = report["subjects"]
    own = {
        record["name"]: {p["name"]: p["per_token_pj"]["pj"] for p in record["phases"]}
        for record in subject["equal_latency"]
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
    decode = next(record for record in subject["precisions"] if record["name"] == "W2A2")["phases"][1]
    head = subject["kept_in_fp32"][1]["steps"][1]
    assert head["operation_ratio"] == pytest.approx(
        decode["macs"] / (head["operations"] + (decode["macs"] - head["operations"]) / 16)
    )


def test_every_link_of_the_page_leads_somewhere(report):
    text = page(report)
    lines, shown = [], {}
    (subject,) = report["subjects"]
    for name, (_, suffix, _) in TABLES.items():
        for record in subject[name]:
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
    lines = [line.split() for line in terminal(report).splitlines()]
    assert all(sum(line[:1] == [name] and line[1] != "over" for line in lines) == 2 for name in CASE)
    assert [line[:3] for line in lines if line[1:2] == ["over"]] == [
        [name, "over", "W2A2"] for name in ("FP32", "BF16", "INT8", "W4A8")
    ]


def test_published_chips_are_predicted_by_their_own_dot_products():
    """By hand from the characterisation: what a unit spends in a dot product, two operations a product, node and square of the voltage."""
    found = {(row["name"], row["operands"], row["volt"]): row for row in published()}
    clock = tables.block("int8")["clock_fj_per_flop"]

    def held(kind: str, event: str = "operand held") -> dict:
        return tables.block(kind)["fj_per_event"][event]["glitch"]

    cutie, ita, yoda = held("ternary dot"), held("int8 dot"), held("binary12 dot", "random")
    unit = 864 * cutie["element"] + 11 * clock + (864 * cutie["operands"] + 864 * 2 * clock) / 96
    by_hand = {("TCN-CUTIE", "ternary", 0.5): unit / 864 / 2 * 22 / 45 * (0.5 / 1.1) ** 2}
    unit = 64 * ita["element"] + 23 * clock + (64 * ita["operands"] + 64 * 8 * clock) / 16 + 64 * 8 * clock
    by_hand["ITA", "INT8", 0.8] = unit / 64 / 2 * 22 / 45 * (0.8 / 1.1) ** 2
    pixels = 49 * held("binary12 dot")["operands"]
    unit = 49 * (yoda["element"] + yoda["operands"]) - pixels + (19 + 49) * clock + (pixels + 49 * 12 * clock) / 32
    by_hand["YodaNN", "binary x 12 bits", 1.2] = unit / 49 / 2 * 65 / 45 * (1.2 / 1.1) ** 2
    for chip, fj in by_hand.items():
        assert found[chip]["predicted_fj"] == pytest.approx(fj, rel=1e-4)
        assert found[chip]["predicted_over"] == pytest.approx(fj / found[chip]["fj_per_op"], rel=1e-4)
    step = held("int8x2 dot")  # four steps a product, eight units
    fj = (step["element"] + 18 * 4 / 128 * clock + (step["operands"] + 2 * 4 * clock) / 8) / 2
    guo = found["DCIM of Guo et al.", "INT8", 0.9]
    assert guo["predicted_fj"] == pytest.approx(fj * 28 / 45 * (0.9 / 1.1) ** 2, rel=1e-4)
    assert found["BrainTTA", "INT8", None]["predicted_fj"] is found["BinarEye", "binary", None]["fitted_fj"] is None


DOCS = Path(__file__).parents[2] / "docs/energy.md"


def test_chips_within_a_factor_of_two_are_those_that_the_docs_name():
    rows = published()
    close = {
        rule: [r["name"] for r in rows if r[rule] and 0.5 <= r[rule] <= 2] for rule in ("predicted_over", "fitted_over")
    }
    assert close == dict.fromkeys(close, ["TCN-CUTIE", "ITA", "XNORBIN"])
    docs = [[cell.strip() for cell in line.split("|")] for line in DOCS.read_text().splitlines()]
    for row in rows:
        if row["predicted_over"]:
            where = f"{row['node_nm']} nm, {row['volt']:g} V"
            fitted = f"{row['fitted_over']:.2g}" if row["fitted_over"] else "none"
            said = ["", row["name"], where, f"{row['fj_per_op']:.3g}", f"{row['predicted_over']:.2g}", fitted]
            assert said in [line[:6] for line in docs], said


def test_a_characterisation_without_dot_products_predicts_none(tmp_path):
    found = json.loads(tables.STORED.read_text())
    found["blocks"] = [block for block in found["blocks"] if block["kind"] not in DOTS]
    (tmp_path / "other.json").write_text(json.dumps(found))
    with tables.using(tmp_path / "other.json"):
        rows = published()
    assert {row["name"] for row in rows if row["predicted_fj"]} == {"XNE", "VitaLLM"}


def test_stillmaker_and_baas_is_the_example_that_its_authors_corrected():
    """1 pJ at 65 nm and 1.3 V is 0.1755 pJ at 32 nm and 0.9 V."""
    there, here = fitted(32, 0.9), fitted(65, 1.3)
    assert there and here and there / here == pytest.approx(0.1755, abs=1e-4)
    assert fitted(22, 0.8) == pytest.approx(0.182, abs=1e-3) and fitted(180, 1.8) is fitted(65, 0.6) is None


def test_scores_of_the_bundled_model_stand_beside_energy(report):
    found = {(row.system, row.precision): row for row in scores(prepare.bundled_dir())}
    assert found["student (W2A2)", "W2A2"].nats == 3.1756 and found["teacher (FP32)", "INT8"].tier == "projected"
    assert {precision for _, precision in found} == {"FP32", "BF16", "INT8", "W2A8", "W1A8", "W2A2"}
    (wide,) = (one for one in others(prepare.bundled_dir()) if "W1A1" in one.name)
    assert wide.config == {"d_model": 384, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
    (subject,) = report["subjects"]
    records = {record["name"]: record for record in subject["equal_latency"]}
    rows = quality([(tuple(found.values()), records)])
    assert [row["nats"] for row in rows] == sorted(row["nats"] for row in rows)
    own = next(row for row in rows if row["precision"] == "W2A2")
    assert own["per_token_pj"]["decode"] == records["W2A2"]["phases"][1]["per_token_pj"]
    assert own["hardware"]["decode"] == records["W2A2"]["phases"][1]["hardware"]


def test_equal_quality_lies_between_two_sizes_on_the_logarithm_of_energy():
    def size(system: str, score: float, pj: float, source: str = "shared") -> Size:
        return Size(system, score, {source: Spread(pj, pj / 2, 2 * pj)})

    sizes = frontier([size("large", 40, 16), size("small", 30, 4), size("poor", 20, 8), size("tie", 30, 5)])
    assert [one.system for one in sizes] == ["small", "large"]
    found = at_equal_score(size("own", 35, 2), sizes)
    assert found == {"bound": "", "between": ["small", "large"], "value": pytest.approx(4)} | {
        end: pytest.approx(4) for end in ("low", "high")
    }  # what both sides share cancels
    apart = at_equal_score(size("own", 35, 2, "another"), sizes)
    assert apart["value"] == pytest.approx(4) and apart["low"] < 3 and apart["high"] > 6
    below, above = at_equal_score(size("own", 10, 2), sizes), at_equal_score(size("own", 50, 2), sizes)
    assert (below["bound"], below["between"], below["value"]) == ("at most", ["small"], pytest.approx(2))
    assert (above["bound"], above["between"], above["value"]) == ("at least", ["large"], pytest.approx(8))


def test_smaller_models_are_what_a_file_beside_the_checkpoint_lists(report, tmp_path):
    folder = prepare.bundled_dir()
    scored = {"model": {"greedy": {"rouge1": 20.0, "rougeL": 18.0}}, "nll": {"test": 3.5}}
    (tmp_path / "eval.json").write_text((folder / "eval.json").read_text())
    assert others(tmp_path) == ()
    path = tmp_path / "smaller.json"
    path.write_text(json.dumps({"texts": 1000, "models": {"d 32 (FP32)": {"config": LITTLE} | scored}}))
    (one,) = others(tmp_path)
    assert [(score.precision, score.rouge_1, score.tier) for score in one.scores] == [
        ("FP32", 20.0, "measured"),
        ("BF16", 20.0, "projected"),
        ("INT8", 20.0, "projected"),
    ]
    subject = of_shape(SUBJECT, BartConfig(activation_function="relu"), one)
    assert subject.name == "d 32 (FP32)" and subject.hw == SUBJECT.hw
    assert (64, 32) in {tuple(w.shape) for name, w in subject.model("2-2").weights.items() if "fc1" in name}
    records = {record["name"]: record for record in report["subjects"][0]["equal_latency"]}
    models = [(scores(folder), records), (one.scores, records)]
    own = report["subjects"][0] | {"quality": quality(models), "equal_quality": equal_quality(models)}
    assert {row["metric"] for row in own["equal_quality"]} == {"nats", "rouge_1"}
    assert "INT8 over W2A2" in {row[0] for row in equal_quality_rows(own)}
    assert "d 32 (FP32)" in {row[0] for row in quality_rows(own)} and "<svg" in audit_plots.quality(own)
    path.write_text(json.dumps({"texts": 200, "models": {}}))
    with pytest.raises(InputError, match="smaller.json: texts must be 1000, not 200"):
        others(tmp_path)


def test_a_setting_of_another_shape_is_scored_with_its_own_energy(tmp_path):
    folder = prepare.bundled_dir()
    config = json.loads((folder / "config.json").read_text())
    for name in ("eval.json", "config.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "1-1").mkdir()
    evaluation = json.loads((folder / "eval.json").read_text())
    student = evaluation["models"].pop("student (W2A2)")
    evaluation["models"]["student (W1A1)"] = student
    (tmp_path / "1-1" / "eval.json").write_text(json.dumps(evaluation))
    (tmp_path / "1-1" / "config.json").write_text(json.dumps(config))
    assert "W1A1" in {score.precision for score in scores(tmp_path)} and others(tmp_path) == ()
    width = {"d_model": 2 * config["d_model"], "encoder_attention_heads": 6}
    (tmp_path / "1-1" / "config.json").write_text(json.dumps(config | width))
    assert "W1A1" not in {score.precision for score in scores(tmp_path)}
    (wide,) = others(tmp_path)
    assert wide.config == width and [score.precision for score in wide.scores] == ["W1A1"]
    small = BartConfig(activation_function="relu", **LITTLE)
    one = replace(wide, config={"d_model": 64, "encoder_attention_heads": 4})
    own, narrow = (
        audits.scored(of_shape(SUBJECT, small, each), [], "lpddr4", lambda case: None)["W1A1"]["phases"]
        for each in (one, replace(one, config={}))
    )
    for phase, other in zip(own, narrow, strict=True):
        assert phase["macs"] > other["macs"] and phase["per_token_pj"]["pj"] > other["per_token_pj"]["pj"]


def test_measured_energy_stands_beside_the_model_s(report, tmp_path):
    path = tmp_path / "m.json"
    windows = [{"seconds": 2.0, "joules": 0.5, "passes": 100}, {"seconds": 1.0, "joules": 0.28, "passes": 50}]
    entry = {
        "device": "board",
        "model": "little",
        "precision": "W2A2",
        "phase": "prefill",
        "tokens": 10,
        "windows": windows,
    }
    path.write_text(json.dumps([entry]))
    (row,) = measured = read_measured(path)
    assert (row["pj"], row["low"], row["high"]) == pytest.approx((0.78e12 / 1500, 0.5e12 / 1000, 0.28e12 / 500))
    assert (row["tier"], row["windows"], row["seconds"]) == ("silicon", 2, pytest.approx(3 / 1500))
    text = terminal(report | {"measured": measured})
    assert (
        "board" in text
        and "measured / model" in text
        and "Measured on silicon" in page(report | {"measured": measured})
    )
    path.write_text(json.dumps([entry | {"windows": [{"seconds": 1, "joules": -1, "passes": 1}]}]))
    with pytest.raises(InputError, match="m.json: entry 1: windows.*joules"):
        read_measured(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="m.json: must be a list of measurements, not dict"):
        read_measured(path)


def test_command_line(tmp_path, capsys):
    assert (
        main(["report", "--claim", "--models", "none", "--json", str(tmp_path / "c.json"), "--out", str(tmp_path)]) == 0
    )
    data = json.loads((tmp_path / "c.json").read_text())
    assert {"paper_sizes_mib", "paper_flops_factors", "ratios", "gate_level_error", "subjects"} <= set(data)
    assert "39.6" in capsys.readouterr().out and (tmp_path / "claim.html").exists()
    assert main(["report", "--dram", "hbm2", str(tmp_path)]) == 2
    assert "--models, --dram, --characterisation and --measured must be given with --claim" in capsys.readouterr().err
