"""docs/results.md from what was measured: scores of `ternbin eval --json`, logs of `ternbin train`, energy by the event model.

    python benchmarks/results_page.py --eval models/bundled/eval.json --eval models/bundled/1-1/eval.json
    python benchmarks/results_page.py --eval "teacher (FP32)=teacher.json" --eval "student (W2A2)=s22.json" \
        --log "student (W2A2)=data/s22" --model "student (W2A2)=models/bundled" --sweep reports/res-bits --out docs/results.md

Every option as often as there are models. A student is compared with the full-precision model before it. --eval takes the JSON of
`ternbin eval` with a name, or an eval.json of several models; --log: folders of training; --model: folders of models, for the energy of
a text of the set's mean length on each of HARDWARE; --sweep: what `benchmarks/res_bits.py` wrote. Pictures go beside the page, in img/.
"""

import argparse
import shutil
from pathlib import Path

from text_energy import energy_uj, mean_lengths

from ternbin.errors import InputError
from ternbin.models.task.dataset import Room, encode_set
from ternbin.models.task.evaluate import load_model, search_name
from ternbin.models.task.page import LOG_FILE, picture, read_lines
from ternbin.models.task.paper import RATIOS
from ternbin.models.task.records import COMMAND_FILE
from ternbin.models.task.scores import METRICS
from ternbin.models.task.sets import open_dataset
from ternbin.models.task.task import carried_task
from ternbin.models.task.tokenizer import tokenizer_in
from ternbin.schema import DATA_BYTES, read_json
from ternbin.storage import write_text

Named = dict[str, Path]
SEARCH = "beam 4"
HARDWARE = ("small", "small-ternary8")  # planes of activations, whole codes
BEAMS = {search_name(beams): beams for beams in (1, 4)}


def system_rows(evals: dict[str, dict], models: Named) -> list[str]:
    """The table of scores, as Markdown."""
    first = next(iter(evals.values()))
    metric = METRICS[first["metric"]]
    head = ["system", *metric.labels.values(), "95% of resamples", "of its teacher", "paper", "nats a token"]
    head += [f"uJ a text, `{hw}`" for hw in HARDWARE]
    rows = [head, ["---"] * len(head)]
    rows += [[name, *_marks(own), *[""] * (4 + len(HARDWARE))] for name, own in first["baselines"].items()]
    teacher = first
    for name, found in evals.items():
        teacher = found if "bits" not in found else teacher
        energy = energies(models[name], found) if name in models else {}
        rows += _model(name, found["model"], found, "model", teacher, {}, metric.first)
        if "integer" in found:
            own = {k: v for k, v in found["integer"].items() if k == "greedy"} | found["integer"].get("searches", {})
            rows += _model(f"{name}, integer model", own, found, "integer", teacher, energy, metric.first)
    return [f"| {' | '.join(row)} |" for row in rows]


def energies(folder: Path, found: dict) -> dict[str, list[str]]:
    """Of a text on each of HARDWARE, by search."""
    model = load_model(folder)
    encoded = encode_set(
        open_dataset(found["task"]), ["test"], tokenizer_in(folder), Room.of(model.config), carried=carried_task(folder)
    )
    lengths = mean_lengths(encoded.texts["test"].rows)
    return {
        search: [f"{energy_uj(folder, found['bits'], lengths, hw, beams=beams):.0f}" for hw in HARDWARE]
        for search, beams in BEAMS.items()
    }


def _marks(scores: dict[str, float]) -> list[str]:
    return [f"{value:.2f}" for value in scores.values()]


def _model(
    name: str, searches: dict[str, dict], found: dict, kind: str, teacher: dict, energy: dict[str, list[str]], key: str
) -> list[list[str]]:
    ranges = found.get("intervals", {}).get(kind, {})
    paper = RATIOS.get(key, {}).get(found.get("bits", ""))
    nll = (found if kind == "model" else found["integer"])["nll"]["test"]
    rows = []
    for search, scores in searches.items():
        low, high = ranges.get(search, {}).get(key, (None, None))
        base = teacher["model"].get(search, {}).get(key)
        share = f"{100 * scores[key] / base:.1f}%" if base and found is not teacher else ""
        interval = "" if low is None else f"{low:.1f} to {high:.1f}"
        beside = f"{paper:.1f}%" if paper and share else ""
        rows.append(
            [
                f"{name}, {search}",
                *_marks(scores),
                interval,
                share,
                beside,
                f"{nll:.3f}",
                *energy.get(search, [""] * len(HARDWARE)),
            ]
        )
    return rows


def likelihood_rows(evals: dict[str, dict]) -> list[str]:
    """What integers cost: likelihood beside that of the fake-quant model."""
    rows = ["| model | fake-quant, nats a token | integer model | difference |", "| --- | --- | --- | --- |"]
    for name, found in evals.items():
        if "integer" in found:
            real, whole = found["nll"]["test"], found["integer"]["nll"]["test"]
            rows.append(f"| {name} | {real:.4f} | {whole:.4f} | {100 * (whole / real - 1):+.2f}% |")
    return rows


