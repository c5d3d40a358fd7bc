import json
from collections import defaultdict
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from accounts import check_counts, check_links, check_records

from ternbin.contract.counters import countable
from ternbin.contract.effects.table import counts
from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.isa import Dest, Epilogue, Instruction, Kind, Op
from ternbin.counting.events import add
from ternbin.counting.phases import Phase
from ternbin.counting.traffic import Traffic
from ternbin.counting.workload import Work
from ternbin.energy import accuracy
from ternbin.energy import figures as tables
from ternbin.energy.area import area_mm2, array_mm2, memories_mm2, register_um2
from ternbin.energy.block_events import EVENTS
from ternbin.energy.claim import audit, claim_report, operation_factor
from ternbin.energy.clock import clock
from ternbin.energy.flops import array_flops
from ternbin.energy.lines import Line, Precision, total_pj
from ternbin.energy.model import account
from ternbin.energy.uncertainty import Spread, draws, leading, ratio, total
from ternbin.errors import InputError
from ternbin.mapping.mapper import map_model
from ternbin.models import prepare
from ternbin.report import html

HW = NAMED["small"]
EXAMPLE = Path(__file__).parents[2] / "reports/example/result.json"


def _count(lines: list[Line], unit: str, event: str) -> float:
    """Events of one kind, whatever counters they come from."""
    return sum(line.count for line in lines if (line.unit, line.event) == (unit, event))


def _pj(lines: list[Line], unit: str, event: str) -> float:
    return sum(line.pj for line in lines if (line.unit, line.event) == (unit, event))


def _counters(**values):
    return defaultdict(int, values)


def test_operation_factors_are_the_papers():
    assert [operation_factor(w, a) for w, a in ((2, 8), (2, 2), (1, 8), (1, 1))] == [0.25, 0.0625, 0.125, 0.015625]


def test_array_energy_by_hand():
    counters = _counters(execute_array_active=10, execute_array_columns=30)
    lines = account(counters, Traffic(), HW, weight_bits=2)
    assert _count(lines, "array", "multiply-accumulate") == 30 * 16 * 32
    assert _count(lines, "array", "operand register bit") == 10 * 16 * 32 * 2 + 30 * 32 * 2
    assert _pj(lines, "array", "multiply-accumulate") == pytest.approx(30 * 16 * 32 * tables.mac("ternary", 32).pj)


def test_external_traffic_scales_with_weight_bits_only_for_weights():
    traffic = Traffic(weights=100, embedding=10, parameters=7, program=64, other_reads=3, writes=5)
    ours = account(_counters(), traffic, HW, weight_bits=2)
    fp32 = account(_counters(), traffic, HW, weight_bits=2, precision=Precision.reference("fp32"))

    def bits(lines):
        return sum(line.count for line in lines if line.group == "external")

    program = traffic.program  # its line counts the beats that were fetched
    assert bits(ours) == 8 * (traffic.total - program)
    assert bits(fp32) == 8 * (110 * 16 + 7 + 3 + 5)


def test_packed_trits_are_scaled_from_what_they_take():
    traffic, packed = Traffic(weights=80, embedding=10), replace(HW, weight_pack="5trit")
    fp32 = account(_counters(), traffic, packed, weight_bits=2, precision=Precision.reference("fp32"))
    assert sum(line.count for line in fp32 if line.group == "external") == 8 * (100 + 10) * 16
    assert (packed.memory_bits(2), packed.memory_bits(1), HW.memory_bits(2)) == (1.6, 1, 2)


def test_packed_trits_are_decoded_byte_by_byte():
    packed, name = replace(HW, weight_pack="5trit"), "byte of packed trits decoded"
    (line,) = [line for line in account(_counters(), Traffic(weights=80), packed, weight_bits=2) if line.event == name]
    record = tables.block("trits")
    clock = record["clock_fj_per_flop"] * record["flip_flops"]["element"] / 8
    assert line.count == 80 and line.record.name == "trit decoder" and line.energy.tier == "measured"
    assert line.pj == pytest.approx(80 * (record["fj_per_event"]["operand held"]["glitch"]["element"] + clock) / 1e3)
    fp32 = account(_counters(), Traffic(weights=80), packed, weight_bits=2, precision=Precision.reference("fp32"))
    others = [*fp32, *account(_counters(), Traffic(weights=80), packed, weight_bits=1)]
    others += account(_counters(), Traffic(weights=80), HW, weight_bits=2)
    assert not [line for line in others if line.event == name]


