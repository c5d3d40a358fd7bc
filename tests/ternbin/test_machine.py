"""The machine model, instruction by instruction, against plain loops that read the hardware contract literally."""

import numpy as np
import pytest
import torch

from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.isa import Dest, Epilogue, ErrorCode, Instruction, Kind, Mem, Op
from ternbin.contract.rows import int_bytes, scale_words
from ternbin.emulation.machine import Machine, MachineError, Undefined
from ternbin.graph import golden

TINY, BINARY = NAMED["tiny"], NAMED["tiny-binary"]
WIDE = HwConfig(rows=8, cols=2, lanes=16, axi_data_bits=128)
PACKED = HwConfig(rows=8, cols=2, lanes=16, axi_data_bits=128, weight_pack="5trit")


def machine(hw=TINY, size=4096):
    return Machine(hw, bytearray(np.random.default_rng(5).integers(0, 256, size, dtype=np.uint8).tobytes()))


def lane(hw, mem, bank, word, element):
    """The number that the array sees in one lane."""
    bits = mem[bank, word, :, element].tolist()
    return 2 * bits[0] - 1 if hw.kind == "binary" else bits[0] * (1 - 2 * bits[1])


def gemm_acc(m, f):
    """The accumulators of a GEMM by its definition, [row_tiles*rows][tokens]."""
    hw, col = m.hw, m.memories[Mem.ABUF]
    row = m.memories[Mem.KBUF if f.get("row_kbuf") else Mem.WBUF]
    out = np.zeros((f["row_tiles"] * hw.rows, f["tokens"]), dtype=np.int64)
    for feature in range(len(out)):
        for token in range(f["tokens"]):
            (rt, r), (ct, c), total = divmod(feature, hw.rows), divmod(token, hw.cols), f.get("acc_init", 0)
            for pr in range(f["row_planes"]):
                for pc in range(f["col_planes"]):
                    negative = (f.get("row_signed", 0) and pr == 7) != (f.get("col_signed", 0) and pc == 7)
                    for k in range(f["chunks"]):
                        rw = f["row_addr"] + rt * f["row_stride"] + pr * f.get("row_plane", 0) + k
                        cw = f["col_addr"] + ct * f["col_stride"] + pc * f.get("col_plane", 0) + k
                        dot = sum(lane(hw, row, r, rw, e) * lane(hw, col, c, cw, e) for e in range(hw.lanes))
                        total += (-dot if negative else dot) << (pr + pc)
                        if f.get("rowsum"):
                            total += sum(lane(hw, row, r, rw, e) for e in range(hw.lanes))
            out[feature, token] = total
    return out


BASE = dict(
    row_addr=3,
    row_stride=4,
    row_planes=1,
    col_addr=5,
    col_stride=3,
    col_planes=1,
    chunks=2,
    row_tiles=2,
    col_tiles=2,
    tokens=3,
    acc_init=-7,
)
VARIANTS = {
    "weights": {},
    "keys": dict(row_kbuf=1),
    "row sums": dict(row_kbuf=1, rowsum=1),
    "8-bit columns": dict(col_planes=8, col_plane=3, col_stride=24, col_signed=1),
    "8-bit rows": dict(row_kbuf=1, row_planes=8, row_plane=4, row_stride=40, row_signed=1),
    "8 by 8 bits": dict(
        row_kbuf=1, row_planes=8, row_plane=2, row_stride=16, row_signed=1, col_planes=8, col_plane=2, col_stride=16
    ),
}


