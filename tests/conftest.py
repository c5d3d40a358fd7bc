"""What all tests share: one thread of PyTorch, which tests need a compiler, and the order in which they run.

Tests run in two processes, each with one thread of PyTorch: more would wait for each other, and spin while they do.

A test needs a build, and has the marker ``build``, when it, a fixture it uses or a function of the tests it calls names one of
``BUILDERS``. Where that cannot be seen (the command line finds its verbs by name) the test says ``@pytest.mark.build`` itself; a
test that builds without the marker fails and says so.
"""

import functools
import gc
import inspect
import os
import time
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.set_threshold(100_000, 20, 100)  # far above 700, as on the command line

from ternbin.sim import toolchain  # noqa: E402  after the number of threads

# Modules all of whose functions compile something or run what was compiled, and single functions.
BUILDERS = {
    "ternbin.energy.gates.engine",
    "ternbin.energy.gates.rtl_run",
    "ternbin.sim.bench.run_bench",
    "ternbin.sim.build.build",
    "ternbin.sim.runner.run",
    "ternbin.sim.toolchain.compile_model",
    "ternbin.sim.toolchain.verilator",
    "ternbin.flow.summarise",
    "ternbin.simulate",
    "ternbin.summarise",
    "ternbin.verify_cases",
    "ternbin.verify.verify_case",
}
# Tests that build run in this order of files, those that take longest first; files that are not named come last.
LONGEST_FIRST = (
    "test_chain",
    "test_vector",
    "test_array",
    "test_top",
    "test_cocotb",
    "test_execute",
    "test_dma",
    "test_cycles",
    "test_events",
    "test_cli",
    "test_resume",
    "test_run",
    "test_beams",
)
_running: list[pytest.Item] = []


def pytest_configure(config: pytest.Config) -> None:
    """Watch the one function that builds models, before anything imports it by name."""
    toolchain.compile_model = _watched(toolchain.compile_model)


def _watched(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def compile_model(spec: toolchain.ModelSpec, *arguments: Any, **options: Any) -> Any:
        item = _running[-1] if _running else None
        if item is not None and item.get_closest_marker("build") is None:
            pytest.fail(f"{item.nodeid} builds a simulator: it must have the marker build (see tests/conftest.py)")
        fresh = not (toolchain.cache_dir() / spec.fingerprint / spec.output).exists()
        start = time.monotonic()
        path = build(spec, *arguments, **options)
        if fresh and item is not None:
            item.user_properties.append(("built", (spec.top, time.monotonic() - start)))
        return path

    return compile_model


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _running.append(item)
    result = yield
    _running.pop()
    return result


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@functools.cache
def _builds(function: Callable[..., Any]) -> bool:
    """Whether ``function`` names a builder, or a function of the same module (then: of that module) that does."""
    function = inspect.unwrap(function)
    if not inspect.isfunction(function):
        return False
    names = set(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType) and any(f"{value.__name__}.{other}" in BUILDERS for other in names):
            return True
        if isinstance(value, ModuleType) or value is None or value is function:
            continue
        module = getattr(value, "__module__", "")
        if module in BUILDERS or f"{module}.{getattr(value, '__qualname__', '')}" in BUILDERS:
            return True
        if module == function.__module__ and inspect.isfunction(value) and _builds(value):
            return True
    return False


def _fixtures(item: pytest.Function) -> list[Any]:
    """Definitions of the fixtures that a test uses, those of fixtures included."""
    return [definition for found in item._fixtureinfo.name2fixturedefs.values() for definition in found]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what builds; what needs no build first; tests that share a fixture of their module in one process."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        fixtures = _fixtures(item)
        if _builds(item.function) or any(_builds(fixture.func) for fixture in fixtures):
            item.add_marker(pytest.mark.build)
        needs_build = item.get_closest_marker("build") is not None
        if not needs_build or any(fixture.scope != "function" for fixture in fixtures):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}{' builds' if needs_build else ''}"))
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> tuple[int, int]:
    if item.get_closest_marker("types") is not None:
        return (0, 0)
    if item.get_closest_marker("build") is None:
        return (1, 0)
    stem = item.path.stem
    return (2, LONGEST_FIRST.index(stem) if stem in LONGEST_FIRST else len(LONGEST_FIRST))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many simulators were built, and how long tests waited for them."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "nodeid")]
    built = [value for report in reports if getattr(report, "when", "") == "call" for value in _built(report)]
    if built:
        longest = ", ".join(f"{top} {seconds:.0f} s" for top, seconds in sorted(built, key=lambda b: -b[1])[:5])
        seconds = sum(seconds for _, seconds in built)
        terminalreporter.write_line(f"{len(built)} simulators built, waited {seconds:.0f} s for; longest: {longest}")


def _built(report: pytest.TestReport) -> list[tuple[str, float]]:
    return [(value[0], value[1]) for name, value in report.user_properties if name == "built"]  # type: ignore[index]
