"""Work spread over forked processes, which inherit what it needs: arrays of many megabytes are not sent about."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")
_inherited: Callable[[Any], Any] | None = None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forked(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """`function` of each item, in order; items and results are sent, everything else is inherited.

    In this process where one worker is asked for, or nothing can be forked.
    """
    global _inherited
    if min(workers, len(items)) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(function, items)
        return
    _inherited = function
    with multiprocessing.get_context("fork").Pool(min(workers, len(items)), _deaf) as pool:
        yield from cast("Iterator[Result]", pool.imap(_call, items))


def _call(item: Any) -> Any:
    assert _inherited is not None
    return _inherited(item)


def _deaf() -> None:
    """An interrupt is the parent's to handle, who ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
