"""What components and signatures say of their ports to a type checker is what they have."""

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from amaranth.hdl import Fragment
from amaranth.lib import data, stream, wiring

from ternbin.contract.hw import NAMED
from ternbin.rtl.parts.arithmetic import Word
from ternbin.rtl.parts.interfaces import ReadPort, Record, Stream, TransposedWritePort, UnitPort, WritePort
from ternbin.rtl.top import APART, UNITS, Top
from ternbin.rtl.transfer.words import Bursts
from ternbin.rtl.verilog.shared import shared_parts

HW = {"greedy": NAMED["tiny"], "beams": NAMED["tiny"].searching(3), "ternary8": NAMED["tiny-ternary8"]}


def _annotations(kind: type) -> Iterator[tuple[str, Any]]:
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("ternbin."):
            for name, annotation in base.__dict__.get("__annotations__", {}).items():
                if typing.get_origin(annotation) is not typing.ClassVar and not name.startswith("_"):
                    yield name, annotation


def _check(value: Any, annotation: Any, where: str) -> None:
    """``value`` is what ``annotation`` says, its fields and the payload of a stream included."""
    value = wiring.flipped(value) if isinstance(value, wiring.FlippedInterface) else value
    if typing.get_origin(annotation) is Stream:
        assert isinstance(value, stream.Interface), where
        (payload,) = typing.get_args(annotation)
        if not isinstance(payload, typing.TypeVar):
            _check(value.payload, payload, f"{where}.payload")
    elif isinstance(annotation, type) and issubclass(annotation, Record):
        fields = dict(_annotations(annotation))
        assert set(fields) == set(dict(value.shape())), where
        for name, inner in fields.items():
            if inner is not Any:
                _check(value[name], inner, f"{where}.{name}")
    else:
        assert isinstance(value, annotation), f"{where} is {type(value)}, not {annotation}"
        for name, inner in _annotations(annotation):
            _check(getattr(value, name), inner, f"{where}.{name}")


@pytest.fixture(params=HW)
def components(request, monkeypatch) -> list[wiring.Component]:
    """All components of an accelerator."""
    found, init = [], wiring.Component.__init__

    def record(self, *args, **kwargs):
        init(self, *args, **kwargs)
        found.append(self)

    hw = HW[request.param]
    monkeypatch.setattr(wiring.Component, "__init__", record)
    for part in [Top(hw), *(UNITS[name](hw) for name in APART), *shared_parts(hw).values()]:
        Fragment.get(part, None).prepare()
    return found


def test_ports_of_all_components(components):
    assert len({type(part) for part in components}) > 40
    for part in components:
        declared = dict(_annotations(type(part)))
        assert declared or not part.signature.members, type(part)
        if isinstance(part, Bursts) and "idbuf_r" not in part.signature.members:
            del declared["idbuf_r"]  # only where rows may be picked by ids
        if "abuf_whole" in declared and "abuf_whole" not in part.signature.members:
            del declared["abuf_whole"]  # only on arrays that take whole 8-bit codes
        for name, annotation in declared.items():
            assert name in part.signature.members, f"{type(part).__name__} has no port {name}"
            _check(getattr(part, name), annotation, f"{type(part).__name__}.{name}")


@pytest.mark.parametrize("signature", [ReadPort(2, 8), WritePort(2, 8, 4), TransposedWritePort(4, 2, 4), UnitPort()])
def test_interfaces_name_all_members(signature):
    made = signature.create(path=("port",))
    assert {name for name, _ in _annotations(type(made))} == set(signature.members)
    _check(made, type(made), type(signature).__name__)
    assert isinstance(made.signature, type(signature))


def test_a_wrong_payload_is_found():
    made = stream.Signature(4).create(path=("i",))
    with pytest.raises(AssertionError, match=r"i.payload is .*Signal"):
        _check(made, Stream[data.View], "i")
    with pytest.raises(AssertionError, match=r"i.payload"):
        _check(stream.Signature(data.StructLayout({"word": 4})).create(path=("i",)), Stream[Word], "i")
