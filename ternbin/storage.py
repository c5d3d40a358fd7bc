"""Files that others read, written whole or not at all with the rights that the umask gives; folders in use; the cache."""

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ternbin.errors import InputError

DISK_BYTES = 16 << 20  # that a folder of results may take
STALE = 24 * 3600.0  # seconds after which what a process leaves while it works is nobody's any more
_ADVICE = "set TERNBIN_CACHE to a folder of yours"


# ---- files ----------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file beside ``path`` to write, empty at first: it takes the place of ``path`` where the block ends well, and goes otherwise.

    What was there before stays until then. Raises InputError, naming ``path``, where it cannot be written.
    """
    path = Path(path)
    target = path.resolve()
    fresh = target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}.ternbin")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent, ".*.ternbin")
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield fresh
        os.replace(fresh, target)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            fresh.unlink()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file as :func:`replacing` does; a device or a pipe, such as /dev/stdout, directly."""
    path = Path(path)
    if path.is_relative_to("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
        try:
            with open(path, "wb") as stream:
                stream.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        return
    with replacing(path) as fresh:
        fresh.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 as :func:`write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def _sweep(folder: Path, pattern: str) -> None:
    """Removes what a process that was killed left there long ago."""
    limit = time.time() - STALE
    for path in folder.glob(pattern):
        with suppress(OSError):
            if path.lstat().st_mtime < limit:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


# ---- folders in use -------------------------------------------------------------------------------------------------


def writable(folder: Path) -> Path:
    """The folder, made if need be: found out before long work, not after it. Raises InputError where it cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: must be a folder to write to, not a file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
    if free < DISK_BYTES:
        raise InputError(f"{folder}: the disk must have {DISK_BYTES:,} bytes left, not {free:,}")
    return folder


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """The folder, as :func:`writable` makes sure of it, as that of this process alone while the block lasts.

    Raises InputError, too, where another process has claimed it. It is the folder itself that is locked: nothing is left in it, and a
    process that is killed holds nothing.
    """
    handle = os.open(writable(folder), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{folder}: must be written by one process at a time; another is at work there") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield folder
    finally:
        os.close(handle)


# ---- the cache ------------------------------------------------------------------------------------------------------


def cache_path() -> Path:
    """Folder of compiled models: $TERNBIN_CACHE, else ternbin in $XDG_CACHE_HOME or ~/.cache; may not exist."""
    base = os.environ.get("TERNBIN_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ternbin"


def cache_dir() -> Path:
    """The cache, made if missing. Raises InputError where it is no folder or cannot be made."""
    path = cache_path()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"the cache {path} must be a folder, not a file: {_ADVICE}") from None
    except OSError as error:
        raise InputError(f"the cache {path} must be a folder that can be made ({error.strerror}): {_ADVICE}") from None
    return path.resolve()


def writable_cache() -> Path:
    """The cache, for what writes to it. Raises InputError as :func:`cache_dir`, and where this user must not write."""
    path = cache_dir()
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"the cache {path} must be writable for this user: {_ADVICE}")
    return path


@contextmanager
def working_folder(what: str) -> Iterator[Path]:
    """A folder in the cache to build ``what`` in, from which finished parts can be renamed into their place; removed in the end."""
    cache = writable_cache()
    _sweep(cache, "build-*")
    with tempfile.TemporaryDirectory(dir=cache, prefix=f"build-{what}-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def cache_lock(name: str) -> Iterator[None]:
    """Only one process at a time in the cache builds ``name``; others wait. Another user's lock will do."""
    path = writable_cache() / f"{name}.lock"
    handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
