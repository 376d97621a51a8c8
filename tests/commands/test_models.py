"""`edge-hal models`: a folder of bundles with one link, what runs on it do, and how two bundles are compared."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_hal.bundle import load_bundle
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.evaluation.bundle_difference import compare
from edge_hal.events import End, Moment, Transition
from edge_hal.model_folder import current_model, models_in, use_model
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.options import RunOptions
from edge_hal.task_folder import newest_bundle
from tests.helpers.bundles import known_bundle, vectors
from tests.helpers.loops import features, recorded
from tests.helpers.processes import Command, call, contents, finish, start


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """`models` with three bundles: march (no lag), april (its boundaries are 0.5 s earlier), may (decides later)."""
    root = tmp_path / "models"
    root.mkdir()
    late = DecoderConfig(smooth_s=0.0, confirm_s=1.0, min_duration_s=0.0)
    known_bundle(root / "march")
    known_bundle(root / "april", lag_s=0.5)
    known_bundle(root / "may", decoder=late)
    for number, name in enumerate(("march", "april", "may")):
        os.utime(root / name / "manifest.json", (10**9 + number, 10**9 + number))
    (root / "notes").mkdir()
    return root


def test_the_link_moves_through_the_bundles_by_date(kept: Path, command: Command) -> None:
    none = command("models", "list", "models")
    assert none.returncode == 0 and "none is in use" in none.stdout and "notes" not in none.stdout
    assert [line.split()[0] for line in none.stdout.splitlines()[1:4]] == ["march", "april", "may"]
    assert command("models", "rollback", "models").returncode == 2
    assert command("models", "use", "models", "may").returncode == 0
    assert os.readlink(kept / "current") == "may"
    rows = json.loads(command("models", "list", "models", "--json").stdout)
    assert [row["current"] for row in rows] == [False, False, True]
    assert rows[0]["encoder"] == "vectors" and rows[0]["labels"] == ["blue", "green", "red"]
    for expected in ("april", "march"):
        assert expected in command("models", "rollback", "models").stdout
        found = current_model(kept)
        assert found is not None and found.name == expected and newest_bundle(kept) == kept / "current"
    last = command("models", "rollback", "models")
    assert last.returncode == 1 and "oldest" in last.stderr and os.readlink(kept / "current") == "march"


def test_what_cannot_be_used_is_refused_and_changes_nothing(kept: Path, tmp_path: Path, command: Command) -> None:
    command("models", "use", "models", "march")
    (kept / "april" / "certificate.json").unlink()
    (kept / "may" / "manifest.json").write_text("{}")
    before = contents(tmp_path)
    for arguments, code in (
        (("use", "models", "april"), 1),
        (("use", "models", "may"), 1),
        (("use", "models", "june"), 2),
        (("list", "models/notes"), 2),
        (("list", "nowhere"), 1),
        (("diff", "models", "x.mp4", "--after", "march"), 2),
    ):
        done = command("models", *arguments)
        assert done.returncode == code and done.stderr.startswith("error: "), (arguments, done)
    assert contents(tmp_path) == before
    assert "schema" in command("models", "list", "models").stdout
    (kept / "current").unlink()
    (kept / "current").symlink_to("june")
    for code, _, err in (command("models", "rollback", "models").all, call("run", "--bundle", "models", cwd=tmp_path)):
        assert code == 1 and "leads to no bundle" in err
    (kept / "current").unlink()
    code, _, err = call("run", "--bundle", "models", cwd=tmp_path)
    assert code == 1 and "none is in use" in err
    (kept / "current").mkdir()
    assert "is no link" in command("models", "use", "models", "march").stderr


def test_what_can_be_listed_is_listed_and_the_rest_is_named(kept: Path, tmp_path: Path, command: Command) -> None:
    (kept / "current").symlink_to("june")
    for name in ("loop", "ring"):
        (kept / name).mkdir()
        (kept / name / "manifest.json").symlink_to("manifest.json")  # nobody can read it, root neither
    done = command("models", "list", "models")
    assert done.returncode == 0 and "none is in use" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[1:4]] == ["march", "april", "may"]
    notes = done.stderr.splitlines()
    assert all(note.startswith("note: ") for note in notes) and len(notes) == 3
    assert "loop" in notes[0] and "ring" in notes[1] and "current leads to no bundle" in notes[2]
    assert command("models", "use", "models", "may").returncode == 0
    assert newest_bundle(kept) == kept / "current"
    (kept / "current").unlink()
    with pytest.raises(EdgeHalError, match="cannot read"):  # without a link nobody knows whether it is the only one
        newest_bundle(kept)


def test_a_task_folder_is_a_folder_of_models(kept: Path, tmp_path: Path, command: Command) -> None:
    task = tmp_path / "task"
    for number, name in enumerate(("march", "april"), 1):
        shutil.copytree(kept / name, task / "runs" / str(number) / "bundle")
    (task / "task.yaml").write_text("")
    assert newest_bundle(task) == task / "runs" / "2" / "bundle"
    assert [model.name for model in models_in(task)] == ["runs/1/bundle", "runs/2/bundle"]
    assert command("models", "use", "task", "runs/1/bundle").returncode == 0
    assert load_bundle(newest_bundle(task)).path == (task / "runs" / "1" / "bundle").resolve()


def told(*steps: tuple[str, float], end_s: float = 60.0) -> list[Transition | End]:
    def at(seconds: float) -> Moment:
        return Moment(round(10 * seconds), round(10 * seconds), round(1e9 * seconds))

    events: list[Transition | End] = [
        Transition("s", 0, n, None, to, at(time_s), at(time_s + 1), 0.9, True, "d")
        for n, (to, time_s) in enumerate(steps)
    ]
    return [*events, End("s", 0, len(steps), "eof", at(end_s), {})]


def test_events_are_aligned_by_time_and_kind() -> None:
    before = told(("a", 0.0), ("b", 10.0), ("c", 20.0), ("a", 50.0))
    after = told(("a", 0.0), ("b", 10.4), ("d", 20.0), ("a", 51.5))
    found = compare("x", before, after, 1.0)
    assert [(a.what, round(b.time_s - a.time_s, 3)) for a, b in found.pairs] == [("-> a", 0.0), ("-> b", 0.4)]
    assert [each.what for each in found.only_before] == ["-> c", "-> a"]
    assert [(each.what, each.time_s) for each in found.only_after] == [("-> d", 20.0), ("-> a", 51.5)]
    assert found.differing_s == pytest.approx(0.4 + 31.5) and found.length_s == 60.0
    assert found.shift_s == pytest.approx(0.2)
    same = compare("x", before, before, 0.0)
    assert not same.only_before and not same.only_after and same.differing_s == 0.0


def test_diff_streams_videos_and_recordings(kept: Path, tmp_path: Path, command: Command) -> None:
    source = features(tmp_path, vectors([0] * 30 + [1] * 6 + [2] * 40 + [0] * 40), 10)
    recorded(RunOptions(kept / "march", source, pace="asap", record=tmp_path / "tape"))
    command("models", "use", "models", "march")
    done = command("models", "diff", "models", source, "tape")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "march (-) and may (+)" in lines[-1]
    by_source = [line.split(": ", 1)[1] for line in lines if line.startswith((source, "tape:"))]
    assert len(by_source) == 2 and by_source[0] == by_source[1]  # a recording says what its source says
    assert "  - 00:03.00  -> green  (confidence 1.00)" in lines  # too short for may
    found = json.loads(command("models", "diff", "models", source, "--before", "april", "--json").stdout)
    assert (found["before"], found["after"]) == ("april", "may") and len(found["sources"]) == 1
    ring = replace(
        RunOptions(kept / "march", source, pace="asap"), record=tmp_path / "ring", record_around=Retention(2.0)
    )
    recorded(ring)
    for place in ("ring", f"ring/{sorted(os.listdir(tmp_path / 'ring'))[1]}"):
        refused = command("models", "diff", "models", place)
        assert refused.returncode == 2 and "edge-hal harvest" in refused.stderr
    (tmp_path / "empty").mkdir()
    picture = tmp_path / "pictures" / "1.png"
    picture.parent.mkdir()
    picture.write_bytes(b"")
    for place in ("empty", "pictures"):
        refused = command("models", "diff", "models", place)
        assert refused.returncode == 2 and "no recording of a run" in refused.stderr, refused
        assert "--camera" not in refused.stderr and "--fps" not in refused.stderr  # it has no such options
    camera = command("models", "diff", "models", "rtsp://user:secret@host/x")
    assert camera.returncode == 2 and "edge-hal run --record" in camera.stderr and "secret" not in camera.stderr


def test_a_bundle_is_not_compared_with_itself(kept: Path, command: Command) -> None:
    command("models", "use", "models", "may")
    refused = command("models", "diff", "models", "x.mp4")
    assert refused.returncode == 2 and "--before" in refused.stderr
    assert "may would be compared with itself: it is in use, and the newest" in refused.stderr
    for name in ("march", "april"):
        shutil.rmtree(kept / name)
    alone = command("models", "diff", "models", "x.mp4")
    assert alone.returncode == 2 and "export another bundle first" in alone.stderr and "--before" not in alone.stderr


def test_a_run_on_the_folder_follows_the_link(kept: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", vectors(np.repeat(np.arange(500) % 3, 8).tolist()))
    use_model(kept, models_in(kept)[0])
    prints = {name: load_bundle(kept / name).fingerprint for name in ("march", "april", "may")}
    assert prints["march"] == prints["may"]  # they differ in decoder.json only
    camera = f"features:{tmp_path}/f.npy@40"
    command = ("run", "--bundle", "models", "--camera", camera, "--pub", "tcp://127.0.0.1:*", "--journal", "j")
    with start(*command, cwd=tmp_path) as run:
        assert run.stdout is not None
        assert run.stdout.readline()  # it has begun, with march
        for name in ("april", "march", "may"):
            use_model(kept, next(model for model in models_in(kept) if model.name == name))
            while "reload" not in (line := run.stdout.readline()):
                assert line, run.stderr and run.stderr.read()
        run.send_signal(signal.SIGINT)
        code, _, err = finish(run)
    assert code == 0, err
    assert err.count("takes over") == 3
    shutil.rmtree(kept / "may")
    code, _, err = call(*command, cwd=tmp_path)
    assert code == 1 and "leads to no bundle" in err
