"""Names of file formats: a kind and the number of its version, as in ``ternbin-result/3``."""

from collections.abc import Collection

from ternbin.errors import InputError

RESULT = "ternbin-result/3"  # result.json; docs/result-schema.md
ENERGY = "ternbin-energy/1"  # gate-level characterisation; docs/energy.md
PACKED = "ternbin-packed/1"  # packed checkpoint; models/packed.py
PROGRAM = "ternbin program 3"  # program.tbn, its first line; contract/program.py
IMAGE = "ternbin-image/3"  # program.img, its first line; integration/image.py
EXPLORE = "ternbin-explore/1"  # records.jsonl of an exploration, its first line; explore/records.py
EXPLORATION = "ternbin-exploration/1"  # explore.json; explore/study.py
FPGA = "ternbin-fpga/1"  # result.json of an FPGA; docs/fpga.md
CHECKPOINT = "ternbin-checkpoint/1"  # state of a run; sim/resume.py


def check(found: object, current: str, where: str, older: Collection[str] = ()) -> None:
    """Nothing where ``found`` is ``current`` or of ``older``. Raises InputError, which names ``where``, for all else."""
    refuse_newer(found, current, where)
    if not isinstance(found, str) or (found != current and found not in older):
        raise InputError(f"{where}: schema must be {current!r}, not {found!r}")


def refuse_newer(found: object, current: str, where: str) -> None:
    """Raises InputError where ``found`` is ``current`` with a higher number: what a newer version of ternbin wrote."""
    if isinstance(found, str) and is_newer(found, current):
        raise InputError(
            f"{where}: made by a newer version of ternbin ({found}; this one reads {current}): install that version"
        )


def is_newer(found: str, current: str) -> bool:
    """Whether both are of one kind, and ``found`` has the higher number."""
    kind, number = _split(found)
    own, version = _split(current)
    return kind == own and number > version


def _split(name: str) -> tuple[str, int]:
    kind = name.rstrip("0123456789")
    digits = name[len(kind) :]
    return kind, int(digits) if digits and len(digits) < 10 else -1