def sample_rows(evals: dict[str, dict]) -> list[str]:
    """What each model writes for the first texts, then for those it does best and worst on."""
    lines = []
    for name, found in evals.items():
        chosen = {"the first texts": found.get("samples", [])[:4]} | {
            f"the {kind} of all": own for kind, own in found.get("extremes", {}).items()
        }
        for which, texts in chosen.items():
            if texts:
                lines += [f"### {name}: {which}", "", "| text | reference | written |", "| --- | --- | --- |"]
                cells = ((t.get("source", t["package"]), t["reference"], t["model"]) for t in texts)
                lines += [f"| {' | '.join(map(_short, row))} |" for row in cells]
                lines.append("")
    return lines


def _short(text: str, most: int = 160) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
    return text if len(text) <= most else f"{text[: most - 3]}..."


def draw_curves(logs: Named, path: Path) -> None:
    """Validation over steps, a line a model."""

    def curves(axes) -> None:
        for name, folder in logs.items():
            log = read_lines(folder / LOG_FILE)
            axes.plot([e["minutes"] for e in log], [e["validation_nll"] for e in log], "o-", ms=2, label=name)
        axes.set(xlabel="minutes", ylabel="validation, nats a token")
        axes.grid(alpha=0.3)
        axes.legend()

    write_text(path, picture(curves))


def command_rows(evals: dict[str, dict], logs: Named) -> list[str]:
    """The command behind each number, where the files know it."""
    lines = []
    for name, folder in logs.items():
        if (folder / COMMAND_FILE).exists():
            lines += [f"{name}, trained:", "", f"    {(folder / COMMAND_FILE).read_text('utf-8').splitlines()[-1]}", ""]
    for name, found in evals.items():
        if "command" in found:
            lines += [f"{name}, scored:", "", f"    {found['command']}", ""]
    return lines


def page(evals: dict[str, dict], logs: Named, models: Named, sweep: Path | None, out: Path) -> str:
    """The whole page."""
    first = next(iter(evals.values()))
    lines = [
        "# Results",
        "",
        f"{first['task']}: {first['texts']:,} test texts, none of them, nor a relative of one, in the training rows. Scores in percent; "
        f"{SEARCH}: beam search without repeated trigrams. The integer model is what runs on the accelerator. Made by "
        "`benchmarks/results_page.py`.",
        "",
        *system_rows(evals, models),
        "",
        "## What integers cost",
        "",
        *likelihood_rows(evals),
        "",
    ]
    if logs:
        draw_curves(logs, out.parent / "img" / "curves.svg")
        lines += ["## Curves", "", "![validation over minutes](img/curves.svg)", ""]
    if sweep is not None:
        lines += ["## Width of the residual stream", "", *sweep_rows(sweep, out), ""]
    lines += ["## Samples", "", *sample_rows(evals)]
    if commands := command_rows(evals, logs):
        lines += ["## Commands", "", *commands]
    return "\n".join(lines).rstrip() + "\n"


def sweep_rows(sweep: Path, out: Path) -> list[str]:
    """The table and the picture of `benchmarks/res_bits.py`."""
    (out.parent / "img").mkdir(exist_ok=True)
    shutil.copyfile(sweep / "res_bits.svg", out.parent / "img" / "res_bits.svg")
    found = read_json(sweep / "res_bits.json", DATA_BYTES)
    head = list(found[0])
    rows = [head, ["---"] * len(head), *([f"{row[name]:g}" for name in head] for row in found)]
    return ["![score and energy over the width](img/res_bits.svg)", "", *(f"| {' | '.join(row)} |" for row in rows)]


def named(values: list[str]) -> Named:
    """NAME=PATH of every option."""
    return {name: Path(path) for name, _, path in (value.partition("=") for value in values)}


def read_evals(values: list[str]) -> dict[str, dict]:
    """Evaluations by name, each with task and baselines."""
    found: dict[str, dict] = {}
    for value in values:
        name, _, path = value.rpartition("=")
        document = read_json(Path(path), DATA_BYTES)
        head = {"task": "debian", "metric": "rouge"} | {k: own for k, own in document.items() if k != "models"}
        found |= {each: head | own for each, own in document.get("models", {name: {}}).items()}
    texts = {each: own["texts"] for each, own in found.items()}
    if len(set(texts.values())) > 1:  # of other texts, scores cannot stand in one table
        raise InputError(f"--eval must be of the same number of texts, not {texts}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--eval", "--log", "--model"):
        parser.add_argument(option, action="append", default=[], metavar="NAME=PATH", required=option == "--eval")
    parser.add_argument("--sweep", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    args = parser.parse_args()
    evals = read_evals(args.eval)
    write_text(args.out, page(evals, named(args.log), named(args.model), args.sweep, args.out))
    print(args.out)


if __name__ == "__main__":
    main()
