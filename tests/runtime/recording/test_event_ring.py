"""Pieces of a recording: each replays exactly from where it begins, those near events stay, and space is bounded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Gap, Transition, encode
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.recording import event_ring
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.reader import Recording, comparable, read_recording
from edge_hal.runtime.recording.state_file import load, save
from edge_hal.runtime.recording.writer import EVENTS, LOG, STATE, Recorder
from edge_hal.runtime.runner import RunOptions, Stop, Summary, run
from edge_hal.runtime.sources.watchdog import Limits
from tests.helpers.bundles import LABELS, known_bundle, vectors
from tests.helpers.camera_server import serving
from tests.helpers.processes import REPOSITORY, called_here
from tests.helpers.sample_events import ANY_PORT
from tests.helpers.toy_pyramid import toy_bundle, toy_spec


def played(options: RunOptions, **how: Any) -> tuple[Summary, list[Event]]:
    events: list[Event] = []
    return run(replace(options, endpoint=ANY_PORT), on_event=events.append, **how), events


def check_pieces(folder: Path, bundle: Path) -> list[Recording]:
    """Each piece gives its own events again; the last one the counters as well."""
    found = [read_recording(path) for path in pieces(folder)]
    for recording in found:
        summary, events = played(recording.options(bundle))
        assert recording.difference([comparable(encode(event)) for event in events]) is None, recording.folder
        counters = summary.counters
        assert counters["captured"] == counters["used"] + sum(counters["dropped"].values()) + counters["in_flight"]
        if recording.ended not in (None, "cut"):
            assert recording.events()[-1] == comparable(encode(events[-1]))
    return found


def noise(path: Path, count: int, hz: float, seed: int = 0) -> str:
    np.save(path, np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32))
    return f"features:{path}@{hz}"


@pytest.mark.parametrize(("pace", "hz", "script"), [
    ("asap", 25, "drop=10%,jitter=20ms,unplug@13s+2s,unplug@31s+1s,seed=3"),
    ("asap", 3, "dup=10%"),  # slower than the model: ticks hold
    ("realtime", 100, ""),  # decimated, and read by a thread
])  # fmt: skip
@pytest.mark.slow
def test_every_piece_replays_exactly_wherever_it_begins(
    tmp_path: Path, bundle: Path, pace: str, hz: int, script: str
) -> None:
    source = noise(tmp_path / "f.npy", 50 * hz if pace == "asap" else 5 * hz, hz)
    options = RunOptions(
        bundle,
        f"fault:{script}:{source}" if script else source,
        pace=pace,
        decide_every=1,
        max_hold_ms=700,
        decoder={"smooth_s": 0.7, "confirm_s": 0.3, "min_duration_s": 0.5},
        record=tmp_path / "rec",
        record_around=Retention(3.7 if pace == "asap" else 0.6),
    )
    summary, events = played(options)
    found = check_pieces(tmp_path / "rec", bundle)
    assert len(found) >= 5 and found[0].state is None and all(piece.state for piece in found[1:])
    assert [event for piece in found for event in piece.events()] == [comparable(encode(event)) for event in events]
    assert any(isinstance(event, Gap) for event in events) == ("unplug" in script)
    assert read_recording(found[-1].folder).ended == summary.reason == "eof"


def test_pieces_begin_with_the_background_of_what_moves(tmp_path: Path) -> None:
    rng, bundle = np.random.default_rng(0), known_bundle(tmp_path / "b", pictures=True, moving=16).path
    (tmp_path / "film").mkdir()
    for number in range(120):
        picture = np.full((16, 16, 3), 90, np.uint8)
        picture[:, 4 * (number // 7 % 4) :][:, :4] = rng.integers(0, 256, 3)
        cv2.imwrite(str(tmp_path / "film" / f"{number:03}.png"), picture)
    camera, record = str(tmp_path / "film"), tmp_path / "rec"
    around = Retention(1.7, 10**9)
    _, events = played(RunOptions(bundle, camera, fps=7.0, pace="asap", record=record, record_around=around))
    found = check_pieces(record, bundle)
    assert len(found) > 3 and sum(isinstance(event, Transition) for event in events) > 3
    state = found[2].state
    assert state is not None and state["recognizer"]["moving"]["count"] > 16


@pytest.mark.slow
def test_pieces_of_a_camera_that_hangs_and_comes_back(tmp_path: Path, picture_bundle: Path) -> None:
    """Pictures, read by another process; one that hangs is killed and replaced: an epoch ends within a piece."""
    events: list[Event] = []
    stop = Stop()

    def follow(event: Event) -> None:
        events.append(event)
        if isinstance(event, Transition) and event.epoch and event.decision.tick > 20:
            stop.ask()

    with serving("http", fps=20) as (_, port):
        camera = f"fault:hang@1.5s:http://127.0.0.1:{port}/cam"
        options = RunOptions(picture_bundle, camera, ANY_PORT, max_hold_ms=300, limits=Limits(stall_s=1.0))
        run(
            replace(options, record=tmp_path / "rec", record_around=Retention(1.0, 10**9), selfcheck_s=1.0),
            on_event=follow,
            stop=stop,
        )
    assert any(isinstance(event, Gap) and event.reset for event in events)
    found = check_pieces(tmp_path / "rec", picture_bundle)
    assert len(found) >= 4
    told = [comparable(encode(event)) for event in events]
    assert [event for piece in found for event in piece.events()] == told


@pytest.mark.parametrize("decide_every", [1, 5])
def test_pieces_begin_with_the_state_of_every_level(tmp_path: Path, decide_every: int) -> None:
    """A pyramid whose confidences tell of all it has seen: they agree to the last digit, or not at all."""
    bundle = toy_bundle(tmp_path / "bundle", toy_spec((4, 3))).path
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(1200, 5)).astype(np.float32))
    camera = f"fault:drop=5%,unplug@50s+2s:features:{tmp_path}/f.npy@11"
    decoder = {"smooth_s": 0.1, "confirm_s": 0.0, "min_duration_s": 0.0}
    options = RunOptions(bundle, camera, pace="asap", decoder=decoder, decide_every=decide_every)
    _, events = played(replace(options, record=tmp_path / "rec", record_around=Retention(7.0)))
    found = check_pieces(tmp_path / "rec", bundle)
    assert len(found) >= 10 and sum(isinstance(event, Transition) for event in events) > 50
    state = read_recording(found[4].folder).state
    assert state is not None
    for values in state["recognizer"]["pyramid"]["engines"].values():
        values += 0.01
    save(found[4].folder / STATE, state)
    _, events = played(read_recording(found[4].folder).options(bundle))
    assert found[4].difference([comparable(encode(event)) for event in events]) is not None


@pytest.mark.slow
@pytest.mark.parametrize(("decide_every", "confirm_s"), [(1, 0.6), (4, 0.0), (3, 1.5)])
def test_pieces_begin_with_the_state_of_a_filter_over_the_procedure(
    tmp_path: Path, decide_every: int, confirm_s: float
) -> None:
    """Whose longest duration is longer than a piece: what comes depends on beginnings in the pieces before."""
    then = {"blue": {"green": 0.6, "red": 0.4}, "green": {"red": 1.0}, "red": {"blue": 0.7, "green": 0.3}}
    procedure = Procedure({name: Step(0.3, 0.3, 2.0, 1.6, then[name]) for name in LABELS})
    decoder = DecoderConfig(0.0, confirm_s, 0.3, evidence_hz=3.0, procedure=procedure)
    bundle = known_bundle(tmp_path / "bundle", decoder=decoder).path
    rng = np.random.default_rng(2)
    rows = 0.25 * vectors(np.repeat(rng.integers(0, 3, 120), rng.integers(5, 40, 120)).tolist())
    np.save(tmp_path / "f.npy", (rows + 0.15 * rng.normal(size=rows.shape)).astype(np.float32))
    camera = f"fault:drop=3%,unplug@70s+2s,seed=4:features:{tmp_path}/f.npy@10"
    options = RunOptions(bundle, camera, pace="asap", max_hold_ms=500, decide_every=decide_every)
    _, events = played(replace(options, record=tmp_path / "rec", record_around=Retention(3.3)))
    found = check_pieces(tmp_path / "rec", bundle)
    assert [event for piece in found for event in piece.events()] == [comparable(encode(event)) for event in events]
    assert len(found) >= 20 and sum(isinstance(event, Transition) for event in events) > 50
    assert any(isinstance(event, Gap) and event.reset for event in events)
    middle = []
    for piece in found[1:]:
        assert piece.state is not None
        kept = piece.state["recognizer"]["decoder"]["columns"]
        assert procedure.tables(10.0).duration.shape[1] > 33
        middle.append(kept > 0)
    assert sum(middle) >= 15  # in the middle of an epoch, that is
    # What the filter knew at the beginning is what decides: without it a piece tells something else.
    differs = []
    for piece in found[5:15]:
        state = load(piece.folder / STATE)
        state["recognizer"]["decoder"]["score"] *= 0.0
        save(piece.folder / STATE, state)
        _, events = played(read_recording(piece.folder).options(bundle))
        differs.append(piece.difference([comparable(encode(event)) for event in events]) is not None)
    assert any(differs)


def quiet_with_a_change(tmp_path: Path) -> str:
    """200 s at 10 Hz of one action, of another for 2 s at 100 s, and of the first again."""
    np.save(tmp_path / "f.npy", vectors([0] * 1000 + [1] * 20 + [0] * 980))
    return f"features:{tmp_path}/f.npy@10"


def spans(folder: Path) -> list[tuple[float, float]]:
    """Seconds of stream time of each piece."""
    found = []
    for path in pieces(folder):
        recording = read_recording(path)
        begin_ns = 0 if recording.state is None else recording.state["source"]["now_ns"]
        assert recording.entries.last is not None
        found.append((begin_ns / 1e9, recording.entries.last["t_ns"] / 1e9))
    return found


def test_only_what_is_near_an_event_or_the_end_stays(tmp_path: Path, bundle: Path) -> None:
    options = RunOptions(bundle, quiet_with_a_change(tmp_path), pace="asap", record=tmp_path / "rec")
    played(replace(options, record_around=Retention(5.0)))
    kept = spans(tmp_path / "rec")
    for begin_s, end_s in kept:  # near the first label, the two transitions, or the end
        assert begin_s <= 6 or (end_s > 94 and begin_s < 109) or end_s > 189, kept
    for moment_s in (0, 4, 96, 100, 106, 196):
        assert any(begin_s <= moment_s <= end_s for begin_s, end_s in kept), (moment_s, kept)
    check_pieces(tmp_path / "rec", bundle)


def test_the_oldest_pieces_go_where_there_is_too_much_whichever_run_made_them(tmp_path: Path, bundle: Path) -> None:
    options = RunOptions(bundle, noise(tmp_path / "f.npy", 3000, 10), pace="asap", record=tmp_path / "rec")
    stranger = tmp_path / "rec" / "notes"
    stranger.mkdir(parents=True)
    (stranger / "keep.txt").write_text("mine")
    names: list[list[str]] = []
    for _ in range(2):
        played(replace(options, record_around=Retention(5.0, 400_000)))
        names.append([path.name for path in pieces(tmp_path / "rec")])
        sizes = [sum(file.stat().st_size for file in path.iterdir()) for path in pieces(tmp_path / "rec")]
        assert sum(sizes[:-1]) <= 400_000 < sum(sizes) + 2 * max(sizes)
    assert names[1] and not set(names[0]) & set(names[1])
    assert (stranger / "keep.txt").read_text() == "mine"
    check_pieces(tmp_path / "rec", bundle)


def test_runs_that_end_before_their_first_piece_is_full_do_not_fill_the_disk(tmp_path: Path, bundle: Path) -> None:
    camera, rec = noise(tmp_path / "f.npy", 20, 10), tmp_path / "rec"
    options = RunOptions(bundle, camera, pace="asap", record=rec, record_around=Retention(60.0))
    played(options)
    [first] = pieces(rec)
    size = sum(file.stat().st_size for file in first.iterdir())
    for number in range(2, 6):
        played(replace(options, record_around=Retention(60.0, 2 * size + size // 2)))
        found = pieces(rec)
        assert len(found) == min(number, 3) and (first in found) == (number <= 3)  # two, and the one that was written
    check_pieces(rec, bundle)


def test_the_oldest_pieces_are_those_of_earlier_runs_whatever_the_clock_said(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera, rec = noise(tmp_path / "f.npy", 300, 10), tmp_path / "rec"
    options = RunOptions(bundle, camera, pace="asap", record=rec, record_around=Retention(5.0))
    played(options)
    for number, path in enumerate(pieces(rec)):  # as versions before numbered them
        path.rename(path.with_name(f"{path.name.rpartition('-')[0]}-{number + 40:08d}"))
    made = [path.name for path in pieces(rec)]
    assert len(made) > 3
    for year in (2003, 2002):
        monkeypatch.setattr(event_ring, "new_session", lambda year=year: f"{year}0101T000000Z-0123abcd")
        played(options)
        found = [path.name for path in pieces(rec)]
        assert found[: len(made)] == made and {name[:4] for name in found[len(made) :]} == {str(year)}
        made = found
    size = sum(file.stat().st_size for path in pieces(rec) for file in path.iterdir())
    monkeypatch.setattr(event_ring, "new_session", lambda: "20010101T000000Z-0123abcd")
    played(replace(options, record_around=Retention(5.0, size // 3)))
    left = [path.name for path in pieces(rec)]
    assert {name[:4] for name in left} <= {"2001", "2002"} and left[-1].startswith("2001")


def test_a_full_disk_costs_pieces_and_not_the_recording(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The frames of one piece cannot be written, and then a folder cannot be made; afterwards there is room."""
    real_took, real_mkdir, broken = Recorder.frame_taken, Path.mkdir, {"frames": False, "folder": False}

    def took(self: Recorder, frame: Any, missed: int, period_ns: int | None) -> None:
        if frame.index == 120:
            self._frames = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        broken["folder"] = 160 < frame.index < 260
        real_took(self, frame, missed, period_ns)

    def mkdir(self: Path, *arguments: Any, **how: Any) -> None:
        if broken["folder"] and self.parent.name == "rec":
            broken["folder"] = False
            raise OSError(28, "No space left on device")
        real_mkdir(self, *arguments, **how)

    monkeypatch.setattr(Recorder, "frame_taken", took)
    monkeypatch.setattr(Path, "mkdir", mkdir)
    options = RunOptions(bundle, noise(tmp_path / "f.npy", 500, 10), pace="asap", record=tmp_path / "rec")
    summary, _ = played(replace(options, record_around=Retention(5.0)))
    assert summary.counters["ticks"] == 500
    texts = [record.getMessage() for record in caplog.records]
    assert sum("the recording ends here" in text for text in texts) == 1
    found = [read_recording(path) for path in pieces(tmp_path / "rec")]
    assert len(found) >= 6 and found[-1].ended == "eof"
    assert sum(recording.ended is None for recording in found) == 1
    check_pieces(tmp_path / "rec", bundle)