def test_lists_of_the_best_tokens_by_hand():
    """Records are of 2 and of 8 beams; 5 beams' list of 14 lies half way."""

    def listed(hw: HwConfig) -> list[Line]:
        lines = account(_counters(execute_drained_argmax=3, cycles=7), Traffic(), hw, weight_bits=2)
        return [
            line for line in lines if line.event in ("logit of a beam listed", "leakage of lists of the best tokens")
        ]

    short, long = (record for record in tables.characterisation()["blocks"] if record["kind"] == "top")
    assert (short["entries"], long["entries"]) == (8, 20) and not listed(HW)
    spent, areas = [], []
    for record in (short, long):
        element, column = record["flip_flops"]["element"], record["flip_flops"]["operands"]
        clocked = (element - column) / 2 + column / 32
        spent.append(
            record["fj_per_event"]["operand held"]["glitch"]["element"] + record["clock_fj_per_flop"] * clocked
        )
        areas.append(record["area_um2"] - column * register_um2())
    for beams, engines, expected in ((2, 2, spent[0]), (5, 4, sum(spent) / 2), (8, 4, spent[1])):
        logit, leak = listed(HW.searching(beams))
        assert (logit.count, leak.count) == (3 * HW.rows, 7)
        assert logit.energy.pj == pytest.approx(expected / 1e3)
        assert leak.energy.pj == tables.best_tokens_leakage(2 * beams + 4, engines, HW.clock_mhz).pj
    wide, name = NAMED["base"], "lists of the best tokens"
    assert name not in area_mm2(wide)
    more = long["flip_flops"]["operands"] * register_um2()  # columns of 64 logits, not of 32
    assert area_mm2(wide.searching(8))[name] == pytest.approx(4 * (areas[1] + more) / 1e6)


def test_memory_energy_counts_accesses():
    lines = account(_counters(wbuf_reads=1000), Traffic(), HW, weight_bits=2)
    (line,) = [line for line in lines if line.unit == "wbuf" and line.event == "read"]
    assert line.pj == pytest.approx(1000 * tables.sram(HW.wbuf_words, 64).read.pj)
    assert line.energy.tier == "table" and "CACTI" in line.energy.source
    assert _pj(lines, "wbuf", "read, second port") == pytest.approx(0.54 * line.pj)
    memory, array = memories_mm2(HW)["wbuf"], sum(array_mm2(HW).values())
    millimetres = 0.5 * (memory + array) ** 0.5
    moved = _pj(lines, "wbuf", "bit moved to or from it")
    assert moved == pytest.approx(1000 * 64 * millimetres * 0.2 * 1.4 * 0.5 * 0.5 * 1.1**2)


def test_references_have_no_bit_planes():
    """Of products with codes of 8 planes on either side, and of writing such codes, they read and write whole words, as with 1 plane."""
    product = {
        "row_tiles": 3,
        "col_tiles": 2,
        "chunks": 5,
        "tokens": 7,
        "row_planes": 1,
        "col_planes": 1,
        "kind": Kind.TERNARY,
    }
    lines: dict[str, list[list[Line]]] = {"own": [], "fp32": []}
    for planes in ({}, {"row_planes": 8, "col_planes": 8, "kind": Kind.INT8}):
        fields: dict[str, int] = {**product, **planes}
        executed = [
            Instruction(Op.GEMM, {**fields, "dest": Dest.TOKENS}),
            Instruction(Op.GEMM, {**fields, "dest": Dest.TRANSPOSED, "row_kbuf": 1}),
            Instruction(Op.GEMM, {**fields, "epilogue": Epilogue.RESIDUAL}),
            Instruction(Op.QUANT, {"tokens": 7, "words": 4, "kind": fields["kind"]}),
        ]
        counted = _counters(**add(counts(HW, i) for i in executed))
        lines["own"].append(account(counted, Traffic(weights=99), HW, weight_bits=2))
        fp32 = Precision.reference("fp32")
        lines["fp32"].append(account(counted, Traffic(weights=99), HW, weight_bits=2, precision=fp32, stored_bits=2))
    units = ("array", "wbuf", "kbuf", "abuf")
    few, many = ({u: sum(line.pj for line in own if line.unit == u) for u in units} for own in lines["fp32"])
    assert few == many and all(few.values())
    few, many = ({u: sum(line.pj for line in own if line.unit == u) for u in units} for own in lines["own"])
    assert all(many[unit] > 7 * few[unit] for unit in ("array", "kbuf", "abuf"))


