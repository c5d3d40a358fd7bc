"""What a type rule is given: the types of the sources, the attributes, and the side table."""

from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NewType, TypeVar, Union, cast, get_args, get_origin

import torch
from torch import Tensor

from ternbin.errors import InputError
from ternbin.graph.fixedpoint import GRID_BITS, GRID_FRAC
from ternbin.graph.ir import MAX_TOKENS, Dim, Op, Type, Weights, code_type, declared
from ternbin.graph.qtypes import KINDS

T = TypeVar("T", bound=Type)


@dataclass(frozen=True)
class Check:
    """One node under inspection. Every method raises InputError, naming the node, where something does not fit."""

    op: Op
    src: tuple[Type, ...]
    weights: Weights

    @property
    def where(self) -> str:
        return f"{self.op.opname} {self.op.label or ''}".strip()

    def need(self, ok: bool, what: str, got: object) -> None:
        if not ok:
            raise InputError(f"{self.where}: {what}, not {got!r}")

    def signature(self) -> None:
        """As many sources as the op takes, and attributes of exactly the declared types."""
        self.need(len(self.src) == self.op.sources, f"it must have {self.op.sources} sources", len(self.src))
        for name, of in declared(type(self.op)).items():
            value = getattr(self.op, name)
            if not _fits(value, of):
                self.need(False, f"{name} must be {_text(of)}", value)

    def source(self, i: int, *types: type[T]) -> T:
        """The type of source ``i``, which must be one of ``types``."""
        found = self.src[i]
        if not isinstance(found, types):
            names = " or ".join(t.__name__ for t in types)
            raise InputError(f"{self.where}: source {i} must be {names}, not {found!r}")
        return found

    def weight(self, attr: str, dtype: torch.dtype, *shape: Dim | None) -> Tensor:
        """The table entry that ``attr`` names; a ``None`` dimension may be anything."""
        name = getattr(self.op, attr)
        self.need(name in self.weights, f"{attr} must name a weight", name)
        tensor = self.weights[name]
        self.need(tensor.dtype == dtype, f"{attr} {name} must hold {dtype}", tensor.dtype)
        fits = tensor.dim() == len(shape) and all(w in (None, s) for w, s in zip(shape, tensor.shape, strict=True))
        self.need(fits, f"{attr} {name} must have shape {list(shape)}", list(tensor.shape))
        return tensor

    def row_weight(self, attr: str, dtype: torch.dtype, rows: Dim | None, *more: int | None) -> Tensor:
        """As :meth:`weight` with ``rows`` rows (None: any number), or one for all."""
        name = getattr(self.op, attr)
        single = name in self.weights and self.weights[name].shape[:1] == (1,)
        return self.weight(attr, dtype, 1 if single else rows, *more)

    def fits(self, attr: str, bits: int, rows: Dim | None, *more: int | None) -> Tensor:
        """As :meth:`row_weight`, of integers that fit ``bits`` bits, signed."""
        tensor, limit = self.row_weight(attr, torch.int64, rows, *more), 1 << bits - 1
        if tensor.numel():
            lo, hi = (int(v) for v in torch.aminmax(tensor))
            self.need(-limit <= lo and hi < limit, f"{attr} {getattr(self.op, attr)} must fit {bits} bits", (lo, hi))
        return tensor

    def codes(self, attr: str, dim: Dim | None) -> Tensor:
        """A table entry of codes [any, dim] whose kind is the attribute ``<attr>_kind``."""
        kind = KINDS[self.kind(f"{attr}_kind", "ternary", "binary", "odd8")]
        tensor = self.weight(attr, code_type(kind.name), None, dim)
        if tensor.numel():
            lo, hi = (int(v) for v in torch.aminmax(tensor))
            self.need(kind.lo <= lo and hi <= kind.hi, f"{attr} codes must be in [{kind.lo}, {kind.hi}]", (lo, hi))
            self.need(not kind.odd or bool((tensor & 1).all()), f"{attr} codes must be odd", "even ones")
        return tensor

    def kind(self, attr: str, *allowed: str) -> str:
        kind = getattr(self.op, attr)
        self.need(kind in (allowed or KINDS), f"{attr} must be one of {', '.join(allowed or KINDS)}", kind)
        return kind

    def between(self, attr: str, lo: int, hi: int) -> int:
        value = getattr(self.op, attr)
        self.need(lo <= value <= hi, f"{attr} must be in [{lo}, {hi}]", value)
        return value

    def grid(self) -> tuple[int, int]:
        """The attributes ``bits`` and ``frac`` of a residual."""
        return self.between("bits", *GRID_BITS), self.between("frac", *GRID_FRAC)


def dot_limit(a: str, b: str, depth: Dim) -> int:
    """Largest magnitude of a sum of ``depth`` products of codes of kinds ``a`` and ``b``."""
    return (MAX_TOKENS if isinstance(depth, str) else depth) * KINDS[a].magnitude * KINDS[b].magnitude


def _fits(value: object, of: Any) -> bool:
    """Whether a value is of a declared type: exactly, for a bool is no int."""
    own = type(value)
    if own is _plain(of):  # most are
        return True
    if get_origin(of) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(of))
    if get_origin(of) is Literal:
        return any(own is type(each) and value == each for each in get_args(of))
    if isinstance(value, tuple) and get_origin(of) is tuple:
        return all(_fits(each, get_args(of)[0]) for each in cast(tuple[object, ...], value))
    return False


def _plain(of: Any) -> Any:
    return of.__supertype__ if isinstance(of, NewType) else of


def _text(of: Any) -> str:
    """A declared type in words."""
    if get_origin(of) in (Union, UnionType):
        return " or ".join(_text(each) for each in get_args(of))
    if get_origin(of) is Literal:
        return " or ".join(map(repr, get_args(of)))
    if get_origin(of) is tuple:
        return f"a tuple of {_text(get_args(of)[0])}"
    return "None" if of is NoneType else of.__name__
