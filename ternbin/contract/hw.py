"""The one description of an accelerator: a frozen, validated configuration with named instances."""

import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from ternbin.errors import InputError
from ternbin.schema import Printable, Range, check_fields, read_toml, validated

KINDS = ("ternary", "binary", "ternary8")
BYTE_PLANES = 8  # bit planes of an 8-bit code
# Reference precisions: bits of a weight, of an activation.
REFERENCE_BITS = {
    "fp32": (32, 32),
    "bf16": (16, 16),
    "w8a16": (8, 16),
    "w4a16": (4, 16),
    "fp8": (8, 8),
    "int8": (8, 8),
    "w4a8": (4, 8),
}
MAX_BEAMS = 8  # of all texts

Words = Annotated[int, Range(16, 1 << 20)]  # of a memory bank


def top_tokens(beams: int) -> int:
    """The most likely tokens that a search looks at for each beam: as many may end as go on, and four may be banned."""
    return 2 * beams + 4


def _impossible(reason: str) -> InputError:
    return InputError(f"hardware configuration: {reason}")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What an accelerator for beam search has more: lists of the ``top`` best tokens of each of ``beams`` beams, masks in the softmax."""

    beams: int
    top: int


@dataclass(frozen=True, kw_only=True)
class HwConfig:
    """Geometry of the accelerator. Depths are words per bank.

    The array has ``rows`` x ``cols`` elements, each a dot product of ``lanes`` codes a cycle into an accumulator of
    ``acc_bits``. Rows hold output features or keys, columns hold tokens or queries. ``kind`` is the element: "ternary"
    (planes nonzero and negative; runs every code type, those of 8 bits plane by plane), "binary" (one plane, XNOR-popcount;
    1-bit models with an 8-bit LM head) or "ternary8" (ternary, but a step takes all planes of a column's 8-bit codes). The vector
    unit and the epilogue are ``rows`` lanes wide.

    Raises InputError, naming the field, for a configuration that cannot be built.
    """

    KINDS: ClassVar[tuple[str, ...]] = KINDS
    step_cycles: ClassVar[float] = 1.0  # cycles of the array for a step

    name: Annotated[str, Printable(1, 100)] = "custom"
    kind: str = "ternary"
    rows: Annotated[int, Range(4, 64, power_of_two=True)] = 16
    cols: Annotated[int, Range(1, 64, power_of_two=True)] = 4
    lanes: Annotated[int, Range(16, 256, power_of_two=True)] = 32
    acc_bits: Annotated[int, Range(16, 32)] = 24
    res_bits: Annotated[int, Range(8, 20)] = 16
    axi_data_bits: Annotated[int, Range(32, 512, power_of_two=True)] = 64
    axi_addr_bits: Annotated[int, Range(24, 40)] = 32
    abuf_words: Words = 2048  # codes of activations, `cols` banks
    wbuf_words: Words = 1024  # weight tiles, `rows` banks
    kbuf_words: Words = 1024  # keys and transposed values, `rows` banks
    rbuf_words: Words = 2048  # residual stream, one bank, `rows` values a word
    sbuf_words: Words = 256  # attention scores, `cols` banks, `rows` accumulators a word
    pbuf_words: Words = 1024  # thresholds, scales, biases, LayerNorm parameters, `rows` x 16 bits a word
    idbuf_words: Words = 256  # token ids
    queue_depth: Annotated[int, Range(1, 16)] = 4  # instructions waiting per unit
    burst_beats: Annotated[int, Range(1, 256, power_of_two=True)] = 16  # longest AXI burst
    weight_pack: Literal["2bit", "5trit"] = "2bit"  # ternary weights in external memory: 2 bits each, or five in 8 bits
    beams: Annotated[int, Range(1, MAX_BEAMS)] = 1  # of a search: more add a unit for best tokens, masks to the softmax
    kv_external: bool = False  # keys and values of decoding always in external memory, not only where they do not fit
    # whose constants stay in WBUF and PBUF between calls, as far as they fit
    resident: Literal["none", "decoder"] = "none"
    # only turns cycles into seconds and leakage into energy; reports say what the configuration meets (docs/energy.md, "The clock")
    clock_mhz: Annotated[float, Range(0.001, 100_000)] = 280.0

    def __post_init__(self) -> None:
        """Bounds of each field, then what fields ask of each other."""
        check_fields(self, "hardware configuration")
        if self.kind not in self.KINDS:
            raise _impossible(f"kind must be one of {', '.join(self.KINDS)}, not {self.kind!r}")
        if self.kind == "binary" and self.weight_pack != "2bit":
            raise _impossible(f"weight_pack must be 2bit on a binary array, not {self.weight_pack!r}")
        least, most = 16 * BYTE_PLANES, BYTE_PLANES << 15
        if self.whole_columns and not (least <= self.abuf_words <= most and self.abuf_words & self.abuf_words - 1 == 0):
            raise _impossible(
                f"abuf_words must be a power of two from {least} to {most} for a ternary8 array, not {self.abuf_words}"
            )
        if self.rows > self.lanes:
            raise _impossible(f"rows must be at most lanes ({self.lanes}), not {self.rows}")
        if self.axi_data_bits > self.rows * 16:
            raise _impossible(f"axi_data_bits must be at most rows x 16 ({self.rows * 16}), not {self.axi_data_bits}")
        if self.beams > 1 and self.idbuf_words < self.result_words + self.beams:
            least = self.result_words + self.beams
            raise _impossible(f"idbuf_words must be at least {least} for {self.beams} beams, not {self.idbuf_words}")

    @property
    def planes(self) -> int:
        """Bit planes of one stored code word: 2 (nonzero, negative) or 1 (positive)."""
        return 1 if self.kind == "binary" else 2

    @property
    def is_ternary(self) -> bool:
        """Whether its elements multiply ternary codes."""
        return self.kind in ("ternary", "ternary8")

    @property
    def whole_columns(self) -> bool:
        """Whether a step takes all planes of a column's 8-bit codes; they lie ``plane_words`` apart in ABUF."""
        return self.kind == "ternary8"

    @property
    def plane_words(self) -> int:
        """Words of ABUF for codes of one plane, and for each plane of 8-bit codes."""
        return self.abuf_words // BYTE_PLANES if self.whole_columns else self.abuf_words

    @property
    def weight_planes(self) -> int:
        """The same of a word of WBUF."""
        return self.planes

    @property
    def ternary(self) -> "HwConfig":
        """Of a reference configuration the accelerator of the same array with ternary codes."""
        return self

    @property
    def top(self) -> int:
        """Tokens that are kept for each beam."""
        return top_tokens(self.beams)

    @property
    def search(self) -> SearchConfig | None:
        """None for an accelerator that decodes greedily only."""
        return SearchConfig(beams=self.beams, top=self.top) if self.beams > 1 else None

    @property
    def result_words(self) -> int:
        """Words of IDBUF that the results of a decoder call on all beams take: three for each token and for the normaliser."""
        return 3 * (self.top + 1) * self.beams

    def searching(self, beams: int, texts: int = 1) -> "HwConfig":
        """This accelerator made for ``beams`` beams of each of ``texts`` texts, with room for their results."""
        if not 1 <= beams * texts <= MAX_BEAMS:
            what, value = ("beams", beams) if texts == 1 else ("texts times beams", f"{texts} x {beams}")
            raise InputError(f"{what} must be from 1 to {MAX_BEAMS}, not {value}")
        beams *= texts
        room = (3 * (top_tokens(beams) + 1) + 1) * beams if beams > 1 else 0
        return dataclasses.replace(self, beams=beams, idbuf_words=max(self.idbuf_words, room))

    @property
    def code_word_bits(self) -> int:
        return self.lanes * self.planes

    @property
    def column_word_bits(self) -> int:
        """Bits of the operand that a column's elements get: with whole 8-bit codes nine planes, their two's complement."""
        return self.lanes * (BYTE_PLANES + 1) if self.whole_columns else self.code_word_bits

    @property
    def load_words(self) -> int:
        """Code words, of as many consecutive banks, that a load writes to WBUF at once: what the bus brings in a cycle, or more."""
        most = self.axi_data_bits if self.weight_pack == "2bit" else 2 * self.axi_data_bits
        return max(1, most // (self.lanes * self.weight_planes))

    @property
    def sign_words(self) -> int:
        """The same of 1-bit weights: on a ternary array a beat brings twice as many of them."""
        return max(self.load_words, self.axi_data_bits // self.lanes)

    def memory_bits(self, weight_bits: int) -> float:
        """Bits that a weight of ``weight_bits`` (1 or 2) takes in external memory."""
        return 8 / 5 if self.weight_pack == "5trit" and weight_bits == 2 else weight_bits

    @property
    def res_container(self) -> int:
        """Bits that one residual value occupies in a word: 16, or 32 above 16 bits."""
        return 16 if self.res_bits <= 16 else 32

    @property
    def res_word_bits(self) -> int:
        return self.rows * self.res_container

    @property
    def param_word_bits(self) -> int:
        return self.rows * 16

    @property
    def score_word_bits(self) -> int:
        return self.rows * self.acc_bits

    @property
    def axi_bytes(self) -> int:
        return self.axi_data_bits // 8

    @property
    def peak_macs(self) -> int:
        """Multiply-accumulates of a step; a step takes a cycle for 1- and 2-bit codes."""
        return self.rows * self.cols * self.lanes

    def asdict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig(HwConfig):
    """An accelerator with wide elements and operands, for accounting only: the same geometry, dataflow and instructions, every code one
    whole word of as many bits a lane as ``REFERENCE_BITS[kind]`` says. Programs are mapped and timed for it; there is no Verilog of it.

    ``step_cycles``: an array of fewer lanes takes as many cycles for a step of ``rows`` x ``cols`` x ``lanes``.
    """

    KINDS: ClassVar[tuple[str, ...]] = tuple(REFERENCE_BITS)

    kind: str = "fp32"
    # A field here alone: configurations that are built have none to set.
    step_cycles: Annotated[float, Range(above=0)] = 1.0  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def planes(self) -> int:
        """Bits of an activation."""
        return REFERENCE_BITS[self.kind][1]

    @property
    def weight_planes(self) -> int:
        """Bits of a weight."""
        return REFERENCE_BITS[self.kind][0]

    @property
    def ternary(self) -> HwConfig:
        values = self.asdict()
        values["kind"] = "ternary"
        del values["step_cycles"]
        return HwConfig(**values)


@cache
def named() -> dict[str, HwConfig]:
    """The named configurations, also as ``NAMED`` of this module; made when first asked for."""
    tiny = HwConfig(
        name="tiny",
        rows=4,
        cols=2,
        lanes=16,
        axi_data_bits=32,
        abuf_words=512,
        wbuf_words=256,
        kbuf_words=512,
        rbuf_words=1024,
        sbuf_words=128,
        pbuf_words=256,
        idbuf_words=64,
        clock_mhz=350.0,
    )
    micro = dataclasses.replace(  # for FPGAs of some ten thousand look-up tables
        tiny,
        name="micro",
        cols=1,
        acc_bits=20,
        queue_depth=2,
        abuf_words=256,
        wbuf_words=128,
        kbuf_words=128,
        rbuf_words=256,
        sbuf_words=64,
        pbuf_words=128,
        idbuf_words=32,
    )
    base = HwConfig(  # BART-base, inputs of up to 1,024 tokens
        name="base",
        rows=64,
        cols=4,
        lanes=64,
        axi_data_bits=512,
        abuf_words=8192,
        kbuf_words=4096,
        rbuf_words=12288,
        sbuf_words=1024,
        pbuf_words=2048,
        idbuf_words=1024,
        queue_depth=8,
        clock_mhz=220.0,
    )
    small = HwConfig(name="small")
    configs = (
        tiny,
        small,
        # 8-bit codes of as many tokens as on the arrays above
        dataclasses.replace(tiny, name="tiny-ternary8", kind="ternary8", abuf_words=1024),
        HwConfig(name="small-ternary8", kind="ternary8"),
        dataclasses.replace(tiny, name="tiny-binary", kind="binary", lanes=32, clock_mhz=340.0),
        HwConfig(name="small-binary", kind="binary", lanes=64, clock_mhz=270.0),
        base,
        micro,
        # with room for all weights and parameters of the bundled model's decoder, of BART-base's
        dataclasses.replace(small, name="small-resident", resident="decoder", wbuf_words=4096, pbuf_words=4096),
        dataclasses.replace(
            base, name="base-resident", resident="decoder", wbuf_words=24576, pbuf_words=16384, clock_mhz=195.0
        ),
    )
    return {config.name: config for config in configs}


NAMED: dict[str, HwConfig]


def __getattr__(name: str) -> object:
    if name == "NAMED":
        return named()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_hw(spec: str) -> HwConfig:
    """A named configuration, or one read from a TOML file (flat keys, the fields of HwConfig).

    Raises InputError for an unknown name, an unreadable or broken file, or an unknown or impossible field.
    """
    if spec in named():
        return named()[spec]
    path = Path(spec)
    if path.suffix != ".toml":
        raise InputError(f"--hw must be one of {', '.join(named())} or a .toml file, not {spec!r}")
    values = read_toml(path)
    if path.stem.isprintable():
        values.setdefault("name", path.stem[:100])
    return validated(HwConfig, values, path)
