"""How the command line ends: faults are no failed checks, nobody sees a traceback, signals and pipes are quiet."""

import logging
import os
import signal
import subprocess
import sys

import pytest

from ternbin.cli import main, rtl
from ternbin.progress import LOG, detail, say, stage, warn
from ternbin.sim.toolchain import BuildError


def _raising(monkeypatch, error: BaseException) -> None:
    def call(args):
        raise error

    monkeypatch.setattr(rtl, "call", call)


def test_a_fault_is_one_line_and_exit_70(monkeypatch, capsys, tmp_path):
    _raising(monkeypatch, ValueError("two\nlines"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["rtl"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.iterdir()
    assert line == f"ternbin rtl: internal error: ValueError: two lines (traceback: {log})"
    assert "Traceback" in log.read_text() and "raise error" in log.read_text()


def test_verbose_shows_the_traceback(monkeypatch, capsys):
    _raising(monkeypatch, ValueError("x"))
    assert main(["rtl", "--verbose"]) == 70
    assert "raise error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BuildError("make failed"), 70),
        (PermissionError(13, "Permission denied", "/a/b"), 2),
        (OSError(28, "No space left on device"), 2),
        (KeyboardInterrupt(), 130),
        (AssertionError("x"), 70),
        (RecursionError("deep"), 70),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code):
    _raising(monkeypatch, error)
    assert main(["rtl"]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_file_that_cannot_be_used_is_named(monkeypatch, capsys):
    _raising(monkeypatch, PermissionError(13, "Permission denied", "/a/b"))
    main(["rtl"])
    assert capsys.readouterr().err == "ternbin rtl: /a/b: cannot be used: Permission denied\n"


def _started(code: str) -> subprocess.Popen:
    script = f"import sys, time\nfrom ternbin.cli import main, rtl\n{code}\nsys.exit(main(['rtl']))"
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0
    )


def test_a_reader_that_goes_away_is_no_fault():
    job = _started("def call(args):\n    while True: print('line')\nrtl.call = call")
    assert job.stdout is not None and job.stdout.readline() == "line\n"
    job.stdout.close()
    assert job.wait(120) == 128 + signal.SIGPIPE
    assert job.stderr is not None and job.stderr.read() == ""


def test_sigterm_clears_away_what_is_being_written(tmp_path):
    code = f"""
from ternbin.storage import replacing
def call(args):
    with replacing({str(tmp_path / "file")!r}):
        print('here', flush=True)
        time.sleep(600)
rtl.call = call"""
    job = _started(code)
    assert job.stdout is not None and job.stdout.readline() == "here\n"
    assert len(list(tmp_path.iterdir())) == 1
    job.terminate()
    assert job.wait(120) == 143 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ([], ["warning: w", "s"]),
        (["--quiet"], ["warning: w"]),
        (["-v"], ["warning: w", "s", "d"]),
    ],
)
def test_quiet_and_verbose(monkeypatch, capsys, option, wanted):
    def call(args):
        warn("w")
        say("s")
        detail("d")
        with stage("step"):
            pass

    monkeypatch.setattr(rtl, "call", call)
    assert main(["rtl", *option]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "step" not in line] == wanted
    assert any("step" in line for line in lines) == ("-v" in option)
    assert LOG.level == logging.NOTSET and not LOG.handlers


def test_a_text_that_the_locale_cannot_print_is_no_fault():
    script = "import sys\nfrom ternbin.cli import main, rtl\nrtl.call = lambda args: print('\\u8bed')\nsys.exit(main(['rtl']))"
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=env)
    assert (done.returncode, done.stdout) == (0, b"\\u8bed\n")


def test_no_signal_handler_stays(capsys):
    before = signal.getsignal(signal.SIGTERM)
    main(["completion", "bash"])
    assert signal.getsignal(signal.SIGTERM) is before
