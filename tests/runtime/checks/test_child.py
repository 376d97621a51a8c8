from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.checks.child import call

# What happens in the other process.


def told(text: str, numbers: list[int]) -> dict[str, Any]:
    print("a library that prints on standard output")
    return {"text": text, "numbers": numbers, "process": os.getpid()}


def counts(upto: int, end: str) -> Iterator[int]:
    yield from range(upto)
    if end == "crash":
        ctypes.string_at(0)
    elif end == "hang":
        time.sleep(600)
    elif end == "error":
        raise EdgeHalError("it is broken", "it fell", "buy another")
    elif end == "exit":
        sys.exit(3)


def crashes_afterwards() -> str:
    import atexit

    atexit.register(lambda: os.kill(os.getpid(), signal.SIGABRT))
    return "all is well"


def reports(report: Any) -> str:
    for done in range(3):
        report("build", done, 2, "a graph")
    return "built"


def lies() -> object:
    return object()


def test_what_it_returns_comes_back_whatever_it_prints() -> None:
    answer = call(told, "Grüße\n", [1, 2])
    assert (answer.value["text"], answer.value["numbers"], answer.failure) == ("Grüße\n", [1, 2], "")
    assert answer.value["process"] != os.getpid() and answer.printed == "a library that prints on standard output"


@pytest.mark.parametrize(
    "end, failure", [("crash", "killed by SIGSEGV"), ("hang", "no answer for 5 s"), ("error", "it is broken: it fell")]
)
def test_what_was_yielded_before_it_failed_is_kept(end: str, failure: str) -> None:
    answer = call(counts, 3, end, silence_s=5)
    assert answer.value == [0, 1, 2] and failure in answer.failure
    assert answer.todo == ("buy another" if end == "error" else "")


def test_a_process_that_says_nothing_or_cannot_say_it_or_crashes_at_its_end_has_failed() -> None:
    assert call(counts, 0, "exit").failure == "it returned nothing"
    assert "not JSON serializable" in call(lies).failure
    answer = call(crashes_afterwards)
    assert answer.value == "all is well" and "SIGABRT" in answer.failure
    assert "TypeError" in call(told).failure


def test_progress_comes_through() -> None:
    heard: list[tuple[Any, ...]] = []
    assert call(reports, report=lambda *progress: heard.append(progress)).value == "built"
    assert heard == [("build", done, 2, "a graph") for done in range(3)]
