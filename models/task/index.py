"""Debian's description indices: fetched through apt into a private state directory, and parsed.

Nothing of the host's package state is read or changed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ternbin.errors import InputError, MissingToolError

SUITE = "bookworm"


@dataclass(frozen=True, kw_only=True)
class Stanza:
    """One description: `checksum` names its English original, `body` holds its lines, without the space before each."""

    package: str
    checksum: str
    synopsis: str
    body: tuple[str, ...]

    @property
    def paragraphs(self) -> list[str]:
        """The description's paragraphs, each on one line."""
        parts = "\n".join(line.strip() for line in self.body).split("\n.\n")
        paragraphs = [" ".join(part.split()) for part in parts]
        return [part for part in paragraphs if part and part != "."]


def fetch_indices(languages: Sequence[str], suite: str = SUITE) -> dict[str, str]:
    """Text of the ``Translation-*`` index of `suite`, component main, by language, from the sources apt is set up with.

    Raises :class:`MissingToolError` where there is no apt and :class:`InputError` where an index cannot be fetched.
    """
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        raise MissingToolError("apt-get must be on the PATH to fetch the description index")
    with tempfile.TemporaryDirectory(prefix="ternbin-apt-") as folder:
        state = Path(folder)
        state.chmod(0o755)
        (state / "lists" / "partial").mkdir(parents=True)
        (state / "cache").mkdir()
        options = {
            "Dir::State": state,
            "Dir::State::Lists": state / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": state / "cache",
            "Acquire::Languages": ",".join(languages),
        }
        arguments = [f"-o{key}={value}" for key, value in options.items()]
        update = subprocess.run([apt_get, *arguments, "update"], capture_output=True, encoding="utf-8")
        return {name: _read_index(state / "lists", name, suite, arguments, update.stderr) for name in languages}


def _read_index(lists: Path, language: str, suite: str, arguments: Sequence[str], complaint: str) -> str:
    indices = sorted(lists.glob(f"*_dists_{suite}_main_*Translation-{language}*"))
    if not indices:
        wanted = f"Debian {suite} main with Translation-{language}"
        raise InputError(f"apt's sources must offer {wanted}, not: {complaint.strip()!r}")
    reader = ["/usr/lib/apt/apt-helper", *arguments, "cat-file", *map(str, indices)]
    return subprocess.run(reader, capture_output=True, check=True).stdout.decode()


def parse_index(text: str, language: str = "en") -> Iterator[Stanza]:
    """Every stanza of a ``Translation-*`` index that has a package and a synopsis."""
    heading = f"Description-{language}: "
    for stanza in text.split("\n\n"):
        values = {"Package: ": "", "Description-md5: ": "", heading: ""}
        body: list[str] = []
        inside = False
        for line in stanza.splitlines():
            if inside and line.startswith(" "):
                body.append(line[1:])
                continue
            key = next((key for key in values if line.startswith(key)), None)
            inside = key == heading
            if key is not None:
                values[key] = line[len(key) :].strip()
        package, checksum, synopsis = values.values()
        if package and synopsis:
            yield Stanza(package=package, checksum=checksum, synopsis=synopsis, body=tuple(body))
