"""Batches, budget and a few steps of teacher and student on a tiny model."""

import copy
import json
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from ternbin.errors import InputError
from ternbin.models.config import QuantConfig
from ternbin.models.modules import QuantWeight
from ternbin.models.packed import weight_values
from ternbin.models.prepare import bundled_dir, demo_texts
from ternbin.models.task import embed, student, teacher
from ternbin.models.task.batches import Ends, collate, epoch_batches, group_rows, shorten
from ternbin.models.task.budget import Budget, Schedule
from ternbin.models.task.checkpoint import full_precision_in, start_in
from ternbin.models.task.data import SPLITS, Example, write_examples
from ternbin.models.task.dataset import Room, encode_set, own_layout
from ternbin.models.task.debian import TASK as DEBIAN
from ternbin.models.task.debian_it import TASK as TRANSLATION
from ternbin.models.task.evaluate import load_model
from ternbin.models.task.fit import make_optimizer, update
from ternbin.models.task.generate import mean_nll
from ternbin.models.task.machine import Machine
from ternbin.models.task.task import Task
from ternbin.models.task.tokenizer import EOS, PAD, load_tokenizer

OFTEN = Machine(save_every=0)  # validates and saves at every step
ENDS = Ends(start=EOS, pad=PAD)

TINY = dict(
    d_model=64,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=1,
    decoder_attention_heads=1,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
)


@pytest.fixture(scope="module", params=[DEBIAN, TRANSLATION], ids=lambda task: task.name)
def task(request) -> Task:
    return request.param


@pytest.fixture(scope="module")
def data_dir(task, tmp_path_factory):
    """A data set made of the demo texts of the bundled model."""
    folder = tmp_path_factory.mktemp("data")
    examples = [Example(**row) for row in demo_texts()]
    for split, part in zip(SPLITS, (examples[:24], examples[24:28], examples[28:]), strict=True):
        write_examples(folder / f"{split}.jsonl", part)
    (folder / "tokenizer.json").write_bytes((bundled_dir() / "tokenizer.json").read_bytes())
    replace(task, max_source=64, max_target=24).save(folder)
    return folder


