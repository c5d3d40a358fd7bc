"""The training loop: resumed at the exact step, stopped by patience and by a loss that is none, on a disk that is full."""

import json
import random
import resource
from dataclasses import replace

import pytest
import torch
from own import OFTEN, train, words, write_csv

from ternbin.errors import InputError
from ternbin.models.task import fit, records, teacher
from ternbin.models.task.evaluate import load_model
from ternbin.models.task.machine import Machine
from ternbin.models.task.noise import infill, noisy_rows
from ternbin.models.task.task import read_task
from ternbin.models.task.tokenizer import tokenizer_in

RECIPE = teacher.TeacherRecipe(batch_tokens=60, lead_fraction=0.2, pretrain=0.2, dropout_start=0.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("own") / "words.csv", words(30))


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder):
    return torch.cat([p.detach().flatten() for p in load_model(folder).parameters()])


def stopped(monkeypatch, at: int, error: BaseException) -> None:
    """`error` comes at the update after `at` of them, as a kill would."""
    done, real = [], fit.update

    def update(*args):
        if len(done) == at:
            raise error
        done.append(1)
        return real(*args)

    monkeypatch.setattr(fit, "update", update)


def test_a_killed_run_goes_on_at_the_exact_step(table, tmp_path, monkeypatch):
    """By steps, with dropout, in the middle of a pass: the weights are those of a run that was never stopped."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(table, whole, steps=9, recipe=RECIPE)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stopped(patch, 5, KeyboardInterrupt())
        train(table, parts, steps=9, recipe=RECIPE)
    assert torch.load(parts / "state.pt")["progress"]["batch"] > 0
    train(table, parts, steps=9, recipe=RECIPE)
    steps = [entry["step"] for entry in log_of(parts)]
    assert steps == list(range(1, 10)) and (parts / "training.html").exists()
    assert [e["loss"] for e in log_of(parts)] == [e["loss"] for e in log_of(whole)]
    assert torch.equal(*(torch.load(f / "state.pt")["model"]["lm_head.weight"] for f in (whole, parts)))


def test_a_state_of_an_earlier_version_is_gone_on_from(table, tmp_path):
    train(table, tmp_path, steps=2)
    state = torch.load(tmp_path / "state.pt")
    torch.save({key: state[key] for key in ("model", "optimizer", "spent", "step", "epoch")}, tmp_path / "state.pt")
    train(table, tmp_path, steps=3)
    assert [entry["step"] for entry in log_of(tmp_path)] == [1, 2, 3]


def test_a_state_of_another_model_or_none_is_refused(table, tmp_path):
    train(table, tmp_path, steps=1)
    with pytest.raises(InputError, match="state.pt: must be of the same model to go on from, not: "):
        train(table, tmp_path, steps=2, config={"d_model": 48, "encoder_layers": 1})
    (tmp_path / "state.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="state.pt: not a readable state of a run: "):
        train(table, tmp_path, steps=2)


def test_batches_add_up_to_a_step(table, tmp_path):
    train(table, tmp_path, steps=2, machine=Machine(save_every=0, accumulate=3), recipe=RECIPE)
    state = torch.load(tmp_path / "state.pt")
    assert state["step"] == 2 and state["progress"]["batch"] + state["progress"]["epoch"] > 2


def test_bf16_learns(table, tmp_path):
    train(table, tmp_path, steps=3, machine=Machine(save_every=0, precision="bf16"))
    assert load_model(tmp_path).dtype == torch.float32 and log_of(tmp_path)[-1]["step"] == 3


def test_the_best_checkpoint_stays_and_patience_ends(table, tmp_path, monkeypatch):
    scores = iter([3.0, 2.0, 2.5, 2.4, 2.3])
    monkeypatch.setattr(teacher, "mean_nll", lambda model, rows: next(scores))
    best: list[torch.Tensor] = []
    real = records.save_checkpoint
    monkeypatch.setattr(
        fit, "save_checkpoint", lambda folder, write: (real(folder, write), best.append(weights(folder)))
    )
    train(table, tmp_path, steps=20, machine=replace(OFTEN, patience=2))
    assert [entry["best"] for entry in log_of(tmp_path)] == [True, True, False, False]
    assert len(best) == 2 and torch.equal(weights(tmp_path), best[-1])
    train(table, tmp_path, steps=20, machine=replace(OFTEN, patience=2))
    assert len(log_of(tmp_path)) == 4


def test_a_loss_that_is_no_number_stops_and_keeps_what_was(table, tmp_path, monkeypatch):
    train(table, tmp_path, steps=2)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".pt", ".safetensors")}
    monkeypatch.setattr(
        teacher, "teacher_loss", lambda model, batch, recipe: model(**batch.inputs()).logits.sum() * float("nan")
    )
    with pytest.raises(
        InputError, match="loss must be a finite number, not nan, as it is at step 3: what .* holds is of before"
    ):
        train(table, tmp_path, steps=4)
    assert kept == {name: (tmp_path / name).read_bytes() for name in kept}


def test_a_full_disk_loses_nothing(table, tmp_path):
    """Files may grow to 20,000 bytes only, which is what a full disk looks like to the writer."""
    train(table, tmp_path, steps=2)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".pt", ".safetensors")}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(InputError, match="state.pt: cannot be written: File too large"):
            train(table, tmp_path, steps=4)
        with pytest.raises(InputError, match="checkpoint cannot be written: .*File too large"):
            records.save_checkpoint(tmp_path, lambda folder: load_model(tmp_path).save_pretrained(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kept == {name: (tmp_path / name).read_bytes() for name in kept}
    assert not list(tmp_path.glob(".fresh*"))
    train(table, tmp_path, steps=4)
    assert log_of(tmp_path)[-1]["step"] == 4


def test_noise_hides_about_a_third_behind_masks():
    rng = random.Random(1)
    tokens = list(range(10, 110))
    noised = infill(tokens, 4, rng)
    kept = [token for token in noised if token != 4]
    assert kept == sorted(kept) and 66 <= len(kept) <= 78 and 4 in noised
    assert 4 not in infill(tokens, None, rng)


def test_noised_rows_are_pieces_of_texts(table, tmp_path):
    train(table, tmp_path, steps=1)
    tokenizer, task = tokenizer_in(tmp_path), replace(read_task(tmp_path), max_target=6)
    [source, target], _ = noisy_rows(task, [([0, *range(10, 30), 2], [0, 7, 2])], tokenizer, random.Random(0))
    assert len(target) == 6 and target[0] == 0 and target[-1] == 2 and source != target
    assert target[1:-1] == list(range(target[1], target[1] + 4))
