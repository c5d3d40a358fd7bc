"""Data and a teacher that no one here prepared: words and the words backwards, in a CSV."""

import csv
import random
from pathlib import Path

from ternbin.models.task import teacher
from ternbin.models.task.dataset import Choice
from ternbin.models.task.machine import Machine
from ternbin.models.task.tables import Columns

CONFIG = dict(
    d_model=32,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_ffn_dim=32,
    max_position_embeddings=16,
)
CHOICE = Choice(columns=Columns(source="word", target="back"), metric="exact", units="characters")
OFTEN = Machine(save_every=0)  # validates and saves at every step


def words(count: int = 60) -> list[tuple[str, str]]:
    rng = random.Random(0)
    every = sorted({"".join(rng.choices("abcdefgh", k=rng.randint(2, 6))) for _ in range(2 * count)})
    return [(word, word[::-1]) for word in rng.sample(every, count)]


def write_csv(path: Path, rows: list[tuple[str, str]], head: tuple[str, str] = ("word", "back")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def train(data: Path, out: Path, **options) -> Path:
    """A teacher of a few steps."""
    options = {"steps": 3, "config": CONFIG, "choice": CHOICE, "machine": OFTEN} | options
    teacher.train_teacher(data, out, **options)
    return out
