"""Pages do not go stale: links, paths, names, command lines and tables of README and docs are those of the tree."""

import argparse
import ast
import importlib
import re
import shlex
import tomllib
from functools import cache

import pytest
from pages import PAGES, ROOT

import ternbin
from ternbin.cli import VERBS, add_verbosity
from ternbin.contract import isa
from ternbin.contract.hw import HwConfig
from ternbin.graph.ops.registry import OPS

DOCS = ROOT / "docs"
TOP = "ternbin|rtl|sim|models|tests|benchmarks|examples|docs|reports/example"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _anchors(page) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title).lower()).replace(" ", "-") for title in titles}


@each_page
def test_links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found), target


@cache
def _files() -> list[str]:
    inside = [str(path.relative_to(ROOT)) for top in TOP.split("|")[:7] for path in (ROOT / top).rglob("*.*")]
    return [*inside, *(path.name for path in ROOT.glob("*.*"))]


@each_page
def test_named_paths(page):
    """Paths from the top of the repository; and files of Python, C++ and Verilog that are named by the end of their path."""
    text = page.read_text()
    files = _files()
    for path in re.findall(rf"(?<![\w/.-])(?:{TOP})(?:/[\w.-]+)+", text):
        path = path.rstrip(".")
        inside = path.removeprefix("ternbin/")
        assert (ROOT / path).exists() or (ROOT / inside).exists(), path
    for path in re.findall(r"`([\w/]+\.(?:py|cpp|h|v|vlt|toml|ipynb))`", text):
        assert any(name == path or name.endswith(f"/{path}") for name in files), path


@each_page
def test_named_modules(page):
    for name in re.findall(r"(?<![\w./])ternbin(?:\.[a-z_]\w*)+", page.read_text()):
        parts, found = name.split(".")[1:], ternbin
        for number, part in enumerate(parts):
            if not hasattr(found, part):
                importlib.import_module(".".join(["ternbin", *parts[: number + 1]]))
            found = getattr(found, part)


def _commands(text: str) -> list[str]:
    """Command lines of code blocks (comments and prompts aside) and of inline code."""
    lines = [line for line in text.splitlines() if line.startswith("    ")]
    inline = [
        code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]
    return [line.strip().partition("  #")[0] for line in lines + inline]


@cache
def _parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f"ternbin.cli.{verb}").add_arguments(parser)
    add_verbosity(parser)
    return parser


def _complete(line: str) -> bool:
    """Whether it is a command line to type, not one with parts left open."""
    return not re.search(r"\.\.\.|\[|\||\b[A-Z]{2,}\b", line)


@each_page
def test_command_lines(page):
    """Every `ternbin VERB ...`: complete ones parse, of others every option exists."""
    for line in _commands(page.read_text()):
        if not re.match(r"ternbin [a-z]+( |$)", line):  # not a message of a verb
            continue
        _, verb, *words = shlex.split(line)
        assert verb in VERBS, line
        parser = _parser(verb)
        options = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
        assert options <= set(parser._option_string_actions), line
        if line.startswith("ternbin") and words and _complete(line) and "--claim" not in words and len(words) > 1:
            parser.parse_args(words)


def test_there_are_command_lines():
    assert sum(line.startswith("ternbin ") for line in _commands((ROOT / "README.md").read_text())) >= 10


@each_page
def test_options_of_inline_code(page):
    known = {option for verb in VERBS for option in _parser(verb)._option_string_actions}
    for code in re.findall(r"`(--[a-z-]+)[^`]*`", page.read_text()):
        assert code in known, code


