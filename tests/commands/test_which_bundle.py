"""Every command that reads a bundle takes a task folder, a run and the bundle itself, and names what is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge_hal import __version__
from edge_hal.bundle import load_bundle
from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.commands.export import _summary
from edge_hal.runtime.checks.doctor.bundles import try_bundle
from edge_hal.runtime.options import RunOptions
from edge_hal.task_folder import newest_bundle
from tests.helpers.bundles import AT_ONCE, LABELS, known_bundle, vectors
from tests.helpers.loops import features, recorded
from tests.helpers.processes import Command


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """`task` with the runs 1 and 2 and a bundle in each; the one of run 2 decides later."""
    procedure = learn_procedure([np.repeat([0, 1, 2], 20)] * 8, LABELS, 10.0)
    root = tmp_path / "task"
    for number in (1, 2):
        decoder = AT_ONCE.from_dict({**AT_ONCE.to_dict(), "confirm_s": 0.1 * number, "procedure": procedure.to_dict()})
        known_bundle(root / "runs" / str(number) / "bundle", decoder=decoder)
    (root / "task.yaml").write_text("")
    return root


def test_a_folder_that_holds_one_bundle_stands_for_it(task: Path, tmp_path: Path) -> None:
    bundle = task / "runs" / "1" / "bundle"
    assert newest_bundle(task) == task / "runs" / "2" / "bundle"
    assert newest_bundle(task / "runs" / "1") == newest_bundle(bundle) == bundle
    assert newest_bundle(tmp_path) == tmp_path and newest_bundle(tmp_path / "none") == tmp_path / "none"


@pytest.mark.parametrize("given", ["task", "task/runs/2", "task/runs/2/bundle"])
def test_each_command_takes_it(given: str, task: Path, tmp_path: Path, command: Command) -> None:
    assert command("keys", "new", "me", "--sign", "--dir", "keys").returncode == 0
    for arguments in (
        ("procedure", "show", given),
        ("procedure", "check", given),
        ("procedure", "diff", given, "task/runs/2/bundle/procedure.json"),
        ("bench", given, "--ticks", "5", "--paced", "0"),
        ("bench", "task/runs/1/bundle", "--compare", given, "--ticks", "5", "--paced", "0"),
        ("keys", "sign", given, "--key", "keys/me.signer_secret"),
    ):
        done = command(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert (task / "runs" / "2" / "bundle" / "signature.json").is_file()
    fingerprint = load_bundle(task / "runs" / "2" / "bundle").fingerprint
    assert fingerprint[:12] in next(try_bundle(given, lambda *_: None))["found"]


def test_a_replay_takes_it_and_names_a_wrong_recording_before_a_missing_bundle(
    task: Path, tmp_path: Path, command: Command
) -> None:
    source = features(tmp_path, vectors([0] * 20 + [1] * 20), 10)
    recorded(RunOptions(task / "runs" / "2" / "bundle", source, pace="asap", record=tmp_path / "tape"))
    done = command("replay", "tape", "--bundle", "task")
    assert done.returncode == 0 and "all as recorded" in done.stderr
    open_to_all = command("replay", "tape", "--bundle", "task", "--pub", "tcp://0.0.0.0:*")
    assert open_to_all.returncode == 2 and "other machines" in open_to_all.stderr and "ipc://" in open_to_all.stderr
    assert "--key" not in open_to_all.stderr and "--insecure" not in open_to_all.stderr  # it has no such options
    assert "task is no recording" in command("replay", "task").stderr
    missing = command("replay", "tape")
    assert missing.returncode == 1 and "bundle is no bundle: there is no such folder" in missing.stderr


def test_a_file_in_place_of_a_folder_is_called_a_file(tmp_path: Path, command: Command) -> None:
    file = tmp_path / "notes.md"
    file.write_text("x")
    for given in (
        ("bench", "notes.md"),
        ("doctor", "--bundle", "notes.md"),
        ("keys", "sign", "notes.md", "--key", "no-such-key"),
        ("view", "--bundle", "notes.md"),
        ("view", "--recording", "notes.md"),
        ("models", "list", "notes.md"),
        ("keys", "new", "b", "--dir", "notes.md"),
        ("keys", "new", "b", "--sign", "--dir", "notes.md"),
        ("init", "notes.md", "--encoder", "own"),
        ("check", "notes.md"),
    ):
        done = command(*given)
        told = done.stdout + done.stderr
        assert done.returncode != 0 and "is a file and no folder" in told, (given, told)
        assert "no such folder" not in told and "Not a directory" not in told and "not empty" not in told, told
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"] and file.read_text() == "x"


def test_what_is_no_bundle_is_not_to_be_overwritten(tmp_path: Path, command: Command) -> None:
    """The advice once was to export into the folder that was named by mistake."""
    (tmp_path / "films").mkdir()
    for name, why in (("films", "no manifest.json"), ("nowhere", "no such folder")):
        done = command("bench", name)
        assert done.returncode == 1 and f"{name} is no bundle: " in done.stderr and why in done.stderr
        assert "--out" not in done.stderr
        assert "--bundle nowhere: there is no such folder" in command("view", "--bundle", "nowhere").stderr


def test_models_of_a_task_folder(task: Path, tmp_path: Path, command: Command) -> None:
    source = features(tmp_path, vectors([0] * 20 + [1] * 20), 10)
    for number in (1, 2):
        manifest = task / "runs" / str(number) / "bundle" / "manifest.json"
        os.utime(manifest, (10**9 + number, 10**9 + number))
    done = command("models", "diff", "task", source)  # none is in use: the newest against the one before it
    assert done.returncode == 0 and "runs/1/bundle (-) and runs/2/bundle (+)" in done.stdout, done
    assert "none is older" in command("models", "diff", "task", source, "--after", "1").stderr
    for name in ("1", "runs/2", "runs/1/bundle"):
        assert command("models", "use", "task", name).returncode == 0
    assert (task / "current").resolve() == (task / "runs" / "1" / "bundle").resolve()
    (task / "current").unlink()
    shutil.rmtree(task / "runs")
    done = command("models", "list", "task")
    assert done.returncode == 1 and "edge-hal train task" in done.stderr


def test_the_version_is_printed_and_h_is_help(command: Command) -> None:
    assert command("--version").stdout.strip() == f"edge-hal {__version__}"
    assert "Usage: edge-hal check" in command("check", "-h").stdout
    assert "Usage: edge-hal models list" in command("models", "list", "-h").stdout


def test_what_comes_next_is_told_if_the_task_itself_has_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "task" / "runs" / "1").mkdir(parents=True)
    (tmp_path / "task" / "task.yaml").write_text("")
    bundle = known_bundle(tmp_path / "other place")
    metrics = {"frame_agreement": 1.0, "transitions": 3, "shift_ticks_max": 0}
    certificate = {"metrics": metrics, "checks": [], "ticks": 9, "reference": "random", "receptive_field": 3}
    told = _summary(bundle, certificate, tmp_path / "task")
    assert told.endswith(f"next: edge-hal run --bundle '{bundle.path}' --camera 0")
