"""Program files, damaged instructions, ids, listing."""

import os
from dataclasses import replace

import numpy as np
import pytest
from mapped import START, mapped, source_ids

from ternbin.contract import program as files
from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.isa import INSTRUCTION_BYTES, Mem, Unit
from ternbin.contract.program import Probe, Region, View, decode_probe, listing
from ternbin.contract.rows import code_words, int_bytes, plane_words, to_bytes
from ternbin.errors import InputError

TINY = NAMED["tiny"]


@pytest.fixture(scope="module")
def program():
    return mapped("2-2", TINY, new=1)[1]


def test_a_saved_program_is_the_same_when_loaded(program, tmp_path):
    path = tmp_path / "model.tbp"
    files.save(program, path)
    again = files.load(path)
    assert again == program
    assert again.instructions(1) == program.instructions(1)
    assert os.listdir(tmp_path) == ["model.tbp"]


def test_a_damaged_file_is_refused(program, tmp_path):
    path = tmp_path / "model.tbp"
    files.save(program, path)
    data = path.read_bytes()
    for position in (len(files.MAGIC), 200, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        with pytest.raises(InputError, match="checksum must match the contents; the file is truncated or damaged"):
            files.load(path)
    for length in (len(data) - 1, len(files.MAGIC) + 4, len(files.MAGIC)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match="truncated or damaged"):
            files.load(path)


def test_foreign_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "other"
    path.write_bytes(b"\x7fELF rest")
    with pytest.raises(InputError, match="must be a file of ternbin program 3, not one that starts with"):
        files.load(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        files.load(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be written: No such file"):
        files.save(mapped("2-2", TINY, new=1)[1], "/proc/no/file")


def test_a_flipped_bit_of_any_instruction_is_refused(program):
    call = program.calls[1]
    rng = np.random.default_rng(0)
    for number in range(call.count):
        for bit in rng.integers(0, 8 * INSTRUCTION_BYTES, 4):
            image = bytearray(program.image)
            image[call.address + number * INSTRUCTION_BYTES + bit // 8] ^= 1 << bit % 8
            damaged = replace(program, image=bytes(image))
            with pytest.raises(InputError, match=f"call 1, instruction {number}: instruction check must be 0x7e57"):
                damaged.instructions(1)


def test_ids_go_to_their_slots(program):
    image = program.with_ids([5, 6, 7, 8, 9, 10, 96], START)
    assert [program.get_id(image, program.inputs[0].address + 4 * i) for i in range(7)] == [5, 6, 7, 8, 9, 10, 96]
    assert program.get_id(image, program.slot_addr(0)) == START
    with pytest.raises(InputError, match="source ids must be 7, not 6"):
        program.with_ids([3] * 6, START)
    with pytest.raises(InputError, match="token id must be from 0 to 96, not 97"):
        program.with_ids([97] + [3] * 6, START)


def test_the_listing_names_ops_tokens_and_addresses(program):
    text = listing(program, [1])
    assert text.startswith(
        f"call 1 (decoder position 0) at {program.calls[1].address:#x}, {program.calls[1].count} instr"
    )
    for expected in (
        "\n  dec.0.self.scores\n",
        "SOFTMAX   vector  <",
        "LOAD      load",
        "mem=WBUF",
        ">execute",
        "  END\n",
    ):
        assert expected in text
    assert len(listing(program).splitlines()) > program.calls[0].count + program.calls[1].count


def test_every_call_ends_and_calls_do_not_overlap(program):
    spans = sorted((c.address, c.address + c.count * INSTRUCTION_BYTES) for c in program.calls)
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
    assert all(program.instructions(c)[-1].op == 1 for c in range(len(program.calls)))


@pytest.mark.parametrize("hw", [TINY, NAMED["tiny-binary"]], ids=lambda hw: hw.name)
@pytest.mark.parametrize("layout", ["tokens", "keys", "transposed"])
def test_decoding_codes_places_every_element(hw, layout):
    """Probes of 8-bit codes, two groups and a first row, against words put together one element at a time."""
    rows, width, groups, first = 5, 3, 2, 2
    values = np.random.default_rng(1).integers(-127, 128, (rows, groups * width))
    banks = hw.cols if layout == "tokens" else hw.rows
    pitch, plane = (4, 1) if layout == "transposed" else (hw.lanes, 2)
    words = np.zeros((banks, 64, hw.planes, hw.lanes), dtype=np.uint8)
    for row in range(rows):
        for feature in range(groups * width):
            place = feature // width * pitch + feature % width
            along, across = (row + first, place) if layout == "transposed" else (place, row + first)
            for p in range(8):
                word = across // banks * 8 * plane + p * plane + along // hw.lanes
                words[across % banks, word, 0, along % hw.lanes] = int(values[row, feature]) >> p & 1
    view = View(layout, rows, width, 8 * plane, groups, pitch, plane, "int8", first=first)
    mem = Mem.ABUF if layout == "tokens" else Mem.KBUF
    probe = Probe(0, Unit.EXECUTE, 0, "x", Region(mem, 0, 64, 0, banks), view, ((0, rows), (0, groups * width)))
    raw = to_bytes(words.reshape(-1, hw.code_word_bits)).tobytes()
    assert np.array_equal(decode_probe(hw, probe, raw), values)
    with pytest.raises(InputError, match="probe x: raw words must be"):
        decode_probe(hw, probe, raw[:-1])


def test_decoding_scores_and_ids():
    hw = HwConfig(acc_bits=17)
    values = np.random.default_rng(2).integers(-(1 << 16), 1 << 16, (3, 2 * hw.rows))
    words = np.zeros((hw.cols, 2, hw.rows), dtype=np.int64)
    words[:3] = values.reshape(3, 2, hw.rows)
    bits = (words[..., None] >> np.arange(17) & 1).astype(np.uint8).reshape(2 * hw.cols, -1)
    view = View("scores", 3, 20, 2, lead=True)
    probe = Probe(0, Unit.EXECUTE, 0, "s", Region(Mem.SBUF, 0, 2, 0, hw.cols), view, ((1, 2), (0, 3), (0, 20)))
    assert np.array_equal(decode_probe(hw, probe, to_bytes(bits).tobytes())[0], values[:, :20])
    raw = (7).to_bytes(4, "little") + (-10).to_bytes(8, "little", signed=True)
    probe = Probe(0, Unit.EXECUTE, 0, "i", Region(Mem.IDBUF, 3, 1), View("ids", 1, 2, shift=1), ((0, 1), (0, 2)))
    assert decode_probe(hw, probe, raw).tolist() == [[7, -5]]


def test_stored_words_of_external_memory():
    """Byte patterns written out by hand: 2-bit planar beats, 1-bit beats, parameter words."""
    codes = np.array([1, -1, 0, 1] + [0] * 12)
    assert to_bytes(code_words(TINY, codes).reshape(-1, 32)).tolist() == [[0b1011, 0, 0b0010, 0]]
    assert plane_words(NAMED["tiny-binary"], np.array([-2]))[:, 0, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    assert int_bytes(np.array([[-2, 258]]), 2).tolist() == [[254, 255, 2, 1]]


def test_reference_ids_are_valid(program):
    model = mapped("2-2", TINY, new=1)[0]
    assert len(program.with_ids(source_ids(model, 7), START)) == len(program.image)
