"""The syntax of Liberty: groups of attributes and groups."""

import re
from dataclasses import dataclass, field

from ternbin.errors import InputError

_TOKEN = re.compile(r'"[^"]*"|[{}();:,]|[^\s{}();:,"]+')


@dataclass
class Group:
    """One Liberty group: ``kind (args) { ... }``."""

    kind: str
    args: list[str]
    values: dict[str, list[str]] = field(
        default_factory=dict[str, list[str]]
    )  # simple and complex attributes; the last of a name wins
    groups: list["Group"] = field(default_factory=list["Group"])

    def text(self, name: str, default: str = "") -> str:
        return self.values[name][0] if self.values.get(name) else default

    def number(self, name: str, default: float = 0.0) -> float:
        return float(self.text(name, str(default)))

    def of(self, kind: str) -> list["Group"]:
        return [group for group in self.groups if group.kind == kind]


def parse_group(text: str) -> Group:
    """The first group in ``text`` (comments and line continuations already removed). Raises InputError where it ends too early."""
    root = Group("", [])
    stack, tokens, i = [root], _TOKEN.findall(text), 0
    try:
        while i < len(tokens):
            if tokens[i] == "}":
                stack.pop()
                i += 1
                if len(stack) == 1:
                    return root.groups[0]
            elif tokens[i] == ";":
                i += 1
            elif tokens[i + 1] == ":":
                i = _simple(tokens, i, stack[-1])
            else:
                i = _complex(tokens, i, stack)
    except (IndexError, ValueError):
        pass
    raise InputError(
        f"a Liberty group must have an end, but one of {(root.groups or [root])[0].kind or 'text'!r} has none"
    )


def _simple(tokens: list[str], i: int, group: Group) -> int:
    """``name : value ;`` at token ``i``. Returns the token behind it."""
    end = i + 2
    while tokens[end] not in (";", "}"):
        end += 1
    group.values[tokens[i]] = [" ".join(token.strip('"') for token in tokens[i + 2 : end])]
    return end


def _complex(tokens: list[str], i: int, stack: list[Group]) -> int:
    """``name (args) ;`` or the head of a group, ``name (args) {``, at token ``i``. Returns the token behind it."""
    name, close = tokens[i], tokens.index(")", i)
    args = [token.strip('"') for token in tokens[i + 2 : close] if token != ","]
    if close + 1 < len(tokens) and tokens[close + 1] == "{":
        group = Group(name, args)
        stack[-1].groups.append(group)
        stack.append(group)
        return close + 2
    values = stack[-1].values
    values[name] = (
        values.get(name, []) + args if name == "fanout_length" else args
    )  # the one attribute that is repeated
    return close + 1
