"""Values that come from outside: files read within limits, what they hold checked against declared types.

    class Box(TypedDict):
        rows: Annotated[int, Range(4, 64, power_of_two=True)]

    validated(Box, read_json("box.json"), "box.json")

A declared type is whatever pydantic knows (dataclasses, TypedDicts, lists, literals); its bounds stand in the type, once. Types are
exact: true is no number, "350" is no number, infinity is no number. Every function raises InputError on one line: "FILE: field must be
Y, not Z". ``parse_json`` and ``parse_toml`` do the same with bytes that are there already.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_type_hints

from ternbin.errors import InputError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

Value = TypeVar("Value")

KIB, MIB = 1 << 10, 1 << 20
SETTINGS_BYTES = 4 * MIB  # of a file that people write: settings, configurations
TEXT_BYTES = 16 * MIB
DATA_BYTES = 1 << 30  # of a file that a program writes: results, lists of tensors
DEPTH = 64  # objects and lists within each other
DIGITS = 100  # of a number: float() takes any integer of so many
SHOWN = 60  # characters of a value that a message repeats


# ---- bounds of a declared type --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both included, ``above`` excluded: ``Annotated[int, Range(1, 16)]``. Infinity is never within."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    power_of_two: bool = False

    def __str__(self) -> str:
        if self.low is self.high is self.above is None:
            return "finite"
        if self.above is not None:
            text = f"above {self.above:g}" if self.high is None else f"above {self.above:g}, at most {self.high:g}"
        elif self.high is None:
            text = f"at least {self.low}"
        else:
            text = f"at most {self.high}" if self.low is None else f"from {self.low} to {self.high}"
        return f"a power of two {text}" if self.power_of_two else text

    def holds(self, value: float) -> bool:
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (not self.power_of_two or (value > 0 and int(value) & (int(value) - 1) == 0))
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic import ValidationError
        from pydantic_core import PydanticCustomError, core_schema

        kind = "" if self.power_of_two else "a whole number " if source is int else "a number "

        def check(value: Any, inner: Callable[[Any], Any]) -> Any:
            try:
                found = inner(value)
            except ValidationError:
                raise PydanticCustomError("must", "{be}", {"be": f"{kind}{self}"}) from None
            if not self.holds(found):
                raise PydanticCustomError("must", "{be}", {"be": str(self)})
            return found

        return core_schema.no_info_wrap_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        bounds = {"minimum": self.low, "maximum": self.high, "exclusiveMinimum": self.above}
        return handler(schema) | {name: bound for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class Printable:
    """Bounds of a text, ``Annotated[str, Printable(1, 100)]``: so many characters, none of which ends a line or moves a cursor."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: str) -> str:
            if not (self.low <= len(value) <= self.high and value.isprintable()):
                be = f"a text of {self.low} to {self.high} printable characters"
                raise PydanticCustomError("must", "{be}", {"be": be})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return handler(schema) | {"minLength": self.low, "maxLength": self.high}


class OneOf:
    """The values there are, of a field that others are given as text or number: ``Annotated[str, OneOf("a", "b")]``."""

    def __init__(self, *values: str | int):
        self.values = values

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        kinds = {type(value) for value in self.values}
        listed = core_schema.literal_schema(list(self.values))
        # of values that equal one of them, true and 8.0 are none
        return core_schema.no_info_before_validator_function(
            lambda value: value if type(value) in kinds else None, listed
        )


Number = Annotated[float, Range()]


# ---- checking -------------------------------------------------------------------------------------------------------


