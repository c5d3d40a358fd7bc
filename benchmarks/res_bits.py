"""Quality of the integer model against energy, over widths of the residual stream: a table, and a picture of both.

    python benchmarks/res_bits.py data/s22 debian --limit 200 --out reports/res-bits

Greedy score and nats a token are those of the integer model, calibrated anew at each width. Energy is that of the event model for a
text of the set's mean length on the configuration "small". It knows two kinds of residual words: of 16 bits of memory up to that
width, of 32 above.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from text_energy import energy_uj, mean_lengths

from ternbin import results
from ternbin.models.task.dataset import Room, encode_set
from ternbin.models.task.evaluate import load_model
from ternbin.models.task.integer_eval import IntegerModel
from ternbin.models.task.page import picture
from ternbin.models.task.scores import METRICS
from ternbin.models.task.sets import open_dataset
from ternbin.models.task.task import carried_task
from ternbin.models.task.tokenizer import tokenizer_in
from ternbin.storage import write_text

WIDTHS = tuple(range(8, 21))
HW = "small"


def rows(model_dir: Path, data: str, limit: int, widths: tuple[int, ...]) -> Iterator[dict[str, float]]:
    """A row a width: ``res_bits``, the metric's scores, ``nll``, ``energy_uj``."""
    model, tokenizer = load_model(model_dir), tokenizer_in(model_dir)
    room, carried = Room.of(model.config), carried_task(model_dir)
    encoded = encode_set(open_dataset(data), ["test"], tokenizer, room, carried=carried, limit=limit)
    texts, metric = encoded.texts["test"], METRICS[encoded.task.metric]
    lengths = mean_lengths(texts.rows)
    for width in widths:
        integer = IntegerModel(model_dir, res_bits=width)
        written = integer.write(tokenizer, encoded.task, texts.rows, 1)
        scores = metric.score(written, [e.target for e in texts.examples])
        energy = energy_uj(model_dir, model.quant_config.bits, lengths, HW, res_bits=width)
        yield {"res_bits": width} | scores | {"nll": round(integer.nll(texts.rows), 4), "energy_uj": energy}


def draw(found: list[dict[str, float]], score: str, path: Path) -> None:
    """Score and energy over the width."""

    def curves(axes) -> None:
        widths = [row["res_bits"] for row in found]
        axes.plot(widths, [row[score] for row in found], "o-", color="#1f5fa8")
        axes.set(xlabel="bits of the residual stream", ylabel=f"{score}, integer model, greedy")
        other = axes.twinx()
        other.plot(widths, [row["energy_uj"] for row in found], "x--", color="#c06020", lw=1)
        other.set_ylabel("energy of a text, uJ", color="#c06020")
        axes.grid(alpha=0.3)

    write_text(path, picture(curves))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS)
    parser.add_argument("--out", type=Path, default=Path("reports/res-bits"))
    args = parser.parse_args()
    found: list[dict[str, float]] = []
    for row in rows(args.model, args.data, args.limit, tuple(args.widths)):
        found.append(row)
        print("  ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)
        results.write_json(args.out / "res_bits.json", found)
    score = next(name for name in found[0] if name != "res_bits")
    draw(found, score, args.out / "res_bits.svg")


if __name__ == "__main__":
    main()
