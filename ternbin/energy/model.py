"""Energy of a run: the hardware's own event counts times energy per event.

The same function serves the accelerator as simulated and the reference precisions (int8, bf16, fp32) on the same dataflow: same
array shape, schedule, events and memory system, with wider operands (code words, code memories and weight traffic scale with
the bits) and the other multiply-accumulate. Epilogue, vector unit, scores and residual stream are kept as they are, which favours
the references.
"""

from ternbin.contract.counters import DRAINED
from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import banked
from ternbin.counting.traffic import Traffic
from ternbin.energy import figures as tables
from ternbin.energy.block_events import events, size
from ternbin.energy.figures import Figure
from ternbin.energy.lines import Line, Precision


def _operands(counters: dict, hw: HwConfig, precision: Precision) -> tuple[float, float]:
    """Columns of the array active in its steps, and operand bits that the steps load."""
    steps, columns = counters["execute_array_active"], counters["execute_array_columns"]
    if precision.mac in tables.MAC_BITS:  # a wide element needs no bit planes: one step for each pair of codes
        steps, columns = counters["steps_single_plane"], counters["columns_single_plane"]
    return columns, steps * hw.rows * hw.lanes * precision.weight_bits + columns * hw.lanes * precision.act_bits


def _array_lines(counters: dict, hw: HwConfig, precision: Precision) -> list[Line]:
    columns, operand_bits = _operands(counters, hw, precision)
    lines = [
        Line(
            "array",
            f"{precision.mac} multiply-accumulate",
            "arithmetic",
            columns * hw.rows * hw.lanes,
            tables.mac(precision.mac, hw.lanes),
        ),
        Line("array", "operand register bit", "arithmetic", operand_bits, tables.operand_bit(precision.mac, hw.lanes)),
    ]
    if precision.mac not in tables.MAC_BITS:
        lines.append(
            Line(
                "array",
                "row sum of one code",
                "arithmetic",
                counters["execute_rowsum_active"] * hw.rows * hw.lanes,
                tables.mac("binary", hw.lanes),
            )
        )
    return lines


def _beam_lines(counters: dict, hw: HwConfig) -> list[Line]:
    """What a logit costs beyond the arg-max where lists of the best tokens are kept: one comparison more for each place of the list, and
    an exponential that is added up."""
    if hw.beams == 1:
        return []
    each = tables.total(tables.add(49).times(hw.top, f"{hw.top} comparisons"), tables.lane("exp"), tables.add(56))
    return [Line("execute", "logit of a beam", "on-chip", counters["execute_drained_argmax"] * hw.rows, each)]


def _array_overhead(counters: dict, hw: HwConfig) -> Line:
    """The array of a whole core at gate level, less its elements, operand registers and clock as the blocks give them: drains, controls,
    wires; nothing where the blocks alone cost more, as with more lanes than the cores have. Measured with ternary elements, counted alike
    for all kinds."""
    hw, ternary = hw.ternary, Precision("ternary", 2, 2)
    blocks = [*_array_lines(counters, hw, ternary), _array_clock_line(counters, hw, ternary)]
    whole = [
        Line("array", name, "on-chip", count, tables.core_event("array", name))
        for name, count in events(counters, hw)["array"].items()
    ]
    pj, low = (
        max(0.0, sum(pick(line) for line in whole) - sum(pick(line) for line in blocks))
        for pick in (lambda line: line.pj, lambda line: line.count * line.energy.low)
    )
    source = f"{whole[0].energy.source}; less the lines above for ternary elements"
    return Line("array", "drains, control and wires", "on-chip", 1, Figure(pj, min(pj, low), 2 * pj, "derived", source))


def _core_lines(counters: dict, hw: HwConfig) -> list[Line]:
    """Everything in the core but the array and the memories."""
    lines = []
    for part, counted in events(counters, hw).items():
        if part != "array":
            figures = {name: tables.core_event(part, name) for name in counted}
            lines += [
                Line(part, name, "on-chip", count, figures[name])
                for name, count in counted.items()
                if figures[name].high
            ]
            leakage = tables.core_leakage(part, size(part, hw), hw.clock_mhz)
            lines.append(Line(part, "leakage of a cycle", "on-chip", counters["cycles"], leakage))
    return lines


def _memory_lines(counters: dict, hw: HwConfig, precision: Precision) -> list[Line]:
    lines = []
    for name, memory in banked(hw).items():
        factor = {"wbuf": precision.weight_bits, "kbuf": precision.act_bits, "abuf": precision.act_bits}.get(
            name, hw.planes
        )
        factor /= hw.planes
        bank, note = tables.sram(memory.words, memory.bits), "" if factor == 1 else f"x {factor:g} for wider codes"
        lines.append(Line(name, "read", "on-chip", counters[f"{name}_reads"], bank.read.times(factor, note)))
        lines.append(Line(name, "write", "on-chip", counters[f"{name}_writes"], bank.write.times(factor, note)))
    return lines


