"""result.json: its types, its published schema, and what is refused of it."""

import copy
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ternbin import result_types, results
from ternbin.cli import main
from ternbin.decoding.rules import Rules
from ternbin.decoding.search import Search
from ternbin.errors import InputError
from ternbin.schema import validated

ROOT = Path(__file__).parents[2]
EXAMPLE = results.load(ROOT / "reports/example")
RECORD = ("energy", "sources", "records", "binary x64", "fj_per_event")


def test_the_published_schema_is_that_of_the_types():
    published = ROOT / "docs/result.schema.json"
    wanted = json.dumps(result_types.json_schema(), indent=1) + "\n"
    if "TERNBIN_UPDATE" in os.environ:
        published.write_text(wanted)
    assert published.read_text() == wanted


def test_the_types_name_every_field_of_a_result_but_those_of_model_and_hardware():
    example = copy.deepcopy(EXAMPLE)
    for part, kept in (("hardware", result_types.Hardware.__annotations__), ("model", {})):
        example[part] = {name: value for name, value in example[part].items() if name in kept}
    known = TypeAdapter(result_types.Result).validate_json(json.dumps(example), strict=True, extra="ignore")
    detailed = ("energy.sources.provenance.", "energy.sources.records.")  # as docs/energy.md says, shown as they are
    assert [name for name in sorted(unknown(example, known)) if not name.startswith(detailed)] == []


def unknown(whole, known, where=""):
    """Paths of the fields of ``whole`` that are not in ``known``."""
    if isinstance(whole, dict):
        for name, value in whole.items():
            if name not in known:
                yield f"{where}.{name}".removeprefix(".")
            else:
                yield from unknown(value, known[name], f"{where}.{name}".removeprefix("."))
    elif isinstance(whole, list):
        for one, other in zip(whole, known, strict=True):
            yield from unknown(one, other, where)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("cycles",), "many", "cycles must be a whole number, not 'many'"),
        (("cycles",), True, "cycles must be a whole number, not true"),
        (("cycles",), -1, "cycles must be at least 0, not -1"),
        (("cycles",), 10**30, "cycles must be at most 9007199254740992, not 1" + "0" * 30),
        (("bit_exact",), 1, "bit_exact must be true or false, not 1"),
        (("name",), None, "name must be a text, not null"),
        (("phases",), [], "phases must be at least 1 long, not an empty list"),
        (("phases", 0, "name"), "decode", "phases must be prefill and decode, not decode and decode"),
        (("phases", 0, "name"), "x", "phases[0].name must be 'prefill' or 'decode', not 'x'"),
        (("energy", "pj"), float("inf"), "energy.pj must be a finite number, not inf"),
        (("energy", "lines", 3, "counter"), None, "energy.lines[3].counter must be a text, not null"),
        (RECORD, {}, "energy.sources.records.binary x64.fj_per_event must be at least 1 long, not an object"),
        (("claim", "phases", 0, "references", "fp32", "chip"), 0, "claim.phases[0].references.fp32.chip must be at least 1e-30, not 0"),
        (("claim", "phases", 1, "name"), "prefill", "claim.phases must hold a phase once, not prefill twice"),
        (("hardware", "peak_macs"), 0, "hardware.peak_macs must be at least 1, not 0"),
        (("timeline", 0, "unit"), "bus", "timeline[0].unit must be 'load', 'execute', 'vector' or 'store', not 'bus'"),
        (("timeline", 0, "call"), 99, "timeline[0].call must be below 12, not 99"),
        (("timeline", 0, "end"), 0, "timeline[0].end must be at least start (52), not 0"),
        (("timeline", 0, "op"), "$x$", r"timeline[0].op must be a text like ^[\w .,:/()+-]+$, not '$x$'"),
        (("schema",), "ternbin-text/4", "schema must be 'ternbin-result/3', not 'ternbin-text/4'"),
    ],
)  # fmt: skip
def test_fields_that_are_refused(path, value, message):
    changed = replaced(EXAMPLE, path, value)
    with pytest.raises(InputError) as caught:
        results.validate(changed, "r.json")
    assert str(caught.value) == f"r.json: {message}"


def replaced(values, path, value):
    """A copy with one place changed; shares the rest."""
    if not path:
        return value
    copied = dict(values) if isinstance(values, dict) else list(values)
    copied[path[0]] = replaced(values[path[0]], path[1:], value)
    return copied


def places(values, path=()):
    if path:
        yield path
    items = values.items() if isinstance(values, dict) else enumerate(values[:2]) if isinstance(values, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


PLACES = sorted(places(EXAMPLE), key=str)
VALUES = st.sampled_from([None, True, "", "x", [], {}, -1, 0, 1, 1.5, 10**18, 1e300, [[]], {"a": None}, "$", "<b>"])


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
def test_any_field_of_any_value_is_refused_or_rendered(path, value):
    from ternbin.report import compare, html, tables
    from ternbin.report.trace import trace

    try:
        found = results.validate(replaced(EXAMPLE, path, value), "r.json")
    except InputError as error:
        assert str(error).startswith("r.json: ") and "\n" not in str(error)
        return
    assert html.page(found).startswith("<!doctype html>")
    json.dumps(trace(found), allow_nan=False)
    assert (
        tables.energy_csv(found) and tables.ops_csv(found) and tables.terminal(found) and compare.page([found, found])
    )


def test_a_missing_field_is_named(tmp_path, capsys):
    changed = copy.deepcopy(EXAMPLE)
    del changed["energy"]["phases"][1]["by_unit"]
    (tmp_path / "result.json").write_text(json.dumps(changed))
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"ternbin report: {tmp_path}/result.json: energy.phases[1].by_unit must be given, not left out\n"
    )


def test_scores_of_a_checkpoint_have_the_same_types():
    assert validated(result_types.Evaluation, EXAMPLE["evaluation"], "eval.json") == EXAMPLE["evaluation"]


@pytest.mark.parametrize(
    "settings", [{}, {"suppress_tokens": [5, 6], "bad_words_ids": [[3, 4], [7]], "repetition_penalty": 1.5}]
)
def test_a_result_holds_the_settings_of_every_generation(settings):
    searched = Search(beams=3, **settings)
    fields = asdict(searched) | {"score": -1.5, "steps": 4, "short": 0}
    results.validate(EXAMPLE | {"search": fields})
    results.validate(json.loads(json.dumps(EXAMPLE | {"search": fields, "rules": asdict(Rules(**settings))})))
    with pytest.raises(InputError, match="^result: search.suppress_tokens must be a list, not 'x'$"):
        results.validate(EXAMPLE | {"search": fields | {"suppress_tokens": "x"}})
