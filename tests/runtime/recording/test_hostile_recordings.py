"""Recordings that somebody sent: they change what is recognised, and nothing else."""

from __future__ import annotations

import io
import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.log_file import LONGEST_LINE
from edge_hal.runtime.recording.reader import read_recording
from edge_hal.runtime.recording.state_file import load, save
from edge_hal.runtime.runner import run
from tests.helpers.bundles import vectors

RECOGNITION = {"pace", "decoder", "decide", "decide_every", "max_hold_ms", "overload", "events"}
OTHERS = sorted({field.name for field in fields(RunOptions)} - RECOGNITION - {"stream", "threads"})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    root = tmp_path_factory.mktemp("recorded")
    np.save(root / "f.npy", vectors(np.repeat([0, 1, 2, 1, 0], 20).tolist()))
    options = RunOptions(bundle, f"features:{root}/f.npy@10", "tcp://127.0.0.1:*", pace="asap", record=root / "rec")
    run(options)
    run(replace(options, record=root / "ring", record_around=Retention(2.0)))
    return root


@pytest.fixture
def rec(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded / "rec", tmp_path / "rec"))


@pytest.fixture
def piece(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pieces(recorded / "ring")[1], tmp_path / "piece"))


def rewrite(folder: Path, number: int, change: Callable[[dict[str, Any]], Any]) -> None:
    lines = (folder / "log.jsonl").read_text().splitlines()
    entry = json.loads(lines[number])
    lines[number] = json.dumps(change(entry) or entry)
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines))


def replay(folder: Path, bundle: Path) -> None:
    run(replace(read_recording(folder).options(bundle), endpoint="tcp://127.0.0.1:*", seconds=60.0))


@pytest.mark.parametrize("name", OTHERS)
def test_a_recording_cannot_set_where_and_how_it_is_replayed(rec: Path, name: str) -> None:
    rewrite(rec, 0, lambda head: head["options"].update({name: "/tmp/elsewhere"}))
    with pytest.raises(EdgeHalError, match=f"unknown key '{name}'"):
        read_recording(rec)


def test_the_stream_and_threads_of_an_old_recording_are_not_used(rec: Path, bundle: Path) -> None:
    rewrite(rec, 0, lambda head: head["options"].update(stream="their", threads=64))
    options = read_recording(rec).options(bundle)
    plain = RunOptions(bundle, f"replay:{rec}")
    changed = {field.name for field in fields(RunOptions) if getattr(options, field.name) != getattr(plain, field.name)}
    assert changed <= RECOGNITION


