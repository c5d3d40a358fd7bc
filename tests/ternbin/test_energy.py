from collections import defaultdict
from dataclasses import replace

import pytest

from ternbin.contract.hw import NAMED
from ternbin.counting.traffic import Traffic
from ternbin.energy import figures as tables
from ternbin.energy.block_events import events
from ternbin.energy.claim import Phase, audit, claim_report, operation_factor
from ternbin.energy.lines import Precision
from ternbin.energy.model import account, array_flops, total_pj
from ternbin.errors import InputError

HW = NAMED["small"]


def _counters(**values):
    return defaultdict(int, values)


def test_operation_factors_are_the_papers():
    assert [operation_factor(w, a) for w, a in ((2, 8), (2, 2), (1, 8), (1, 1))] == [0.25, 0.0625, 0.125, 0.015625]


def test_array_energy_by_hand():
    counters = _counters(execute_array_active=10, execute_array_columns=30)
    lines = {line.event: line for line in account(counters, Traffic(), HW, weight_bits=2)}
    assert lines["ternary multiply-accumulate"].count == 30 * 16 * 32
    assert lines["operand register bit"].count == 10 * 16 * 32 * 2 + 30 * 32 * 2
    assert lines["ternary multiply-accumulate"].pj == pytest.approx(30 * 16 * 32 * tables.mac("ternary", 32).pj)


def test_external_traffic_scales_with_weight_bits_only_for_weights():
    traffic = Traffic(weights=100, embedding=10, parameters=7, program=64, other_reads=3, writes=5)
    ours = account(_counters(), traffic, HW, weight_bits=2)
    fp32 = account(_counters(), traffic, HW, weight_bits=2, precision=Precision.reference("fp32"))

    def bits(lines):
        return sum(line.count for line in lines if line.group == "external")

    assert bits(ours) == 8 * traffic.total
    assert bits(fp32) == 8 * (110 * 16 + 7 + 64 + 3 + 5)


def test_packed_trits_are_scaled_from_what_they_take():
    traffic, packed = Traffic(weights=80, embedding=10), replace(HW, weight_pack="5trit")
    fp32 = account(_counters(), traffic, packed, weight_bits=2, precision=Precision.reference("fp32"))
    assert sum(line.count for line in fp32 if line.group == "external") == 8 * (100 + 10) * 16
    assert (packed.memory_bits(2), packed.memory_bits(1), HW.memory_bits(2)) == (1.6, 1, 2)


def test_memory_energy_counts_accesses():
    lines = account(_counters(wbuf_reads=1000), Traffic(), HW, weight_bits=2)
    (line,) = [line for line in lines if line.unit == "wbuf" and line.event == "read"]
    assert line.pj == pytest.approx(1000 * tables.sram(HW.wbuf_words, 64).read.pj)
    assert line.energy.tier == "table" and "CACTI" in line.energy.source


def test_sram_picks_table_rows_and_splits_wide_words():
    assert tables.sram(1024, 64).read.pj == pytest.approx(
        2 * 2.862
    )  # two 32-bit macros of 4096 bytes beat one of 64 bits (6.137)
    wide = tables.sram(16, 2048)
    assert wide.read.pj > tables.sram(16, 64).read.pj * 8
    assert wide.read.low < wide.read.pj < wide.read.high


def test_every_line_has_a_source_and_a_range():
    counters = defaultdict(lambda: 5)
    for line in account(counters, Traffic(1, 1, 1, 1, 1, 1), HW, weight_bits=2):
        assert line.energy.source and line.energy.tier in ("measured", "derived", "table")
        assert line.energy.low <= line.energy.pj <= line.energy.high


def test_audit_of_a_run_without_memory_is_the_arithmetic_ratio():
    counters = _counters(execute_array_active=1, execute_array_columns=4, steps_single_plane=1, columns_single_plane=4)
    phase = Phase("prefill", counters, Traffic(weights=1), 2048, 0, 0)
    (result,) = audit([phase], HW, weight_bits=2, act_bits=2)["phases"]
    fp32 = result["references"]["fp32"]
    assert fp32["operation_count"] == 16
    assert fp32["arithmetic"] == pytest.approx(tables.mac("fp32").pj / tables.mac("ternary", 32).pj)
    assert 100 < fp32["arithmetic"] < 400
    assert fp32["bits_moved"] == 16
    assert result["full_precision_head"]["operation_ratio"] == 16


