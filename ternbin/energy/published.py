"""Published accelerators for quantized networks, as their authors state them, beside what the logic of their dot products would take by
this engine's measurement of it: with the operands, the widths and the reuse that they state, and nothing else of a chip."""

from dataclasses import asdict, dataclass
from typing import Any

from ternbin.energy import figures as tables
from ternbin.energy.dots import DOTS
from ternbin.energy.scaling import RULES, Rule

# Bits of a held operand and of one that streams past it, of the elements that chips are compared with.
_BITS = (
    tables.MAC_BITS
    | {"ternary": (2, 2), "binary": (1, 1), "ternary8": (2, 9)}
    | {kind: (held, streamed) for kind, (held, streamed, _) in DOTS.items()}
)


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One multiply-accumulate is two operations. ``node_nm``, ``volt``: of ``fj_per_op``, None where the source that could be read does
    not state them. ``element``: the characterised block of the same operands. Of its architecture: how many ``units`` share a register of
    the streamed operand; whether the held one is ``renewed`` in every step, and whether its registers are ``clocked`` in one (else they are
    latches, memory cells or gated). ``not_in``: what the figure has that the prediction has not."""

    name: str
    operands: str
    element: str
    fj_per_op: float
    source: str
    node_nm: float | None = None
    volt: float | None = None
    units: int = 1
    renewed: bool = False
    clocked: bool = True
    not_in: str = ""


_YODANN = "weights of all channels, latch memory of the image, accumulators; its images are probably smoother than random codes"
_BRAINTTA = "a programmable processor with its memories"

CHIPS = (
    Chip(
        name="TCN-CUTIE",
        operands="ternary",
        element="ternary dot",
        units=96,
        clocked=False,
        fj_per_op=1e3 / 1036,
        node_nm=22,
        volt=0.5,
        source="arXiv 2212.00688, silicon, peak of 1036 TOp/s/W; 96 units of 3 x 3 x 96 products, two popcounts (its open RTL)",
        not_in="memories, line buffer, thresholds, pooling; the share of zeros of its peak (here a third of both operands)",
    ),
    Chip(
        name="ITA",
        operands="INT8",
        element="int8 dot",
        units=16,
        fj_per_op=1e3 / 16.9,
        node_nm=22,
        volt=0.8,
        source="arXiv 2307.03493, layout, 16.9 TOPS/W; 16 units of 64 products, weights held in registers (its open RTL)",
        not_in="weight buffer, partial sums, requantization, softmax",
    ),
    Chip(
        name="XNORBIN",
        operands="binary",
        element="binary dot",
        clocked=False,
        fj_per_op=1e3 / 95,
        node_nm=65,
        volt=0.8,
        source="arXiv 1803.05849, layout, 95 TOp/s/W; one window of 7 x 7 x 16 that moves every cycle, weights held",
        not_in="memories of feature maps and parameters, partial sums",
    ),
    Chip(
        name="DCIM of Guo et al.",
        operands="INT8",
        element="int8x2 dot",
        units=8,
        clocked=False,
        fj_per_op=1e3 / 19.5,
        node_nm=28,
        volt=0.9,
        source="ISSCC 2023, 7.2, silicon, 19.5 TOPS/W with half of all bits set; 128 products of 8 and 2 bits, four steps, weights in "
        "memory cells (as KULeuven-MICAS/zigzag-imc has it from the paper)",
        not_in="shift and accumulate, memory cells; its adders are probably smaller than a library's",
    ),
    *(
        Chip(
            name="YodaNN",
            operands="binary x 12 bits",
            element="binary12 dot",
            units=32,
            renewed=True,
            fj_per_op=fj_per_op,
            node_nm=65,
            volt=volt,
            source=f"arXiv 1606.05487, layout, {what}; 32 units of 7 x 7 products, another input channel every cycle",
            not_in=_YODANN,
        )
        for volt, fj_per_op, what in ((1.2, 153e3 / 1510, "153 mW at 1510 GOp/s"), (0.6, 1e3 / 61.2, "61.2 TOp/s/W"))
    ),
    Chip(
        name="ChewBaccaNN",
        operands="binary",
        element="binary dot",
        clocked=False,
        fj_per_op=1e3 / 223,
        node_nm=22,
        volt=0.4,
        source="arXiv 2005.07137, layout, peak of 223 TOPS/W; as XNORBIN",
        not_in="latch memories; leakage, which near threshold is no small part",
    ),
    Chip(
        name="XNE",
        operands="binary",
        element="binary",
        fj_per_op=21.6,
        node_nm=22,
        volt=0.4,
        source="arXiv 1807.03010, layout",
        not_in="a whole microcontroller near threshold: memories, whose words feed every step, core, leakage",
    ),
    Chip(
        name="VitaLLM",
        operands="ternary x INT8",
        element="ternary8",
        renewed=True,
        fj_per_op=65.97e12 / (70.7 * 2 * 3.3e9),
        node_nm=16,
        volt=0.8,
        source="arXiv 2604.27396, 65.97 mW at 70.7 tokens/s of 3.3 billion weights (derived); 0.8 V: arXiv 2605.00320",
        not_in="the whole chip: buffers that every weight passes once, attention and its INT8 core, leakage at 1 GHz",
    ),
    *(
        Chip(
            name="BrainTTA",
            operands=operands,
            element=element,
            fj_per_op=fj_per_op,
            source="arXiv 2211.11331, peak",
            not_in=_BRAINTTA,
        )
        for operands, element, fj_per_op in (
            ("binary", "binary", 35.0),
            ("ternary", "ternary", 67.0),
            ("INT8", "int8", 405.0),
        )
    ),
    Chip(
        name="BinarEye",
        operands="binary",
        element="binary dot",
        units=64,
        clocked=False,
        fj_per_op=1e3 / 230,
        node_nm=28,
        source="arXiv 1804.05554, silicon, peak of 230 TOPS/W; 64 units of 2 x 2 x 256 products, weights in flip-flops",
        not_in="memories of feature maps",
    ),
)


def operation_fj(chip: Chip) -> float:
    """An operation of its dot products in the characterised library: element, register of the result, registers of the streamed operand
    as far as a unit pays for them, those of the held one; clock pins included."""
    record = tables.block(chip.element)
    events, flops = record["fj_per_event"], record["flip_flops"]
    held, event = events["operand held"]["glitch"], events["random" if chip.renewed else "operand held"]["glitch"]
    edge = event["clock"] / (flops["element"] + flops["operands"])  # of a flip-flop, by multiply-accumulates
    bits = _BITS[chip.element]
    weights, streamed = (edge * flops["operands"] * own / sum(bits) for own in bits)
    of_weights = event["operands"] - held["operands"] + weights * (chip.clocked or chip.renewed)
    return (event["element"] + edge * flops["element"] + (held["operands"] + streamed) / chip.units + of_weights) / 2


def predicted_fj(chip: Chip, rule: Rule) -> float | None:
    """The same at the chip's node and voltage. None where these are not stated, where the library does not say its node, or has not the
    block, and where the rule says nothing."""
    where = tables.characterisation()
    own = where["provenance"].get("node_nm")
    measured = any(block["kind"] == chip.element for block in where["blocks"])
    if chip.node_nm is None or chip.volt is None or own is None or not measured:
        return None
    there, here = rule(chip.node_nm, chip.volt), rule(own, where["provenance"]["volt"])
    return operation_fj(chip) * there / here if there and here else None


def published() -> list[dict[str, Any]]:
    """Each chip with ``predicted_fj`` and ``predicted_over`` (its ratio to what is published), and ``fitted_fj`` and ``fitted_over`` by the
    other rule of ternbin/energy/scaling.py; None where there is no prediction."""
    rows: list[dict[str, Any]] = []
    for chip in CHIPS:
        found = {name: predicted_fj(chip, rule) for name, rule in RULES.items()}
        fj = {f"{name}_fj": value for name, value in found.items()}
        over = {f"{name}_over": value / chip.fj_per_op if value else None for name, value in found.items()}
        rows.append(asdict(chip) | fj | over)
    return rows
