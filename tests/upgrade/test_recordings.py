"""Recordings name the version that made them. Plain ones of another version replay; those of a ring are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_hal import EdgeHalError, __version__
from edge_hal.runtime.recording.reader import read_recording, recordings
from tests.helpers.processes import call
from tests.helpers.then_and_now import same

HERE = ("--bundle", "bundle", "--pub", "ipc://r")


def durable(text: str) -> list[dict[str, Any]]:
    found = [{**json.loads(line), "run": None, "seq": None} for line in text.splitlines()]
    return [event for event in found if event["type"] in ("start", "transition", "gap", "end")]


def test_a_plain_recording_replays_to_the_events_of_then(frozen: Path) -> None:
    assert read_recording(frozen / "recording").version == "0.1"
    # The exit code is 1 where the machine rounds differently.
    _, out, _ = call("replay", "recording", *HERE, "--stream", "bench", "--json", cwd=frozen)
    then = durable((frozen / "recording" / "events.jsonl").read_text())
    assert len(then) == 16 and same(durable(out), then)


def test_a_difference_names_both_versions(frozen: Path) -> None:
    events = frozen / "recording" / "events.jsonl"
    events.write_text(events.read_text().replace('"to":"fold"', '"to":"press"'))
    code, _, err = call("replay", "recording", *HERE, cwd=frozen)
    assert code == 1 and f"edge-hal 0.1 recorded it, and {__version__} may decide differently" in err


@pytest.mark.parametrize("piece", [None, 0, 1])
def test_a_ring_of_another_version_is_one_error_that_names_it(frozen: Path, piece: int | None) -> None:
    """Nothing is replayed before it is refused, though the first piece holds no state."""
    ring = frozen / "recording_ring"
    folder = ring if piece is None else recordings(ring)[piece]
    code, out, err = call("replay", str(folder), *HERE, cwd=frozen)
    assert (code, out) == (1, "") and err.count("edge-hal 0.1 recorded") == 1 and "Traceback" not in err
    assert f"this is edge-hal {__version__}" in err and "replay it with edge-hal 0.1" in err


def test_a_piece_under_another_name_is_refused_for_its_state(frozen: Path) -> None:
    moved = recordings(frozen / "recording_ring")[1].rename(frozen / "moved")
    with pytest.raises(EdgeHalError, match=r"edge-hal 0\.1 recorded"):
        read_recording(moved)


def test_new_recordings_name_their_version(frozen: Path) -> None:
    run = ("run", "--camera", "features:stream.npy@20", "--pace", "asap", "--seconds", "20", "--no-journal", *HERE)
    for options in (("--record", "plain"), ("--record", "ring", "--record-around", "8s,1GB")):
        code, _, err = call(*run, *options, cwd=frozen)
        assert code == 0, err
    for folder in (frozen / "plain", *recordings(frozen / "ring")):
        log, found = folder / "log.jsonl", read_recording(folder)
        assert (found.head["schema"], found.version) == (3, __version__)
        head, _, rest = log.read_text().partition("\n")
        log.write_text(json.dumps({**json.loads(head), "version": "0.2.77"}) + "\n" + rest)
        if folder.name == "plain":
            assert read_recording(folder).version == "0.2.77"
        else:
            with pytest.raises(EdgeHalError, match=r"edge-hal 0\.2\.77 recorded"):
                read_recording(folder)
        log.write_text(json.dumps({"schema": 5, "version": "0.9.0"}) + "\n" + rest)
        with pytest.raises(EdgeHalError, match=r"edge-hal 0\.9\.0 wrote schema 5"):
            read_recording(folder)
