"""Inputs that somebody could give by mistake or on purpose: a good document with some things wrong, as hypothesis strategies."""

import copy
import json
import tomllib
from typing import Any

from hypothesis import strategies as st

NUMBERS = [0, -1, 1, 2, 7, 2**31, -(2**31), 2**63, 10**12, 10**30, 0.5, -0.0, 1e-30, 1e30, 1e308]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(-1000, 1000),
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    st.text(max_size=12),
    st.sampled_from(
        ["", "0", "1", "350", "true", "false", "no", "NaN", "inf", "../../x", "/dev/null", "<b>", "é\x00", "bert"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=6,
)


def places(document: Any, depth: int = 6) -> list[tuple]:
    """Paths of everything in a document but the document itself, the first entries of long lists only."""
    found: list[tuple] = []

    def walk(node: Any, path: tuple) -> None:
        if path:
            found.append(path)
        if len(path) < depth:
            items = node.items() if isinstance(node, dict) else enumerate(node[:3]) if isinstance(node, list) else ()
            for key, value in items:
                walk(value, (*path, key))

    walk(document, ())
    return found


@st.composite
def documents(draw: st.DrawFn, good: Any) -> Any:
    """The good document with one to three entries dropped, replaced, renamed, added or nested; sometimes any value at all."""
    if draw(st.integers(0, 24)) == 0:
        return draw(VALUES)
    document = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        found = places(document)
        path: tuple[Any, ...] = draw(st.sampled_from(found)) if found else ()
        if not path:
            return draw(VALUES)
        node = document
        for key in path[:-1]:
            node = node[key]
        key, action = (
            path[-1],
            draw(st.sampled_from(["drop", "value", "value", "value", "number", "rename", "add", "nest"])),
        )
        if action == "drop":
            del node[key]
        elif action == "number" and isinstance(node[key], int | float):
            node[key] = draw(st.sampled_from([*NUMBERS, -node[key], node[key] + 1, node[key] * 1000]))
        elif action == "rename" and isinstance(node, dict):
            node[draw(st.text(max_size=8))] = node.pop(key)
        elif action == "add" and isinstance(node, dict):
            node[draw(st.text(min_size=1, max_size=8))] = draw(VALUES)
        elif action == "nest":
            node[key] = [node[key]]
        else:
            node[key] = draw(VALUES)
    return document


ODD_TEXTS = [
    b"",
    b"\x00",
    b"null",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"d_model": 1' + b"0" * 5000 + b"}",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b"{}",
    b"[]",
    b"1e999",
    b'{"a": NaN}',
    b'{"a": 1, "a": 2}',
    b"\n" * 1000,
]


def damaged(good: bytes) -> st.SearchStrategy[bytes]:
    """The bytes of a good file cut, with bytes flipped, put in or taken out; or odd ones."""

    @st.composite
    def strategy(draw: st.DrawFn) -> bytes:
        data = bytearray(good)
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, max(0, len(data) - 1)))
            action = draw(st.sampled_from(["cut", "flip", "insert", "remove"]))
            if action == "cut":
                del data[at:]
            elif action == "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            elif action == "remove":
                del data[at : at + draw(st.integers(1, 8))]
            elif data:
                data[at] ^= 1 << draw(st.integers(0, 7))
        return bytes(data)

    return st.one_of(strategy(), st.sampled_from(ODD_TEXTS), st.binary(max_size=64))


def json_files(good: bytes) -> st.SearchStrategy[bytes]:
    """JSON files: mostly well-formed documents with wrong contents, some damaged ones."""
    wrong = documents(json.loads(good)).map(lambda document: json.dumps(document).encode())
    return st.one_of(wrong, wrong, wrong, wrong, damaged(good))


def toml_files(good: bytes) -> st.SearchStrategy[bytes]:
    """Flat TOML files: wrong values, unknown fields, damaged text."""
    wrong = documents(tomllib.loads(good.decode())).map(toml)
    return st.one_of(wrong, wrong, wrong, damaged(good))


def toml(values: Any) -> bytes:
    """A TOML file, of tables at most, of whatever values there are."""
    lines = _lines(values) if isinstance(values, dict) else [str(values)]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _lines(values: dict[str, Any]) -> list[str]:
    """Plain fields first, as TOML wants it, then tables."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"{key} = {_toml(value)}" for key, value in values.items() if key not in tables]
    for key, value in tables.items():
        lines += [f"[{key}]", *(f"{name} = {_toml(inner)}" for name, inner in value.items())]
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value)
    if value is None:
        return ""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
