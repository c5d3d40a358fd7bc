"""Headers of program files: any field that is missing, of another type or out of bounds is refused."""

import copy
import hashlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapped import mapped

from ternbin.contract import program as files
from ternbin.contract.hw import NAMED
from ternbin.errors import InputError


def parts(path):
    data = path.read_bytes()
    start = len(files.MAGIC) + 8
    end = start + int.from_bytes(data[start - 8 : start], "little")
    return json.loads(data[start:end]), data[end:-32]


def write(path, header, image):
    text = json.dumps(header).encode()
    body = files.MAGIC + len(text).to_bytes(8, "little") + text + image
    path.write_bytes(body + hashlib.sha256(body).digest())
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "model.tbn"
    files.save(mapped("2-2", NAMED["tiny"], new=1)[1], path)
    return path


def places(values, path=()):
    if path:
        yield path
    items = values.items() if isinstance(values, dict) else enumerate(values[:2]) if isinstance(values, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(header, path, value=None, *, drop=False):
    header = copy.deepcopy(header)
    place = header
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return header


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("hw", "rows"), 5, "hw.rows must be a power of two from 4 to 64, not 5"),
        (("hw", "lanes"), 8, "hw.lanes must be a power of two from 16 to 256, not 8"),
        (("calls",), [], "calls must be at least 1 long, not an empty list"),
        (("calls", 0, 0), -64, "calls[0][0] must be at least 0, not -64"),
        (("calls", 0, 1), True, "calls[0][1] must be a whole number, not true"),
        (("calls", 1, 2), [0], "calls[1][2] must be"),
        (("probes", 0, 5, 0), "rows", "probes[0][5][0] must be 'tokens', 'keys'"),
        (("probes", 0, 0), 99, "probes[0][0] must be below 2, not 99"),
        (("target_addr",), 10**9, "target_addr must leave room for"),
        (("inputs", 0, 1), 10**9, "inputs[0] must lie in the image of"),
        (("inputs", 0, 5), 40, "inputs[0][5] must be at most 32, not 40"),
        (("source_len",), 5, "info.max_positions"),
        (("writable", 0, 1), 1 << 39, "writable[0] must lie in the image of"),
        (("info",), [], "info must be an object, not an empty list"),
        (("info", "vocab"), None, "info.vocab must be a whole number, not null"),
        (("info", "logit_shift"), 64, "info.logit_shift must be at most 63, not 64"),
        (("beams",), 2, "beams must be those of hw (1), not 2"),
        (("max_new_tokens",), 7, "calls must be 8 long, a text and a new token each, not 2"),
        (("names",), "all", "names must be a list, not 'all'"),
    ],
)  # fmt: skip
def test_fields_that_are_refused(saved, tmp_path, path, value, message):
    header, image = parts(saved)
    header["info"]["max_positions"] = 4 if path == ("source_len",) else header["info"]["max_positions"]
    with pytest.raises(InputError) as caught:
        files.load(write(tmp_path / "p", changed(header, path, value), image))
    assert str(caught.value).startswith(f"{tmp_path}/p: {message}")


def test_every_field_must_be_there(saved, tmp_path):
    header, image = parts(saved)
    for name in (
        "hw",
        "names",
        "calls",
        "probes",
        "inputs",
        "outputs",
        "target_addr",
        "source_len",
        "max_new_tokens",
        "writable",
        "info",
    ):
        with pytest.raises(InputError, match=f"p: {name} must be given, not left out"):
            files.load(write(tmp_path / "p", changed(header, (name,), drop=True), image))


VALUES = st.sampled_from([None, True, "", "x", [], {}, -1, 0, 1, 3, 1.5, 1 << 30, 10**18, 1e300, [[]], {"a": None}])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_header_is_refused_or_a_program(saved, tmp_path_factory, data):
    header, image = parts(saved)
    path = data.draw(st.sampled_from(sorted(places(header), key=str)))
    new = changed(header, path, data.draw(VALUES), drop=data.draw(st.booleans()))
    target = write(tmp_path_factory.getbasetemp() / "fuzzed.tbn", new, image)
    try:
        program = files.load(target)
    except InputError as error:
        assert str(error).startswith(f"{target}: ") and "\n" not in str(error)
        return
    try:  # instructions are looked at when they are read, not when the file is: calls may lead to what is none
        assert files.listing(program)
    except InputError as error:
        assert re.match(r"call \d+, instruction \d+: ", str(error)) and "\n" not in str(error)
    ids = {port.name: [0] * program.source_len for port in program.inputs}
    assert len(program.with_ids(ids, 0)) == len(image)


def test_a_header_that_is_no_json_is_refused(saved, tmp_path):
    _, image = parts(saved)
    for text in (b"{", b"[" * 100_000, b"\xff", b"[]"):
        body = files.MAGIC + len(text).to_bytes(8, "little") + text + image
        (tmp_path / "p").write_bytes(body + hashlib.sha256(body).digest())
        with pytest.raises(InputError, match=f"^{tmp_path}/p: "):
            files.load(tmp_path / "p")
