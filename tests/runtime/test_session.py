"""The loop over files, as fast as it can: known input gives known events."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Start, Transition, encode
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.runner import RunOptions, run
from edge_hal.runtime.stream.durable_events import DurableEvents
from edge_hal.runtime.stream.latency import STAGES
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.bundles import AT_ONCE, LABELS, expected_transitions, known_bundle, vectors
from tests.helpers.loops import ANY_PORT, check_stream, features, recorded, segments, transitions


@pytest.mark.parametrize("seed", range(3))
def test_known_input_gives_exactly_the_known_events(tmp_path: Path, bundle: Path, seed: int) -> None:
    labels = segments(seed, 25)
    summary, events = recorded(RunOptions(bundle, features(tmp_path, vectors(labels), 10), pace="asap"))
    check_stream(events, summary)
    assert transitions(events) == expected_transitions(labels)
    for event in events:
        if isinstance(event, Transition):
            for moment in (event.boundary, event.decision):
                assert (moment.frame, moment.t_ns) == (moment.tick, moment.tick * 100_000_000)
            assert set(event.run["latency_ms"]) == {"capture_to_tick", "encode", "step", "decide"}
    counters = summary.counters
    assert counters["captured"] == counters["used"] == counters["ticks"] == len(labels)
    assert counters["in_flight"] == 0 and not any(counters["dropped"].values())
    assert summary.reason == "eof" and summary.fps > 0
    assert set(summary.latency_ms) == set(STAGES) - {"journal"}


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the recogniser encoded."""
    real, seen = Recognizer.encode, []

    def encode(self: Recognizer, data: Any) -> Any:
        seen.append(data)
        return real(self, data)

    monkeypatch.setattr(Recognizer, "encode", encode)
    return seen


def test_a_run_that_fails_between_two_events_ends_with_the_next_number(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DurableEvents.transition

    def fails(self: DurableEvents, *how: Any, **more: Any) -> Transition:
        made = real(self, *how, **more)
        if made.seq == 3:
            raise EdgeHalError("made, and not handed over")
        return made

    monkeypatch.setattr(DurableEvents, "transition", fails)
    events: list[Event] = []
    options = RunOptions(bundle, features(tmp_path, vectors(segments(1, 9)), 10), ANY_PORT, journal=tmp_path / "j")
    with pytest.raises(EdgeHalError, match="not handed over"):
        run(replace(options, pace="asap"), on_event=events.append)
    assert [(event.type, event.seq) for event in events] == [
        *(("start", 0), ("transition", 1), ("transition", 2), ("end", 3))
    ]
    with Journal(tmp_path / "j", "default") as journal:
        assert journal.next_seq == 4


@pytest.mark.parametrize(("hz", "per_tick"), [(30, 3), (20, 2)])
def test_a_faster_source_is_decimated_and_only_shown_frames_are_encoded(
    tmp_path: Path, bundle: Path, hz: int, per_tick: int, encoded: list[Any]
) -> None:
    labels = segments(7, 12)
    rows = np.repeat(vectors(labels), per_tick, axis=0)
    summary, events = recorded(RunOptions(bundle, features(tmp_path, rows, hz), pace="asap"))
    check_stream(events, summary)
    assert transitions(events) == expected_transitions(labels)
    assert summary.counters["dropped"]["decimated"] == len(rows) - len(labels)
    assert len(encoded) == summary.counters["used"] == len(labels)
    for event in events:
        if isinstance(event, Transition):
            assert event.boundary.frame == per_tick * event.boundary.tick


def test_a_slower_source_is_held_and_encoded_once(tmp_path: Path, bundle: Path, encoded: list[Any]) -> None:
    labels = segments(8, 10)
    summary, events = recorded(RunOptions(bundle, features(tmp_path, vectors(labels), 2), pace="asap"))
    check_stream(events, summary)
    shown = np.repeat(labels, 5)[: 5 * (len(labels) - 1) + 1].tolist()
    assert transitions(events) == expected_transitions(shown)
    assert summary.counters["held"] == 4 * (len(labels) - 1)
    assert len(encoded) == summary.counters["fresh"] == len(labels)


def test_two_runs_differ_in_run_alone(tmp_path: Path, bundle: Path) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(900, len(LABELS))).astype(np.float32)  # many close decisions
    options = RunOptions(bundle, features(tmp_path, rows, 25), pace="asap")

    def bare(events: list[Event]) -> list[bytes]:
        return [encode(replace(event, run={})) for event in events]

    (_, first), (_, second) = recorded(options), recorded(options)
    assert len(first) > 50 and bare(first) == bare(second)
    assert first[0].run["session"] != second[0].run["session"]


