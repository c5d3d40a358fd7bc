"""Functional model of the accelerator, instruction by instruction, without time.

Executes every instruction as docs/architecture.md, "Hardware", says: where values lie is layout.py's business, what is
computed golden.py's. Used to check programs without RTL, and as expected values for single instructions.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import UNIT_OF, Dest, Epilogue, ErrorCode, Instruction, Kind, Mem, Op, Unit
from ternbin.contract.memories import CODE_MEMORIES, geometry
from ternbin.contract.pipeline import BIAS_BITS, MUL_BITS, SCALE_WORDS
from ternbin.contract.program import Program, Region
from ternbin.contract.rows import (
    INT8_WEIGHTS,
    UINT8_WEIGHTS,
    bytes_int,
    code_row_bytes,
    code_row_words,
    code_words,
    expand_row_words,
    int_bytes,
    scale_values,
    to_bytes,
    trit_row_codes,
    word_codes,
)
from ternbin.contract.transfers import (
    bank_words,
    external_rows,
    packs_trits,
    row_bytes,
    transfer_banks,
    transfer_bits,
    transfer_words,
)
from ternbin.graph import golden
from ternbin.graph.qtypes import to_stored
from ternbin.mapping.sync import READ, WRITE, Access

MAX_TOKENS_WAITING = 255
PROBABILITY_KINDS = {Kind.TERNARY: "ternary_nn", Kind.BINARY: "binary_nn", Kind.UINT8: "uint8"}
Observer = Callable[[Unit, int, Instruction], None]


class MachineError(Exception):
    """The core stops with ``code``."""

    def __init__(self, code: ErrorCode, message: str):
        super().__init__(f"{code.name}: {message}")
        self.code = code


def _need(ok: bool, message: str, code: ErrorCode = ErrorCode.FIELD) -> None:
    if not ok:
        raise MachineError(code, message)


@dataclass
class Machine:
    """State of one accelerator: ``memories`` and external memory ``dram``. Memories start with random contents.

    ``memories``: code memories uint8 bits [banks, words, planes, lanes]; RBUF, PBUF int64 [words, rows] (PBUF: signed 16 bits);
    SBUF int64 [banks, words, rows]; IDBUF int64 [words, 2], id and logit; LUTV, LUTX int64 [256].
    """

    hw: HwConfig
    dram: bytearray
    seed: int = 0
    accesses: list[Access] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.memories = {mem: _garbage(self.hw, mem, rng) for mem in Mem}
        self._best = [
            (0, 0)
        ] * self.hw.cols  # running maximum of ARGMAX, after reset as the hardware: (logit, id) per column
        self._tops = [
            (_no_tokens(self.hw), (golden.NO_EXPONENT, 0))
        ] * self.hw.beams  # of TOP, per token: best as (id, logit), (m, s)
        self._bytes = np.frombuffer(self.dram, dtype=np.uint8)

    # ---- running ----------------------------------------------------------------------------------------------------

    def execute(self, instruction: Instruction) -> None:
        """Do one instruction; ``accesses`` then lists what it touched. Raises MachineError as the core would stop."""
        self.accesses = []
        if instruction.op != Op.END:
            getattr(self, f"_{instruction.op.name.lower()}")(instruction)

    def run(
        self, instructions: Sequence[Instruction], observer: Observer | None = None, rng: random.Random | None = None
    ) -> None:
        """Run a call to END, in program order, or with ``rng`` in a random order that the tokens allow.

        ``observer(unit, index within the unit, instruction)`` is called after each. Raises MachineError (TOKEN) where an
        instruction's token can never come, where a counter overflows and where tokens are left at the end.
        """
        queues = {unit: [i for i in instructions if i.op != Op.END and UNIT_OF[i.op] == unit] for unit in Unit}
        tokens = {(a, b): 0 for a in Unit for b in Unit}
        done = dict.fromkeys(Unit, 0)
        order = _program_order(instructions) if rng is None else _random_order(rng)
        while any(done[u] < len(queues[u]) for u in Unit):
            ready = [u for u in Unit if done[u] < len(queues[u]) and _ready(queues[u][done[u]], u, tokens)]
            unit = order(ready)
            _need(unit in ready, f"no token for {unit.name} instruction {done[unit]}", ErrorCode.TOKEN)
            self._step(queues[unit][done[unit]], unit, tokens)
            done[unit] += 1
            if observer:
                observer(unit, done[unit] - 1, queues[unit][done[unit] - 1])
        _need(not any(tokens.values()), f"tokens left at the end: {tokens}", ErrorCode.TOKEN)

    def _step(self, instruction: Instruction, unit: Unit, tokens: dict) -> None:
        for other in instruction.wait - {unit}:
            tokens[other, unit] -= 1
        self.execute(instruction)
        for other in instruction.signal - {unit}:
            tokens[unit, other] += 1
            _need(tokens[unit, other] <= MAX_TOKENS_WAITING, f"{unit.name} to {other.name}", ErrorCode.TOKEN)

    def raw(self, region: Region) -> bytes:
        """The words of a region, in the form that program.decode_probe takes."""
        shape = geometry(self.hw, region.mem)
        _need(region.bank + region.banks <= shape.banks and region.addr + region.words <= shape.words, f"{region}")
        words = slice(region.addr, region.addr + region.words)
        values = self.memories[region.mem]
        if region.mem in CODE_MEMORIES:
            return to_bytes(values[region.bank : region.bank + region.banks, words].reshape(-1, shape.bits)).tobytes()
        if region.mem == Mem.SBUF:
            bits = values[region.bank : region.bank + region.banks, words, :, None] >> np.arange(self.hw.acc_bits) & 1
            return to_bytes(bits.reshape(-1, shape.bits).astype(np.uint8)).tobytes()
        values = values[words]
        if region.mem == Mem.IDBUF:
            return np.concatenate([int_bytes(values[:, :1], 4), int_bytes(values[:, 1:], 8)], axis=1).tobytes()
        return int_bytes(values, self.hw.res_container // 8 if region.mem == Mem.RBUF else 2).tobytes()

    # ---- memories ---------------------------------------------------------------------------------------------------

    def _touch(self, mem: Mem, words: np.ndarray, write: bool, limit: int | None = None) -> np.ndarray:
        """Check and note word addresses."""
        limit = geometry(self.hw, mem).words if limit is None else limit
        words = np.asarray(words)
        _need(words.max(initial=0) < limit, f"{mem.name} word {words.max(initial=0)} of {limit}", ErrorCode.ADDRESS)
        self.accesses.append(Access(mem, words.reshape(-1), WRITE if write else READ))
        return words

    def _external(self, rows: np.ndarray, size: int, write: bool) -> np.ndarray:
        """Check byte addresses of rows of ``size`` bytes; indices ``[rows, size]``."""
        code = ErrorCode.BUS_WRITE if write else ErrorCode.BUS_READ
        _need(bool((rows % self.hw.axi_bytes == 0).all()), "external address must be aligned to the bus", code)
        _need(int(rows.max()) + size <= len(self.dram), f"external address {int(rows.max()) + size:#x}", code)
        for low in rows:
            self.accesses.append(Access(None, np.array([low, low + size]), WRITE if write else READ))
        return rows[:, None] + np.arange(size)

    # ---- load and store ---------------------------------------------------------------------------------------------

    def _load(self, i: Instruction) -> None:
        mem, banks, words = self._transfer(i)
        _need(mem != Mem.SBUF, "LOAD to SBUF")
        _need(not i["expand"] or (mem in CODE_MEMORIES and self.hw.planes == 2), "expand")
        trits = packs_trits(self.hw, mem, bool(i["expand"]))
        _need(
            not trits or (i["bank"] == 0 and i["outer"] % transfer_banks(self.hw, mem) == 0),
            "packed trits need whole row tiles",
        )
        count, size = external_rows(self.hw, mem, i["inner"], i["outer"], bool(i["expand"]))
        rows = np.full(count, i["dram"], dtype=np.int64)
        if i["indirect"]:
            ids = self._touch(Mem.IDBUF, i["index"] + np.arange(count), False)
            rows += self.memories[Mem.IDBUF][ids, 0] * i["stride"]
        else:
            rows += np.arange(count) * i["stride"]
        data = self._bytes[self._external(rows, size, False)]
        if mem in CODE_MEMORIES:
            if trits:
                codes = trit_row_codes(data)[:, : i["inner"] * self.hw.rows * self.hw.lanes]
                loaded = code_words(self.hw, codes.reshape(-1, self.hw.lanes))
            else:
                loaded = (expand_row_words if i["expand"] else code_row_words)(self.hw, data)[
                    :, : words.shape[1] * banks.shape[1]
                ]
            shape = (*words.shape, banks.shape[1], self.hw.planes, self.hw.lanes)
            self.memories[mem][banks[:, None], words[..., None]] = loaded.reshape(shape)
        elif mem == Mem.IDBUF:
            ids = bytes_int(data.reshape(*words.shape, self.hw.axi_bytes)[..., :4], 4)[..., 0] & 0xFFFFFFFF
            self.memories[mem][words] = np.stack([ids, np.zeros_like(ids)], axis=-1)
        elif mem in (Mem.LUTV, Mem.LUTX):
            per_beat = self.hw.axi_data_bits // 16
            places = (words.reshape(-1, 1) * per_beat + np.arange(per_beat)).reshape(-1)
            mask = 0xFFFF if mem == Mem.LUTV else 0xFF
            self.memories[mem][places] = bytes_int(data, 2).reshape(-1) & mask
        else:
            width = self.hw.res_container if mem == Mem.RBUF else 16
            self.memories[mem][words] = bytes_int(data, width // 8).reshape(*words.shape, self.hw.rows)

    def _store(self, i: Instruction) -> None:
        mem, banks, words = self._transfer(i)
        size = row_bytes(self.hw, mem, i["inner"])
        _need(mem in (Mem.ABUF, Mem.KBUF, Mem.RBUF, Mem.PBUF, Mem.IDBUF), f"STORE from {mem.name}")
        _need(not i["expand"] and not i["indirect"], "STORE with expand or indirect")
        places = self._external(i["dram"] + np.arange(i["outer"], dtype=np.int64) * i["stride"], size, True)
        if mem in CODE_MEMORIES:
            data = code_row_bytes(self.hw, self.memories[mem][banks, words])
        elif mem == Mem.IDBUF:
            ids = self.memories[mem][words, 0]
            data = np.zeros((*ids.shape, self.hw.axi_bytes), dtype=np.uint8)
            data[..., :4] = int_bytes(ids[..., None], 4)
        else:
            data = int_bytes(self.memories[mem][words], (self.hw.res_container if mem == Mem.RBUF else 16) // 8)
        self._bytes[places] = data.reshape(places.shape)

    def _transfer(self, i: Instruction) -> tuple[Mem, np.ndarray, np.ndarray]:
        """Memory, banks ``[outer, banks of a word]`` and words ``[outer, inner]``."""
        _need(i["mem"] in list(Mem), f"memory {i['mem']}")
        mem = Mem(i["mem"])
        banks, group = transfer_banks(self.hw, mem), bank_words(self.hw, mem)
        _need(i["inner"] > 0 and i["outer"] > 0 and i["bank"] < banks, "inner, outer or bank")
        row = (i["bank"] + np.arange(i["outer"]))[:, None]
        words = i["addr"] + row // banks * i["inner"] + np.arange(i["inner"])
        self._touch(mem, words, i.op == Op.LOAD, transfer_words(self.hw, mem))
        whole = i["inner"] * transfer_bits(self.hw, mem) % (2 * self.hw.axi_data_bits) == 0
        _need(whole or not i["expand"], "expand needs whole beats")
        return mem, row % banks * group + np.arange(group), words

    # ---- GEMM -------------------------------------------------------------------------------------------------------

    def _gemm(self, i: Instruction) -> None:
        hw = self.hw
        _need(i["row_planes"] in (1, 8) and i["col_planes"] in (1, 8), "planes must be 1 or 8")
        _need(min(i["chunks"], i["row_tiles"], i["col_tiles"], i["tokens"]) > 0, "counts must be positive")
        _need((i["col_tiles"] - 1) * hw.cols < i["tokens"] <= i["col_tiles"] * hw.cols, "tokens must fit col_tiles")
        _need(not i["rowsum"] or i["row_planes"] == i["col_planes"] == 1, "rowsum needs single planes")
        row = self._operand(Mem.KBUF if i["row_kbuf"] else Mem.WBUF, i, "row", i["row_tiles"])
        col = self._operand(Mem.ABUF, i, "col", i["col_tiles"])[: i["tokens"]]
        acc = golden.int_matmul(torch.from_numpy(col), torch.from_numpy(row).T) + i["acc_init"]
        if i["rowsum"]:
            acc += torch.from_numpy(row.sum(1))
        limit = 1 << hw.acc_bits - 1
        _need(bool((acc >= -limit).all() and (acc < limit).all()), f"accumulator leaves {hw.acc_bits} bits")
        _need(i["epilogue"] in list(Epilogue) and (hw.beams > 1 or i["epilogue"] != Epilogue.TOP), "epilogue")
        getattr(self, f"_{Epilogue(i['epilogue']).name.lower()}")(i, acc)

    def _operand(self, mem: Mem, i: Instruction, side: str, tiles: int) -> np.ndarray:
        """Integers ``[tiles*banks, chunks*lanes]``, bit planes put together."""
        tile, plane = np.arange(tiles)[:, None, None], np.arange(i[f"{side}_planes"])[None, :, None]
        words = i[f"{side}_addr"] + tile * i[f"{side}_stride"] + plane * i[f"{side}_plane"] + np.arange(i["chunks"])
        self._touch(mem, words, False)
        codes = word_codes(self.hw, self.memories[mem][:, words])  # [banks, tiles, planes, chunks, lanes]
        weights = INT8_WEIGHTS if i[f"{side}_signed"] else UINT8_WEIGHTS
        weights = weights if i[f"{side}_planes"] == 8 else np.array([-1 if i[f"{side}_signed"] else 1])
        _need(len(weights) == 8 or weights[0] == 1, "a single plane must not be signed")
        both = np.tensordot(codes, weights, axes=([2], [0])).swapaxes(0, 1)  # [tiles, banks, chunks, lanes]
        return np.ascontiguousarray(both.reshape(tiles * codes.shape[0], -1))

    def _params(self, i: Instruction, count: int) -> np.ndarray:
        """Parameter words ``[count, features]`` of the row tiles."""
        words = i["param_addr"] + np.arange(i["row_tiles"])[:, None] * i["param_stride"] + np.arange(count)
        values = self.memories[Mem.PBUF][self._touch(Mem.PBUF, words, False)]  # [tiles, count, rows]
        return values.swapaxes(0, 1).reshape(count, -1)

    def _scales(self, i: Instruction) -> tuple[torch.Tensor, torch.Tensor]:
        mul, bias = scale_values(self._params(i, SCALE_WORDS))
        return torch.from_numpy(mul), torch.from_numpy(bias)

    def _codes(self, i: Instruction, acc: torch.Tensor) -> None:
        _need(1 <= i["thresholds"] <= 4 and i["kind"] in (Kind.TERNARY, Kind.BINARY), "thresholds or kind")
        thresholds = torch.from_numpy(np.ascontiguousarray(self._params(i, i["thresholds"]).T))
        dirs = tuple(1 if i["dirs"] >> j & 1 else -1 for j in range(i["thresholds"]))
        self._put_codes(i, golden.threshold_codes(acc, thresholds, i["base"], dirs).numpy())

    def _codes8(self, i: Instruction, acc: torch.Tensor) -> None:
        _need(i["kind"] in (Kind.INT8, Kind.UINT8), "kind")
        mul, bias = self._scales(i)
        lo, hi = (-127, 127) if i["kind"] == Kind.INT8 else (0, 255)
        lut = None
        if i["lut"]:
            lut = torch.from_numpy(self.memories[Mem.LUTX])
            self._touch(Mem.LUTX, np.arange(transfer_words(self.hw, Mem.LUTX)), False)
        self._put_codes(i, golden.requant8(acc, mul, bias, i["shift"], lo, hi, lut).numpy())

    def _residual(self, i: Instruction, acc: torch.Tensor) -> None:
        mul, bias = self._scales(i)
        words = i["dst_addr"] + np.arange(i["tokens"])[:, None] * i["dst_stride"] + np.arange(i["row_tiles"])
        self._touch(Mem.RBUF, words, False)
        old = torch.from_numpy(self.memories[Mem.RBUF][self._touch(Mem.RBUF, words, True)].reshape(acc.shape))
        new = golden.linear_residual(acc, mul, bias, i["shift"], old, self.hw.res_bits)
        self.memories[Mem.RBUF][words] = new.numpy().reshape(*words.shape, -1)

    def _scores(self, i: Instruction, acc: torch.Tensor) -> None:
        banks, words = self._score_rows(i["dst_addr"], i["dst_stride"], i["tokens"], i["row_tiles"], True)
        self.memories[Mem.SBUF][banks, words] = acc.numpy().reshape(*words.shape, -1)

    def _score_rows(
        self, addr: int, stride: int, count: int, words: int, write: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Banks and words of the scores of ``count`` queries."""
        query = np.arange(count)[:, None]
        return query % self.hw.cols, self._touch(
            Mem.SBUF, addr + query // self.hw.cols * stride + np.arange(words), write
        )

    def _argmax(self, i: Instruction, acc: torch.Tensor) -> None:
        _need(i["col_tiles"] == 1, "ARGMAX takes one column tile")
        ids, logits = golden.lm_head(acc, *self._scales(i))
        for column in range(i["tokens"]):
            best = (int(logits[column]), -(int(ids[column]) + i["index"]))
            old = self._best[column]
            if not i["first"]:
                best = max(best, (old[0], -old[1]))
            self._best[column] = (best[0], -best[1])
        if i["last"]:
            words = self._touch(Mem.IDBUF, i["dst_addr"] + np.arange(i["tokens"]), True)
            self.memories[Mem.IDBUF][words] = [(token, logit) for logit, token in self._best[: i["tokens"]]]

    def _top(self, i: Instruction, acc: torch.Tensor) -> None:
        hw = self.hw
        _need(hw.beams > 1 and i["tokens"] <= hw.beams, "TOP takes as many tokens as there are beams")
        _need(i["shift"] < 16, "shift")
        logits = golden.lm_logits(acc, *self._scales(i))[:, : max(0, i["features"] - i["index"])]
        for token, row in enumerate(logits):
            best, total = (_no_tokens(hw), (golden.NO_EXPONENT, 0)) if i["first"] else self._tops[token]
            if len(row):
                best = sorted([*best, *enumerate(row.tolist(), i["index"])], key=lambda entry: -entry[1])[
                    : hw.top
                ]  # stable
                total = tuple(golden.exp_total(row, i["shift"], total).tolist())
            self._tops[token] = best, total
        if i["last"]:
            results = np.array([(*best, total) for best, total in self._tops[: i["tokens"]]], dtype=np.int64).reshape(
                -1, 2
            )
            halves = (
                int_bytes(results[:, 1:], 8).view("<i4").astype(np.int64)
            )  # the logits again, as ids, which can be stored
            entries = np.stack(
                [results, *(np.stack([half, np.zeros_like(half)], axis=-1) for half in halves.T)], axis=1
            )
            words = self._touch(Mem.IDBUF, i["dst_addr"] + np.arange(3 * len(results)), True)
            self.memories[Mem.IDBUF][words] = entries.reshape(-1, 2)

    # ---- writing codes ----------------------------------------------------------------------------------------------

    def _code_bits(self, kind: int, codes: np.ndarray) -> np.ndarray:
        """Stored codes ``[..]`` to bits ``[8 or 1, planes, ..]``."""
        if kind in (Kind.INT8, Kind.UINT8):
            bits = np.stack([codes >> p & 1 for p in range(8)])
            return np.stack([bits, np.zeros_like(bits)][: self.hw.planes], axis=1)
        allowed = (-1, 0, 1) if kind == Kind.TERNARY else (-1, 1)
        _need(bool(np.isin(codes, allowed).all()), f"code out of range of {Kind(kind).name}")
        _need(self.hw.planes == 2 or kind == Kind.BINARY, "a binary array holds BINARY codes only")
        return np.stack([codes != 0, codes < 0] if self.hw.planes == 2 else [codes > 0])[None]

    def _put_codes(self, i: Instruction, codes: np.ndarray) -> None:
        """Codes ``[tokens, features]`` of a GEMM to their destination."""
        hw, bits = self.hw, self._code_bits(i["kind"], codes)
        _need(i["lane"] % hw.rows == 0, "lane must be a multiple of rows")
        _need(i["dest"] in list(Dest), "dest")
        if i["dest"] == Dest.TRANSPOSED:
            self._put_transposed(i, bits)
            return
        token = np.arange(i["tokens"])
        place, mem, banks = (
            (token, Mem.ABUF, hw.cols) if i["dest"] == Dest.TOKENS else (token + i["key"], Mem.KBUF, hw.rows)
        )
        base = i["dst_addr"] + place // banks * i["dst_stride"]
        for tile in range(i["row_tiles"]):
            lanes = i["lane"] + tile * hw.rows
            part = bits[..., tile * hw.rows : (tile + 1) * hw.rows]
            self._put_lanes(mem, place % banks, base + lanes // hw.lanes, i["dst_plane"], lanes % hw.lanes, part)

    def _put_transposed(self, i: Instruction, bits: np.ndarray) -> None:
        key = i["key"] + np.arange(i["tokens"])
        feature = np.arange(bits.shape[-1])
        words = i["dst_addr"] + feature // self.hw.rows * i["dst_stride"] + key[:, None] // self.hw.lanes
        for plane, part in enumerate(bits):
            place = self._touch(Mem.KBUF, words + plane * i["dst_plane"], True)
            bank, lane = feature % self.hw.rows, key[:, None] % self.hw.lanes
            self.memories[Mem.KBUF][bank, place, :, lane] = np.moveaxis(part, 0, -1)

    def _put_lanes(
        self, mem: Mem, bank: np.ndarray, word: np.ndarray, plane_stride: int, lane: int, bits: np.ndarray
    ) -> None:
        """``bits [planes, P, n, k]`` to lanes ``lane .. lane+k-1`` of n words; lane 0 clears the rest of the word."""
        for plane, part in enumerate(bits):
            words = self._touch(mem, word + plane * plane_stride, True)
            if lane == 0:
                self.memories[mem][bank, words] = 0
            self.memories[mem][bank, words, :, lane : lane + part.shape[-1]] = part.swapaxes(0, 1)

    def _put_granules(self, i: Instruction, codes: np.ndarray, features: int) -> None:
        """Codes ``[tokens, granules*rows]`` of the vector unit to ABUF; features from ``features`` on are zero bits."""
        hw, token = self.hw, np.arange(len(codes))
        bits = self._code_bits(i["kind"], codes)
        bits[..., features:] = 0
        base = i["dst_addr"] + token // hw.cols * i["dst_stride"]
        for granule in range(codes.shape[1] // hw.rows):
            lane, part = granule * hw.rows, bits[..., granule * hw.rows : (granule + 1) * hw.rows]
            self._put_lanes(Mem.ABUF, token % hw.cols, base + lane // hw.lanes, i["dst_plane"], lane % hw.lanes, part)

    # ---- vector unit ------------------------------------------------------------------------------------------------

    def _rows_of(self, mem: Mem, addr: int, stride: int, count: int, words: int, write: bool = False) -> np.ndarray:
        places = addr + np.arange(count)[:, None] * stride + np.arange(words)
        return self._touch(mem, places, write)

    def _residual_rows(self, i: Instruction, side: str = "src") -> np.ndarray:
        _need(min(i["tokens"], i["words"], i["features"]) > 0, "counts must be positive")
        _need((i["words"] - 1) * self.hw.rows < i["features"] <= i["words"] * self.hw.rows, "features must fit words")
        places = self._rows_of(Mem.RBUF, i[f"{side}_addr"], i[f"{side}_stride"], i["tokens"], i["words"])
        return self.memories[Mem.RBUF][places].reshape(i["tokens"], -1)

    def _layernorm(self, i: Instruction) -> None:
        x, n = self._residual_rows(i), i["features"]
        params = i["param_addr"] + SCALE_WORDS * np.arange(i["words"])[:, None] + np.arange(SCALE_WORDS)
        values = self.memories[Mem.PBUF][self._touch(Mem.PBUF, params, False)].swapaxes(0, 1).reshape(SCALE_WORDS, -1)
        gamma, beta = (torch.from_numpy(v[:n]) for v in scale_values(values))
        _need(i["eps"] > 0, "eps must be positive")
        out = np.zeros_like(x)
        out[:, :n] = golden.layernorm(torch.from_numpy(x[:, :n]), gamma, beta, i["eps"], i["shift"], self.hw.res_bits)
        places = self._rows_of(Mem.RBUF, i["dst_addr"], i["dst_stride"], i["tokens"], i["words"], True)
        self.memories[Mem.RBUF][places] = out.reshape(*places.shape, -1)

    def _quant(self, i: Instruction) -> None:
        x = torch.from_numpy(self._residual_rows(i))
        _need(i["kind"] != Kind.UINT8, "kind")
        if i["kind"] == Kind.INT8:
            codes = golden.quant_int8(x, i["mul"], i["shift"])
        else:
            ternary = i["kind"] == Kind.TERNARY
            codes = golden.quant_thresholds(
                x, "ternary" if ternary else "binary", (i["t0"], i["t1"]) if ternary else (i["t0"],)
            )
        self._put_granules(i, codes.numpy(), i["features"])

    def _softmax(self, i: Instruction) -> None:
        hw = self.hw
        _need(i["kind"] in PROBABILITY_KINDS and min(i["queries"], i["keys"], i["granules"]) > 0, "kind or counts")
        valid = seen = i["keys"] + (np.arange(i["queries"]) if i["causal"] else np.zeros(i["queries"], dtype=np.int64))
        _need(int(seen.max()) <= i["granules"] * hw.rows, "granules must cover the keys")
        words = -(-int(seen.max()) // hw.rows)
        places = self._score_rows(i["src_addr"], i["src_stride"], i["queries"], words)
        scores = np.zeros((i["queries"], i["granules"] * hw.rows), dtype=np.int64)
        scores[:, : words * hw.rows] = self.memories[Mem.SBUF][places].reshape(i["queries"], -1)
        if i["masked"]:
            _need(hw.beams > 1 and not i["causal"], "masked")
            mask = self.memories[Mem.PBUF][self._touch(Mem.PBUF, i["mask_addr"] + np.arange(words), False)].reshape(-1)
            valid = np.zeros(scores.shape, dtype=bool)
            valid[:, : i["keys"]] = mask[: i["keys"]] >> (i["mask_bit"] + np.arange(i["queries"]))[:, None] & 1
        self._touch(Mem.LUTV, np.arange(transfer_words(hw, Mem.LUTV)), False)
        kind, lut, valid = (
            PROBABILITY_KINDS[i["kind"]],
            torch.from_numpy(self.memories[Mem.LUTV]),
            torch.from_numpy(valid),
        )
        e = golden.exp_codes(torch.from_numpy(scores), valid, lut, bool(i["power"]), i["mul"], i["shift"])
        codes = golden.probability_codes(e, kind=kind, c1=i["c1"], c2=i["c2"], recip=i["recip"])
        self._put_granules(i, to_stored(codes.numpy(), kind), codes.shape[-1])
        left = self.memories[Mem.SBUF][places]
        used = np.arange(words) < -(-seen // hw.rows)[:, None]
        stored, sign = e.numpy().reshape(i["queries"], -1, hw.rows)[:, :words], 1 << hw.acc_bits - 1
        self.memories[Mem.SBUF][places] = np.where(used[..., None], (stored ^ sign) - sign, left)

    def _embed(self, i: Instruction) -> None:
        hw, token, n = self.hw, np.arange(i["tokens"]), i["features"]
        x = self._residual_rows(i, "dst")
        words = i["src_addr"] + token[:, None] // hw.cols * i["src_stride"] + np.arange(-(-n // hw.lanes))
        self._touch(Mem.ABUF, words, False)
        codes = word_codes(hw, self.memories[Mem.ABUF][(token % hw.cols)[:, None], words]).reshape(len(token), -1)
        params = self.memories[Mem.PBUF][self._touch(Mem.PBUF, i["scale_addr"] + token, False)]
        scale = (params[:, 0] & 0xFFFF) + (params[:, 1] << 16)
        out = x.copy()
        out[:, :n] = golden.sat(torch.from_numpy(x[:, :n] + codes[:, :n] * scale[:, None]), hw.res_bits)
        places = self._rows_of(Mem.RBUF, i["dst_addr"], i["dst_stride"], i["tokens"], i["words"], True)
        self.memories[Mem.RBUF][places] = out.reshape(*places.shape, -1)


def _no_tokens(hw: HwConfig) -> list[tuple[int, int]]:
    """The list of TOP before the first token: below every logit."""
    return [(-1, -(1 << max(hw.acc_bits + MUL_BITS, BIAS_BITS)))] * hw.top


def _garbage(hw: HwConfig, mem: Mem, rng: np.random.Generator) -> np.ndarray:
    """Random contents, so that use of unwritten words shows."""
    shape = geometry(hw, mem)
    if mem in CODE_MEMORIES:
        return rng.integers(0, 2, (shape.banks, shape.words, hw.planes, hw.lanes), dtype=np.uint8)
    if mem == Mem.IDBUF:
        return rng.integers(0, 1 << 16, (shape.words, 2))
    if mem in (Mem.LUTV, Mem.LUTX):
        return rng.integers(0, 256, 256)
    bits = {Mem.RBUF: hw.res_bits, Mem.SBUF: hw.acc_bits, Mem.PBUF: 16}[mem]
    size = (shape.banks, shape.words, hw.rows) if mem == Mem.SBUF else (shape.words, hw.rows)
    return rng.integers(-(1 << bits - 1), 1 << bits - 1, size)


def _ready(instruction: Instruction, unit: Unit, tokens: dict) -> bool:
    return all(tokens[other, unit] > 0 for other in instruction.wait - {unit})


def _program_order(instructions: Sequence[Instruction]) -> Callable[[list[Unit]], Unit]:
    units = iter([UNIT_OF[i.op] for i in instructions if i.op != Op.END])
    return lambda ready: next(units)


def _random_order(rng: random.Random) -> Callable[[list[Unit]], Unit | None]:
    """Favours one order of units for a while, so that units run far ahead of each other."""
    favour = list(Unit)

    def choose(ready: list[Unit]) -> Unit | None:
        if rng.random() < 0.05:
            rng.shuffle(favour)
        return min(ready, key=favour.index) if ready else None

    return choose


def run_program(
    program: Program,
    source_ids: Sequence[int],
    start_id: int,
    calls: int | None = None,
    on_probe: Callable | None = None,
    rng: random.Random | None = None,
) -> list[int]:
    """Run the encoder and ``calls`` decoder calls; the ids they produce.

    ``on_probe(probe, raw)`` is called for every probe at its instant.
    """
    machine = Machine(program.hw, program.with_ids(source_ids, start_id))
    count = program.max_new_tokens if calls is None else calls
    for call in range(count + 1):
        run_call(machine, program, call, on_probe, rng)
    return [program.get_id(machine.dram, program.slot_addr(slot)) for slot in range(1, count + 1)]


def run_call(
    machine: Machine, program: Program, call: int, on_probe: Callable | None = None, rng: random.Random | None = None
) -> None:
    """Run one call on a machine that holds the program's image and has run the calls before."""
    instants: dict[tuple[Unit, int], list] = {}
    for probe in program.probes_of_call[call]:
        instants.setdefault((probe.unit, probe.index), []).append(probe)

    def observe(unit: Unit, index: int, instruction: Instruction) -> None:
        for probe in instants.get((unit, index), ()) if on_probe else ():
            on_probe(probe, machine.raw(probe.region))

    machine.run(program.instructions(call), observe, rng)