@pytest.fixture(scope="module")
def teacher_dir(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    teacher.train_teacher(data_dir, folder, steps=6, config=TINY, machine=OFTEN)
    return folder


def test_collate_pads_and_masks():
    batch = collate([([0, 5, 2], [0, 7, 2]), ([0, 2], [0, 8, 9, 2])], ENDS)
    assert batch.source.tolist() == [[0, 5, 2], [0, 2, 1]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[0, 7, 2, -100], [0, 8, 9, 2]]
    assert batch.inputs()["decoder_input_ids"].tolist() == [[2, 0, 7, 2], [2, 0, 8, 9]]


def test_group_rows_respects_the_budget():
    rows = [([0] * n, [0] * 3) for n in (4, 5, 9, 12, 40)]
    groups = group_rows(rows, 30)
    assert [len(g) for g in groups] == [2, 2, 1]
    assert sum(groups, []) == rows


def test_epoch_batches_hold_every_row_once_and_repeat_with_the_seed():
    rows = [([0, *[10 + i] * (i % 7), 2], [0, 10 + i, 2]) for i in range(50)]
    first, second = (list(epoch_batches(rows, 60, ends=ENDS, rng=random.Random(3))) for _ in range(2))
    assert all(torch.equal(a.source, b.source) for a, b in zip(first, second, strict=True))
    assert sorted(int(t) for b in first for t in b.labels[:, 1]) == list(range(10, 60))
    assert all(b.source.numel() + b.labels.numel() <= 60 for b in first)


def test_long_sources_are_cut_or_left_out():
    rows = [([0, 5, 6, 7, 2], [0, 2]), ([0, 5, 2], [0, 2])]
    assert shorten(DEBIAN, rows, 3) == [([0, 5, 2], [0, 2])] * 2
    assert shorten(TRANSLATION, rows, 3) == rows[1:]


def test_embeddings_put_words_near_those_of_the_same_rows():
    pairs = {10 + i: 30 + i for i in range(20)}
    rng = random.Random(0)
    rows = [(words, [pairs[word] for word in words]) for words in (rng.sample(sorted(pairs), 4) for _ in range(600))]
    table = embed.embeddings(rows, vocab=60, width=16)
    assert table.shape == (60, 16) and table.std().item() == pytest.approx(1, abs=0.15)
    near = torch.nn.functional.normalize(table)[30:50] @ torch.nn.functional.normalize(table)[10:30].T
    assert (near.argmax(0) == torch.arange(20)).float().mean() > 0.7  # by chance: 0.05


def test_budget_counts_steps():
    budget = Budget(None, 4)
    budget.tick()
    assert budget.progress == 0.25


def test_budget_wants_exactly_one_measure():
    with pytest.raises(InputError, match="budget must be either minutes or steps, not minutes=None and steps=None"):
        Budget(None, None)
    with pytest.raises(InputError, match="budget must be positive, not 0"):
        Budget(0, None)


def test_schedule_warms_up_and_decays():
    schedule = Schedule(warmup=0.1, floor=0.01)
    assert schedule.factor(0.05) == pytest.approx(0.5)
    assert schedule.factor(0.1) == pytest.approx(1.0)
    assert schedule.factor(1.0) == 0.01


def test_teacher_learns_and_logs(teacher_dir):
    log = [json.loads(line) for line in (teacher_dir / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["validation_nll"] < log[0]["validation_nll"]
    assert load_model(teacher_dir).config.encoder_ffn_dim == 64


def test_teacher_continues_where_it_stopped(data_dir, teacher_dir):
    teacher.train_teacher(data_dir, teacher_dir, steps=7, config=TINY, machine=OFTEN)
    steps = [json.loads(line)["step"] for line in (teacher_dir / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("bits, head_bits", [("2-2", None), ("1-1", 8), ("2-8", None)])
def test_student_learns(data_dir, teacher_dir, tmp_path, bits, head_bits):
    student.train_student(teacher_dir, data_dir, tmp_path, bits=bits, head_bits=head_bits, steps=6, machine=OFTEN)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    assert load_tokenizer(tmp_path).pad_token_id == PAD
    packed, latent = load_model(tmp_path), load_model(tmp_path / "latent")
    assert packed.is_packed and not latent.is_packed and packed.quant_config.fracs
    assert packed.quant_config.head_bits == (head_bits or int(bits[0]))
    ids = torch.tensor([[0, 50, 60, 2]])
    assert torch.equal(packed(input_ids=ids, labels=ids).logits, latent(input_ids=ids, labels=ids).logits)


@pytest.mark.parametrize(("bits", "precision"), [("2-2", "tf32"), ("1-1", "tf32"), ("2-8", "auto"), ("1-8", "auto")])
def test_few_bits_are_not_trained_in_bf16_unasked(bits, precision):
    assert student.exact_enough(Machine(), bits).precision == precision
    assert student.exact_enough(Machine(precision="bf16"), bits).precision == "bf16"


def test_a_student_starts_from_another(data_dir, teacher_dir, tmp_path):
    student.train_student(teacher_dir, data_dir, tmp_path / "first", steps=1, machine=OFTEN)
    family, full = full_precision_in(teacher_dir, "teacher")
    started = student.first_student(family, full, "1-1", tmp_path / "first", 8)
    latent = load_model(tmp_path / "first" / "latent")
    assert started.quant_config.bits == "1-1" and started.quant_config.head_bits == 8 and not started.is_packed
    again = student.first_student(family, full, latent.quant_config.bits, tmp_path / "first")
    assert again.state_dict().keys() == latent.state_dict().keys()
    assert all(torch.equal(value, latent.state_dict()[name]) for name, value in again.state_dict().items())
    models: list[Any] = [started, latent]
    own, other = (model.get_input_embeddings().get_parameter("weight") for model in models)
    assert torch.equal(own, other)
    with pytest.raises(InputError, match="--start must be a quantized model of the teacher's family"):
        student.first_student(family, full, "1-1", teacher_dir)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"vocab_size": 99}, "tokens: 4096, not 99"),
        ({"decoder_layers": 2}, r"layers: \(1, 1\), not \(1, 2\)"),
        ({"d_model": 96}, "width, or a multiple of it: 64, not 96"),
    ],
)
def test_a_student_that_does_not_fit_its_teacher_is_refused(teacher_dir, tmp_path, other, said):
    family, full = full_precision_in(teacher_dir, "teacher")
    config = full.config.from_dict(full.config.to_dict() | other)
    strange = family.quantize(type(full)(config), QuantConfig())
    family.calibrate(strange, [dict(input_ids=torch.tensor([[0, 5, 2]]), decoder_input_ids=torch.tensor([[2, 0]]))])
    family.save(strange, tmp_path)
    with pytest.raises(InputError, match="--start must have the teacher's " + said):
        student.first_student(family, full, "2-2", tmp_path)


def test_a_wider_student_starts_from_another(data_dir, teacher_dir, tmp_path):
    first, wide = tmp_path / "first", tmp_path / "wide"
    student.train_student(teacher_dir, data_dir, first, steps=1, machine=OFTEN)
    recipe = student.StudentRecipe(widen=True, relation=1.0)
    student.train_student(
        teacher_dir, data_dir, wide, bits="1-1", start_dir=first, steps=6, recipe=recipe, machine=OFTEN
    )
    log = [json.loads(line) for line in (wide / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    model = load_model(wide)
    assert (model.config.d_model, model.quant_config.bits) == (2 * TINY["d_model"], "1-1")
    with pytest.raises(InputError, match="--widen must be given with --start"):
        student.train_student(teacher_dir, data_dir, tmp_path / "none", bits="1-1", steps=1, recipe=recipe)
    assert not (tmp_path / "none").exists()


def test_a_teacher_starts_from_the_weights_that_a_student_stands_for(data_dir, teacher_dir, tmp_path):
    student.train_student(teacher_dir, data_dir, tmp_path / "student", steps=1, machine=OFTEN)
    packed, start = load_model(tmp_path / "student"), start_in(tmp_path / "student")
    for name, value in weight_values(packed).items():
        assert torch.equal(start.get_parameter(f"{name}.weight"), value), name
    teacher.train_teacher(data_dir, tmp_path / "teacher", start_dir=tmp_path / "student", steps=1, machine=OFTEN)
    full_precision_in(tmp_path / "teacher", "teacher")


def test_validation_sees_every_update(data_dir, teacher_dir):
    tokenizer = load_tokenizer(data_dir)
    family, full = full_precision_in(teacher_dir, "teacher")
    rows = encode_set(own_layout(data_dir), ["train"], tokenizer, Room.of(full.config)).texts["train"].rows
    model = family.quantize(full, QuantConfig(bits="2-2"))
    recipe = student.StudentRecipe()
    optimizer = make_optimizer(student.student_groups(model, recipe), recipe.schedule)
    mean_nll(model, rows)
    [batch] = epoch_batches(rows, 10**6, ends=ENDS)
    update(
        model,
        optimizer,
        lambda m, b: teacher.teacher_loss(m, b, teacher.TeacherRecipe()),
        batch,
        recipe.schedule,
        1,
        OFTEN,
    )
    fresh = copy.deepcopy(model)
    for module in fresh.modules():
        if isinstance(module, QuantWeight):
            module._cached = (None, None)
    assert mean_nll(model, rows) == mean_nll(fresh, rows)