def _leakage_line(counters: dict, hw: HwConfig) -> Line:
    milliwatts = sum(m.banks * tables.sram(m.words, m.bits).leakage_mw for m in banked(hw).values())
    pj = milliwatts * 1e3 / hw.clock_mhz  # mW / MHz = nJ a cycle
    figure = Figure(pj, pj / 2, pj * 1.5, "table", f"{tables.CACTI}; {milliwatts:.3g} mW at {hw.clock_mhz:g} MHz")
    return Line("memories", "leakage of a cycle", "on-chip", counters["cycles"], figure)


def array_flops(hw: HwConfig, precision: Precision) -> dict[str, int]:
    """Flip-flops of the array: elements (with row sums), operand registers."""
    block = tables.block(precision.mac, hw.lanes)
    if precision.mac in tables.MAC_BITS:
        elements = hw.rows * hw.cols * hw.lanes // block["lanes"] * block["flip_flops"]["element"]
    else:
        elements = hw.rows * (hw.cols + 1) * 2 * hw.acc_bits
    operands = hw.lanes * (hw.rows * precision.weight_bits + hw.cols * precision.act_bits)
    return {"elements": int(elements / hw.step_cycles), "operands": int(operands / hw.step_cycles)}


def _array_leakage_line(counters: dict, hw: HwConfig, precision: Precision) -> Line:
    leak = tables.array_leakage(precision.mac, hw, sum(array_flops(hw, precision).values()))
    return Line("array", "leakage of a cycle", "on-chip", counters["cycles"], leak)


def _array_clock_line(counters: dict, hw: HwConfig, precision: Precision) -> Line:
    """A clock edge of the flip-flops that take a value, for the others' clock is gated: operand registers, accumulators in every step,
    and where a sum is handed out."""
    columns, operand_bits = _operands(counters, hw, precision)
    if precision.mac in tables.MAC_BITS:
        block = tables.block(precision.mac)
        elements = columns * hw.rows * hw.lanes / block["lanes"] * block["flip_flops"]["element"]
    else:
        drained = sum(counters[f"execute_drained_{mode}"] for mode in DRAINED)
        elements = (columns + drained + counters["execute_rowsum_active"]) * hw.rows * hw.acc_bits
    return Line("array", "flip-flop clocked", "on-chip", operand_bits + elements, tables.clock_flop())


def _external_lines(traffic: Traffic, scaled: dict[str, float], dram: str) -> list[Line]:
    bits = {name: getattr(traffic, name) * 8 * scaled.get(name, 1.0) for name in traffic.__dataclass_fields__}
    return [Line("external", f"{name} bit", "external", count, tables.DRAM[dram]) for name, count in bits.items()]


def account(
    counters: dict,
    traffic: Traffic,
    hw: HwConfig,
    *,
    weight_bits: int,
    precision: Precision | None = None,
    dram: str = "lpddr4",
) -> list[Line]:
    """Energy lines of one call (or of several, counters and traffic added up).

    ``counters``: the hardware counters by name, plus ``steps_single_plane`` and ``columns_single_plane`` (what array_active and
    array_columns would be without bit planes; equal to them for 1- and 2-bit activations). ``weight_bits``: bits of a weight code (in
    external memory ``hw.memory_bits``; embedding rows have ``weight_bits`` there).
    """
    wider = (
        {}
        if precision is None
        else {
            "weights": precision.weight_bits / hw.memory_bits(weight_bits),
            "embedding": precision.weight_bits / weight_bits,
        }
    )
    precision = precision or Precision.of(hw)
    return [
        *_array_lines(counters, hw, precision),
        *_core_lines(counters, hw),
        *_beam_lines(counters, hw),
        *_memory_lines(counters, hw, precision),
        _leakage_line(counters, hw),
        _array_clock_line(counters, hw, precision),
        _array_leakage_line(counters, hw, precision),
        _array_overhead(counters, hw),
        *_external_lines(traffic, wider, dram),
    ]


def total_pj(lines: list[Line], group: str | None = None) -> dict[str, float]:
    """Picojoules of all lines (of one group): value, low, high."""
    chosen = [line for line in lines if group in (None, line.group)]
    return {
        "pj": sum(line.pj for line in chosen),
        "low": sum(line.count * line.energy.low for line in chosen),
        "high": sum(line.count * line.energy.high for line in chosen),
    }
