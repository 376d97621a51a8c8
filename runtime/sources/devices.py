"""The cameras of this machine, and the modes they can deliver."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .file_readers import opencv

SYSFS, DEV = Path("/sys/class/video4linux"), Path("/dev")
SIZES = ((640, 480), (800, 600), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160))
FORMATS = ("MJPG", "YUYV")
PROBE_S = 20.0


@dataclass(frozen=True)
class Device:
    """`/dev/video{index}`. `modes`: width, height, fps and fourcc as the camera confirmed them. Where there are none,
    `why` says what went wrong."""

    index: int
    name: str
    modes: tuple[dict[str, Any], ...]
    why: str = ""


def list_devices(sysfs: Path = SYSFS, dev: Path = DEV) -> list[Device]:
    """Every capture device of the machine. Metadata nodes of the same camera are left out. A container may have a
    device without an entry in sysfs.

    Raises:
        EdgeHalError: there are devices, and OpenCV is not installed.
    """
    found = []
    numbers = sorted(_numbers(sysfs) | _numbers(dev))
    if numbers:
        opencv()  # a process that cannot import it would look like a device that does not answer
    for index in numbers:
        entry = sysfs / f"video{index}"
        if _text(entry / "index") in ("", "0"):
            found.append(Device(index, _text(entry / "name") or entry.name, *_probe_in_process(index)))
    return found


def denied(index: int | str) -> str:
    """What to do if this process may not open /dev/videoN; empty if it may, or if there is none.

    A device belongs to a group, usually `video`, and its members may open it."""
    path = DEV / f"video{index}"
    if not path.exists() or os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        return ""
    import grp

    with contextlib.suppress(OSError, KeyError):
        group = grp.getgrgid(path.stat().st_gid).gr_name
        if group != "root":
            return f"join the group {group}: sudo usermod -aG {group} $USER, then log in again"
    return "join the group video: sudo usermod -aG video $USER, then log in again; see: ls -l /dev/video*"


def _numbers(folder: Path) -> set[int]:
    names = (path.name.removeprefix("video") for path in folder.glob("video*"))
    return {int(name) for name in names if name.isdecimal()}


def probe(index: int) -> list[dict[str, Any]]:
    """Ask a camera for common sizes and formats. Returns the modes it answered with."""
    cv2 = opencv()
    capture = cv2.VideoCapture(index, cv2.CAP_V4L2)
    modes: list[dict[str, Any]] = []
    for fourcc in FORMATS if capture.isOpened() else ():
        for width, height in SIZES:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*fourcc))
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
            code = int(capture.get(cv2.CAP_PROP_FOURCC))
            mode = {
                "width": int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
                "height": int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
                "fps": round(float(capture.get(cv2.CAP_PROP_FPS)), 3),
                "fourcc": "".join(chr(code >> shift & 0x7F) for shift in (0, 8, 16, 24)),
            }
            if mode not in modes:
                modes.append(mode)
    capture.release()
    return modes


def _probe_in_process(index: int) -> tuple[tuple[dict[str, Any], ...], str]:
    """`probe` in a process of its own, because opening a broken camera can hang."""
    if not Path(f"/dev/video{index}").exists():
        return (), f"there is no /dev/video{index}"
    if todo := denied(index):
        return (), f"permission denied; {todo}"
    code = f"import json; from {__name__} import probe; print(json.dumps(probe({index})))"
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_S, env=path)
        modes = tuple(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError):
        return (), "it does not answer"
    return modes, "" if modes else "it does not open: another program may use it"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
