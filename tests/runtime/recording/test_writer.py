"""A recording gives the same events again, whatever happened while it was made."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Gap, Transition, encode
from edge_hal.runtime.recording.reader import comparable, read_recording
from edge_hal.runtime.recording.writer import FRAMES, LOG, Recorder
from edge_hal.runtime.runner import RunOptions, Stop, Summary, run
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.bundles import vectors
from tests.helpers.camera_server import serving

ANY_PORT = "tcp://127.0.0.1:*"


def played(options: RunOptions, **how: Any) -> tuple[Summary, list[bytes], list[Event]]:
    events: list[Event] = []
    summary = run(replace(options, endpoint=ANY_PORT), on_event=events.append, **how)
    return summary, [comparable(encode(event)) for event in events], events


def check_replay(folder: Path, bundle: Path, summary: Summary, events: list[bytes]) -> None:
    recording = read_recording(folder)
    again, replayed, _ = played(recording.options(bundle))
    assert replayed == events == recording.events() and recording.difference(replayed) is None
    assert again.counters == summary.counters and again.reason == summary.reason


def random_rows(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


@pytest.mark.parametrize("pace", ["asap", "realtime"])
def test_files_with_faults(tmp_path: Path, bundle: Path, pace: str) -> None:
    rows = random_rows(600)
    rows[17] = np.nan
    np.save(tmp_path / "f.npy", rows)
    script = "drop=10%,dup=5%,jitter=5ms,unplug@1s+1s,seed=2"
    camera = f"features:{tmp_path}/f.npy@200"
    options = RunOptions(
        bundle,
        f"fault:{script}:{camera}" if pace == "asap" else camera,
        pace=pace,
        max_hold_ms=200,
        decide_every=1,
        decoder={"smooth_s": 0.2},
        record=tmp_path / "rec",
    )
    summary, events, _ = played(options)
    assert len(events) > 5
    check_replay(tmp_path / "rec", bundle, summary, events)


@pytest.mark.slow
def test_a_loop_that_was_late(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay is not late, and cuts the same ticks: what the clock was told is what counts."""
    real, calls = Recognizer.step, []

    def stuck(self: Recognizer, batch: Any, moments: Any) -> Any:
        calls.append(len(moments))
        if len(calls) in (3, 9):
            threading.Event().wait(1.6)
        return real(self, batch, moments)

    np.save(tmp_path / "f.npy", random_rows(140))
    camera = f"features:{tmp_path}/f.npy@20"
    with monkeypatch.context() as patch:
        patch.setattr(Recognizer, "step", stuck)
        options = RunOptions(bundle, camera, max_hold_ms=2000, overload="cut", record=tmp_path / "rec")
        summary, events, told = played(options)
    assert any(isinstance(event, Gap) and event.reason == "overload" for event in told)
    check_replay(tmp_path / "rec", bundle, summary, events)


def test_a_camera_that_was_lost_and_stopped_by_hand(tmp_path: Path, picture_bundle: Path) -> None:
    stop, seen = Stop(), []

    def follow(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Transition):
            stop.ask() if event.epoch else server.kill()

    with serving("http", fps=25) as (server, port):
        back: list[Any] = []

        def revive() -> None:
            server.wait()
            back.append(serving("http", port, fps=25))
            back[0].__enter__()

        reviver = threading.Thread(target=revive)
        reviver.start()
        options = RunOptions(picture_bundle, f"http://127.0.0.1:{port}/cam", ANY_PORT, max_hold_ms=200)
        summary = run(replace(options, record=tmp_path / "rec"), on_event=follow, stop=stop)
        reviver.join()
        back[0].__exit__(None, None, None)
    assert summary.reason == "signal" and any(isinstance(event, Gap) for event in seen)
    check_replay(tmp_path / "rec", picture_bundle, summary, [comparable(encode(event)) for event in seen])
    assert (tmp_path / "rec" / FRAMES).stat().st_size == summary.counters["used"] * 16 * 16 * 3


