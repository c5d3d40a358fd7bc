"""docs/results.md from what was measured: scores of `ternbin eval --json`, logs of `ternbin train`, results of `ternbin run`.

    python benchmarks/results_page.py --eval models/bundled/eval.json --eval models/bundled/1-1/eval.json
    python benchmarks/results_page.py --eval "teacher (FP32)=teacher.json" --eval "student (W2A2)=s22.json" \
        --log "student (W2A2)=data/s22" --run "student (W2A2)=reports/s22" --sweep reports/res-bits --out docs/results.md

Every option as often as there are models. The first model is the one that the others are compared with. --eval takes the JSON of
`ternbin eval` with a name, or an eval.json of several models; --log: folders of training; --run: folders of runs, for the energy of a
text; --sweep: what `benchmarks/res_bits.py` wrote. Pictures go beside the page, in img/.
"""

import argparse
import shutil
from pathlib import Path

from ternbin import results
from ternbin.errors import InputError
from ternbin.models.task.page import LOG_FILE, picture, read_lines
from ternbin.models.task.paper import RATIOS
from ternbin.models.task.records import COMMAND_FILE
from ternbin.models.task.scores import METRICS
from ternbin.schema import DATA_BYTES, read_json
from ternbin.storage import write_text

Named = dict[str, Path]
SEARCH = "beam 4"


def system_rows(evals: dict[str, dict], runs: Named) -> list[str]:
    """The table of scores, as Markdown."""
    first = next(iter(evals.values()))
    metric = METRICS[first["metric"]]
    head = ["system", *metric.labels.values(), "95% of resamples", "of the first", "paper", "nats a token", "uJ a text"]
    rows = [head, ["---"] * len(head)]
    rows += [[name, *_marks(own), "", "", "", "", ""] for name, own in first["baselines"].items()]
    for name, found in evals.items():
        energy = f"{results.load(runs[name])['energy']['pj'] / 1e6:.1f}" if name in runs else ""
        rows += _model(name, found["model"], found, "model", first, "", metric.first)
        if "integer" in found:
            own = {k: v for k, v in found["integer"].items() if k == "greedy"} | found["integer"].get("searches", {})
            rows += _model(f"{name}, integer model", own, found, "integer", first, energy, metric.first)
    return [f"| {' | '.join(row)} |" for row in rows]


def _marks(scores: dict[str, float]) -> list[str]:
    return [f"{value:.2f}" for value in scores.values()]


def _model(
    name: str, searches: dict[str, dict], found: dict, kind: str, first: dict, energy: str, key: str
) -> list[list[str]]:
    ranges = found.get("intervals", {}).get(kind, {})
    paper = RATIOS.get(key, {}).get(found.get("bits", ""))
    nll = (found if kind == "model" else found["integer"])["nll"]["test"]
    rows = []
    for search, scores in searches.items():
        low, high = ranges.get(search, {}).get(key, (None, None))
        base = first["model"].get(search, {}).get(key)
        share = f"{100 * scores[key] / base:.1f}%" if base and found is not first else ""
        interval = "" if low is None else f"{low:.1f} to {high:.1f}"
        beside = f"{paper:.1f}%" if paper and share else ""
        rows.append([f"{name}, {search}", *_marks(scores), interval, share, beside, f"{nll:.3f}", energy])
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


def page(evals: dict[str, dict], logs: Named, runs: Named, sweep: Path | None, out: Path) -> str:
    """The whole page."""
    first = next(iter(evals.values()))
    lines = [
        "# Results",
        "",
        f"{first['task']}: {first['texts']:,} test texts, none of them, nor a relative of one, in the training rows. Scores in percent; "
        f"{SEARCH}: beam search without repeated trigrams. The integer model is what runs on the accelerator. Made by "
        "`benchmarks/results_page.py`.",
        "",
        *system_rows(evals, runs),
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
    for option in ("--eval", "--log", "--run"):
        parser.add_argument(option, action="append", default=[], metavar="NAME=PATH", required=option == "--eval")
    parser.add_argument("--sweep", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    args = parser.parse_args()
    evals = read_evals(args.eval)
    write_text(args.out, page(evals, named(args.log), named(args.run), args.sweep, args.out))
    print(args.out)


if __name__ == "__main__":
    main()
