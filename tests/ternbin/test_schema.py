"""Reading of files within limits, and the words for values that are none of a declared type."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from ternbin import schema
from ternbin.errors import InputError
from ternbin.schema import (
    Number,
    Range,
    check_fields,
    parse_json,
    parse_toml,
    read_json,
    read_text,
    read_toml,
    validated,
)


class Part(TypedDict):
    count: Annotated[int, Range(1, 16)]


class Box(TypedDict):
    rows: Annotated[int, Range(4, 64, power_of_two=True)]
    clock: NotRequired[Annotated[float, Range(above=0)] | None]
    weight: NotRequired[Number]
    early: NotRequired[bool | Literal["never"]]
    ids: NotRequired[list[int]]
    pairs: NotRequired[list[tuple[int, str]]]
    part: NotRequired[Part]
    parts: NotRequired[dict[str, Part]]
    name: NotRequired[str]
    end: NotRequired[Annotated[int, Range(0, 9)] | list[Annotated[int, Range(0, 9)]]]


@dataclass(frozen=True, kw_only=True)
class Facts:
    size: Annotated[int, Range(1, 16)] = 3
    delay: Annotated[float, Range(low=0)] = 0.5
    cells: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "facts")
        if self.size * self.delay > 8:
            raise InputError(f"size times delay must be at most 8, not {self.size * self.delay:g}")


def error_of(call, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


GOOD: dict[str, Any] = {"rows": 8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 5}, "rows must be a power of two from 4 to 64, not 5"),
        ({"rows": 128}, "rows must be a power of two from 4 to 64, not 128"),
        ({"rows": "8"}, "rows must be a power of two from 4 to 64, not '8'"),
        ({"rows": True}, "rows must be a power of two from 4 to 64, not true"),
        ({"rows": 8.0}, "rows must be a power of two from 4 to 64, not 8.0"),
        ({"rows": None}, "rows must be a power of two from 4 to 64, not null"),
        ({"clock": 0}, "clock must be above 0, not 0"),
        ({"clock": "350"}, "clock must be a number above 0, not '350'"),
        ({"clock": float("inf")}, "clock must be above 0, not inf"),
        ({"clock": float("nan")}, "clock must be above 0, not nan"),
        ({"clock": True}, "clock must be a number above 0, not true"),
        ({"weight": float("-inf")}, "weight must be finite, not -inf"),
        ({"early": "no"}, "early must be true or false or 'never', not 'no'"),
        ({"early": 1}, "early must be true or false or 'never', not 1"),
        ({"ids": {}}, "ids must be a list, not an object"),
        ({"ids": [1, "2"]}, "ids[1] must be a whole number, not '2'"),
        ({"pairs": [[1, "a"], [2]]}, "pairs[1][1] must be given, not left out"),
        ({"pairs": [[1, "a"], 3]}, "pairs[1] must be a list, not 3"),
        ({"part": []}, "part must be an object, not an empty list"),
        ({"part": {}}, "part.count must be given, not left out"),
        ({"part": {"count": 0}}, "part.count must be from 1 to 16, not 0"),
        ({"parts": {"a": {"count": 1}, "b": {"count": [1, 2]}}}, "parts.b.count must be a whole number from 1 to 16, not a list of 2"),
        ({"part": {"count": 1, "size": 2}}, "unknown field 'part.size'"),
        ({"end": {"a": 1}}, "end must be a whole number from 0 to 9 or a list, not an object"),
        ({"end": [1, [2]]}, "end[1] must be a whole number from 0 to 9, not a list of 1"),
        ({"name": 3}, "name must be a text, not 3"),
        ({"name": "x\ny", "rows": "a" * 1000}, f"rows must be a power of two from 4 to 64, not '{'a' * 47}...{'a' * 7}'"),
    ],
)  # fmt: skip
def test_what_is_no_value_of_its_type_is_named(change, message):
    assert error_of(validated, Box, GOOD | change, "box.json") == f"box.json: {message}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "must be an object, not an empty list"),
        (3, "must be an object, not 3"),
        (None, "must be an object, not null"),
        ({}, "rows must be given, not left out"),
    ],
)
def test_what_is_no_object_at_all(values, message):
    assert error_of(validated, Box, values, "box.json") == f"box.json: {message}"


def test_good_values_come_back():
    values = {
        "rows": 64,
        "clock": None,
        "early": "never",
        "ids": [],
        "pairs": [[1, "a"]],
        "parts": {"x": {"count": 16}},
    }
    assert validated(Box, values, "f") == values | {"pairs": [(1, "a")]}
    assert validated(Box, {"rows": 4, "clock": 350}, "f") == {"rows": 4, "clock": 350.0}


def test_unknown_fields_are_passed_over_on_request():
    assert validated(Box, GOOD | {"other": 1}, "f", unknown=True) == GOOD


def test_a_dataclass_is_built_and_its_own_checks_name_the_file():
    facts: Facts = validated(Facts, {"size": 2, "cells": ["a", "b"]}, "f.toml")
    assert facts == Facts(size=2, cells=("a", "b"))
    assert (
        error_of(validated, Facts, {"size": 16, "delay": 1}, "f.toml")
        == "f.toml: size times delay must be at most 8, not 16"
    )
    assert error_of(validated, Facts, {"width": 1}, "f.toml") == "f.toml: unknown field 'width'"


def test_a_dataclass_built_by_a_program_has_the_same_bounds():
    assert error_of(Facts, size=17) == "facts: size must be from 1 to 16, not 17"
    assert error_of(Facts, size=True) == "facts: size must be a whole number from 1 to 16, not true"
    assert error_of(Facts, delay=float("nan")) == "facts: delay must be at least 0, not nan"


def test_bounds_stand_in_the_json_schema():
    properties = TypeAdapter(Facts).json_schema()["properties"]
    assert (properties["size"]["minimum"], properties["size"]["maximum"]) == (1, 16)
    assert properties["delay"]["minimum"] == 0


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "must be JSON, not broken (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (b"", "must be JSON, not broken (Expecting value: line 1 column 1 (char 0))"),
        (b'"\xff"', "must be UTF-8 text, not broken at byte 1"),
        (b"[" * 100_000, "lists and objects must be nested at most 64 deep, not deeper"),
        (b'{"a":' * 100_000, "lists and objects must be nested at most 64 deep, not deeper"),
        (b"[" * 66 + b"]" * 66, "lists and objects must be nested at most 64 deep, not deeper"),
        (b"1" + b"0" * 5000, "a number must be at most 100 characters long, not 5,001"),
        (b"0." + b"0" * 5000, "a number must be at most 100 characters long, not 5,002"),
        (b"1e999", "a number must be finite, not '1e999'"),
        (b'{"a": NaN}', "a number must be finite, not NaN"),
        (b"-Infinity", "a number must be finite, not -Infinity"),
        (b'[{"a": 1, "b": 2, "a": 1}]', "a key must stand once in an object, not 'a' twice"),
        (rb'["\ud800"]', r"a text must be Unicode, not hold '\ud800'"),
    ],
)  # fmt: skip
def test_json_beyond_the_limits(data, message):
    assert error_of(parse_json, data, "f.json") == f"f.json: {message}"


def test_json_within_the_limits():
    assert parse_json(b"[" * 64 + b"]" * 64, "f")
    assert parse_json(b"\xef\xbb\xbf{}", "f") == {}
    assert parse_json(rb'"\ud83d\ude00"', "f") == "\U0001f600"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a = ", "must be TOML, not broken (Invalid value (at end of document))"),
        (b"\xff", "must be UTF-8 text, not broken at byte 0"),
        (b"a = " + b"[" * 50_000, "lists and objects must be nested at most 64 deep, not deeper"),
        (b"a = " + b"[" * 65 + b"]" * 65, "lists and objects must be nested at most 64 deep, not deeper"),
        (
            b"a = 1" + b"0" * 5000,
            "must be TOML, not broken (Exceeds the limit (4300 digits) for integer stri...he limit)",
        ),
    ],
)
def test_toml_beyond_the_limits(data, message):
    assert error_of(parse_toml, data, "f.toml") == f"f.toml: {message}"


def test_a_date_is_no_text():
    values = parse_toml(b"name = 1979-05-27\nrows = 8", "f")
    assert error_of(validated, Box, values, "f") == "f: name must be a text, not date"


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(data):
    for parse in (parse_json, parse_toml):
        try:
            json.dumps(parse(data, "f"), default=str, ensure_ascii=False).encode()
        except InputError as error:
            assert str(error).startswith("f: ") and "\n" not in str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(sorted(Box.__annotations__)) | st.text(max_size=5), json_values) | json_values)
def test_any_values_are_of_the_type_or_refused(values):
    for unknown in (False, True):
        try:
            assert isinstance(validated(Box, values, "f", unknown=unknown), dict)
        except InputError as error:
            assert re.fullmatch(r"f: (unknown field .*|.*must be .*, not .*)", str(error))


@pytest.mark.parametrize("read", [read_json, read_toml, read_text])
def test_what_is_no_regular_file_is_not_opened(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert error_of(read, tmp_path / "pipe") == f"{tmp_path}/pipe: must be a file, not a named pipe"
    assert error_of(read, tmp_path) == f"{tmp_path}: must be a file, not a folder"
    assert error_of(read, "/dev/zero") == "/dev/zero: must be a file, not a device"
    assert error_of(read, tmp_path / "none") == f"{tmp_path}/none: cannot be read: No such file or directory"
    assert error_of(read, "a\0b") == "'a\\x00b' must be the name of a file, not one with a null character"
    (tmp_path / "long").write_bytes(b"x" * 101)
    assert error_of(read, tmp_path / "long", limit=100) == f"{tmp_path}/long: must be at most 100 bytes long, not 101"


def test_text_is_utf8_whatever_the_locale(tmp_path):
    (tmp_path / "text").write_bytes("größer".encode())
    script = f"from ternbin.schema import read_text; print(ascii(read_text({str(tmp_path / 'text')!r})))"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ascii("größer")


def test_reading_alone_loads_no_pydantic():
    script = (
        "import sys, ternbin.schema; assert 'pydantic' not in sys.modules and 'typing_extensions' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_value_is_shown_short_and_on_one_line():
    assert schema.shown("a\nb\x1b") == r"'a\nb\x1b'"
    assert schema.shown({"a": 1}) == "an object"
    assert len(schema.shown("x" * 10**6)) == schema.SHOWN - 1
