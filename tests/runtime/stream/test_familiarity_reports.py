"""Unfamiliar input in a run: one durable event for each episode, whatever the chunks, and the same in a replay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.events import Deviation, Event, Moment, Transition, encode
from edge_hal.runtime.api import open_model
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.reader import comparable, read_recording
from edge_hal.runtime.runner import RunOptions
from tests.helpers.bundles import AT_ONCE, LABELS, known_bundle, vectors
from tests.helpers.familiar import familiar_input
from tests.helpers.loops import features, recorded

HZ = 10.0
DECODER = replace(AT_ONCE, unfamiliar_per_h=1.0)
FAR = np.array([[9.0, 9.0, 1.0]], np.float32)


def rows() -> NDArray[np.float32]:
    """Six familiar seconds, three unfamiliar ones, and so on; four times."""
    rng = np.random.default_rng(0)
    near = vectors([0] * 20 + [1] * 20 + [2] * 20)
    part = np.concatenate([near, np.repeat(FAR, 30, axis=0)])
    return np.asarray(np.tile(part, (4, 1)) + 0.1 * rng.normal(size=(360, 3)), np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("familiar")
    known_bundle(folder / "bundle", decoder=DECODER, familiarity=familiar_input(np.eye(3)))
    known_bundle(folder / "plain")
    return folder


def options(place: Path, script: str = "") -> RunOptions:
    source = features(place, rows(), HZ)
    return RunOptions(place / "bundle", f"fault:{script}:{source}" if script else source, pace="asap")


def unfamiliar(events: list[Event]) -> list[Deviation]:
    return [event for event in events if isinstance(event, Deviation)]


def test_each_episode_is_one_durable_event(place: Path, tmp_path: Path) -> None:
    _, events = recorded(replace(options(place), journal=tmp_path / "journal"))
    assert [event.seq for event in events] == list(range(len(events)))
    found = unfamiliar(events)
    assert [event.kind for event in found] == ["unfamiliar"] * 4
    for number, event in enumerate(found):
        began = 60 + 90 * number
        assert abs(event.boundary.tick - began) <= 3 and began < event.decision.tick < began + 15
        assert event.boundary.t_ns == event.boundary.tick * 10**8
        assert event.expected == () and event.seen in LABELS and event.corrects is None
        assert 0.5 <= event.confidence <= 1 and "times as far from training" in event.evidence


def test_core_events_leave_it_out(place: Path) -> None:
    _, events = recorded(replace(options(place), events="core"))
    assert not unfamiliar(events) and any(isinstance(event, Transition) for event in events)
    assert [event.seq for event in events] == list(range(len(events)))


@pytest.mark.parametrize("longest", [2, 3, 50])
def test_chunks_give_the_events_of_single_ticks(place: Path, longest: int) -> None:
    model = open_model(place / "bundle")
    moments = [Moment(tick, tick, tick * 10**8) for tick in range(len(rows()))]
    told = []
    for most in (1, longest):
        stream, events = model.stream(), list[Event]()
        for begin in range(0, len(moments), most):
            events += stream.follow(rows()[begin : begin + most], moments[begin : begin + most])
        told.append([encode(event) for event in events])
    assert told[0] == told[1]


def test_a_new_epoch_begins_with_an_empty_window(place: Path) -> None:
    stream, far = open_model(place / "bundle").stream(), np.repeat(FAR, 9, axis=0)
    moments = [Moment(tick, tick, tick * 10**8) for tick in range(18)]
    assert not unfamiliar(stream.follow(far, moments[:9]))
    stream.reset()
    assert not unfamiliar(stream.follow(far, moments[:9]))
    assert len(unfamiliar(stream.follow(far, moments[9:]))) == 1


def test_a_recording_replays_to_the_same_reports(place: Path, tmp_path: Path) -> None:
    wanted = options(place, "drop=3%,unplug@20s+2s,seed=1")
    _, told = recorded(replace(wanted, record=tmp_path / "rec"))
    assert len(unfamiliar(told)) >= 3
    recording = read_recording(tmp_path / "rec")
    _, events = recorded(recording.options(wanted.bundle))
    assert recording.difference([comparable(encode(event)) for event in events]) is None


def test_every_piece_replays_to_its_reports(place: Path, tmp_path: Path) -> None:
    """Pieces begin and end within windows and episodes."""
    wanted = options(place)
    recorded(replace(wanted, record=tmp_path / "rec", record_around=Retention(3.7)))
    found = [read_recording(path) for path in pieces(tmp_path / "rec")]
    assert len(found) > 4
    for piece in found:
        _, events = recorded(piece.options(wanted.bundle))
        assert piece.difference([comparable(encode(event)) for event in events]) is None
    assert sum(json.loads(event)["type"] == "deviation" for piece in found for event in piece.events()) == 4


def test_a_limit_that_the_bundle_has_no_use_for_is_refused(place: Path) -> None:
    with pytest.raises(EdgeHalError, match="unfamiliar_per_h has no effect") as caught:
        recorded(replace(options(place), bundle=place / "plain", decoder={"unfamiliar_per_h": 2.0}))
    assert caught.value.exit_code == 2
    _, events = recorded(replace(options(place), decoder={"unfamiliar_per_h": 0.0}))
    assert not unfamiliar(events)
