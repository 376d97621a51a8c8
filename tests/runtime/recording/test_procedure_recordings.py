"""Recordings of runs that decide by a belief and report deviations and cycles: they replay to the same events."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_hal.events import Cycle, Deviation, Event, Transition, encode
from edge_hal.procedure.rules import Procedure
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.reader import Recording, comparable, read_recording
from edge_hal.runtime.recording.writer import EVENTS, LOG
from edge_hal.runtime.runner import RunOptions
from tests.helpers.bundles import LABELS, known_bundle, vectors
from tests.helpers.loops import features, recorded
from tests.helpers.sample_events import STREAM, start, transition
from tests.helpers.toy_procedure import BELIEF, HZ, procedure_bundle, step, steps


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("procedure")
    procedure_bundle(folder / "bundle")
    return folder


def options(place: Path, script: str = "") -> RunOptions:
    source = features(place, steps(), HZ)
    return RunOptions(place / "bundle", f"fault:{script}:{source}" if script else source, pace="asap")


def difference(recording: Recording, bundle: Path) -> object:
    _, events = recorded(recording.options(bundle))
    return recording.difference([comparable(encode(event)) for event in events])


def encoded(events: list[Event]) -> list[bytes]:
    return [comparable(encode(event)) for event in events]


@pytest.mark.parametrize("events", ["all", pytest.param("core", marks=pytest.mark.slow)])
def test_a_run_that_continued_a_journal_replays_to_its_events(place: Path, tmp_path: Path, events: str) -> None:
    """Its numbers do not begin at 0, and deviations and cycles name some of them."""
    wanted = replace(options(place, "drop=5%,unplug@60s+2s,seed=1"), journal=tmp_path / "journal", events=events)
    recorded(wanted)
    _, told = recorded(replace(wanted, record=tmp_path / "rec"))
    assert told[0].seq > 0
    assert any(isinstance(event, Deviation) for event in told) == (events == "all")
    recording = read_recording(tmp_path / "rec")
    assert recording.events() == encoded(told)
    assert difference(recording, wanted.bundle) is None


@pytest.mark.slow
@pytest.mark.parametrize("events", ["all", "core"])
def test_every_piece_replays_to_its_events(place: Path, tmp_path: Path, events: str) -> None:
    """Pieces begin and end within cycles."""
    wanted = replace(options(place, "drop=3%,unplug@60s+2s,seed=2"), events=events)
    _, told = recorded(replace(wanted, record=tmp_path / "rec", record_around=Retention(3.7)))
    found = [read_recording(path) for path in pieces(tmp_path / "rec")]
    assert [event for piece in found for event in piece.events()] == encoded(told) and len(found) > 20
    assert any(isinstance(event, Cycle) for event in told) == (events == "all")
    assert [piece.folder.name for piece in found if difference(piece, wanted.bundle) is not None] == []


def test_what_is_near_a_deviation_stays(tmp_path: Path) -> None:
    """One step for 200 s, overdue after 60 s."""
    blue = step(then={"green": 1.0}, median_s=10.0, overdue_s=60.0)
    others = {name: step(then={"blue": 1.0}, median_s=10.0) for name in LABELS[1:]}
    decoder = replace(BELIEF, procedure=Procedure({"blue": blue, **others}))
    bundle = known_bundle(tmp_path / "bundle", decoder=decoder).path
    source = features(tmp_path, vectors([0] * 2000), HZ)
    ring = RunOptions(bundle, source, pace="asap", record=tmp_path / "rec", record_around=Retention(5.0))
    _, told = recorded(ring)
    [overdue] = [event for event in told if isinstance(event, Deviation)]
    assert overdue.kind == "overdue" and overdue.boundary.t_ns == 60e9
    found = [read_recording(path) for path in pieces(tmp_path / "rec")]
    kept = [[json.loads(event)["type"] for event in piece.events()] for piece in found]
    assert kept.count(["deviation"]) == 1
    assert len(found) < 15  # of 40
    assert [piece.folder.name for piece in found if difference(piece, bundle) is not None] == []


def test_a_log_that_was_cut_off_ends_the_replay_within_a_cycle(place: Path, tmp_path: Path) -> None:
    """The replay tells the cycle at its own end, and the run told it later or otherwise."""
    recorded(replace(options(place), record=tmp_path / "rec"))
    log = (tmp_path / "rec" / LOG).read_text()
    ends = []
    for part in (0.31, 0.52, 0.77, 0.96):
        (tmp_path / "rec" / LOG).write_text(log[: int(part * len(log))])
        recording = read_recording(tmp_path / "rec")
        _, told = recorded(recording.options(place / "bundle"))
        assert recording.difference(encoded(told)) is None and len(recording.compared(encoded(told))[0]) > 1
        ends.append(told[-2].type)
    assert "cycle" in ends


def test_an_event_that_differs_is_still_found(place: Path, tmp_path: Path) -> None:
    _, told = recorded(replace(options(place), record=tmp_path / "rec"))
    recording, path = read_recording(tmp_path / "rec"), tmp_path / "rec" / EVENTS
    lines = path.read_text().splitlines(keepends=True)
    number = next(n for n, event in enumerate(told) if isinstance(event, Deviation))
    body = json.loads(lines[number])
    for change in ({"kind": "unfamiliar"}, {"corrects": 0}, {"confidence": 0.123}):
        lines[number] = json.dumps({**body, **change}) + "\n"
        path.write_text("".join(lines))
        assert recording.difference(encoded(told)) is not None, change
    lines[number] = json.dumps(body) + "\n"
    number = next(n for n, event in enumerate(told) if isinstance(event, Cycle) and event.deviations)
    body = json.loads(lines[number])
    for named, differs in ([{**each, "seq": each["seq"] + 50} for each in body["deviations"]], False), ([], True):
        lines[number] = json.dumps({**body, "deviations": named}) + "\n"
        path.write_text("".join(lines))
        assert (recording.difference(encoded(told)) is not None) == differs


@pytest.mark.parametrize("named", [None, 3, [3], {"seq": 1}])
def test_a_cycle_that_lists_no_deviations_is_no_event(named: object) -> None:
    with pytest.raises(ValueError, match="no event"):
        comparable(json.dumps({"type": "cycle", "deviations": named}))
    assert STREAM.encode() in comparable(encode(start())) and b"seq" not in comparable(encode(transition(5)))


def test_transitions_of_all_and_core_are_the_same(place: Path) -> None:
    found = [recorded(replace(options(place), events=events))[1] for events in ("all", "core")]
    assert encoded([e for e in found[0] if isinstance(e, Transition)]) == encoded(
        [e for e in found[1] if isinstance(e, Transition)]
    )
