"""Typed errors; only the command line turns them into exit codes."""

FAULT = 70  # exit code of a fault of ternbin itself or of a tool that it runs: nothing that was given is wrong


class TernbinError(Exception):
    """Base of every error that a user can cause; ``exit_code`` is what the command line returns."""

    exit_code = 2


class InputError(TernbinError):
    """Bad input or usage: says "X must be Y, not Z" and names the file or field."""

    exit_code = 2


class CheckError(TernbinError):
    """A check failed: two things that must be equal bit for bit are not."""

    exit_code = 1


class MissingToolError(TernbinError):
    """An external program or optional package is missing; the message says what to install."""

    exit_code = 3