def validated(kind: type[Value], values: object, where: str | Path, *, unknown: bool = False) -> Value:
    """``values``, as JSON or TOML gave them, as ``kind``: a dataclass is built, lists become tuples where it wants them.

    ``unknown``: fields that ``kind`` does not have are passed over (and left out), else refused. Raises InputError, which begins with
    ``where``, for the first value that is none; so do those that the checks of a dataclass itself raise.
    """
    from pydantic import ValidationError

    try:
        text = json.dumps(values, default=_foreign)
    except (TypeError, ValueError, RecursionError):
        raise InputError(f"{where}: must hold numbers, texts, lists and objects, not {shown(values)}") from None
    extra = "ignore" if unknown else "forbid"
    try:
        return _adapter(kind).validate_json(text, strict=True, extra=extra)
    except ValidationError as error:
        raise InputError(f"{where}: {_said(error, values)}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def check_fields(instance: Any, where: str) -> None:
    """Checks the fields of a dataclass, built by a program, against their declared types: for its ``__post_init__``.

    ``where``, which may be empty, begins the message.
    """
    from pydantic import ValidationError

    values = {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}
    try:
        _adapter(_fields_of(type(instance))).validate_python(values, strict=True)
    except ValidationError as error:
        raise InputError(f"{where}: {_said(error, values)}".removeprefix(": ")) from None


@cache
def _fields_of(kind: type) -> Any:
    """The fields of a dataclass as a TypedDict."""
    from typing_extensions import TypedDict

    hints = get_type_hints(kind, include_extras=True)
    make = cast(Any, TypedDict)  # names and types are known at run time alone
    return make(kind.__name__, {field.name: hints[field.name] for field in dataclasses.fields(kind)})


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _foreign(value: object) -> object:
    """What JSON has no form for, such as a date of a TOML file."""
    return {type(value).__name__: "no value of JSON"}


_WORDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "an object",
    "dataclass_type": "an object",
    "model_type": "an object",
    "none_required": "null",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
    "string_pattern_mismatch": "a text like {pattern}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "must": "{be}",
}


def _said(error: ValidationError, values: object) -> str:
    """The first fault, as "field must be Y, not Z". Of the alternatives of a union the one that went furthest; those that went as far
    are one fault."""
    faults = error.errors(include_url=False)
    place = _path(faults[0], values)
    first = max(
        (fault for fault in faults if _path(fault, values)[: len(place)] == place), key=lambda f: len(_path(f, values))
    )
    path = _path(first, values)
    if first["type"] == "missing":
        return f"{_dotted(path)} must be given, not left out"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown field {shown(_dotted(path))}"
    wanted: list[str] = []
    for fault in faults:
        if _path(fault, values) == path:
            known = _WORDS.get(fault["type"])
            words = known.format_map(fault.get("ctx", {})) if known else f"right ({fault['msg']})"
            wanted += [words] if words not in wanted else []
    value = values
    for step in path:
        value = cast(Any, value)[step]
    return f"{_dotted(path)} must be {' or '.join(wanted)}, not {shown(value)}".lstrip()


def _path(fault: Any, values: object) -> tuple[int | str, ...]:
    """The place of a fault: pydantic's without the names of alternatives. A missing field, which comes last, stays."""
    found: list[int | str] = []
    steps = fault["loc"]
    for number, step in enumerate(steps, 1):
        if isinstance(values, dict) and step in values:
            values = cast(dict[Any, object], values)[step]
        elif isinstance(values, (list, tuple)) and isinstance(step, int) and step < len(cast(list[object], values)):
            values = cast(list[object], values)[step]
        elif fault["type"] != "missing" or number < len(steps):
            continue
        found.append(step)
    return tuple(found)


