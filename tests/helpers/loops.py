"""What tests of the loop share: sources, runs that keep their events, and what holds for every run."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.events import End, Event, Gap, Now, Start, Transition
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.runner import RunOptions, Summary, run
from tests.helpers.bundles import LABELS

ANY_PORT = "tcp://127.0.0.1:*"


def segments(seed: int, count: int, shortest: int = 6, longest: int = 60) -> list[int]:
    """One label per tick; neighbours differ."""
    rng, labels, last = np.random.default_rng(seed), [], -1
    for _ in range(count):
        last = int(rng.choice([label for label in range(len(LABELS)) if label != last]))
        labels += [last] * int(rng.integers(shortest, longest))
    return labels


def features(path: Path, rows: NDArray[Any], hz: float) -> str:
    np.save(path / "f.npy", rows)
    return f"features:{path}/f.npy@{hz}"


def recorded(options: RunOptions, **how: Any) -> tuple[Summary, list[Event]]:
    events: list[Event] = []
    options = replace(options, endpoint=ANY_PORT)
    return run(options, on_event=events.append, **how), events


def received(options: RunOptions) -> list[Event]:
    """Every event but heartbeats and snapshots that a subscriber receives."""
    heard: list[Event] = []
    failures: list[BaseException] = []

    def listen() -> None:
        try:
            with subscribe(options.endpoint, options.stream, timeout_s=60.0) as events:
                for event in events:
                    if event.durable or isinstance(event, Now):
                        heard.append(event)
                    if isinstance(event, End):
                        return
        except BaseException as error:  # for the thread of the test
            failures.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    run(replace(options, wait_subscribers=1))
    listener.join(timeout=60)
    assert not failures and not listener.is_alive()
    return heard


def transitions(events: list[Event]) -> list[tuple[str | None, str, int, int]]:
    return [
        (event.from_, event.to, event.boundary.tick, event.decision.tick)
        for event in events
        if isinstance(event, Transition)
    ]


def check_laws(counters: dict[str, Any]) -> None:
    dropped = sum(counters["dropped"].values())
    assert counters["captured"] == counters["used"] + dropped + counters["in_flight"]
    assert counters["ticks"] == counters["fresh"] + counters["held"] + counters["cut"]
    assert counters["used"] == counters["fresh"]
    assert min(counters["captured"], counters["in_flight"], *counters["dropped"].values()) >= 0


def check_stream(events: list[Event], summary: Summary) -> None:
    """What holds for every run whatsoever."""
    assert [event.seq for event in events] == list(range(len(events)))
    assert isinstance(events[0], Start) and isinstance(events[-1], End)
    assert events[-1].counters == summary.counters and events[-1].reason == summary.reason
    assert summary.events == len(events)
    check_laws(dict(summary.counters))
    action, epoch = None, 0
    for event in events[1:]:
        assert event.epoch == epoch
        if isinstance(event, Transition):
            assert event.from_ == action != event.to
            assert event.boundary.t_ns <= event.decision.t_ns
            action = event.to
        elif isinstance(event, Gap) and event.reset:
            action, epoch = None, epoch + 1