def test_total_is_the_sum_of_groups():
    lines = account(defaultdict(lambda: 3), Traffic(9, 9, 9, 9, 9, 9), HW, weight_bits=2)
    groups = [total_pj(lines, group)["pj"] for group in ("arithmetic", "on-chip", "external")]
    assert sum(groups) == pytest.approx(total_pj(lines)["pj"])


def test_figures_come_from_the_stored_characterisation():
    (record,) = [b for b in tables.characterisation()["blocks"] if b["name"] == "ternary x32"]
    figure = tables.mac("ternary", 32)
    assert figure.tier == "measured"
    assert figure.pj == pytest.approx(record["fj_per_event"]["real"]["glitch"]["element"] / 1e3)
    assert tables.block("ternary", 256)["lanes"] == 64
    with pytest.raises(InputError, match="kind must be one of the characterised blocks, not 'fp8'"):
        tables.mac("fp8")


def test_parts_of_every_record_add_up_and_glitches_never_save_energy():
    for record in tables.characterisation()["blocks"]:
        if record["kind"].startswith("core "):
            continue
        for name, event in record["fj_per_event"].items():
            for part in event.values():
                assert part["total"] == pytest.approx(part["element"] + part["operands"] + part["clock"], rel=1e-4)
            assert event["glitch"]["total"] >= event["zero_delay"]["total"], (record["name"], name)
        events = record["fj_per_event"]
        assert (
            events["idle"]["glitch"]["total"]
            < events["operand held"]["glitch"]["total"]
            <= events["random"]["glitch"]["total"]
        )


def test_upkeep_counts_the_flip_flops_of_the_configuration():
    flops = array_flops(HW, Precision.of(HW))
    assert flops == {"elements": 16 * (4 + 1) * 48, "operands": 32 * 2 * (16 + 4)}
    counted = _counters(cycles=9, execute_array_active=7, execute_array_columns=20, execute_drained_codes=5)
    lines = {line.event: line for line in account(counted, Traffic(), HW, weight_bits=2) if line.unit == "array"}
    # operand registers of 7 steps and 20 columns; accumulators of 20 columns' elements, results of 5
    assert lines["flip-flop clocked"].count == 32 * 2 * (7 * 16 + 20) + (20 + 5) * 16 * 24
    assert lines["flip-flop clocked"].pj > lines["leakage of a cycle"].pj > 0
    wide = array_flops(HW, Precision.reference("fp32"))
    assert wide == {"elements": 16 * 4 * 32 * 99, "operands": 32 * 32 * (16 + 4)}


def test_claim_report_has_ratios_of_like_with_like():
    report = claim_report({"2-2-2": {"size_mib": 39.649, "size_with_scales_mib": 40.2, "flops_factor": 0.0625}}, [])
    assert report["paper_sizes_mib"] == {"2-2-2": 39.6} and report["paper_flops_factors"] == {"2-2-2": 0.0625}
    ratios = report["ratios"]["multiply_accumulate"]["fp32"]["ternary"]
    fp32, ternary = (tables.block(kind)["fj_per_event"]["real"]["glitch"] for kind in ("fp32", "ternary"))
    assert ratios["arithmetic_glitch"] == pytest.approx(fp32["element"] / ternary["element"])
    assert ratios["with_registers_glitch"] < ratios["arithmetic_glitch"]  # registers dilute the arithmetic
    assert report["break_even_uses_of_a_weight"]["ternary"] == pytest.approx(2 * 8 * 1e3 / ternary["total"])


def test_parts_of_the_core_use_the_events_fitted_to_gates():
    counted = defaultdict(lambda: 3)
    lines = account(counted, Traffic(), HW, weight_bits=2)
    by_name = {(line.unit, line.event): line for line in lines}
    fitted = tables.block("core execute")["fj_per_event"]
    assert by_name["execute", "residual result"].count == 3 * HW.rows
    assert by_name["execute", "residual result"].energy.pj == pytest.approx(
        fitted["residual result"]["glitch"]["total"] / 1e3
    )
    # all of the array together is what its events cost in the whole core, leakage apart
    array = sum(line.pj for line in lines if line.unit == "array" and "leakage" not in line.event)
    whole = sum(n * tables.core_event("array", name).pj for name, n in events(counted, HW)["array"].items())
    assert array == pytest.approx(whole)