@pytest.mark.slow
def test_the_command_replays_all_pieces_or_one_and_a_killed_run_too(tmp_path: Path, bundle: Path) -> None:
    record, source = tmp_path / "rec", noise(tmp_path / "f.npy", 4000, 100)
    command = [sys.executable, "-m", "edge_hal"]
    arguments = ["--bundle", str(bundle), "--pub", ANY_PORT]
    ring = ["--record", str(record), "--record-around", "500ms,1GB"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    refused = subprocess.run([*command, "run", *arguments, "--camera", source, *ring], **how)
    assert refused.returncode == 2 and "--record-around 500ms" in refused.stderr
    ring[-1] = "1s,1GB"
    with subprocess.Popen([*command, "run", *arguments, "--camera", source, *ring], **how) as process:
        assert process.stdout is not None
        while len(pieces(record)) < 4:
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    whole = subprocess.run([*command, "replay", str(record), *arguments, "--json"], **how)
    assert whole.returncode == 0 and "all as recorded" in whole.stderr, whole.stderr
    third = pieces(record)[2]
    then = [json.loads(line) for line in (third / EVENTS).read_text().splitlines()]
    one = subprocess.run([*command, "replay", str(third), *arguments, "--json"], **how)
    assert one.returncode == 0, one.stderr
    now = [json.loads(line) for line in one.stdout.splitlines()]
    assert [event["decision"] for event in now if event["type"] == "transition"] == [
        event["decision"] for event in then if event["type"] == "transition"
    ]
    text = (third / EVENTS).read_text()
    (third / EVENTS).write_text(text.replace('"tick":', '"tick":1', 1))
    wrong = subprocess.run([*command, "replay", str(record), *arguments], **how)
    assert wrong.returncode == 1 and third.name in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize("values", [{"margin": 0.3}, {"decide_at": 0.0, "confirm_s": 0.4}])
def test_a_replay_says_that_the_thresholds_were_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], values: dict[str, float]
) -> None:
    steps = {name: Step(0.3, 0.3, 2.0, 1.6, {other: 0.5 for other in LABELS if other != name}) for name in LABELS}
    believing = DecoderConfig(decide_at=0.9, procedure=Procedure(steps))
    bundle = known_bundle(tmp_path / "bundle", decoder=believing).path
    options = RunOptions(bundle, noise(tmp_path / "f.npy", 300, 10), pace="asap", record=tmp_path / "rec")
    played(replace(options, record_around=Retention(5.0)))
    played(replace(options, record=tmp_path / "whole"))
    thresholds = json.loads((bundle / "decoder.json").read_text())
    (bundle / "decoder.json").write_text(json.dumps({**thresholds, **values}))
    for recording in (pieces(tmp_path / "rec")[1], tmp_path / "whole"):
        code, _, said = called_here(monkeypatch, capsys, "replay", str(recording), "--bundle", str(bundle))
        assert code == 1 and "decoder.json" in said and "edited since" in said and "round" not in said
    (bundle / "decoder.json").write_text(json.dumps(thresholds))
    code, _, said = called_here(monkeypatch, capsys, "replay", str(tmp_path / "whole"), "--bundle", str(bundle))
    assert code == 0 and "all as recorded" in said


