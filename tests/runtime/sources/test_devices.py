from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.sources.devices import SYSFS, list_devices


def test_cameras_are_listed_by_name_and_their_metadata_left_out(tmp_path: Path) -> None:
    sysfs, dev = tmp_path / "sysfs", tmp_path / "dev"
    dev.mkdir()
    for number, name, index in [(0, "Front", "0"), (1, "Front", "1"), (10, "Side", "0"), (2, "Old", None)]:
        entry = sysfs / f"video{number}"
        entry.mkdir(parents=True)
        (entry / "name").write_text(name + "\n")
        if index is not None:
            (entry / "index").write_text(index + "\n")
    (dev / "video20").touch()  # a container may have a device without an entry in sysfs
    devices = list_devices(sysfs, dev)
    names = [(device.index, device.name) for device in devices]
    assert names == [(0, "Front"), (2, "Old"), (10, "Side"), (20, "video20")]
    for device in devices:
        assert device.modes or device.why  # what cannot be asked says why


def test_without_opencv_that_is_told_and_not_that_no_device_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev").mkdir()
    assert list_devices(tmp_path / "sysfs", tmp_path / "dev") == []
    (tmp_path / "dev" / "video0").touch()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(EdgeHalError, match="need OpenCV, which is not installed"):
        list_devices(tmp_path / "sysfs", tmp_path / "dev")


def test_the_command_lists_what_is_there(devices_of_this_machine: Path) -> None:
    for arguments in ((), ("--json",)):
        command = [sys.executable, "-m", "edge_hal", "cameras", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        if arguments:
            assert len(json.loads(done.stdout)) == len(list_devices())
        elif not [*SYSFS.glob("video*"), *devices_of_this_machine.glob("video*")]:
            assert "no camera found" in done.stdout and "rtsp://" in done.stdout
