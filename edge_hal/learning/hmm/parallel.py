"""A function applied to many items in forked processes. They inherit its data, so large arrays are not sent to them."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")
_inherited: Callable[[Any], Any] | None = None


def forked(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """`function` of each item, in order. Items and results are pickled; everything else is inherited.

    Runs in this process if `workers` is 1 or the system cannot fork.
    """
    global _inherited
    if min(workers, len(items)) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(function, items)
        return
    _inherited = function
    with multiprocessing.get_context("fork").Pool(min(workers, len(items)), _ignore_interrupts) as pool:
        yield from cast("Iterator[Result]", pool.imap(_call, items))


def _call(item: Any) -> Any:
    assert _inherited is not None
    return _inherited(item)


def _ignore_interrupts() -> None:
    """The parent handles an interrupt and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