@pytest.mark.parametrize("hw", [TINY, BINARY], ids=lambda hw: hw.name)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gemm_accumulates_as_defined(hw, variant):
    fields = BASE | VARIANTS[variant] | dict(epilogue=Epilogue.SCORES, dst_addr=9, dst_stride=4)
    m = machine(hw)
    expected = gemm_acc(m, fields)
    m.execute(Instruction(Op.GEMM, fields))
    for token in range(3):
        got = m.memories[Mem.SBUF][token % hw.cols, 9 + 4 * (token // hw.cols) :][:2]
        assert got.reshape(-1).tolist() == expected[:, token].tolist()


def put_params(m, addr, words):
    flat = words.reshape(-1, m.hw.rows)
    m.memories[Mem.PBUF][addr : addr + len(flat)] = flat


@pytest.mark.parametrize("dest", list(Dest))
def test_thresholds_make_codes_in_place(dest):
    m, rng = machine(), np.random.default_rng(3)
    fields = BASE | dict(
        epilogue=Epilogue.CODES,
        dest=dest,
        thresholds=3,
        base=-1,
        dirs=0b011,
        param_addr=20,
        param_stride=4,
        kind=Kind.TERNARY,
        dst_addr=40,
        dst_stride=6,
        lane=4,
        key=13,
    )
    fields |= dict(lane=0) if dest == Dest.TRANSPOSED else {}
    thresholds = np.sort(rng.integers(-12, 12, (2, 4, 4)), axis=1)  # [tile, word, row]
    thresholds[:, 2] = golden.NEVER
    put_params(m, 20, thresholds)
    acc, before = gemm_acc(m, fields), {mem: m.memories[mem].copy() for mem in (Mem.ABUF, Mem.KBUF)}
    m.execute(Instruction(Op.GEMM, fields))
    touched = {mem: np.zeros(before[mem].shape, dtype=bool) for mem in before}
    for feature in range(8):
        for token in range(3):
            t = thresholds[feature // 4, :3, feature % 4]
            code = -1 + (acc[feature, token] >= t[0]) + (acc[feature, token] >= t[1]) - (acc[feature, token] >= t[2])
            mem, key = Mem.KBUF, 13 + token
            if dest == Dest.TOKENS:
                mem, bank, word, element = Mem.ABUF, token % 2, 40 + token // 2 * 6, 4 + feature
            elif dest == Dest.KEYS:
                bank, word, element = key % 4, 40 + key // 4 * 6, 4 + feature
            else:
                bank, word, element = feature % 4, 40 + feature // 4 * 6 + key // 16, key % 16
            assert lane(m.hw, m.memories[mem], bank, word, element) == code
            touched[mem][bank, word, :, element] = True
    for mem in before:
        assert (m.memories[mem] == before[mem])[~touched[mem]].all()


def test_lane_0_clears_the_rest_of_the_word():
    m = machine()
    fields = BASE | dict(
        row_tiles=1, epilogue=Epilogue.CODES, thresholds=1, dirs=1, param_addr=0, kind=Kind.TERNARY, dst_addr=90
    )
    fields |= dict(base=0, dst_stride=2)
    m.execute(Instruction(Op.GEMM, fields))
    assert not m.memories[Mem.ABUF][0, 90, :, 4:].any()
    assert not m.memories[Mem.ABUF][1, 90, :, 4:].any()


@pytest.mark.parametrize("lut", [0, 1])
def test_eight_bit_codes_are_written_plane_by_plane(lut):
    m, rng = machine(), np.random.default_rng(4)
    fields = BASE | dict(
        epilogue=Epilogue.CODES8,
        kind=Kind.UINT8 if lut else Kind.INT8,
        shift=5,
        lut=lut,
        param_addr=8,
        param_stride=4,
        dst_addr=60,
        dst_stride=16,
        dst_plane=2,
    )
    mul, bias = rng.integers(0, 400, 8), rng.integers(-(1 << 12), 1 << 12, 8)
    put_params(m, 8, scale_words(m.hw, mul, bias))
    table, acc = m.memories[Mem.LUTX], gemm_acc(m, fields)
    m.execute(Instruction(Op.GEMM, fields))
    for feature in range(8):
        for token in range(3):
            value = (int(acc[feature, token]) * int(mul[feature]) + int(bias[feature]) + 16) >> 5
            value = int(table[max(-128, min(127, value)) + 128]) if lut else max(-127, min(127, value))
            for p in range(8):
                bits = m.memories[Mem.ABUF][token % 2, 60 + token // 2 * 16 + 2 * p, :, feature]
                assert bits.tolist() == [value >> p & 1, 0]


def test_residual_adds_in_place_and_saturates():
    m, rng = machine(), np.random.default_rng(6)
    fields = BASE | dict(epilogue=Epilogue.RESIDUAL, shift=3, param_addr=8, param_stride=4, dst_addr=100, dst_stride=5)
    mul, bias = rng.integers(0, 90000, 8), rng.integers(-(1 << 16), 1 << 16, 8)
    put_params(m, 8, scale_words(m.hw, mul, bias))
    old, acc = m.memories[Mem.RBUF].copy(), gemm_acc(m, fields)
    m.execute(Instruction(Op.GEMM, fields))
    clipped = 0
    for feature in range(8):
        for token in range(3):
            word = 100 + 5 * token + feature // 4
            total = int(old[word, feature % 4]) + (
                (int(acc[feature, token]) * int(mul[feature]) + int(bias[feature]) + 4) >> 3
            )
            clipped += not -32768 <= total <= 32767
            assert m.memories[Mem.RBUF][word, feature % 4] == max(-32768, min(32767, total))
    assert 0 < clipped < 24


def test_argmax_keeps_the_first_largest_across_instructions():
    m = machine()
    fields = BASE | dict(col_tiles=1, tokens=2, epilogue=Epilogue.ARGMAX, param_addr=8, dst_addr=30)
    put_params(m, 8, scale_words(m.hw, np.full(4, 3), np.full(4, 1)))  # one scale for all: a shared row of words
    acc = 3 * gemm_acc(m, fields) + 1
    for first, last, index in ((1, 0, 40), (0, 0, 8), (0, 1, 24)):  # equal logits three times: the lowest id wins
        m.execute(Instruction(Op.GEMM, fields | dict(first=first, last=last, index=index)))
    for column in range(2):
        best = acc[:, column].max()
        expected = [8 + acc[:, column].tolist().index(best), best]
        assert m.memories[Mem.IDBUF][30 + column].tolist() == expected


def test_load_spreads_rows_over_banks_and_store_brings_them_back():
    m = machine()
    fields = dict(mem=Mem.KBUF, bank=2, addr=7, inner=3, outer=5, dram=64, stride=20)
    m.execute(Instruction(Op.LOAD, fields))
    for o in range(5):
        for i in range(3):
            beat = int.from_bytes(m.dram[64 + 20 * o + 4 * i :][:4], "little")
            word = m.memories[Mem.KBUF][(2 + o) % 4, 7 + (2 + o) // 4 * 3 + i]
            assert word.reshape(-1).tolist() == [beat >> b & 1 for b in range(32)]
    before = bytes(m.dram[64 : 64 + 12])
    m.execute(Instruction(Op.STORE, fields | dict(dram=1024)))
    assert bytes(m.dram[1024:1036]) == before


def test_a_wide_beat_of_weights_goes_to_consecutive_banks():
    m = machine(WIDE)  # 4 words a beat
    m.execute(Instruction(Op.LOAD, dict(mem=Mem.WBUF, bank=1, addr=7, inner=3, outer=2, dram=64, stride=64)))
    for o, (row, first) in enumerate([(0, 4), (1, 0)]):
        for i in range(3):
            beat = int.from_bytes(m.dram[64 + 64 * o + 16 * i :][:16], "little")
            for g in range(4):
                word = m.memories[Mem.WBUF][first + g, 7 + 3 * row + i]
                assert word.reshape(-1).tolist() == [beat >> 32 * g + b & 1 for b in range(32)]


def test_a_wide_beat_of_weights_expands_to_words_of_twice_as_many_banks():
    m = machine(WIDE)
    m.execute(Instruction(Op.LOAD, dict(mem=Mem.WBUF, addr=1, inner=2, outer=1, dram=64, expand=1)))
    for i in range(2):
        beat = int.from_bytes(m.dram[64 + 16 * i :][:16], "little")
        for bank in range(8):
            codes = [lane(WIDE, m.memories[Mem.WBUF], bank, 1 + i, e) for e in range(16)]
            assert codes == [1 if beat >> 16 * bank + e & 1 else -1 for e in range(16)]


def test_packed_trits_fill_row_tiles():
    m = machine(PACKED)  # one word of all 8 banks at a time; 3 of them are 384 trits, 5 beats
    fields = dict(mem=Mem.WBUF, addr=4, inner=3, outer=2, dram=64, stride=128)
    m.execute(Instruction(Op.LOAD, fields))
    for o in range(2):
        codes = [min(byte, 242) // 3**j % 3 - 1 for byte in m.dram[64 + 128 * o :][:80] for j in range(5)]
        for i in range(3):
            for bank in range(8):
                expected = codes[(8 * i + bank) * 16 :][:16]
                assert [lane(PACKED, m.memories[Mem.WBUF], bank, 4 + 3 * o + i, e) for e in range(16)] == expected
    m.execute(Instruction(Op.LOAD, fields | dict(inner=1, outer=1, expand=1)))
    bits = int.from_bytes(m.dram[64:80], "little")
    for bank in range(8):
        codes = [lane(PACKED, m.memories[Mem.WBUF], bank, 4, e) for e in range(16)]
        assert codes == [1 if bits >> 16 * bank + e & 1 else -1 for e in range(16)]


def test_packed_trits_come_in_whole_row_tiles():
    hw = HwConfig(rows=8, cols=2, lanes=16, axi_data_bits=32, weight_pack="5trit")
    for fields in (dict(bank=1, outer=4), dict(outer=3)):
        with pytest.raises(MachineError, match="FIELD: packed trits must be whole row tiles"):
            machine(hw).execute(Instruction(Op.LOAD, dict(mem=Mem.WBUF, inner=1) | fields))


def test_rows_of_words_narrower_than_the_bus_end_with_a_beat():
    m = machine(WIDE)
    fields = dict(mem=Mem.ABUF, addr=3, inner=5, outer=2, dram=64, stride=32)
    m.execute(Instruction(Op.LOAD, fields))
    for o in range(2):
        for i in range(5):
            value = int.from_bytes(m.dram[64 + 32 * o + 4 * i :][:4], "little")
            assert m.memories[Mem.ABUF][o, 3 + i].reshape(-1).tolist() == [value >> b & 1 for b in range(32)]
    m.execute(Instruction(Op.STORE, fields | dict(dram=1024)))
    for o in range(2):
        assert bytes(m.dram[1024 + 32 * o :][:32]) == bytes(m.dram[64 + 32 * o :][:20]) + bytes(12)


@pytest.mark.parametrize("mem", [Mem.WBUF, Mem.KBUF])
def test_load_expand_makes_two_words_of_a_beat(mem):
    """Of a row's words of one bank, or of the weights of two banks."""
    m = machine()
    inner = 1 if mem == Mem.WBUF else 2
    m.execute(Instruction(Op.LOAD, dict(mem=mem, addr=1, inner=inner, outer=2, dram=128, stride=4, expand=1)))
    for o in range(2):
        bits = int.from_bytes(m.dram[128 + 4 * o :][:4], "little")
        places = [(2 * o + w, 1) if mem == Mem.WBUF else (o, 1 + w) for w in range(2)]
        codes = [lane(m.hw, m.memories[mem], *place, e) for place in places for e in range(16)]
        assert codes == [1 if bits >> e & 1 else -1 for e in range(32)]


def test_indirect_load_follows_the_ids():
    m = machine()
    m.memories[Mem.IDBUF][10:13, 0] = [4, 0, 9]
    m.execute(
        Instruction(Op.LOAD, dict(mem=Mem.PBUF, addr=2, inner=1, outer=3, dram=256, stride=4, indirect=1, index=10))
    )
    for o, token in enumerate([4, 0, 9]):
        row = m.dram[256 + 4 * token :][:8]
        assert int_bytes(m.memories[Mem.PBUF][2 + o : 3 + o], 2).tobytes() == bytes(row)


def test_vector_unit_follows_golden():
    m = machine()
    rbuf, n = m.memories[Mem.RBUF], 10
    rbuf[0:9] = np.random.default_rng(7).integers(-3000, 3000, (9, 4))
    rbuf[[2, 5, 8], 2:] = 0
    x = torch.from_numpy(rbuf[0:9].reshape(3, 12)[:, :n].copy())
    rows = dict(src_addr=0, src_stride=3, tokens=3, words=3, features=n)
    m.execute(Instruction(Op.QUANT, rows | dict(dst_addr=11, dst_stride=2, kind=Kind.TERNARY, t0=-700, t1=900)))
    expected = golden.quant_thresholds(x, "ternary", (-700, 900))
    for t in range(3):
        got = [lane(TINY, m.memories[Mem.ABUF], t % 2, 11 + t // 2 * 2, e) for e in range(16)]
        assert got == expected[t].tolist() + [0] * 6
    gamma, beta = torch.arange(1, 13) * 1000, torch.arange(12) * 70000
    gamma[n:], beta[n:] = 0, 0
    put_params(m, 50, scale_words(TINY, gamma.numpy(), beta.numpy()))
    m.execute(Instruction(Op.LAYERNORM, rows | dict(dst_addr=0, dst_stride=3, param_addr=50, shift=21, eps=77)))
    expected = golden.layernorm(x, gamma[:n], beta[:n], 77, 21, 16)
    assert rbuf[0:9].reshape(3, 12)[:, :n].tolist() == expected.tolist()
    assert not rbuf[[2, 5, 8], 2:].any()


def test_softmax_hides_keys_beyond_the_valid_ones():
    m = machine()
    m.memories[Mem.LUTV] = golden.exp_lut_direct(0.4).numpy()
    scores = np.random.default_rng(8).integers(-6, 7, (3, 8))
    for t in range(3):
        m.memories[Mem.SBUF][t % 2, t // 2 * 2 :][:2] = scores[t].reshape(2, 4)
    scores[:, 7] = 1000
    fields = dict(
        src_addr=0,
        src_stride=2,
        queries=3,
        keys=5,
        causal=1,
        granules=4,
        dst_addr=70,
        dst_stride=1,
        c1=4000,
        c2=12000,
        recip=1,
    )
    m.execute(Instruction(Op.SOFTMAX, fields | dict(kind=Kind.TERNARY)))
    expected = golden.softmax_codes(
        torch.from_numpy(scores[:, :7]),
        torch.tensor([5, 6, 7]),
        lut=golden.exp_lut_direct(0.4),
        power=False,
        mul=0,
        shift=0,
        kind="ternary_nn",
        c1=4000,
        c2=12000,
        recip=1,
    )
    for t in range(3):
        got = [lane(TINY, m.memories[Mem.ABUF], t % 2, 70 + t // 2, e) for e in range(16)]
        assert got == (expected[t] - 1).tolist() + [-1] * 9
    assert (expected[:, :5] > 0).any() and (expected[:, :5] == 0).any()


def test_embedding_adds_scaled_codes():
    m = machine()
    old, scale = m.memories[Mem.RBUF].copy(), [300000, -5]
    m.memories[Mem.PBUF][4:6, :2] = [[s & 0xFFFF, s >> 16] for s in scale]
    m.execute(
        Instruction(
            Op.EMBED,
            dict(src_addr=3, src_stride=1, tokens=2, words=3, features=10, scale_addr=4, dst_addr=20, dst_stride=3),
        )
    )
    for t in range(2):
        for f in range(12):
            before = int(old[20 + 3 * t + f // 4, f % 4])
            code = lane(TINY, m.memories[Mem.ABUF], t, 3, f) if f < 10 else 0
            expected = max(-32768, min(32767, before + code * scale[t]))
            assert m.memories[Mem.RBUF][20 + 3 * t + f // 4, f % 4] == expected


@pytest.mark.parametrize(
    ("op", "fields", "code"),
    [
        (Op.LOAD, dict(mem=Mem.WBUF, addr=255, inner=2, outer=1), ErrorCode.ADDRESS),
        (Op.LOAD, dict(mem=Mem.SBUF, inner=1, outer=1), ErrorCode.FIELD),
        (Op.LOAD, dict(mem=Mem.WBUF, bank=4, inner=1, outer=1), ErrorCode.FIELD),
        (Op.STORE, dict(mem=Mem.WBUF, inner=1, outer=1), ErrorCode.FIELD),
        (Op.LOAD, dict(mem=12, inner=1, outer=1), ErrorCode.FIELD),
        (Op.LOAD, dict(mem=Mem.WBUF, inner=1, outer=1, dram=4096), ErrorCode.BUS_READ),
        (Op.STORE, dict(mem=Mem.IDBUF, inner=1, outer=1, dram=4096), ErrorCode.BUS_WRITE),
        (Op.LOAD, dict(mem=Mem.KBUF, inner=1, outer=1, expand=1), ErrorCode.FIELD),
        (Op.LOAD, dict(mem=Mem.WBUF, bank=2, inner=1, outer=1, expand=1), ErrorCode.FIELD),
        (Op.GEMM, BASE | dict(row_planes=3), ErrorCode.FIELD),
        (Op.GEMM, BASE | dict(tokens=5), ErrorCode.FIELD),
        (Op.GEMM, BASE | dict(epilogue=Epilogue.SCORES, dst_addr=255), ErrorCode.ADDRESS),
        (Op.GEMM, BASE | dict(epilogue=Epilogue.CODES, thresholds=5), ErrorCode.FIELD),
        (Op.QUANT, dict(tokens=1, words=2, features=9), ErrorCode.FIELD),
        (Op.SOFTMAX, dict(queries=1, keys=9, granules=2), ErrorCode.FIELD),
    ],
)
def test_bad_instructions_stop_the_machine(op, fields, code):
    with pytest.raises(MachineError) as caught:
        machine().execute(Instruction(op, fields))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masked": 1, "mask_bit": 14}, "a query has no bit in the masks"),
        ({"masked": 1, "mask_bit": 13}, "a query sees no key"),
        ({"kind": Kind.UINT8, "recip": 1 << 40}, "exponentials of a query sum to 0"),
    ],
)
def test_a_softmax_that_nothing_defines(change, message):
    """Masks without a bit for a query or a key, and a table of zeros: no core checks them, and none must be compared."""
    m = machine(TINY.searching(2))
    m.memories[Mem.PBUF][:] = m.memories[Mem.LUTV][:] = 0
    fields = {"queries": 3, "keys": 4, "granules": 1, "kind": Kind.TERNARY, "src_stride": 1, "dst_stride": 1}
    with pytest.raises(Undefined, match=message):
        m.execute(Instruction(Op.SOFTMAX, fields | change))
