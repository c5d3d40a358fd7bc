"""Energy of a run: the hardware's own event counts times energy per event.

The same function serves the accelerator as simulated and the reference precisions (int8, bf16, fp32) on the same dataflow: same
array shape, schedule, events and memory system, with wider operands (code words, code memories and weight traffic scale with
the bits) and the other multiply-accumulate. Epilogue, vector unit, scores and residual stream are kept as they are, which favours
the references.
"""

from dataclasses import dataclass

from ternbin.energy import tables
from ternbin.energy.tables import Figure
from ternbin.hw import HwConfig


@dataclass(frozen=True)
class Precision:
    """What the array computes with: ``mac`` names a characterised block, bits of one weight and one activation operand."""

    mac: str
    weight_bits: float
    act_bits: float

    @staticmethod
    def of(hw: HwConfig) -> "Precision":
        return Precision(hw.kind, hw.planes, hw.planes)

    @staticmethod
    def reference(name: str) -> "Precision":
        bits = tables.MAC_BITS[name]
        return Precision(name, bits, bits)


@dataclass(frozen=True)
class Line:
    """One kind of event: ``count`` events of ``energy`` each; ``group`` is arithmetic, on-chip or external."""

    unit: str
    event: str
    group: str
    count: float
    energy: Figure

    @property
    def pj(self) -> float:
        return self.count * self.energy.pj

    def asdict(self) -> dict:
        e = self.energy
        return {
            "unit": self.unit,
            "event": self.event,
            "group": self.group,
            "count": self.count,
            "pj_each": e.pj,
            "pj": self.pj,
            "pj_low": self.count * e.low,
            "pj_high": self.count * e.high,
            "tier": e.tier,
            "source": e.source,
        }


@dataclass(frozen=True)
class Traffic:
    """External bytes of a call by what they carry; ``weights`` and ``embedding`` scale with the weight bits."""

    weights: int = 0
    embedding: int = 0
    parameters: int = 0
    program: int = 0
    other_reads: int = 0
    writes: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.embedding + self.parameters + self.program + self.other_reads + self.writes


def _array_lines(counters: dict, hw: HwConfig, precision: Precision) -> list[Line]:
    steps, columns = counters["execute_array_active"], counters["execute_array_columns"]
    if precision.mac in tables.MAC_BITS:  # a wide element needs no bit planes: one step for each pair of codes
        steps, columns = counters["steps_single_plane"], counters["columns_single_plane"]
    operand_bits = steps * hw.rows * hw.lanes * precision.weight_bits + columns * hw.lanes * precision.act_bits
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


def _logit_energy(hw: HwConfig) -> Figure:
    """What a scaled logit costs: a comparison, or with beams one for each place of the list, and an exponential that is added up."""
    if hw.beams == 1:
        return tables.add(49)
    return tables.total(tables.add(49).times(hw.top, f"{hw.top} comparisons"), tables.lane("exp"), tables.add(56))


def _epilogue_lines(counters: dict, hw: HwConfig) -> list[Line]:
    scale = tables.lane("scale")
    per_lane = {
        "codes": tables.lane("threshold"),
        "codes8": scale,
        "residual": scale,
        "argmax": tables.total(scale, _logit_energy(hw)),
    }
    return [
        Line("epilogue", f"{mode} result", "on-chip", counters[f"execute_drained_{mode}"] * hw.rows, energy)
        for mode, energy in per_lane.items()
    ]


def _vector_lines(counters: dict, hw: HwConfig) -> list[Line]:
    lut = tables.sram(256, 16).read
    exp = tables.total(tables.lane("exp"), lut)
    per_word = {
        "ln_sum_words": tables.lane("sum"),
        "ln_norm_words": tables.lane("norm"),
        "softmax_max_words": tables.add(hw.acc_bits),
        "softmax_exp_words": tables.total(exp, tables.add(26)),
        "softmax_code_words": tables.total(exp, tables.add(46).times(2)),
        "quant_words": tables.lane("threshold"),
        "embed_words": tables.add(hw.res_bits),
    }
    lines = [
        Line("vector", f"{event} element", "on-chip", counters[f"vector_{event}"] * hw.rows, energy)
        for event, energy in per_word.items()
    ]
    rsqrt = tables.add(50).times(48, "24 steps of square root, 24 of division")
    divide = tables.add(45).times(45, "45 steps of division")
    lines.append(Line("vector", "ln_rsqrt", "on-chip", counters["vector_ln_rsqrt"], rsqrt))
    lines.append(Line("vector", "divides", "on-chip", counters["vector_divides"], divide))
    return lines


def memory_banks(hw: HwConfig) -> dict[str, tuple[int, int, int]]:
    """Memory name -> (banks, words, word bits) of the on-chip memories that are SRAM."""
    return {
        "abuf": (hw.cols, hw.abuf_words, hw.code_word_bits),
        "wbuf": (hw.rows, hw.wbuf_words, hw.code_word_bits),
        "kbuf": (hw.rows, hw.kbuf_words, hw.code_word_bits),
        "rbuf": (1, hw.rbuf_words, hw.res_word_bits),
        "sbuf": (hw.cols, hw.sbuf_words, hw.score_word_bits),
        "pbuf": (1, hw.pbuf_words, hw.param_word_bits),
        "idbuf": (1, hw.idbuf_words, 96),
    }


def _memory_lines(counters: dict, hw: HwConfig, precision: Precision) -> list[Line]:
    lines = []
    for name, (_, words, bits) in memory_banks(hw).items():
        factor = {"wbuf": precision.weight_bits, "kbuf": precision.act_bits, "abuf": precision.act_bits}.get(
            name, hw.planes
        )
        factor /= hw.planes
        bank, note = tables.sram(words, bits), "" if factor == 1 else f"x {factor:g} for wider codes"
        lines.append(Line(name, "read", "on-chip", counters[f"{name}_reads"], bank.read.times(factor, note)))
        lines.append(Line(name, "write", "on-chip", counters[f"{name}_writes"], bank.write.times(factor, note)))
    return lines


def _leakage_line(counters: dict, hw: HwConfig) -> Line:
    milliwatts = sum(banks * tables.sram(words, bits).leakage_mw for banks, words, bits in memory_banks(hw).values())
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
    return {"elements": elements, "operands": int(operands)}


def _array_upkeep_lines(counters: dict, hw: HwConfig, precision: Precision) -> list[Line]:
    """Leakage in every cycle; a clock edge of every flip-flop of the array while the execute unit has work, for its clock is gated."""
    flops = sum(array_flops(hw, precision).values())
    leak = tables.array_leakage(precision.mac, hw, flops)
    return [
        Line("array", "flip-flop clocked", "on-chip", counters["execute_busy"] * flops, tables.clock_flop()),
        Line("array", "leakage of a cycle", "on-chip", counters["cycles"], leak),
    ]


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
    wider = {} if precision is None else {
        "weights": precision.weight_bits / hw.memory_bits(weight_bits), "embedding": precision.weight_bits / weight_bits
    }
    precision = precision or Precision.of(hw)
    return [
        *_array_lines(counters, hw, precision),
        *_epilogue_lines(counters, hw),
        *_vector_lines(counters, hw),
        *_memory_lines(counters, hw, precision),
        _leakage_line(counters, hw),
        *_array_upkeep_lines(counters, hw, precision),
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
