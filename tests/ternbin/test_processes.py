import os
import time
from functools import partial

import pytest

from ternbin import processes


def there(number: int) -> tuple[int, int]:
    time.sleep(0.05)
    if number < 0:
        raise ValueError("a negative number")
    return os.getpid(), number


@pytest.fixture(scope="module")
def pool():
    with processes.started(1, __name__) as pool:
        pool.submit(there, 0).result()
        yield pool


def test_shared_tasks_are_done_once_and_meet(pool):
    done_here: list[int] = []

    def here(number: int) -> tuple[int, int]:
        done_here.append(number)
        return there(number)

    found = processes.shared(pool, there, here, range(12))
    assert [number for _, number in found] == list(range(12))
    first = min(done_here)
    assert 0 < first < 11 and done_here == list(range(11, first - 1, -1))  # one of the workers, from the first on
    assert {pid for pid, _ in found[:first]}.isdisjoint({os.getpid()})
    assert {pid for pid, _ in found[first:]} == {os.getpid()}


def test_shared_tasks_tell_of_an_error_wherever_it_is(pool):
    for tasks in ([-1, 1, 2, 3, 4], [1, 2, 3, 4, -1]):
        with pytest.raises(ValueError, match="a negative number"):
            processes.shared(pool, there, partial(there), tasks)
