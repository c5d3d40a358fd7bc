"""What evaluates points: this process, processes on this machine, or a Dask cluster. An engine takes groups of points and gives the
records of each group as soon as it has them, in any order."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from ternbin import processes
from ternbin.errors import InputError, MissingToolError
from ternbin.explore.evaluate import Record, evaluate
from ternbin.explore.point import Point
from ternbin.version import __version__

Group = list[Point]
Job = Callable[[Group], list[Record]]
LOSSES = 3  # of workers, over one group


class Engine(Protocol):
    def run(self, groups: Iterable[Group]) -> Iterator[list[Record]]: ...

    def close(self) -> None: ...


def evaluate_group(points: Group) -> list[Record]:
    """One after the other: what the first needs, the others find."""
    return [evaluate(point) for point in points]


@cache
def code() -> str:
    """Version, and a digest of the package's code and tables: records of one are comparable, those of two may not be."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    folders = ("contract", "counting", "decoding", "energy", "explore", "graph", "mapping", "models", "passes")
    for folder in folders:
        for path in sorted((root / folder).resolve().rglob("*")):
            if path.suffix in (".py", ".csv") or path.name == "characterisation.json":
                found.update(path.name.encode() + path.read_bytes())
    return f"{__version__} {found.hexdigest()[:12]}"


class Here:
    """This process."""

    def run(self, groups: Iterable[Group]) -> Iterator[list[Record]]:
        return map(evaluate_group, groups)

    def close(self) -> None:
        pass


class Processes:
    """``workers`` processes on this machine, one thread each. A lost one is replaced, and what it had begun is begun again."""

    def __init__(self, workers: int, job: Job = evaluate_group):
        self.workers, self.job = workers, job
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        with _one_thread():
            return processes.start(self.workers, evaluate.__module__)

    def run(self, groups: Iterable[Group]) -> Iterator[list[Record]]:
        waiting, losses = iter(groups), dict[int, int]()
        pending: dict[Future[list[Record]], Group] = {}
        while True:
            lost = self._fill(pending, islice(waiting, max(0, 2 * self.workers - len(pending))))
            if not pending and not lost:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                group = pending.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    lost.append(group)
            if lost:  # and with it all that were begun
                lost += pending.values()
                pending.clear()
                self._replace(lost, losses)
                waiting = chain(lost, waiting)

    def _fill(self, pending: dict[Future[list[Record]], Group], more: Iterable[Group]) -> list[Group]:
        """Begins ``more`` groups; returns those that could not be begun."""
        lost: list[Group] = []
        for group in more:
            try:
                pending[self._pool.submit(self.job, group)] = group
            except BrokenProcessPool:
                lost.append(group)
        return lost

    def _replace(self, lost: list[Group], losses: dict[int, int]) -> None:
        for group in lost:
            losses[id(group)] = losses.get(id(group), 0) + 1
            if losses[id(group)] >= LOSSES:
                raise InputError(
                    f"point {group[0].id}: workers must not die, and {LOSSES} did (out of memory?): fewer --workers need less; "
                    "the same command goes on"
                )
        self.close()
        self._pool = self._start()

    def close(self) -> None:
        """Ends the workers, whatever they are at."""
        processes.end(self._pool)


class Dask:
    """A Dask cluster: ``address`` of its scheduler, or "local" for ``workers`` processes of its own."""

    def __init__(self, address: str, workers: int, job: Job = evaluate_group):
        """Raises MissingToolError without Dask, InputError for a scheduler that is not reached and for workers of other code."""
        try:
            from dask import config
            from distributed import Client, LocalCluster
        except ImportError:
            raise MissingToolError("--dask needs Dask: pip install 'ternbin[explore]'") from None
        self.job = job
        config.set({"distributed.worker.daemon": True, "logging.distributed": "error"})
        self._cluster: Any = None
        options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "processes": True}
        options |= {"dashboard_address": None, "silence_logs": 50}
        if address == "local":
            with _one_thread():
                self._cluster = LocalCluster(**options)
        try:
            self._client = Client(self._cluster or address, timeout=10)
        except (OSError, ValueError) as error:
            raise InputError(f"--dask {address}: the scheduler must be reached, but was not: {error}") from None
        self._check(address)

    def _check(self, address: str) -> None:
        try:
            found: Any = self._client.run(code)
        except Exception as error:  # whatever a worker without the package raises
            raise InputError(f"--dask {address}: workers must have ternbin {code()}, not none ({error})") from None
        if not found:
            raise InputError(f"--dask {address}: the cluster must have at least one worker, not none")
        for worker, theirs in found.items():
            if theirs != code():
                raise InputError(f"--dask {address}: worker {worker} must have ternbin {code()}, not {theirs}")

    def run(self, groups: Iterable[Group]) -> Iterator[list[Record]]:
        from distributed import as_completed

        waiting = iter(groups)

        def submit(count: int) -> list[Any]:
            return [
                self._client.submit(self.job, group, pure=False, retries=LOSSES) for group in islice(waiting, count)
            ]

        window = max(4, 3 * len(self._client.scheduler_info(n_workers=-1)["workers"]))
        running = as_completed(submit(window), with_results=False)
        for future in running:
            try:
                yield future.result()
            except Exception as error:
                if type(error).__name__ != "KilledWorker":
                    raise
                raise InputError(f"workers must not die, and {LOSSES} did over one group of points: {error}") from None
            future.release()
            running.update(submit(1))

    def close(self) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class _one_thread:
    """Processes that are started within compute with one thread each."""

    NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self.NAMES}
        os.environ.update(dict.fromkeys(self.NAMES, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
