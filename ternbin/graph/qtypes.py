"""Code kinds: ranges, what the hardware stores, bits per weight, and packing of code tensors into bit planes."""

from dataclasses import dataclass

import numpy as np

from ternbin.errors import InputError


@dataclass(frozen=True)
class Kind:
    """One code type. ``stored = mul*code - sub`` is what the array multiplies; it holds ``planes`` bit planes of it.

    ``odd8``, of weights only, is odd: each of its planes is a binary code, -1 or +1, and plane i weighs 2^i.
    """

    name: str
    lo: int
    hi: int
    bits: int  # of storage in memory, per code
    planes: int  # passes of the array over one operand of this kind
    mul: int = 1
    sub: int = 0

    @property
    def magnitude(self) -> int:
        """Largest absolute value of a code."""
        return max(-self.lo, self.hi)

    @property
    def eight_bit(self) -> bool:
        """Whether the array takes this kind bit by bit."""
        return self.planes == 8

    @property
    def odd(self) -> bool:
        """Whether the codes are odd numbers only."""
        return self.name in ("binary", "odd8")

    @property
    def idle(self) -> int:
        """Of weights, what a lane of all-zero bits counts as."""
        return self.lo if self.odd else 0


KINDS = {
    kind.name: kind
    for kind in (
        Kind("ternary", -1, 1, bits=2, planes=1),
        Kind("binary", -1, 1, bits=1, planes=1),
        Kind("ternary_nn", 0, 2, bits=2, planes=1, sub=1),
        Kind("binary_nn", 0, 1, bits=1, planes=1, mul=2, sub=1),
        Kind("int8", -127, 127, bits=8, planes=8),
        Kind("uint8", 0, 255, bits=8, planes=8),
        Kind("odd8", -255, 255, bits=8, planes=8),
    )
}


def kind_of(name: str) -> Kind:
    if name not in KINDS:
        raise InputError(f"code kind must be one of {', '.join(KINDS)}, not {name!r}")
    return KINDS[name]


def check_codes(codes: np.ndarray, name: str) -> np.ndarray:
    """``codes`` as int64, all of them codes of the kind. Raises InputError otherwise."""
    kind, codes = kind_of(name), np.asarray(codes, dtype=np.int64)
    bad = (codes < kind.lo) | (codes > kind.hi)
    if kind.odd:
        bad |= codes % 2 == 0
    if bad.any():
        raise InputError(f"{name} codes must be in {_range_text(kind)}, not {int(codes[bad][0])}")
    return codes


def _range_text(kind: Kind) -> str:
    return "{-1, 1}" if kind.name == "binary" else f"[{kind.lo}, {kind.hi}]{' and odd' * kind.odd}"


def to_stored(codes: np.ndarray, name: str) -> np.ndarray:
    """Codes to the integers the hardware holds: ``q-1`` for ternary_nn, ``2q-1`` for binary_nn, q for the others."""
    kind = kind_of(name)
    return kind.mul * check_codes(codes, name) - kind.sub


def from_stored(stored: np.ndarray, name: str) -> np.ndarray:
    """Inverse of :func:`to_stored`."""
    kind = kind_of(name)
    return (np.asarray(stored, dtype=np.int64) + kind.sub) // kind.mul


def to_planes(codes: np.ndarray, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boolean planes ``(nz, neg)`` of the stored values, lowest weight first, each of the shape of ``codes``.

    1- and 2-bit kinds: one plane, ``stored != 0`` and ``stored < 0``. int8, uint8: 8 planes, nz = the bit (two's
    complement), neg = 0; plane i weighs 2^i, plane 7 of int8 -2^7. odd8: 8 planes of -1 and +1, of the bits of ``(code+255)/2``.
    """
    stored = to_stored(codes, name)
    if not KINDS[name].eight_bit:
        return [(stored != 0, stored < 0)]
    if KINDS[name].odd:
        return [(np.ones(stored.shape, dtype=bool), odd_bits(stored) >> i & 1 == 0) for i in range(8)]
    none = np.zeros(stored.shape, dtype=bool)
    return [((stored >> i & 1).astype(bool), none) for i in range(8)]


def odd_bits(codes: np.ndarray) -> np.ndarray:
    """The byte of each code of kind odd8: its bit i is 1 where plane i is +1."""
    return (codes + 255) // 2


def from_planes(planes: list[tuple[np.ndarray, np.ndarray]], name: str) -> np.ndarray:
    """Inverse of :func:`to_planes`: int64 codes."""
    if not kind_of(name).eight_bit:
        ((nz, neg),) = planes
        return from_stored(np.where(nz, 1 - 2 * neg.astype(np.int64), 0), name)
    if KINDS[name].odd:
        return np.sum([(1 - 2 * neg.astype(np.int64)) << i for i, (_, neg) in enumerate(planes)], axis=0)
    weights = [1 << i for i in range(7)] + [-128 if name == "int8" else 128]
    return np.sum([w * nz.astype(np.int64) for w, (nz, _) in zip(weights, planes, strict=True)], axis=0)


def pack_bits(plane: np.ndarray) -> np.ndarray:
    """Booleans ``[.., n]`` to bytes ``[.., ceil(n/8)]``, element 0 in bit 0, padded with 0."""
    return np.packbits(plane, axis=-1, bitorder="little")


def unpack_bits(data: np.ndarray, n: int) -> np.ndarray:
    """Inverse of :func:`pack_bits`: the first ``n`` booleans of each row."""
    return np.unpackbits(data, axis=-1, count=n, bitorder="little").view(bool)


def pack(codes: np.ndarray, name: str) -> np.ndarray:
    """Codes ``[.., n]`` to bytes ``[.., bytes]``: 1 bit a code (neg plane), 2 bits planar (all nz, then all neg), or 8.

    Each plane of a row is padded to whole bytes.
    """
    kind, planes = kind_of(name), to_planes(codes, name)
    if kind.eight_bit:
        stored = to_stored(codes, name)
        return (odd_bits(stored) if kind.odd else stored & 255).astype(np.uint8)
    ((nz, neg),) = planes
    return pack_bits(neg) if kind.bits == 1 else np.concatenate([pack_bits(nz), pack_bits(neg)], axis=-1)


def unpack(data: np.ndarray, name: str, n: int) -> np.ndarray:
    """Inverse of :func:`pack`: codes ``[.., n]``, int64 those of 8 bits and int8 the others."""
    kind = kind_of(name)
    if name == "odd8":
        return 2 * data.astype(np.int64) - 255
    if kind.eight_bit:
        return data.view(np.int8 if name == "int8" else np.uint8).astype(np.int64)
    codes = unpack_bits(data if kind.bits == 1 else data[..., data.shape[-1] // 2 :], n).view(np.int8)  # the neg plane
    codes *= -2  # all in place: an embedding table has many
    codes += 1 if kind.bits == 1 else unpack_bits(data[..., : data.shape[-1] // 2], n).view(np.int8)
    if kind.sub:
        codes += np.int8(kind.sub)
    return codes if kind.mul == 1 else codes // np.int8(kind.mul)
