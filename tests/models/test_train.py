"""Batches, budget and a few steps of teacher and student on a tiny model."""

import copy
import json
import random

import pytest
import torch

from ternbin.errors import InputError
from ternbin.models.bart.qbart import quantize_model
from ternbin.models.config import QuantConfig
from ternbin.models.modules import QuantWeight
from ternbin.models.task import data as dataset
from ternbin.models.task import train
from ternbin.models.task.batches import collate, encode_examples, epoch_batches, group_rows
from ternbin.models.task.evaluate import load_model, mean_nll
from ternbin.models.task.fit import Budget, Schedule, make_optimizer, step

TINY = dict(
    d_model=64,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=1,
    decoder_attention_heads=1,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data set made of the demo texts."""
    folder = tmp_path_factory.mktemp("data")
    examples = dataset.demo_examples()
    for split, part in zip(dataset.SPLITS, (examples[:24], examples[24:28], examples[28:]), strict=True):
        dataset.write_examples(folder / f"{split}.jsonl", part)
    (folder / "tokenizer.json").write_bytes((dataset.BUNDLED / "tokenizer.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def teacher_dir(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    config = train.teacher_config(**TINY)
    train.train_teacher(data_dir, folder, steps=6, config=config, save_every=0)
    return folder


def test_collate_pads_and_masks():
    batch = collate([([0, 5, 2], [0, 7, 2]), ([0, 2], [0, 8, 9, 2])])
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
    first, second = (list(epoch_batches(rows, 60, rng=random.Random(3))) for _ in range(2))
    assert all(torch.equal(a.source, b.source) for a, b in zip(first, second, strict=True))
    assert sorted(int(t) for b in first for t in b.labels[:, 1]) == list(range(10, 60))
    assert all(b.source.numel() + b.labels.numel() <= 60 for b in first)


def test_epoch_batches_cut_sources():
    [batch] = epoch_batches([([0, 5, 6, 7, 2], [0, 2])], 60, source_limit=3)
    assert batch.source.tolist() == [[0, 5, 2]]


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
    train.train_teacher(data_dir, teacher_dir, steps=7, config=train.teacher_config(**TINY), save_every=0)
    steps = [json.loads(line)["step"] for line in (teacher_dir / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("bits", ["2-2", "1-1", "2-8"])
def test_student_learns(data_dir, teacher_dir, tmp_path, bits):
    train.train_student(teacher_dir, data_dir, tmp_path, bits=bits, steps=6, save_every=0)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    assert dataset.load_tokenizer(tmp_path).pad_token_id == dataset.PAD
    packed, latent = load_model(tmp_path), load_model(tmp_path / "latent")
    assert packed.is_packed and not latent.is_packed and packed.quant_config.fracs
    ids = torch.tensor([[0, 50, 60, 2]])
    assert torch.equal(packed(input_ids=ids, labels=ids).logits, latent(input_ids=ids, labels=ids).logits)


def test_validation_sees_every_update(data_dir, teacher_dir):
    tokenizer = dataset.load_tokenizer(data_dir)
    rows = encode_examples(tokenizer, dataset.read_examples(data_dir, "train"))
    student = quantize_model(load_model(teacher_dir), QuantConfig(bits="2-2"))
    recipe = train.StudentRecipe()
    optimizer = make_optimizer(train.student_groups(student, recipe), recipe.schedule)
    mean_nll(student, rows)
    [batch] = epoch_batches(rows, 10**6)
    step(
        student,
        optimizer,
        lambda b: train.teacher_loss(student, b, train.TeacherRecipe(), 0),
        batch,
        recipe.schedule,
        1,
    )
    fresh = copy.deepcopy(student)
    for module in fresh.modules():
        if isinstance(module, QuantWeight):
            module._cached = (None, None)
    assert mean_nll(student, rows) == mean_nll(fresh, rows)