def test_a_weight_is_written_once_whatever_its_planes():
    """WBUF's writes of a reference follow from the bits of weights that come, 16 times 2 bits of each here."""
    fp32 = account(
        _counters(wbuf_writes=1), Traffic(weights=100), HW, weight_bits=2, precision=Precision.reference("fp32")
    )
    (line,) = [line for line in fp32 if (line.unit, line.event) == ("wbuf", "write")]
    assert line.count == pytest.approx(100 * 8 / 64)  # words of 32 weights
    assert line.energy.pj == pytest.approx(16 * tables.sram(HW.wbuf_words, 64).write.pj)


def test_what_is_fetched_past_the_end_of_a_program_is_paid():
    lines = account(_counters(axi_fetch_beats=10), Traffic(program=48), HW, weight_bits=2)
    assert _count(lines, "external", "program bit") == 10 * HW.axi_data_bits


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
        assert line.energy.source and line.energy.tier in ("measured", "derived", "table", "modelled")
        assert line.energy.varies and line.energy.low <= line.energy.pj <= line.energy.high


def test_audit_of_a_run_without_memory_is_the_arithmetic_ratio():
    counters = _counters(execute_array_active=1, execute_array_columns=4, steps_single_plane=1, columns_single_plane=4)
    work = {"product": Work(2048, 0)}
    phase = Phase("prefill", 1, 1, 1, (), counters, Traffic(weights=1), work, work)
    (result,) = audit([phase], HW, weight_bits=2, act_bits=2)["phases"]
    fp32 = result["references"]["fp32"]
    assert fp32["operation_count"] == 16
    assert fp32["arithmetic"] == pytest.approx(tables.mac("fp32").pj / tables.mac("ternary", 32).pj)
    assert 100 < fp32["arithmetic"] < 250
    assert fp32["bits_moved"] == 16
    assert result["full_precision_head"]["operation_ratio"] == 16