def test_thresholds_and_decision_times_can_be_set(tmp_path: Path, bundle: Path) -> None:
    labels = [0] * 40 + [1] * 6 + [0] * 40 + [2] * 40
    source = features(tmp_path, vectors(labels), 10)
    _, plain = recorded(RunOptions(bundle, source, pace="asap"))
    _, calm = recorded(RunOptions(bundle, source, pace="asap", decoder={"confirm_s": 1.0}))
    _, eager = recorded(RunOptions(bundle, source, pace="asap", decide_every=1))
    assert [row[1] for row in transitions(plain)] == ["blue", "green", "blue", "red"]
    assert [row[1] for row in transitions(calm)] == ["blue", "red"]
    assert [row[2:] for row in transitions(eager)] == [(0, 0), (40, 40), (46, 46), (86, 86)]
    hashes = {events[0].decoder for events in (plain, calm)}
    assert len(hashes) == 2 and replace(AT_ONCE, confirm_s=1.0).fingerprint() in hashes


def test_a_run_follows_the_procedure_of_its_bundle(tmp_path: Path) -> None:
    """Its posteriors are the same throughout: between `blue` and `red` a little more red than green."""
    after = {"blue": {"green": 1.0}, "green": {"red": 1.0}, "red": {"blue": 1.0}}
    procedure = Procedure({name: Step(1 / 3, 1 / 3, 4.0, 1.5, after[name]) for name in LABELS})
    decoder = DecoderConfig(0.3, 0.3, 0.0, 0.5, evidence_hz=4.0, procedure=procedure)
    bundle = known_bundle(tmp_path / "bundle", decoder=decoder).path
    unsure = np.array([[0.0, 0.3, 0.32]], np.float32)
    x = np.concatenate([vectors([0] * 40), np.repeat(unsure, 40, 0), vectors([0] * 40)])
    options = RunOptions(bundle, features(tmp_path, x, 10), pace="asap")

    def ran(**how: Any) -> tuple[Any, Any]:
        summary, events = recorded(replace(options, **how))
        check_stream(events, summary)
        (told,) = {event.decoder for event in events if isinstance(event, (Start, Transition))}
        return told, transitions(events)

    as_written, followed = ran()
    assert as_written == decoder.fingerprint()
    assert [row[:3] for row in followed] == [(None, "blue", 0), ("blue", "green", 40), ("green", "blue", 80)]
    # The same by hand: another order, and the other label.
    file = bundle / "procedure.json"
    data = json.loads(file.read_text())
    data["blue"]["then"] = {"red": 1.0}
    file.write_text(json.dumps(data))
    as_edited, edited = ran()
    assert [row[:3] for row in edited] == [(None, "blue", 0), ("blue", "red", 40), ("red", "blue", 80)]
    # `--set decoder.evidence_hz=0`, or no such file: hysteresis.
    without, hysteresis = ran(decoder={"evidence_hz": 0.0})
    file.unlink()
    deleted, same = ran()
    assert hysteresis == same and [row[1] for row in same] == ["blue", "red", "blue"]
    assert len({as_written, as_edited, without, deleted}) == 4


def test_seconds_end_a_run_at_that_stream_time(tmp_path: Path, bundle: Path) -> None:
    labels = segments(5, 30)
    source = features(tmp_path, vectors(labels), 10)
    summary, events = recorded(RunOptions(bundle, source, pace="asap", seconds=12.0))
    check_stream(events, summary)
    assert summary.counters["ticks"] == 121 and summary.reason == "eof"
    assert transitions(events) == expected_transitions(labels[:121])


def test_pictures_are_resized_encoded_and_recognised(tmp_path: Path, picture_bundle: Path) -> None:
    labels = [0] * 16 + [2] * 24 + [1] * 20
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (80, 60))
    for label in labels:
        picture = np.zeros((60, 80, 3), np.uint8)
        picture[:, :, label] = 220
        writer.write(picture)
    writer.release()
    summary, events = recorded(RunOptions(picture_bundle, str(path), pace="asap"))
    check_stream(events, summary)
    assert transitions(events) == expected_transitions(labels)
    rows = features(tmp_path, vectors(labels), 10)  # its encoder's vectors, straight from a file
    _, straight = recorded(RunOptions(picture_bundle, rows, pace="asap"))
    assert transitions(straight) == transitions(events)