def _dotted(path: tuple[int | str, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return _shortened(text.removeprefix("."))


def shown(value: object) -> str:
    """A value on one line and short, in the words of JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(cast(list[object], value))}" if value else "an empty list"
    return _shortened(repr(value) if isinstance(value, (str, int, float)) else type(value).__name__)


def _shortened(text: str) -> str:
    line = "".join(character if character.isprintable() else "?" for character in text)
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 12]}...{line[-8:]}"


# ---- reading --------------------------------------------------------------------------------------------------------


def read_bytes(path: str | Path, limit: int = DATA_BYTES) -> bytes:
    """The contents of a regular file of at most ``limit`` bytes; nothing else is opened, so nothing can hang."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            data = file.read(min(length, limit) + 1)
            while length <= limit and (more := file.read(MIB)):  # longer than it says, such as those of /proc
                data += more
                length = len(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if max(length, len(data)) > limit:
        raise InputError(f"{path}: must be at most {limit:,} bytes long, not {length:,}")
    return data


def check_regular(path: str | Path) -> None:
    """Raises InputError for what is no file, before something else opens it and waits."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{shown(str(path))} must be the name of a file, not one with a null character") from None
    if not regular:
        raise InputError(f"{path}: must be a file, not {_kind(path)}")


def _kind(path: str | Path) -> str:
    path = Path(path)
    kinds = {"a folder": path.is_dir(), "a named pipe": path.is_fifo(), "a socket": path.is_socket()}
    return next((name for name, holds in kinds.items() if holds), "a device")


def read_text(path: str | Path, limit: int = TEXT_BYTES) -> str:
    """The text of a file, UTF-8 whatever the locale."""
    return decoded(read_bytes(path, limit), path)


def decoded(data: bytes, where: str | Path) -> str:
    """UTF-8 as text, without the mark some editors put before it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: must be UTF-8 text, not broken at byte {error.start}") from None


def read_json(path: str | Path, limit: int = SETTINGS_BYTES) -> Any:
    """The values of a JSON file."""
    return parse_json(read_bytes(path, limit), path)


def parse_json(data: bytes, where: str | Path) -> Any:
    """The values of JSON: no key twice, no NaN, numbers of at most ``DIGITS`` characters, nested at most ``DEPTH`` deep."""

    def integer(text: str) -> int:
        return int(_digits(text, where))

    def floating(text: str) -> float:
        value = float(_digits(text, where))
        if not math.isfinite(value):
            raise InputError(f"{where}: a number must be finite, not {shown(text)}")
        return value

    def constant(text: str) -> float:
        raise InputError(f"{where}: a number must be finite, not {text}")

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(items)
        if len(found) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))
            raise InputError(f"{where}: a key must stand once in an object, not {shown(twice)} twice")
        return found

    text = decoded(data, where)
    try:
        values = json.loads(
            text, parse_int=integer, parse_float=floating, parse_constant=constant, object_pairs_hook=pairs
        )
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        raise InputError(f"{where}: must be JSON, not broken ({error})") from None
    if re.search(rb"\\u[dD][89a-fA-F]", data):
        _check_pairs(values, where)
    return _shallow(values, where)


def read_toml(path: str | Path, limit: int = SETTINGS_BYTES // 16) -> dict[str, Any]:
    """The values of a TOML file."""
    return parse_toml(read_bytes(path, limit), path)


def parse_toml(data: bytes, where: str | Path) -> dict[str, Any]:
    """The values of TOML, nested at most ``DEPTH`` deep; infinity, NaN and dates are left to the declared types to refuse."""
    text = decoded(data, where)
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:  # also that of an integer of thousands of digits
        raise InputError(f"{where}: must be TOML, not broken ({_shortened(str(error))})") from None
    return _shallow(values, where)


def _digits(text: str, where: str | Path) -> str:
    if len(text) > DIGITS:
        raise InputError(f"{where}: a number must be at most {DIGITS} characters long, not {len(text):,}")
    return text


def _check_pairs(values: object, where: str | Path) -> None:
    """Half of a surrogate pair is no text: it could not be written again."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: a text must be Unicode, not hold {error.object[error.start]!r}") from None
    except RecursionError:
        raise _too_deep(where) from None


def _too_deep(where: str | Path) -> InputError:
    return InputError(f"{where}: lists and objects must be nested at most {DEPTH} deep, not deeper")


def _shallow(values: Any, where: str | Path) -> Any:
    level: list[Any] = [values]
    for _ in range(DEPTH + 1):
        level = [inner for outer in level for inner in _members(outer) if isinstance(inner, (dict, list))]
        if not level:
            return values
    raise _too_deep(where)


def _members(values: Any) -> Iterator[Any]:
    if isinstance(values, dict):
        return iter(cast(dict[str, Any], values).values())
    return iter(cast(list[Any], values) if isinstance(values, list) else ())