def test_audit_of_a_run_with_an_8_bit_head():
    """Of 1000 weights 250 have 8 bits, the others 2: 3500 bits, of FP32 32000."""
    counters = _counters(execute_array_active=1, execute_array_columns=4, steps_single_plane=1, columns_single_plane=4)
    work = {"product": Work(750, 750), "lm_head": Work(250, 250)}
    phase = Phase("decode", 1, 1, 1, (), counters, Traffic(weights=3500 // 8), work, work)
    packed = replace(HW, weight_pack="5trit")
    for hw, bits in ((HW, 3500), (packed, 8 * 250 + 1.6 * 750)):
        (result,) = audit([phase], hw, weight_bits=2, act_bits=2, head_bits=8)["phases"]
        assert result["references"]["fp32"]["bits_moved"] == pytest.approx(32000 / bits)


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
    with pytest.raises(InputError, match="kind must be one of the characterised blocks, not 'fp9'"):
        tables.mac("fp9")


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
    lines = account(counted, Traffic(), HW, weight_bits=2)
    # operand registers of 7 steps and 20 columns; accumulators of 20 columns' elements, results of 5
    assert _count(lines, "array", "flip-flop clocked") == 32 * 2 * (7 * 16 + 20) + (20 + 5) * 16 * 24
    assert _pj(lines, "array", "flip-flop clocked") > _pj(lines, "array", "leakage of a cycle") > 0
    wide = array_flops(HW, Precision.reference("fp32"))
    element = tables.block("fp32")["flip_flops"]["element"]
    assert wide == {"elements": 16 * 4 * 32 // 4 * element, "operands": 32 * 32 * (16 + 4)}


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


def test_a_line_counts_one_counter_and_names_a_record():
    counters = {
        name: 3 + n for n, name in enumerate({**dict.fromkeys(countable(NAMED["tiny"])), **dict.fromkeys(_OTHER)})
    }
    traffic = Traffic(1, 2, 3, 4, 5, 6)
    for precision in (None, Precision.reference("fp32")):
        for hw in (HW, HW.searching(2), NAMED["small-binary"]):
            lines = account(counters, traffic, hw, weight_bits=1, precision=precision)
            check_counts([line.asdict() for line in lines], {"counters": counters, "traffic": asdict(traffic)})
            assert len({(line.unit, line.event, line.counter) for line in lines}) == len(lines)
    # what the committed example once had wrong: stores on the loads' counter, ports by 65.2 bits a beat, flip-flops on one counter
    rates = {
        (line.unit, line.event, line.counter): line.factor for line in account(counters, traffic, HW, weight_bits=2)
    }
    assert rates["store", "beat, a bus bit", "axi_write_beats"] == 64
    ports = {key[1:]: factor for key, factor in rates.items() if key[0] == "ports" and key[2].endswith("beats")}
    assert ports == {
        ("loaded beat", "axi_load_beats"): 1,
        ("loaded beat, a bus bit", "axi_load_beats"): 64,
        ("fetched beat", "axi_fetch_beats"): 1,
    }
    assert rates["array", "flip-flop clocked", "execute_array_active"] == 16 * 32 * 2
    assert rates["array", "flip-flop clocked", "execute_drained_codes"] == 16 * 24
    assert rates["external", "program bit", "axi_fetch_beats"] == 64 and rates["external", "writes bit", "writes"] == 8


_OTHER = (
    "cycles",
    "axi_fetch_beats",
    *(f"{unit}_busy" for unit in ("load", "execute", "vector", "store")),
)


def test_every_count_of_the_example_can_be_computed_again():
    result = json.loads(EXAMPLE.read_text())
    for phase in result["counters"]:
        lines = [line for line in result["energy"]["lines"] if line["phase"] == phase]
        assert len(lines) > 90
        check_counts(lines, {basis: result[basis][phase] for basis in ("counters", "traffic")})
    check_records(result["energy"]["lines"], result["energy"]["sources"])
    loaded = sum(traffic["weights"] for traffic in result["traffic"].values())
    assert loaded < 8 * sum(counters["axi_load_beats"] for counters in result["counters"].values())


def test_every_link_of_the_example_leads_to_what_it_names():
    result = json.loads(EXAMPLE.read_text())
    phases = list(result["counters"])
    lines = [line for phase in phases for line in result["energy"]["lines"] if line["phase"] == phase and line["count"]]
    for phase in phases:  # the counter's row shows the value of every phase
        shown = {
            f"{anchor}-{name}": f"{value:,}"
            for basis, anchor in (("counters", "counter"), ("traffic", "traffic"))
            for name, value in result[basis][phase].items()
        }
        check_links(html.page(result), lines, shown)


# ---- accuracy: the model as it is used, beside whole cores at gate level ---------------------------------------------


@cache
def _lowered():
    return prepare.lowered_model(prepare.bundled_dir())


def test_the_array_s_counters_are_those_of_the_runs_that_were_simulated():
    core = tables.characterisation()["core"]
    cores = {found["hardware"]["name"]: HwConfig(**found["hardware"]) for found in core["cores"]}
    for row in core["compared"]:
        if row["core"] in cores:
            program = map_model(_lowered(), cores[row["core"]], int(row["workload"].split()[2]), 2, contents=False)
            counted = add(counts(program.hw, i) for i in program.instructions(0 if row["call"] == "encoder" else 1))
            for name in ("execute_array_active", "execute_array_columns"):
                assert row["counters"][name] == counted[name]


def test_the_model_as_used_is_close_to_the_gates():
    """docs/energy.md states these figures."""
    rows = accuracy.compared()
    errors = [row["error"] for row in rows]
    array = [row["parts"]["array"]["model_pj"] / row["parts"]["array"]["gates_pj"] - 1 for row in rows]
    assert (min(errors), max(errors)) == pytest.approx((-0.038, 0.021), abs=0.002)
    assert (min(array), max(array)) == pytest.approx((-0.108, 0.066), abs=0.002)
    for row in rows:
        for part, own in row["parts"].items():
            if row["blind"] and own["gates_pj"] > 0.05 * row["gates_pj"]:
                assert abs(own["model_pj"] / own["gates_pj"] - 1) < 0.15, part
    assert accuracy.gate_level_error() == max(map(abs, errors))


def test_the_comparison_covers_toggles_and_clock_pins_of_the_core_alone():
    lines = account(_counters(execute_array_columns=10, cycles=5, wbuf_reads=3), Traffic(weights=9), HW, weight_bits=2)
    covered = [line for line in lines if accuracy.at_gate_level(line) and line.count]
    assert {line.unit for line in covered} <= {"array", *EVENTS} and not any(
        "leakage" in line.event for line in covered
    )
    assert 0 < accuracy.checked_share(lines) < 1


def test_the_area_of_an_array_is_its_netlist_s():
    core = tables.characterisation()["core"]
    for found in core["cores"]:
        hw = HwConfig(**found["hardware"])
        netlist = next(size for size in tables.block("core array")["sizes"] if size["core"] == hw.name)["area_um2"]
        assert sum(array_mm2(hw).values()) == pytest.approx(netlist / 1e6, rel=0.06)


# ---- uncertainty -----------------------------------------------------------------------------------------------------


def test_intervals_by_hand():
    """One source: straight lines between the ends, so 90% of draws lie from -0.9 to 0.9 of the way."""
    one = {"a": Spread(10, 5, 20)}
    assert total(one) == pytest.approx({"pj": 10, "low": 10 - 0.9 * 5, "high": 10 + 0.9 * 10}, rel=1e-3)
    fixed = {"b": Spread(2, 2, 2)}
    assert ratio(one, fixed) == pytest.approx({"value": 5, "low": 5.5 / 2, "high": 19 / 2}, rel=1e-3)
    # what both sides share cancels, what they do not share does not
    assert ratio(one, {"a": Spread(5, 2.5, 10)}) == pytest.approx({"value": 2, "low": 2, "high": 2})
    apart = ratio(one, {"c": Spread(5, 2.5, 10)})
    assert apart["low"] < 1.2 < 2 < 3.4 < apart["high"]
    # (10 + 10 x) / (1 + 19 + 10 x), x from -0.45 to 0.9: monotone in x
    both = ratio({"a": Spread(10, 5, 20)}, {"a": Spread(1, 0.5, 2), "b": Spread(19, 19, 19)})
    assert both == pytest.approx({"value": 0.5, "low": 5.5 / 19.55, "high": 19 / 20.9}, rel=1e-3)


def test_draws_are_reproducible_and_sources_independent():
    assert total({"a": Spread(1, 0, 3)}) == total({"a": Spread(1, 0, 3)})
    assert abs(np.corrcoef(draws("a"), draws("b"))[0, 1]) < 0.1
    assert sorted(draws("a")) == pytest.approx(sorted(draws("b")))
    alone, both = total({"a": Spread(1, 0, 2)}), total({"a": Spread(1, 0, 2), "b": Spread(1, 0, 2)})
    assert both["high"] - both["low"] < 2 * (alone["high"] - alone["low"])  # not all highs at once


def test_a_source_alone_moves_a_ratio_by_what_it_is():
    moved = leading({"a": Spread(10, 5, 20), "b": Spread(10, 9, 11)}, {"b": Spread(5, 4.5, 5.5)})
    assert moved["a"] == pytest.approx({"low": 15.5 / 5, "high": 29 / 5}, rel=1e-3)
    assert moved["b"] == pytest.approx({"low": 20.9 / 5.45, "high": 19.1 / 4.55}, rel=1e-3)


# ---- the clock -------------------------------------------------------------------------------------------------------


def test_named_configurations_meet_their_clock():
    for name, hw in NAMED.items():
        assert hw.clock_mhz <= clock(hw).meets_mhz, name


def test_the_clock_by_hand():
    (tiny,) = [core for core in tables.characterisation()["core"]["cores"] if core["hardware"]["name"] == "gates-4"]
    found = clock(HwConfig(**tiny["hardware"]))
    assert found.period_ns == pytest.approx(tiny["critical_path_ns"] + found.access_ns - 0.8, abs=0.05)
    assert found.access_ns == 1.018  # 1,024 words of 64 bits as two banks of 4,096 bytes
