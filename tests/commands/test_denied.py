"""Files, folders, devices and addresses that the user may not use: named at once, with the remedy.

Permission bits do not bind root, so the commands run as `nobody`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.helpers.bundles import known_bundle, vectors
from tests.helpers.processes import REPOSITORY
from tests.helpers.small_data import write_small_data

NOBODY = 65534
RUN = ("run", "--pace", "asap", "--pub", "tcp://127.0.0.1:*")
FEATURES = (*RUN, "--bundle", "bundle", "--camera", "features:f.npy@10")
PICTURES = (*RUN, "--bundle", "picture_bundle", "--no-journal", "--fps", "10", "--camera")


def environment(home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home)}


def as_nobody(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")
    command = [*user, sys.executable, "-m", "edge_hal", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(cwd), capture_output=True, text=True)


@pytest.fixture(scope="module")
def inputs() -> Iterator[Path]:
    """One of everything, readable by all. Not under pytest's folder, which others may not enter."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can run a command as another user")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    folder = Path(tempfile.mkdtemp(prefix="edge-hal-denied."))
    folder.chmod(0o755)
    try:
        if as_nobody("--help", cwd=folder).returncode:
            pytest.skip("the user nobody may not read this repository or its Python")
        known_bundle(folder / "bundle")
        known_bundle(folder / "picture_bundle", pictures=True)
        np.save(folder / "f.npy", vectors([0, 1, 2] * 40))
        write_small_data(folder / "data", train=2, test=1)
        (folder / "pictures").mkdir()
        for number in range(4):
            cv2.imwrite(str(folder / "pictures" / f"{number}.png"), np.zeros((16, 16, 3), np.uint8))
        cv2.imwrite(str(folder / "video.png"), np.zeros((16, 16, 3), np.uint8))
        shutil.copy(folder / "video.png", folder / "video.mp4")
        (folder / "journals").mkdir()
        (folder / "journals").chmod(0o777)
        # Root tries the bundle's engines, because nobody may not be allowed to start this Python once more.
        command = [sys.executable, "-m", "edge_hal", *FEATURES, "--no-journal"]
        subprocess.run(command, cwd=folder, env=environment(folder), check=True, capture_output=True)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def place(inputs: Path) -> Iterator[Path]:
    """A copy for one test."""
    copy = Path(tempfile.mkdtemp(prefix="edge-hal-denied."))
    shutil.copytree(inputs, copy, dirs_exist_ok=True)
    copy.chmod(0o755)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", copy / ".cache"], check=True)
    yield copy
    shutil.rmtree(copy)


READING = {
    "f.npy": (*FEATURES, "--no-journal"),
    "bundle": (*FEATURES, "--no-journal"),
    "bundle/manifest.json": (*FEATURES, "--no-journal"),
    "bundle/certificate.json": (*FEATURES, "--no-journal"),
    "bundle/decoder.json": (*FEATURES, "--no-journal"),
    "bundle/level1.c1.fp32.onnx": (*FEATURES, "--no-journal"),
    "pictures": (*PICTURES, "pictures"),
    "pictures/2.png": (*PICTURES, "pictures"),
    "video.mp4": (*PICTURES, "video.mp4"),
    "data": ("train", "data", "--out", "journals/run"),
    "data/transcripts/video1.txt": ("train", "data", "--out", "journals/run"),
    "data/features/video0.npy": ("train", "data", "--out", "journals/run"),
    "data/splits/train.split1.bundle": ("train", "data", "--out", "journals/run", "--split", "1"),
    "data/mapping.txt": ("train", "data", "--out", "journals/run"),
}


@pytest.mark.parametrize("denied", READING)
def test_what_may_not_be_read_is_named_at_once(place: Path, denied: Any) -> None:
    (place / denied).chmod(0)
    done = as_nobody(*READING[denied], cwd=place)
    assert done.returncode in (1, 2) and done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "permission denied" in done.stderr and denied in done.stderr
    assert "mode 0000" in done.stderr and "sudo chmod o+r" in done.stderr
    assert "publishing" not in done.stderr and not list((place / "journals").iterdir())


WRITING = {
    "bundle": (*FEATURES, "--journal", "bundle/j"),
    "data": (*FEATURES, "--no-journal", "--record", "data/recording"),
    "pictures": ("train", "data", "--out", "pictures/run"),
    "picture_bundle": ("listen", "--cursor", "picture_bundle/cursor"),
    "data/splits": ("keys", "new", "station", "--dir", "data/splits"),
}


@pytest.mark.parametrize("denied", WRITING)
def test_where_may_not_be_written_is_named_before_the_work(place: Path, denied: Any) -> None:
    before = sorted((place / denied).iterdir())
    done = as_nobody(*WRITING[denied], cwd=place)
    assert done.returncode in (1, 2) and done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "permission denied" in done.stderr and denied in done.stderr and "sudo chown nobody" in done.stderr
    assert "teacher" not in done.stderr and "publishing" not in done.stderr
    assert sorted((place / denied).iterdir()) == before


def test_a_journal_that_may_only_be_read_is_denied_before_the_run(place: Path) -> None:
    command = (*FEATURES, "--journal", "journals/j")
    assert as_nobody(*command, cwd=place).returncode == 0
    os.chown(place / "journals/j", 0, 0)
    (place / "journals/j").chmod(0o444)
    before = (place / "journals/j").read_bytes()
    done = as_nobody(*command, cwd=place)
    assert done.returncode == 1
    assert "permission denied for journals/j" in done.stderr and "choose another --journal" in done.stderr
    assert (place / "journals/j").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--pub", "tcp://127.0.0.1:81"), "ports below 1024 are for root"),
        (("--metrics", "127.0.0.1:82"), "ports below 1024 are for root"),
        (("--pub", "ipc://bundle/socket"), "permission denied for bundle"),
        (("--pub", "tcp://192.0.2.1:5570", "--insecure"), "this machine has no address 192.0.2.1"),
    ],
)
def test_an_address_that_cannot_be_bound_is_explained(place: Path, arguments: tuple[str, ...], told: str) -> None:
    done = as_nobody(*FEATURES, "--no-journal", *arguments, cwd=place)
    if done.returncode == 0 and "1024" in told:
        pytest.skip("this system lets everybody bind low ports")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert told in done.stderr and "choose another address" in done.stderr


def test_a_camera_without_permission_names_the_group(place: Path, devices_of_this_machine: Path) -> None:
    device = devices_of_this_machine / "video97"
    if device.exists():
        pytest.skip(f"there is a {device}")
    try:
        os.mknod(device, 0o020660, os.makedev(1, 7))
    except OSError as error:
        pytest.skip(f"a device cannot be made here: {error}")
    try:
        source = ("--bundle", "picture_bundle", "--no-journal", "--pub", "tcp://127.0.0.1:*")
        for name in ("97", str(device)):
            done = as_nobody("run", *source, "--camera", name, cwd=place)
            assert done.returncode == 1
            assert str(device) in done.stderr and "permission denied" in done.stderr
            assert "sudo usermod -aG video $USER" in done.stderr
        done = as_nobody("cameras", cwd=place)
        assert "--camera 97" in done.stdout and "permission denied; join the group video" in done.stdout
    finally:
        device.unlink()