@each_page
def test_make_targets(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [re.match(r"make ([a-z]+)$", line.strip()) for line in _commands(page.read_text())]
    assert {match.group(1) for match in named if match} <= targets


def test_the_index_lists_every_page():
    index = (DOCS / "README.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"[{page.name}]({page.name})" in index, page.name


# ---- tables that say what the code says -----------------------------------------------------------------------------


def _section(page: str, title: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    text = (DOCS / page).read_text()
    match = re.search(rf"^(#+) {re.escape(title)}$\n(.*?)(?=^#{{1,6}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert match, f"{page} must have a section {title}"
    return match.group(2)


def _rows(text: str, *header: str) -> list[list[str]]:
    """The cells of the table whose header begins so."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| " + " | ".join(header)))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in re.split(r" \|(?= )", line.strip("|"))])
    return table


def _fields(title: str) -> list[tuple[str, str, str]]:
    return [
        (name.strip("`"), bits, width)
        for name, bits, width, *_ in _rows(_section("instruction-set.md", title), "field", "bits")
    ]


def _expected(op: isa.Op, names: list[str]) -> list[tuple[str, str, str]]:
    result = []
    for name in names:
        low, bits, signed = isa.layout(op)[name]
        result.append(
            (name, str(low) if bits == 1 else f"{low}..{low + bits - 1}", f"{bits} signed" if signed else str(bits))
        )
    return result


HEADER = ["opcode", "wait", "signal", "check"]


def test_the_header_of_instructions():
    assert _fields("The header") == _expected(isa.Op.END, HEADER)
    assert f"{isa.CHECK:#06X}".replace("0X", "0x") in _section("instruction-set.md", "The header")


@pytest.mark.parametrize(
    ("op", "title"),
    [(op, "LOAD, STORE" if op in (isa.Op.LOAD, isa.Op.STORE) else op.name) for op in isa.Op if op != isa.Op.END],
    ids=lambda value: getattr(value, "name", None),
)
def test_fields_of_instructions(op, title):
    assert _fields(title) == _expected(op, [name for name in isa.layout(op) if name not in HEADER])


@pytest.mark.parametrize(
    ("title", "column", "enum"),
    [
        ("Units and operations", "operation", isa.Op),
        ("Memories", "memory", isa.Mem),
        ("GEMM", "epilogue", isa.Epilogue),
        ("GEMM", "dest", isa.Dest),
        ("Control and bus", "error", isa.ErrorCode),
    ],
)
def test_numbers_of_the_instruction_set(title, column, enum):
    rows = _rows(_section("instruction-set.md", title), column)
    assert {name.strip("`"): int(number) for name, number, *_ in rows} == {each.name: each.value for each in enum}


def test_units_kinds_and_registers():
    page = (DOCS / "instruction-set.md").read_text()
    rows = _rows(_section("instruction-set.md", "Units and operations"), "operation")
    units = {isa.Op[name.strip("`")]: isa.Unit[unit] for name, _, unit, *_ in rows if unit}
    assert units == isa.UNIT_OF
    assert ", ".join(f"`{kind.name}` {kind.value}" for kind in isa.Kind) in " ".join(page.split())
    assert ", ".join(f"{unit.name} {unit.value}" for unit in isa.Unit) in " ".join(page.split())
    registers = {name: value for name, value in vars(isa).items() if name.startswith("REG_")}
    rows = _rows(_section("instruction-set.md", "Control and bus"), "register")
    assert {f"REG_{name.strip('`')}": int(offset, 16) for name, offset, *_ in rows} == registers
    assert f"{isa.WATCHDOG_CYCLES:,} cycles" in page


def test_every_op_of_the_graph_has_a_row():
    real = _rows(_section("graph.md", "Real ops, and what lowering composes from them"), "op (sources)")
    final = _rows(_section("graph.md", "Final ops"), "op (sources)")
    named = [re.match(r"`(\w+)\(", row[0]) for row in real + final]
    assert sorted(match.group(1) for match in named if match) == sorted(OPS)
    assert {row[0].partition("(")[0].strip("`") for row in real} == {
        n for n, spec in OPS.items() if spec.stage == "real"
    }


OPEN = {
    "errors",
    "formats",
    "processes",
    "progress",
    "schema",
    "storage",
    "version",
}  # to all that name them in the allow-list


def test_every_room_has_a_row():
    source = (ROOT / "tests" / "test_layering.py").read_text()
    rooms = re.findall(r'^    "([a-z.]+)":', source, re.MULTILINE)
    section = _section("architecture.md", "The folders")
    for room in {room.partition(".")[0] for room in rooms} - {"ternbin"} - OPEN:
        assert re.search(rf"`(?:ternbin/)?{room}(?:\.py)?`", section), room


def test_the_arrows_are_those_of_the_allow_list():
    tree = ast.parse((ROOT / "tests" / "test_layering.py").read_text())
    values = {
        n.targets[0].id: n.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    heavy, arrows = ast.literal_eval(values["HEAVY"]), {}
    for room, allowed in ast.literal_eval(values["ALLOWED"]).items():
        own, *others = (name if name == "energy.gates" else name.partition(".")[0] for name in [room, *allowed.split()])
        arrows.setdefault(own, set()).update({*others} - {own, *heavy} - OPEN)
    rows = _rows(_section("architecture.md", "Who may import whom"), "folder", "may import")
    shown = {folder.strip("`"): set(re.findall(r"`([\w.]+)`", others)) for folder, others in rows}
    everything = {"api", "cli", "ternbin", "__main__"} | OPEN
    assert shown == {room: others for room, others in arrows.items() if room not in everything}


def test_every_verb_and_every_name_has_a_row():
    table = "\n".join(" | ".join(row) for row in _rows(_section("python.md", "The calls"), "command line"))
    for verb in VERBS:
        assert f"`ternbin {verb}`" in table, verb
        assert re.search(rf"`{verb}`", (ROOT / "README.md").read_text()), verb
    page = (DOCS / "python.md").read_text()
    for name in set(ternbin.__all__) - {"__version__", "Waves", "load_hw"}:
        assert name in page, name


def test_the_example_accelerator_is_one():
    values = tomllib.loads((ROOT / "examples" / "accelerator.toml").read_text())
    assert HwConfig(**values).peak_macs == values["rows"] * values["cols"] * values["lanes"]


def test_docstrings_name_pages_and_sections_that_exist():
    sources = [path for top in ("ternbin", "rtl", "sim", "models", "tests") for path in (ROOT / top).rglob("*.py")]
    named = 0
    for path in sources:
        for page, title in re.findall(r'docs/([\w-]+\.md)(?:, "([^"]+)")?', path.read_text()):
            assert (DOCS / page).exists(), f"{path}: {page}"
            titles = re.findall(r"^#+ (.*)$", (DOCS / page).read_text(), re.MULTILINE)
            assert not title or title in titles, f"{path}: {page}, {title}"
            named += bool(title)
    assert named >= 5
