"""Files written whole or not at all, folders in use, and a cache that is not as it should be."""

import os
import stat
import subprocess
import sys
import time

import pytest

from ternbin import storage
from ternbin.errors import InputError


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_has_the_rights_that_the_umask_gives(tmp_path, umask):
    storage.write_text(tmp_path / "new" / "a.txt", "text")
    assert stat.S_IMODE((tmp_path / "new" / "a.txt").stat().st_mode) == 0o666 & ~umask


def test_text_is_utf8(tmp_path):
    storage.write_text(tmp_path / "a", "µJ – 语")
    assert (tmp_path / "a").read_bytes() == "µJ – 语".encode()


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(RuntimeError), storage.replacing(path) as fresh:
        fresh.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"/a: cannot be written: No space left on device$"):
        with storage.replacing(tmp_path / "a"):
            raise OSError(28, os.strerror(28))
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    storage.write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "text"


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path}: cannot be written: Is a directory$"):
        storage.write_text(tmp_path, "text")


def test_a_pipe_is_written_to(tmp_path):
    code = "from ternbin.storage import write_text; write_text('/dev/stdout', 'text')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "text"


def test_what_a_killed_process_left_is_removed_in_time(tmp_path):
    old, new, other = (tmp_path / name for name in (".a.00.ternbin", ".a.01.ternbin", ".mine.tmp"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, time.time() - storage.STALE - 60))
    storage.write_text(tmp_path / "b", "")
    assert not old.exists() and new.exists() and other.exists()


def test_a_folder_is_claimed_by_one_process_at_a_time(tmp_path):
    code = "import sys, pathlib; from ternbin.storage import claimed\nwith claimed(pathlib.Path(sys.argv[1])): pass"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with storage.claimed(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True)
        assert "must be written by one process at a time; another is at work there" in done.stderr
    assert subprocess.run(command).returncode == 0 and not list(tmp_path.iterdir())


# ---- the cache ------------------------------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_cache(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("TERNBIN_CACHE", str(path))
        with pytest.raises(InputError, match=f"^the cache {path} must be a folder, not a file: set TERNBIN_CACHE to"):
            storage.cache_dir()


def test_a_cache_that_cannot_be_made(monkeypatch):
    monkeypatch.setenv("TERNBIN_CACHE", "/proc/nowhere")
    with pytest.raises(
        InputError, match=r"^the cache /proc/nowhere must be a folder that can be made \(.*\): set TERN"
    ):
        storage.cache_dir()


def test_a_cache_of_somebody_else_can_be_read_but_not_built_in(tmp_path, monkeypatch):
    monkeypatch.setenv("TERNBIN_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may do everything
    assert storage.cache_dir() == tmp_path
    with pytest.raises(InputError, match=f"^the cache {tmp_path} must be writable for this user: set TERNBIN_CACHE to"):
        with storage.working_folder("model"):
            pass


def test_working_folders_are_removed_also_those_of_killed_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("TERNBIN_CACHE", str(tmp_path))
    (tmp_path / "build-old" / "obj").mkdir(parents=True)
    os.utime(tmp_path / "build-old", (0, time.time() - storage.STALE - 60))
    with storage.working_folder("model") as folder:
        assert folder.is_dir() and folder.parent == tmp_path
        assert not (tmp_path / "build-old").exists()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_another_user_will_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TERNBIN_CACHE", str(tmp_path))
    (tmp_path / "x.lock").touch(mode=0o444)
    with storage.cache_lock("x"):
        pass
