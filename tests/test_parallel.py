"""Work in forked processes and on executors: in order, the same result, and done again where a process was killed."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.parallel import Workers, mapped
from edge_hal.parallel import workers as module


@dataclass(frozen=True)
class Fragile:
    """The square of a number. The process that is given `deadly` is killed, the first `times` times."""

    folder: Path
    deadly: int
    times: int = 1

    def __call__(self, x: int) -> int:
        if x == self.deadly:
            for attempt in range(self.times):
                try:
                    (self.folder / str(attempt)).touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return x * x


def squared(x: int) -> int:
    if x < 0:
        raise ValueError(f"{x} is too small")
    return x * x


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_forked_work_comes_in_order_and_so_do_errors(workers: int) -> None:
    offset = 7  # a closure is inherited, not sent
    assert list(mapped(lambda x: squared(x) + offset, range(4), workers)) == [7, 8, 11, 16]
    assert list(mapped(squared, [], workers)) == [] and list(mapped(squared, [3], workers)) == [9]
    found = mapped(squared, [1, -2, 3], workers)
    assert next(found) == 1
    with pytest.raises(ValueError, match="-2 is too small"):
        next(found)
    inside = {os.getpid() for _ in range(2)} if workers == 1 else set(mapped(lambda _: os.getpid(), [0, 1], workers))
    assert (os.getpid() in inside) is (workers == 1)


@pytest.mark.parametrize("deadly", [0, 3, 9])
def test_the_work_of_a_killed_process_is_done_again(tmp_path: Path, deadly: int) -> None:
    assert list(mapped(Fragile(tmp_path, deadly), range(10), 2)) == [x * x for x in range(10)]
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_an_item_that_kills_each_process_is_one_error(tmp_path: Path) -> None:
    found = mapped(Fragile(tmp_path, 2, times=99), range(5), 2)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(EdgeHalError, match="processes of the alignment died"):
        next(found)
    assert len(list(tmp_path.iterdir())) == module.ATTEMPTS


def test_work_on_an_executor_comes_in_order_and_so_do_errors() -> None:
    with ThreadPoolExecutor(3) as executor:
        assert list(mapped(squared, range(9), executor)) == [x * x for x in range(9)]
        found = mapped(squared, [1, -2, 3], executor)
        assert next(found) == 1
        with pytest.raises(ValueError, match="-2 is too small"):
            next(found)


def test_an_executor_of_processes_gives_the_same() -> None:
    executor: Executor
    with ProcessPoolExecutor(2, get_context("fork")) as executor:
        assert list(mapped(squared, range(5), executor)) == [0, 1, 4, 9, 16]


def test_a_worker_with_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    here = module.versions()
    answers = iter([here, {**here, "numpy": "0.1"}])  # of this process, then of the worker
    monkeypatch.setattr(module, "versions", lambda: next(answers))
    workers: Workers
    with ThreadPoolExecutor(1) as workers, pytest.raises(EdgeHalError, match=f"numpy 0.1 instead of {here['numpy']}"):
        list(mapped(squared, [1], workers))


def test_workers_that_are_lost_end_the_work_even_if_nothing_is_cancelled() -> None:
    """A scheduler that is gone may never say what became of a task."""

    class Gone(Executor):
        lost = "the scheduler was away"

        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            return Future()

    with pytest.raises(EdgeHalError, match="the workers were lost: the scheduler was away"):
        list(mapped(abs, [1, 2], Gone()))