def test_a_recording_cut_short_replays_as_far_as_it_goes(tmp_path: Path, bundle: Path) -> None:
    np.save(tmp_path / "f.npy", random_rows(300))
    options = RunOptions(bundle, f"features:{tmp_path}/f.npy@10", pace="asap", record=tmp_path / "rec")
    _, events, _ = played(options)
    text = (tmp_path / "rec" / LOG).read_text()
    (tmp_path / "rec" / LOG).write_text(text[: len(text) // 2])  # as kill -9 leaves it
    recording = read_recording(tmp_path / "rec")
    again, replayed, told = played(recording.options(bundle))
    assert replayed[:-1] == events[: len(replayed) - 1] and 3 < len(replayed) < len(events)
    assert recording.difference(replayed) is None  # what was told of frames that are lost is no difference
    assert recording.difference([*replayed[:2], *replayed[3:]]) is not None
    assert isinstance(told[-1], End) and again.reason == "source"


def test_a_full_disk_ends_the_recording_and_not_the_run(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "f.npy", random_rows(200))
    real = Recorder.frame_taken

    def took(self: Recorder, *arguments: Any) -> None:
        if arguments[0].index == 100:
            self._frames = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        real(self, *arguments)

    monkeypatch.setattr(Recorder, "frame_taken", took)
    caplog.set_level(logging.WARNING)
    options = RunOptions(bundle, f"features:{tmp_path}/f.npy@10", pace="asap", record=tmp_path / "rec")
    summary, _, _ = played(options)
    assert summary.counters["ticks"] == 200 and summary.reason == "eof"
    assert sum("the recording ends here" in record.getMessage() for record in caplog.records) == 1


def test_what_is_no_recording_and_where_none_can_be_written(tmp_path: Path, bundle: Path) -> None:
    np.save(tmp_path / "f.npy", random_rows(20))
    camera = f"features:{tmp_path}/f.npy@10"
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EdgeHalError, match=r"not empty|cannot record"):
            run(RunOptions(bundle, camera, ANY_PORT, "asap", record=folder))
    for text in ("", "{}\n", "[]\n", "no json\n", '{"schema": 99}\n'):
        (tmp_path / LOG).write_text(text)
        with pytest.raises(EdgeHalError, match="is no recording"):
            run(RunOptions(bundle, f"replay:{tmp_path}", ANY_PORT))


@pytest.mark.slow
def test_the_command_compares(tmp_path: Path, bundle: Path) -> None:
    np.save(tmp_path / "f.npy", np.repeat(vectors([0, 2, 1, 0, 2]), 12, axis=0))
    record = tmp_path / "rec"

    def call(*arguments: object) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "edge_hal", *map(str, arguments), "--bundle", str(bundle)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    source = f"features:{tmp_path}/f.npy@10"
    code, _, err = call("run", "--camera", source, "--pace", "asap", "--pub", ANY_PORT, "--record", record)
    assert code == 0, err
    code, out, err = call("replay", record)
    assert code == 0 and "7 events, all as recorded" in err and "blue -> red" in out
    events = (record / "events.jsonl").read_text()
    (record / "events.jsonl").write_text(events.replace('"to":"green"', '"to":"red"'))
    code, _, err = call("replay", record, "--json")
    assert code == 1 and "event 3 of" in err and "differs" in err and "Traceback" not in err
    for size in (len(events) - 1, len(events) // 2):
        (record / "events.jsonl").write_text(events[:size])
        code, _, err = call("replay", record)
        assert code == 1 and "was cut off" in err and "events are as recorded" in err and "round" not in err, err
    (record / "events.jsonl").write_text(events)
    text = (record / LOG).read_text()
    (record / LOG).write_text(text[: len(text) // 2])
    code, _, err = call("replay", record)
    assert code == 0 and "has no end" in err and "all as recorded" in err, err
