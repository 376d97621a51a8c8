"""Turns of streams that want to compute: by priority, then by age; a stream that hangs loses its turn."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.runtime.runner import RunOptions
from edge_hal.runtime.station import turns as module
from edge_hal.runtime.station.options import AddressOptions, StationOptions
from edge_hal.runtime.station.run import run_station
from edge_hal.runtime.station.turns import Turns
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.loops import ANY_PORT, check_laws
from tests.helpers.station_streams import endless

TIMEOUT_S = 60.0


def waiting(turns: Turns, count: int) -> None:
    """Until so many wait."""
    while len(turns._waiting) < count:
        threading.Event().wait(0.001)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-2, 2), min_size=1, max_size=8))
def test_the_highest_priority_comes_first_and_then_who_waits_longest(priorities: list[int]) -> None:
    turns, order = Turns(1), list[int]()

    def work(number: int) -> None:
        with turns.turn(priorities[number]):
            order.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(priorities))]
    with turns.turn(0):
        for number, worker in enumerate(workers):
            worker.start()
            waiting(turns, number + 1)
    for worker in workers:
        worker.join(TIMEOUT_S)
    assert order == sorted(range(len(priorities)), key=lambda number: (-priorities[number], number))


def test_no_more_than_allowed_compute_at_once_and_none_is_lost() -> None:
    turns, now, most, done = Turns(3), Counter[str](), list[int](), list[int]()
    lock = threading.Lock()

    def work(number: int) -> None:
        for _ in range(200):
            with turns.turn(number % 3):
                with lock:
                    now["at once"] += 1
                    most.append(now["at once"])
                with lock:
                    now["at once"] -= 1
            done.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(TIMEOUT_S)
    assert max(most) <= 3 and Counter(done) == dict.fromkeys(range(8), 200)


def test_a_turn_that_never_ends_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_TURN_S", 0.01)
    turns, go, begun = Turns(1), threading.Event(), threading.Event()

    def hang() -> None:
        with turns.turn(9):
            begun.set()
            go.wait(TIMEOUT_S)

    hanging = threading.Thread(target=hang)
    hanging.start()
    begun.wait(TIMEOUT_S)
    for _ in range(3):
        with turns.turn(0):
            assert hanging.is_alive()
    go.set()
    hanging.join(TIMEOUT_S)
    with turns.turn(0):
        pass


@pytest.mark.slow
def test_a_machine_that_is_too_slow_cuts_the_ticks_of_the_lowest_priority_and_evenly_there(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a turn of 70 ms where one stream may compute at a time: 14 a second, and three streams want 30."""
    real, pause = Recognizer.step, threading.Event()

    def slow(self: Recognizer, batch: Any, moments: Any) -> Any:
        pause.wait(0.07)
        return real(self, batch, moments)

    monkeypatch.setattr(Recognizer, "step", slow)
    monkeypatch.setattr("edge_hal.runtime.station.run.os.sched_getaffinity", lambda _: {0})
    streams: dict[str, RunOptions] = {}
    for name in ("first", "second", "third"):
        streams[name] = endless(tmp_path, bundle, name, seconds=6.0, overload="cut")
    options = StationOptions(streams, AddressOptions(ANY_PORT), priority={"first": 1})
    summary = run_station(lambda: options)
    cut: dict[str, int] = {}
    for name, told in summary.streams.items():
        assert told is not None
        check_laws(dict(told.counters))
        cut[name] = told.counters["cut"]
    assert cut["first"] < min(cut["second"], cut["third"]) / 3
    assert 0.5 < cut["second"] / cut["third"] < 2