OPTIONS: dict[str, Any] = {
    "pace": "never",
    "max_hold_ms": 1e300,
    "decide_every": 10**12,
    "overload": "crash",
    "decide": "hasty",
    "events": "most",
    "decoder": {"smooth_s": -1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_recorded_values_are_checked_as_on_the_command_line(rec: Path, bundle: Path, name: str) -> None:
    rewrite(rec, 0, lambda head: head["options"].update({name: OPTIONS[name]}))
    with pytest.raises(EdgeHalError):
        replay(rec, bundle)


ENTRIES: dict[str, tuple[int, dict[str, Any]]] = {
    "a negative time": (1, {"t_ns": -1}),
    "a giant time": (1, {"t_ns": 1 << 62}),
    "a time that is no whole number": (1, {"t_ns": 0.5}),
    "a frame before the one before": (-3, {"frame": 0, "t_ns": 5, "missed": 0, "period_ns": None}),
    "a period of three years": (1, {"period_ns": 10**17}),
    "a negative count": (1, {"missed": -5}),
    "an unknown entry": (2, {"exec": "rm"}),
    "an entry of another type": (2, {"shown": "0", "at": 0}),
    "a frame that was not stored": (2, {"shown": 0, "at": 10**6}),
    "an end with a strange count": (-1, {"intake": {"captured": -1, "superseded": 0, "undecodable": 0, "waiting": 0}}),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_log_that_contradicts_itself_is_refused(rec: Path, name: str) -> None:
    number, change = ENTRIES[name]
    whole = bool({"frame", "exec", "shown"} & change.keys())
    rewrite(rec, number, lambda entry: change if whole else entry.update(change))
    with pytest.raises(EdgeHalError, match="is no recording"):
        read_recording(rec)


@pytest.mark.parametrize("shape", [[], [0], [-3], [1 << 40], [3, 3], [1 << 16, 1 << 16, 3], [4, 4, 4], ["3"], 3, None])
def test_a_shape_that_cannot_be_is_refused(rec: Path, shape: Any) -> None:
    rewrite(rec, 0, lambda head: head.update(shape=shape))
    with pytest.raises(EdgeHalError, match="is no recording"):
        read_recording(rec)


@pytest.mark.parametrize("name", ["log.jsonl", "frames.bin", "events.jsonl"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_regular_files_of_the_folder_are_read(rec: Path, name: str, kind: str) -> None:
    (rec / name).rename(rec.parent / "elsewhere")
    if kind == "link":
        (rec / name).symlink_to(rec.parent / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(rec / name)
    else:
        (rec / name).mkdir()
    with pytest.raises(EdgeHalError):
        read_recording(rec).events()


@pytest.mark.slow
def test_a_log_of_days_is_read_line_by_line(rec: Path, bundle: Path) -> None:
    log = rec / "log.jsonl"
    head, *lines = log.read_text().splitlines(keepends=True)
    passed = json.dumps({"passed": 0}).ljust(1 << 20) + "\n"
    with log.open("w") as file:
        file.write(head)
        file.writelines(passed for _ in range(300))
        file.writelines(lines)
    tracemalloc.start()
    recording = read_recording(rec)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert log.stat().st_size > 300 << 20 and peak < 32 << 20
    assert recording.entries.count == 300 + len(lines) and recording.ended == "eof"
    replay(rec, bundle)
    log.unlink()


def test_a_line_without_end_is_refused(rec: Path) -> None:
    with (rec / "log.jsonl").open("a") as file:
        file.write(" " * (LONGEST_LINE + 1))
    with pytest.raises(EdgeHalError, match="is no recording") as caught:
        read_recording(rec)
    assert "a line of log.jsonl has more than" in caught.value.why


@pytest.mark.parametrize("how", ["missing", "a folder", "no text"])
def test_events_that_cannot_be_read_are_told_in_words(rec: Path, how: str) -> None:
    file = rec / "events.jsonl"
    file.unlink()
    if how == "a folder":
        file.mkdir()
    elif how == "no text":
        file.write_bytes(b"\xb7\xff\n")
    with pytest.raises(EdgeHalError, match="cannot read the events of") as caught:
        read_recording(rec).events()
    told = str(caught.value)
    assert "Errno" not in told and "codec" not in told, told


def test_frames_months_apart_make_no_ticks_in_between(rec: Path, bundle: Path) -> None:
    lines = [json.loads(line) for line in (rec / "log.jsonl").read_text().splitlines()]
    for line in lines:
        if "t_ns" in line:
            line["t_ns"] *= 10**8
    (rec / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:40]))
    summary = run(replace(read_recording(rec).options(bundle), endpoint="tcp://127.0.0.1:*"))
    assert summary.counters["ticks"] < 20 * 2 * 100 * 10 + 20


def packed(arrays: dict[str, bytes], compression: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as file:
        for name, data in arrays.items():
            file.writestr(name, data)
    return made.getvalue()


def npy(shape: tuple[int, ...], data: bytes, descr: str = "<f8") -> bytes:
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": descr, "fortran_order": False, "shape": shape})
    return made.getvalue() + data


BOMBS: dict[str, Callable[[], bytes]] = {
    "a zip bomb": lambda: packed({"state.npy": bytes(100 << 20)}, zipfile.ZIP_DEFLATED),
    "a header of terabytes": lambda: packed({"state.npy": npy((1 << 40,), b"")}, zipfile.ZIP_STORED),
    "a header that overflows": lambda: packed({"state.npy": npy((1 << 62, 1 << 62), b"")}, zipfile.ZIP_STORED),
    "objects": lambda: packed({"state.npy": npy((1,), b"cos\nsystem\n", "|O")}, zipfile.ZIP_STORED),
    "deep nesting": lambda: packed({"state.npy": npy((9000,), b"[" * 9000, "|u1")}, zipfile.ZIP_STORED),
    "many members": lambda: packed({f"a{n}.npy": npy((), bytes(8)) for n in range(11000)}, zipfile.ZIP_STORED),
    "no zip": lambda: b"PK" * 100,
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_state_file_allocates_no_more_than_its_size(piece: Path, name: str) -> None:
    (piece / "state.npz").write_bytes(BOMBS[name]())
    with pytest.raises(ValueError):
        load(piece / "state.npz")
    with pytest.raises(EdgeHalError, match="is no recording"):
        read_recording(piece)


def test_a_plain_piece_replays(piece: Path, bundle: Path) -> None:
    replay(piece, bundle)


STATES: dict[str, Any] = {
    "clock._next": 1 << 62,
    "clock._start_ns": -(1 << 61),
    "clock.frame": [0, 1 << 59],
    "clock.intervals": [1 << 62] * 5,
    "clock.running": False,
    "clock.counters": {},
    "recognizer.pyramid.ring.written": [10**9, 0],
    "recognizer.pyramid.steps": [],
    "recognizer.decoder.label": 99,
    "recognizer.decoder.since": 1 << 62,
    "recognizer.since": {"tick": -1, "frame": 0, "t_ns": 0},
    "recognizer.pyramid.engines": {},
    "vector": "/etc/passwd",
    "source.taken": "many",
}


@pytest.mark.parametrize("path", STATES)
def test_a_state_that_does_not_fit_the_bundle_is_refused(piece: Path, bundle: Path, path: str) -> None:
    state = load(piece / "state.npz")
    *keys, last = path.split(".")
    node = state
    for key in keys:
        node = node[key]
    node[last] = STATES[path]
    (piece / "state.npz").unlink()
    save(piece / "state.npz", state)
    with pytest.raises(EdgeHalError):
        replay(piece, bundle)
