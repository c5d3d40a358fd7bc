"""Print the script that lets a shell complete verbs, options and paths.

ternbin completion bash > ~/.local/share/bash-completion/completions/ternbin
ternbin completion zsh > ~/.zfunc/_ternbin
"""

import argparse
from collections.abc import Mapping

_KINDS = {"DIR": "directory", "FILE": "file", "PATH": "file", "F": "file", "RESULT": "file", "NAME|FILE": "file"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def call(args: argparse.Namespace) -> None:
    import shtab

    from ternbin.cli import parser

    whole = parser()
    _mark_paths(whole, {"directory": shtab.DIRECTORY, "file": shtab.FILE})
    print(shtab.complete(whole, args.shell))


def _mark_paths(parser: argparse.ArgumentParser, kinds: Mapping[str, object]) -> None:
    """Gives every argument that its metavar says to be a path the completion of one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _mark_paths(sub, kinds)
        elif action.metavar in _KINDS:
            action.complete = kinds[_KINDS[str(action.metavar)]]  # pyright: ignore[reportAttributeAccessIssue]  # what shtab reads
