"""Mapped programs on the machine model: every tensor equals the interpreter's, in every order that the tokens allow."""

import random
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mapped import START, differences, lowered, mapped, reference, source_ids

from ternbin.contract.effects.table import touches
from ternbin.contract.hw import NAMED, HwConfig
from ternbin.contract.isa import UNIT_OF, Epilogue, Mem, Op
from ternbin.contract.memories import TABLES, memories
from ternbin.counting.traffic import traffic
from ternbin.emulation.machine import Machine, MachineError, run_program
from ternbin.errors import InputError
from ternbin.graph.activations import FUNCTIONS
from ternbin.graph.ops.registry import typed
from ternbin.mapping import mapper
from ternbin.mapping.mapper import map_model
from ternbin.mapping.sync import find_races, insert_tokens
from ternbin.models.bart.shape import BART_BASE, shape_model

TINY, TINY_BINARY, SMALL = NAMED["tiny"], NAMED["tiny-binary"], NAMED["small"]
ODD = dict(d_model=21, heads=3, ffn=37, vocab=83)
WIDE = HwConfig(rows=8, cols=8, lanes=64, axi_data_bits=64, kind="binary")
BEAT_OF_4 = HwConfig(rows=8, cols=2, lanes=16, axi_data_bits=128)
BEAT_OF_2_BINARY = HwConfig(rows=8, cols=2, lanes=32, axi_data_bits=64, kind="binary")
ATTENTIVE = HwConfig(rows=4, cols=4, lanes=32, axi_data_bits=64)  # of few vector lanes
COLUMN = HwConfig(rows=4, cols=1, lanes=16, axi_data_bits=32, res_bits=18)