def test_what_cannot_be_is_refused(tmp_path: Path, bundle: Path) -> None:
    options = RunOptions(bundle, noise(tmp_path / "f.npy", 300, 10), ANY_PORT, pace="asap")
    with pytest.raises(EdgeHalError, match="without --record"):
        run(replace(options, record_around=Retention(60.0)))
    with pytest.raises(EdgeHalError, match="begin with a time"):
        run(replace(options, record=tmp_path / "rec", record_around=Retention(float("inf"))))
    (tmp_path / "file").touch()
    with pytest.raises(EdgeHalError, match="cannot record"):
        run(replace(options, record=tmp_path / "file", record_around=Retention(60.0)))
    run(replace(options, record=tmp_path / "rec", record_around=Retention(5.0)))
    with pytest.raises(EdgeHalError, match="is no recording") as error:
        run(replace(options, camera=f"replay:{tmp_path}/rec"))
    assert "edge-hal replay" in error.value.todo
    piece = pieces(tmp_path / "rec")[-1]
    for damage in (b"", b"no archive", (piece / STATE).read_bytes()[:500]):
        (piece / STATE).write_bytes(damage)
        with pytest.raises(EdgeHalError, match="is no recording"):
            run(replace(options, camera=f"replay:{piece}"))
    (piece / LOG).unlink()
    with pytest.raises(EdgeHalError, match="is no recording"):
        read_recording(piece)


arrays = st.builds(
    lambda shape, dtype: np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(["float32", "float16", "int64", "uint8"]),
)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5), arrays)
KEYS = st.text(max_size=5).filter(lambda key: key != "array")  # the marker of an array
trees = st.dictionaries(
    KEYS,
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner)),
    max_size=4,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and (one == other).all())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(max_examples=40, deadline=None)
@given(trees)
def test_state_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.mktemp("state") / "s.npz"
    save(path, tree)
    assert same(tree, load(path))


def test_transitions_of_all_pieces_are_in_order(tmp_path: Path, bundle: Path) -> None:
    """Moments count on from piece to piece: those of the run, not of the piece."""
    options = RunOptions(bundle, noise(tmp_path / "f.npy", 600, 10), pace="asap", record=tmp_path / "rec")
    _, told = played(replace(options, record_around=Retention(10.0)))
    ticks: list[int] = []
    for path in pieces(tmp_path / "rec"):
        _, events = played(read_recording(path).options(bundle))
        ticks += [event.decision.tick for event in events if isinstance(event, Transition)]
    assert ticks == [event.decision.tick for event in told if isinstance(event, Transition)] and len(ticks) > 20
