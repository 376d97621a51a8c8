"""A function applied to many items: in this process, in forked ones, or by any executor of `concurrent.futures`."""

from __future__ import annotations

import multiprocessing
import pickle
import platform
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar, cast

import numpy as np

import edge_hal
from edge_hal.errors import EdgeHalError

Item = TypeVar("Item")
Result = TypeVar("Result")
Workers = int | Executor
"""A number of processes or threads on this machine, or what gives the work to others."""

LOST_S = 1.0
"""Time between two checks, during a wait for a result, whether the workers are lost."""
ATTEMPTS = 3
"""How often processes may die in a row, before any item is done."""
_inherited: Callable[[Any], Any] | None = None


def mapped(function: Callable[[Item], Result], items: Sequence[Item], workers: Workers) -> Iterator[Result]:
    """`function` of each item, in order. The result does not depend on the workers.

    A process that dies is replaced, and its work is done again.

    Args:
        function: processes inherit it; for an executor it must be picklable, and is sent with each item.

    Raises:
        EdgeHalError: as raised by `function`; or processes died repeatedly; or an executor's workers were lost, or have
            other versions.
    """
    if isinstance(workers, Executor):
        yield from _submitted(function, items, workers)
    elif min(workers, len(items)) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(function, items)
    else:
        yield from _forked(function, items, workers)


def _forked(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Forked processes inherit the data of `function`, so that large arrays are not sent to them."""
    global _inherited
    _inherited = function
    next_one, deaths = 0, 0
    found: dict[int, Result] = {}
    while next_one < len(items):
        before = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(min(workers, len(items)), multiprocessing.get_context("fork"), _start_worker)
        running: dict[int, Future[Result]] = {}
        try:
            for n in range(next_one, len(items)):
                if n not in found:
                    running[n] = pool.submit(_call_inherited, items[n])
            while next_one < len(items):
                if next_one not in found:
                    found[next_one] = running[next_one].result()
                yield found.pop(next_one)
                next_one, deaths = next_one + 1, 0
        except BrokenProcessPool as error:
            found |= {n: future.result() for n, future in running.items() if n >= next_one and _is_whole(future)}
            deaths = deaths + 1
            if deaths == ATTEMPTS:
                why = "killed, or out of memory"
                raise EdgeHalError("processes of the alignment died", why, "use fewer: --workers 1") from error
        finally:
            if next_one < len(items):  # interrupted: what still runs is not wanted
                for process in set(multiprocessing.active_children()) - before:
                    process.terminate()
            pool.shutdown(wait=bool(running), cancel_futures=True)  # without a thread there is nothing to wait for


def _is_whole(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _call_inherited(item: Any) -> Any:
    assert _inherited is not None
    return _inherited(item)


def _start_worker() -> None:
    """The parent handles an interrupt and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _submitted(function: Callable[[Item], Result], items: Sequence[Item], executor: Executor) -> Iterator[Result]:
    here, call = versions(), pickle.dumps(function)
    futures = [executor.submit(_call_sent, here, call, item) for item in items]
    try:
        for future in futures:
            yield cast("Result", _result(future, executor))
    except CancelledError as error:
        raise EdgeHalError("the workers were lost", getattr(executor, "lost", ""), "start them again") from error
    except (ImportError, AttributeError, pickle.UnpicklingError) as error:
        raise unusable(f"{type(error).__name__}: {error}") from error
    finally:
        for future in futures:
            future.cancel()


def _result(future: Future[Any], executor: Executor) -> Any:
    """Raises CancelledError if the workers are lost, also where the executor does not cancel what they had."""
    while not wait([future], timeout=LOST_S).done:
        if getattr(executor, "lost", ""):
            raise CancelledError
    return future.result()


def _call_sent(theirs: dict[str, str], call: bytes, item: Any) -> Any:
    """In a worker: the function in `call`, of `item`."""
    here = versions()
    if here != theirs:
        raise unusable(f"{platform.node()} has {different(here, theirs)}")
    return pickle.loads(call)(item)


def versions() -> dict[str, str]:
    """What must be the same here and in a worker."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"edge-hal": edge_hal.__version__, "numpy": np.__version__, "Python": python}


def different(here: dict[str, str], wanted: dict[str, str]) -> str:
    return ", ".join(f"{name} {here[name]} instead of {wanted[name]}" for name in here if here[name] != wanted[name])


def unusable(why: str) -> EdgeHalError:
    return EdgeHalError("a worker cannot do this work", why, "install the same versions there as here")
