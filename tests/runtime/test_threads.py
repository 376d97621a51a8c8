from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edge_hal.runtime import threads
from edge_hal.runtime.threads import Worker


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "RETRY_S", 0.01)
    yield


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), MemoryError(), RecursionError()]
)
def test_a_thread_that_fails_is_logged_reported_and_restarted(error: Any, caplog: pytest.LogCaptureFixture) -> None:
    calls, over = [], threading.Event()

    def work() -> None:
        calls.append(0)
        if len(calls) < 3:
            raise error
        over.wait(20)

    worker = Worker(work, "sample", restarts=5)
    worker.start()
    while len(calls) < 3:
        worker.join(0.01)
    assert [f"edge-hal-sample was restarted: {type(error).__name__}" in text for text in threads.troubles()] == [True]
    assert "test_threads.py" in caplog.text and not worker.failed
    over.set()
    assert worker.finish() and not threads.troubles()


def test_a_thread_that_fails_too_often_ends_and_its_owner_is_told() -> None:
    told: list[str] = []

    def work() -> None:
        raise OSError("no more")

    worker = Worker(work, "sample", restarts=2, gave_up=told.append)
    worker.start()
    worker.join(20)
    assert worker.failed and told == [told[0]] and "no more" in told[0]
    assert any("edge-hal-sample ended" in text for text in threads.troubles())
    worker.finish()
    assert not threads.troubles()


def test_a_stop_waits_for_progress_and_leaves_what_makes_none(caplog: pytest.LogCaptureFixture) -> None:
    steps, go = [0], threading.Event()
    slow = Worker(lambda: go.wait(0.3), "slow")
    slow.start()
    assert slow.finish(lambda: steps.append(0) or len(steps), limit_s=0.05)
    stuck = Worker(lambda: go.wait(20), "stuck")
    stuck.start()
    assert not stuck.finish(limit_s=0.05) and "edge-hal-stuck did not stop" in caplog.text
    go.set()


def test_threads_begin_and_end_while_others_ask_for_troubles() -> None:
    """As the streams of a station do."""
    kept = [Worker(lambda: None, f"kept-{number}") for number in range(200)]
    over, before = threading.Event(), sys.getswitchinterval()

    def begin_and_end() -> None:
        while not over.is_set():
            assert Worker(lambda: None, "brief").finish()

    with ThreadPoolExecutor(2) as others:
        sys.setswitchinterval(1e-6)
        try:
            changing = [others.submit(begin_and_end) for _ in range(2)]
            for _ in range(300):
                assert not threads.troubles()
        finally:
            over.set()
            sys.setswitchinterval(before)
        for each in changing:
            each.result()
    assert all(worker.finish() for worker in kept)