CASES = {
    "2-2 relu": ("2-2", TINY, {}),
    "2-2 gelu, two layers": ("2-2", SMALL, dict(activation="gelu", layers=2)),
    "1-1 on binary": ("1-1", TINY_BINARY, {}),
    "1-1 on ternary": ("1-1", TINY, dict(activation="gelu")),
    "2-8 gelu": ("2-8", TINY, dict(activation="gelu")),
    "1-8 relu": ("1-8", TINY, {}),
    "odd sizes 2-2": ("2-2", TINY, ODD | dict(activation="gelu")),
    "odd sizes 1-1 on binary": ("1-1", TINY_BINARY, ODD | dict(activation="gelu")),
    "odd sizes 1-1 on ternary": ("1-1", TINY, ODD),
    "odd sizes 1-8": ("1-8", TINY, ODD | dict(activation="gelu")),
    "one head, wide binary": ("1-1", WIDE, dict(d_model=36, heads=1)),
    "2-8 with keys in external memory": ("2-8", replace(TINY, kbuf_words=400, kv_external=True), dict(layers=2)),
    "1-1 with keys in external memory": ("1-1", replace(TINY_BINARY, kv_external=True), ODD | dict(layers=2)),
    "bus of 4 words, 2-2": ("2-2", BEAT_OF_4, ODD),
    "bus of 4 words, 2-8 with keys in external memory": ("2-8", replace(BEAT_OF_4, kv_external=True), {}),
    "bus of 4 words, 1-1 on ternary": ("1-1", BEAT_OF_4, ODD),
    "bus of 2 words, 1-1 on binary": ("1-1", replace(BEAT_OF_2_BINARY, kv_external=True), ODD),
    "packed trits": ("2-2", replace(TINY, weight_pack="5trit"), ODD),
    "packed trits, bus of 4 words": ("2-8", replace(BEAT_OF_4, weight_pack="5trit"), ODD),
    "packed trits, 1-1": ("1-1", replace(TINY, weight_pack="5trit"), ODD),
    "18-bit stream, one column": ("2-2", COLUMN, dict(res_bits=18)),
    "pre-norm 2-2": ("2-2", TINY, dict(family="mbart", layers=(2, 1))),
    "pre-norm 1-1 on binary": ("1-1", TINY_BINARY, ODD | dict(family="mbart", activation="gelu")),
    "pre-norm 2-8 with keys in external memory": ("2-8", replace(BEAT_OF_4, kv_external=True), dict(family="mbart")),
    "pre-norm without a LayerNorm after the embedding": (
        "2-2",
        COLUMN,
        dict(res_bits=18, family="mbart", normalize_embedding=False, layers=2),
    ),
    "sines, two vocabularies": (
        "2-2",
        TINY,
        dict(family="marian", share_encoder_decoder_embeddings=False, decoder_vocab_size=61, activation="silu"),
    ),
    "three tables": ("1-1", TINY, ODD | dict(tie_word_embeddings=False, decoder_vocab_size=61)),
    "2-2, all of the decoder stays": ("2-2", replace(TINY, pbuf_words=600, resident="decoder"), {}),
    "2-8, some of it stays": ("2-8", replace(TINY, wbuf_words=70, resident="decoder"), dict(layers=2)),
    "1-1 on ternary, some of it stays": ("1-1", replace(TINY, wbuf_words=50, pbuf_words=160, resident="decoder"), ODD),
    "packed trits, bus of 4 words, some of it stays": (
        "2-2",
        replace(BEAT_OF_4, weight_pack="5trit", wbuf_words=40, kv_external=True, resident="decoder"),
        ODD | dict(family="mbart"),
    ),
    "8-bit head 2-2": ("2-2", TINY, ODD | dict(head_weight_bits=8)),
    "8-bit head 1-1 on binary": ("1-1", TINY_BINARY, ODD | dict(head_weight_bits=8)),
    "8-bit head 1-8, packed trits, bus of 4 words, some of it stays": (
        "1-8",
        replace(BEAT_OF_4, weight_pack="5trit", wbuf_words=60, resident="decoder"),
        ODD | dict(head_weight_bits=8, tie_word_embeddings=False),
    ),
    "8-bit head, 1-bit activations": ("2-2", SMALL, dict(head_weight_bits=8, head_act_bits=1)),
    "2-bit head 1-1": ("1-1", TINY, dict(head_weight_bits=2)),
    "unequal stacks": ("2-2", TINY, dict(layers=(1, 2), decoder_attention_heads=4, decoder_ffn_dim=37)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_equals_the_interpreter(name):
    bits, hw, options = CASES[name]
    model, program = mapped(bits, hw, **options)
    wrong, seen = differences(model, program, source_ids(model, 7))
    assert not wrong
    assert seen == {(call, tensor) for call in range(4) for tensor in _written(model, call)}


def _written(model, call):
    """Names of all tensors a call computes; outputs repeat others, caches extend them."""
    graph = model.decoder if call else model.encoder
    return {node.name for node in graph.nodes() if node.op.opname not in ("input", "output", "cache")}


@pytest.mark.parametrize(
    "hw",
    [
        replace(TINY, abuf_words=64),
        replace(TINY, abuf_words=100, sbuf_words=64),
        replace(TINY, wbuf_words=16, pbuf_words=96, idbuf_words=16),
    ],
    ids=["ABUF", "SBUF", "WBUF and PBUF"],
)
@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_small_memories_split_the_work(hw, family):
    model, program = mapped("2-2", hw, source_len=25, new=2, family=family)
    roomy = map_model(model, replace(TINY, abuf_words=4096, sbuf_words=4096, wbuf_words=4096), 25, 2)
    assert program.calls[0].count > roomy.calls[0].count
    assert not differences(model, program, source_ids(model, 25))[0]


@pytest.mark.parametrize("wbuf_words, pbuf_words", [(16, 96), (70, 256), (256, 600)])
def test_what_stays_is_loaded_once(wbuf_words, pbuf_words):
    """The first decoder call loads what it would without; later calls what does not stay. With room for all, of constants nothing."""
    hw = replace(TINY, wbuf_words=wbuf_words, pbuf_words=pbuf_words)
    model, plain = mapped("2-2", hw)
    stays = map_model(model, replace(hw, resident="decoder"), 7, 3)
    first, *later = (_moved(stays, call) for call in (1, 2, 3))
    usual = _moved(plain, 1)
    assert _moved(stays, 0) == _moved(plain, 0) and first.weights == usual.weights
    assert later[0] == later[1]
    saved = usual.weights - later[0].weights, usual.parameters - later[0].parameters
    of_chip = wbuf_words * hw.rows * hw.code_word_bits // 8, pbuf_words * hw.param_word_bits // 8
    if wbuf_words == 256:
        loaded = [i for i in stays.instructions(2) if i.op == Op.LOAD and i["mem"] in (Mem.WBUF, Mem.PBUF)]
        assert [(Mem(i["mem"]), i["indirect"]) for i in loaded] == [(Mem.PBUF, 1)]  # the scale of the token's row
    else:
        assert 0 <= saved[0] <= of_chip[0] // 2 and 0 <= saved[1] <= of_chip[1] and sum(saved)
    assert not differences(model, stays, source_ids(model, 7))[0]
    assert not _races(stays, source_ids(model, 7), lambda instructions: instructions)


def _moved(program, call):
    return traffic(program.hw, program.instructions(call), program.calls[call].count)


def test_long_decoding_shares_parameters_between_calls():
    """Constants are stored once, by the first call that needs them, when there are few keys."""
    model, program = mapped("1-1", TINY_BINARY, new=24, layers=1)
    assert not differences(model, program, source_ids(model, 7))[0]


@pytest.mark.parametrize(
    "name",
    [
        "2-2 relu",
        "1-1 on binary",
        "2-8 with keys in external memory",
        "bus of 4 words, 2-8 with keys in external memory",
        "pre-norm 2-2",
    ],
)
def test_tokens_order_everything(name):
    bits, hw, options = CASES[name]
    model, program = mapped(bits, hw, **options)
    ids = source_ids(model, 7)
    expected = [int(call["lm_head"][0, 0]) for call in reference(model, ids, 3)[1:]]
    assert all(run_program(program, ids, START, rng=random.Random(seed)) == expected for seed in range(3))
    assert not _races(program, ids, lambda instructions: instructions)


def _races(program, ids, change):
    machine, races = Machine(program.hw, program.with_ids(ids, START)), []
    for call in range(len(program.calls)):
        instructions = [i for i in program.instructions(call) if i.op != Op.END]
        touched = []
        for instruction in instructions:
            machine.execute(instruction)
            touched.append(machine.accesses)
        races += find_races(program.hw, change(instructions), touched)
    return races


@pytest.mark.parametrize("name", list(CASES)[:3])
def test_instructions_touch_what_their_effects_say(name):
    """Word by word, what the machine writes and reads; of tables the whole one stands for itself."""
    bits, hw, options = CASES[name]
    model, program = mapped(bits, hw, **options)
    machine = Machine(program.hw, program.with_ids(source_ids(model, 7), START))
    for call in range(2):
        for instruction in program.instructions(call)[:-1]:
            machine.execute(instruction)
            said = touches(program.hw, instruction)
            for access in machine.accesses:
                if access.mem in memories(program.hw) and access.mem not in TABLES:
                    own = [item.words for item in said if item.mem == access.mem and item.kind >= access.kind]
                    assert np.isin(access.words, np.concatenate(own)).all(), instruction


def test_no_token_is_superfluous():
    """Without any one token (and its wait) the race detector complains: so it can fail, and tokens are few."""
    model, program = mapped("2-2", TINY, new=1)
    ids = source_ids(model, 7)
    machine = Machine(TINY, program.with_ids(ids, START))
    instructions = [i for i in program.instructions(0) if i.op != Op.END]
    touched = []
    for instruction in instructions:
        machine.execute(instruction)
        touched.append(machine.accesses)
    pairs = _token_pairs(instructions)
    assert len(pairs) > 20
    for sender, receiver in pairs:
        changed = list(instructions)
        a, b = changed[sender], changed[receiver]
        changed[sender] = replace(a, signal=a.signal - {_unit(b)})
        changed[receiver] = replace(b, wait=b.wait - {_unit(a)})
        assert find_races(TINY, changed, touched)


def _unit(instruction):
    return UNIT_OF[instruction.op]


def _token_pairs(instructions):
    """(sender, receiver) positions of every token."""
    sent, pairs = {}, []
    for position, instruction in enumerate(instructions):
        unit = _unit(instruction)
        pairs += [(sent[other, unit].pop(0), position) for other in instruction.wait - {unit}]
        for other in instruction.signal - {unit}:
            sent.setdefault((unit, other), []).append(position)
    assert not any(sent.values())
    return pairs


def test_a_missing_token_shows_in_a_random_order():
    model, program = mapped("2-2", TINY, new=1)
    ids = source_ids(model, 7)
    machine = Machine(TINY, program.with_ids(ids, START))
    naked = [replace(i, wait=frozenset(), signal=frozenset()) for i in program.instructions(0)]
    machine.run(naked, rng=random.Random(0))
    ordered = Machine(TINY, program.with_ids(ids, START))
    ordered.run(program.instructions(0))
    assert any((machine.memories[mem] != ordered.memories[mem]).any() for mem in machine.memories)


def test_waiting_for_nothing_stops_the_machine():
    _, program = mapped("2-2", TINY, new=1)
    instructions = program.instructions(0)
    last = max(i for i, instruction in enumerate(instructions) if instruction.signal)
    instructions[last] = replace(instructions[last], signal=frozenset())
    with pytest.raises(MachineError, match="TOKEN: no token for"):
        Machine(TINY, program.with_ids([3] * 7, START)).run(instructions)


def test_tokens_depend_on_conflicts_only():
    _, program = mapped("2-2", TINY, new=1)
    bare = [replace(i, wait=frozenset(), signal=frozenset()) for i in program.instructions(0)[:-1]]
    assert insert_tokens(TINY, bare, (program.writable[0][1], 1 << 62)) == program.instructions(0)[:-1]


def test_weights_load_while_the_array_works():
    """The load of a projection's weights comes before the product before it, and waits for nothing later."""
    _, program = mapped("2-2", TINY, new=1)
    names = [program.names[op] for op in program.calls[0].ops]
    instructions = program.instructions(0)
    first = {name: names.index(name) for name in names}
    gemm = next(i for i, n in enumerate(names) if n == "enc.0.self.out" and instructions[i].op == Op.GEMM)
    assert first["enc.0.fc1"] < gemm


@pytest.mark.parametrize("vocab, parts", [(83, [11, 10]), (300, [8, 15, 15, 15, 14, 8])])
def test_the_array_is_done_soon_after_the_last_weights_came(vocab, parts):
    """A large LM head begins and ends with few row tiles."""
    model, program = mapped("2-2", TINY, new=1, vocab=vocab)
    head = [i for i in program.instructions(1) if i["epilogue"] == Epilogue.ARGMAX]
    assert [i["row_tiles"] for i in head] == parts
    assert not differences(model, program, source_ids(model, 7))[0]


@pytest.mark.parametrize("family", ["bart", "mbart"])
@pytest.mark.parametrize(
    ("hw", "beneath"),
    [(replace(ATTENTIVE, abuf_words=60), True), (ATTENTIVE, True), (replace(ATTENTIVE, abuf_words=300, cols=1), False)],
    ids=["blocks", "room", "one column"],
)
def test_a_feed_forward_runs_beneath_the_attention_of_the_next_tokens(monkeypatch, family, hw, beneath):
    """Where the vector unit has more to do for attention than the array; here, whatever the estimate says of the rest."""
    monkeypatch.setattr(mapper, "GAIN", 9)
    model, program = mapped("2-2", hw, source_len=60, new=1, family=family)
    assert _beneath(program) == beneath
    ids = source_ids(model, 60)
    assert not differences(model, program, ids)[0]
    assert not differences(model, program, ids, random.Random(0))[0]
    assert not _races(program, ids, lambda instructions: instructions)


def _beneath(program):
    """Whether the first layer's feed-forward begins before its last softmax."""
    names = [program.names[op] for op in program.calls[0].ops]
    return names.index("enc.0.fc2") < len(names) - names[::-1].index("enc.0.self.probs")


@pytest.mark.parametrize(("tokens", "beneath"), [(512, False), (1024, True)])
def test_long_texts_overlap_where_that_is_faster(tokens, beneath):
    shape: dict[str, Any] = BART_BASE | dict(layers=1, vocab=500)
    model = shape_model("2-2", **shape)
    assert _beneath(map_model(model, NAMED["base"], tokens, 1, contents=False)) == beneath


@pytest.mark.parametrize(
    ("bits", "hw", "options", "lengths", "message"),
    [
        ("2-2", TINY_BINARY, {}, (7, 3), "table kind must suit a binary array, not ternary"),
        ("1-8", TINY_BINARY, {}, (7, 3), "8-bit attention must run on a ternary array, not on a binary one"),
        ("2-2", TINY, {}, (65, 3), r"source_len must be from 1 to 64 \(positions of the model\), not 65"),
        ("2-2", TINY, {}, (7, 0), r"max_new_tokens must be from 1 to 64 \(positions of the model\), not 0"),
        (
            "2-2",
            replace(TINY, rbuf_words=32),
            {},
            (7, 3),
            "RBUF words must be at most 32, not 56; it maps with rbuf_words = 56$",
        ),
        (
            "2-2",
            replace(TINY, rbuf_words=64),
            dict(family="mbart"),
            (7, 3),
            "residual stream of 7 tokens and its LayerNorm: RBUF words must be at most 64, not 112",
        ),
        ("2-2", replace(TINY, kbuf_words=16), {}, (7, 3), "KBUF words must be at most"),
        ("2-2", replace(TINY, pbuf_words=32), {}, (7, 3), r"PBUF words must be at most 16 \(half of PBUF\), not 32"),
        ("2-2", replace(TINY, wbuf_words=16), dict(ffn=300), (7, 3), "words of a row tile must be at most 8 of WBUF"),
        ("2-2", replace(TINY, abuf_words=16), dict(ffn=600), (7, 3), "ABUF words must be at most"),
        (
            "2-2",
            replace(TINY, res_bits=12),
            {},
            (7, 3),
            r"residual bits must be 12 \(res_bits\), not 16; it maps with res_bits = 16$",
        ),
        (
            "2-8",
            replace(TINY, acc_bits=16),
            {},
            (7, 3),
            "accumulator magnitude must be at most 32767 .*; it maps with acc_bits = 24$",
        ),
    ],
)
def test_what_does_not_fit_is_refused(bits, hw, options, lengths, message):
    with pytest.raises(InputError, match=message):
        map_model(lowered(bits, **options), hw, *lengths)


def test_keys_and_values_go_where_they_fit():
    model, tight = lowered("2-8"), replace(TINY, kbuf_words=100)
    assert not map_model(model, TINY, 7, 3, anywhere=True).hw.kv_external
    with pytest.raises(InputError, match="keys and values .*; kv_external keeps them in external memory"):
        map_model(model, tight, 7, 3)
    outside = map_model(model, tight, 7, 3, anywhere=True)
    assert outside.hw == replace(tight, kv_external=True)
    assert outside.image == map_model(model, outside.hw, 7, 3).image
    with pytest.raises(InputError, match="PBUF words must be at most 16"):
        map_model(model, replace(tight, pbuf_words=32), 7, 3, anywhere=True)


@pytest.mark.parametrize(
    ("lengths", "new", "beams"),
    [((5,), 17, 8), ((5,), 64, 2), ((5,) * 8, 20, 1), ((64,), 64, 1)],
    ids=["beams", "all positions", "texts", "one text"],
)
def test_beams_and_texts_share_a_position(lengths, new, beams):
    """Of 64: a position is one however many texts and beams stand at it."""
    hw = replace(SMALL, kbuf_words=4096).searching(beams, len(lengths))
    program = map_model(lowered("2-2"), hw, lengths, new, beams, contents=False)
    assert len(program.calls) == len(lengths) + new


@pytest.mark.parametrize(
    ("lengths", "new", "beams", "message"),
    [
        ((5,), 65, 2, "max_new_tokens must be from 1 to 64 (positions of the model), not 65"),
        ((5, 65), 3, 1, "source_len must be from 1 to 64 (positions of the model), not 65"),
        ((5,), 3, 3, "beams of all texts must be 1 or those of the hardware configuration (4), not 3"),
    ],
)
def test_lengths_and_beams_name_their_limit(lengths, new, beams, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        map_model(lowered("2-2"), SMALL.searching(4), lengths, new, beams)


def test_tokens_are_held_to_the_vocabulary_of_their_side():
    model = lowered("2-2", tie_word_embeddings=False, decoder_vocab_size=120)
    program = map_model(model, SMALL.searching(2), 3, 2, 2, contents=False)
    image = program.with_ids([96, 5, 6], 119)
    program.put_beams(image, 0, [100, 119], np.ones((2, 2), dtype=bool))
    with pytest.raises(InputError, match="^token id must be from 0 to 96, not 97$"):
        program.with_ids([97, 5, 6], START)
    with pytest.raises(InputError, match="^token id must be from 0 to 119, not 120$"):
        program.put_beams(image, 0, [1, 120], np.ones((2, 2), dtype=bool))


def test_keys_of_all_beams_fit_an_instruction():
    model = lowered("2-2")
    model = replace(model, meta=model.meta | {"max_positions": 2000})
    message = "max_new_tokens times beams must be at most 4095 (keys of an instruction), not 5600"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        map_model(model, SMALL.searching(8), 5, 700, 8)
    message = "texts, tokens of all, must be at most 4095 (keys of an instruction), not 6000"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        map_model(model, SMALL.searching(4), (1500,) * 4, 3, 1)


@pytest.mark.parametrize(
    ("name", "sources", "message"),
    [
        (
            "enc.0.fc2",
            {1: "enc.0.ln1"},
            "layernorm enc.0.ln1: a LayerNorm beside the stream must be quantized, not read by enc.0.fc2",
        ),
        ("enc.0.ln2", {0: "enc.embed_ln"}, "layernorm enc.embed_ln: one LayerNorm must read it, not 2"),
        (
            "enc.0.ln2",
            {0: "enc.0.ln1"},
            "layernorm enc.0.ln1: a LayerNorm beside the stream must be quantized, not read by enc.0.ln2",
        ),
        (
            "enc.0.fc2",
            {1: "enc.embed_ln"},
            "linear_residual enc.0.fc2: residual source must be the stream, not enc.embed_ln",
        ),
    ],
)
def test_other_streams_are_refused(name, sources, message):
    """Graphs that mean something, but whose LayerNorms are not those of a pre-norm or post-norm stack."""
    model = lowered("2-2", family="mbart")
    nodes = {node.name: node for node in model.encoder.nodes()}

    def rebuilt(node, src):
        if node.name == name:
            src = tuple(nodes[sources[i]] if i in sources else each for i, each in enumerate(src))
        return typed(model.weights, node.op, *src)

    changed = replace(model, stacks=(model.encoder.rebuild(rebuilt), model.decoder))
    with pytest.raises(InputError) as error:
        map_model(changed, TINY, 7, 3)
    assert str(error.value) == message


def test_packed_trits_take_a_fifth_less():
    sizes = []
    for pack in ("2bit", "5trit"):
        _, program = mapped("2-2", replace(TINY, weight_pack=pack), new=1, d_model=64, ffn=128)
        sizes.append(traffic(program.hw, program.instructions(1), 0).weights)
    assert 0.8 * sizes[0] <= sizes[1] < 0.83 * sizes[0]


@pytest.mark.parametrize(
    ("hw", "times"),
    [(TINY, 1), (BEAT_OF_4, 2), (replace(TINY, weight_pack="5trit"), 2)],
    ids=["once", "twice with a wide bus", "twice with packed trits"],
)
def test_how_often_the_table_is_stored(hw, times):
    model, program = mapped("2-2", hw, new=1)
    loads = [i for call in (0, 1) for i in program.instructions(call) if i.op == Op.LOAD]
    gathered = {i["dram"] for i in loads if i["indirect"] and i["expand"] == 0 and i["mem"] == 0}
    head = [
        i["dram"]
        for i, op in zip(program.instructions(1), program.calls[1].ops, strict=True)
        if program.names[op] == "lm_head" and i.op == Op.LOAD and i["mem"] == 1
    ]
    assert len(gathered | {min(head)}) == times


def test_mapping_is_deterministic():
    model, program = mapped("2-2", TINY)
    assert map_model(model, TINY, 7, 3).image == program.image


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(60))
def test_random_shapes(seed):
    rng = random.Random(seed)
    bits = rng.choice(["2-2", "1-1", "2-8", "1-8"])
    binary = bits == "1-1" and rng.random() < 0.5
    lanes = rng.choice([32, 64] if binary else [16, 32, 64])
    hw = HwConfig(
        kind="binary" if binary else "ternary",
        rows=rng.choice([4, 8, 16]),
        cols=rng.choice([1, 2, 4, 8]),
        lanes=lanes,
        axi_data_bits=rng.choice([32, 64]),
        kbuf_words=4096,
        abuf_words=rng.choice([150, 300, 2048]),
        sbuf_words=rng.choice([64, 1024]),
        wbuf_words=rng.choice([40, 1024]),
        queue_depth=rng.choice([1, 4]),
        kv_external=rng.random() < 0.3,
        resident=random.Random(f"resident {seed}").choice(["none", "decoder"]),
        weight_pack="2bit" if binary else rng.choice(["2bit", "5trit"]),
    )
    heads = rng.choice([1, 2, 3])
    options = dict(
        d_model=heads * rng.randint(3, 20),
        heads=heads,
        ffn=rng.randint(5, 70),
        vocab=rng.randint(20, 150),
        layers=rng.choice([1, (2, 1), (1, 2)]),
        activation=rng.choice([fn.name for fn in FUNCTIONS]),
        seed=seed,
    )
    length = rng.randint(1, 40)
    options["family"] = rng.choice(["bart", "mbart", "marian"])
    if options["family"] != "marian":
        options["normalize_embedding"] = rng.random() < 0.7
    try:
        model, program = mapped(bits, hw, source_len=length, new=3, **options)
    except InputError as error:
        pytest.skip(f"does not fit: {error}")
    ids = source_ids(model, length, seed)
    assert not differences(model, program, ids)[0]
    assert not _races(program, ids, lambda instructions: instructions)
    assert run_program(program, ids, START, rng=rng) == run_program(program, ids, START)
