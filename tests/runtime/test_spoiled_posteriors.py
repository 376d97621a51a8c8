"""A model that passes its trial and gives no finite posteriors later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Gap, Start, Transition, encode
from edge_hal.runtime.api import open_stream
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.reader import comparable, read_recording
from edge_hal.runtime.runner import run
from tests.helpers.bundles import known_bundle, vectors
from tests.helpers.hostile_bundles import poisoned, with_graph

HZ = 10
SICK = np.array([200.0, 0.0, 0.0], np.float32)
"""The posterior of this vector is not finite. The trial has no input like it."""


@pytest.fixture(scope="module", params=[np.nan, np.inf, -np.inf, 1e38])
def sick_bundle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Bundle:
    root = tmp_path_factory.mktemp("sick")
    return with_graph(known_bundle(root / "bundle", float(HZ)), poisoned(request.param, 100.0))


def stream(seconds: float, sick: list[tuple[float, float]]) -> NDArray[Any]:
    """Vectors (T, 3): another label every two seconds, sick in the given intervals, s."""
    rows = vectors([(tick // (2 * HZ)) % 3 for tick in range(round(seconds * HZ))])
    for begin, end in sick:
        rows[round(begin * HZ) : round(end * HZ)] = SICK
    return rows


def options_for(bundle: Bundle, rows: NDArray[Any], folder: Path) -> RunOptions:
    np.save(folder / "f.npy", rows)
    return RunOptions(bundle.path, f"features:{folder}/f.npy@{HZ}", "tcp://127.0.0.1:*", pace="asap")


def pushed(bundle: Bundle, rows: NDArray[Any], events: list[Event]) -> None:
    with open_stream(bundle.path) as one:
        for number, row in enumerate(rows):
            events += one.push(row, number * 10**9 // HZ)
        events += one.close()
    counters = one.counters
    assert counters["captured"] == counters["used"] + sum(counters["dropped"].values()) + counters["in_flight"]
    assert counters["ticks"] == counters["fresh"] + counters["held"] + counters["cut"]


@pytest.mark.parametrize("way", ["run", "api"])
def test_a_posterior_that_is_not_finite_ends_the_epoch(sick_bundle: Bundle, tmp_path: Path, way: str) -> None:
    rows, events = stream(20.0, [(7.0, 7.3)]), list[Event]()
    if way == "api":
        pushed(sick_bundle, rows, events)
    else:
        run(options_for(sick_bundle, rows, tmp_path), on_event=events.append)
    [gap] = [event for event in events if isinstance(event, Gap)]
    assert (gap.reason, gap.reset) == ("model", True)
    assert 6.9e9 <= gap.begin.t_ns <= 7.4e9 and gap.end.t_ns - gap.begin.t_ns < 2e9
    transitions = [event for event in events if isinstance(event, Transition)]
    assert {event.epoch for event in transitions} == {0, 1}
    assert next(event for event in transitions if event.epoch == 1).from_ is None
    assert all(np.isfinite(event.confidence) for event in transitions)
    assert [event.seq for event in events] == list(range(len(events)))
    assert isinstance(events[0], Start) and isinstance(events[-1], End) and events[-1].reason == "eof"


@pytest.mark.parametrize("way", ["run", "api"])
def test_ten_seconds_of_it_end_the_run(sick_bundle: Bundle, tmp_path: Path, way: str) -> None:
    rows, events = stream(60.0, [(7.0, 60.0)]), list[Event]()
    with pytest.raises(EdgeHalError, match="no finite posteriors for 10 s"):
        if way == "api":
            pushed(sick_bundle, rows, events)
        else:
            run(options_for(sick_bundle, rows, tmp_path), on_event=events.append)
    gaps = [event for event in events if isinstance(event, Gap)]
    assert {(gap.reason, gap.reset) for gap in gaps} == {("model", True)}
    assert 5 <= len(gaps) <= 11  # one a second, not one a tick
    if way == "run":
        assert isinstance(events[-1], End) and events[-1].reason == "error"
        assert 16.9e9 <= events[-1].last.t_ns <= 19e9


def test_a_model_that_fails_now_and_then_goes_on(sick_bundle: Bundle, tmp_path: Path) -> None:
    rows, events = stream(60.0, [(5.0, 5.2), (20.0, 20.2), (35.0, 35.2), (50.0, 50.2)]), list[Event]()
    run(options_for(sick_bundle, rows, tmp_path), on_event=events.append)
    assert sum(isinstance(event, Gap) for event in events) == 4
    assert isinstance(events[-1], End) and events[-1].reason == "eof"


def test_a_gap_of_the_model_is_replayed_from_a_recording(sick_bundle: Bundle, tmp_path: Path) -> None:
    options = options_for(sick_bundle, stream(40.0, [(7.0, 7.3), (21.0, 22.4)]), tmp_path)
    run(replace(options, record=tmp_path / "rec", record_around=Retention(3.0)))
    assert len(pieces(tmp_path / "rec")) > 3
    for piece in pieces(tmp_path / "rec"):
        recording = read_recording(piece)
        again = replace(recording.options(sick_bundle.path), endpoint="tcp://127.0.0.1:*")
        events: list[Event] = []
        run(again, on_event=events.append)
        found = [comparable(encode(event)) for event in events]
        assert recording.difference(found) is None
