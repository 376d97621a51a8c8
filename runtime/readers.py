"""Readers: one blocking read each, out of a video file, a feature array, a camera or an address."""

from __future__ import annotations

import math
import os
import re
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .rate import exact_rate

FPS_RANGE = (0.01, 1000.0)
"""Frames per second a file may claim; outside of it the file is not believed."""
OPEN_TIMEOUT_MS = 10_000
WITHOUT_CAMERA = "connect one, or run without: edge-hal run --camera FILE"


class Undecodable(Exception):
    """A frame was captured but holds no picture or vector."""


def redact(uri: str) -> str:
    """The same address without user, password and query, fit for logs and events."""
    scheme, found, rest = uri.partition("://")
    if not found:
        return uri
    # Passwords hold anything, '/' and '#' included: what follows the last '@' is all that is shown.
    return f"{scheme}://" + re.split(r"[?#]", rest.rpartition("@")[2])[0]


class Reader(Protocol):
    """`read` gives the next frame's data, None at the end, or raises Undecodable. `rate` is its
    frames per second where it has one."""

    rate: Fraction | None

    def read(self) -> NDArray[Any] | None: ...

    def close(self) -> None: ...


class VideoReader:
    """A video file. Its first frame is read at once: a file that decodes nothing is refused here."""

    def __init__(self, path: Path, fps: float | None) -> None:
        if not path.is_file():
            why = "it is a directory" if path.is_dir() else "there is no such file"
            raise EdgeHalError(f"cannot open the video {path}", why, "check the path given to --camera")
        if not os.access(path, os.R_OK):
            raise EdgeHalError(f"cannot open the video {path}", "permission denied", f"chmod u+r {path}")
        self._capture = _cv2().VideoCapture(str(path))
        try:
            if not self._capture.isOpened():
                raise EdgeHalError(
                    f"{path} is not a video that OpenCV can open",
                    "" if path.stat().st_size else "the file is empty",
                    "try: ffprobe " + str(path),
                )
            claimed = float(self._capture.get(_cv2().CAP_PROP_FPS)) if fps is None else fps
            self.rate: Fraction | None = checked_rate(claimed, f"the video {path}")
            self._first = self._next()
            if self._first is None:
                raise EdgeHalError(
                    f"the video {path} holds no frame that can be decoded",
                    "it is truncated, or its codec is not in this OpenCV",
                    f"convert it: ffmpeg -i {path} -c:v libx264 converted.mp4",
                )
        except BaseException:
            self.close()
            raise

    def read(self) -> NDArray[Any] | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return self._next()

    def _next(self) -> NDArray[Any] | None:
        ok, picture = self._capture.read()
        return picture if ok else None

    def close(self) -> None:
        self._capture.release()


class FeatureReader:
    """Feature vectors from an array (T, D) or (D, T) on disk, opened as a memory map."""

    def __init__(self, path: Path, rate: Fraction, size: int | None) -> None:
        self.rate: Fraction | None = rate
        todo = "give features:FILE.npy@HZ with a float array (T, D) or (D, T)"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            why = str(error) if path.is_file() else "there is no such file"
            raise EdgeHalError(f"cannot read the features {path}", why, todo) from error
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
            shape = getattr(array, "shape", "?")
            kind = getattr(array, "dtype", "?")
            raise EdgeHalError(f"cannot use the features {path}", f"shape {shape}, type {kind}", todo)
        if size is not None and size not in array.shape:
            raise EdgeHalError(
                f"the features {path} do not fit the bundle",
                f"their shape is {array.shape}, the bundle takes vectors of {size}",
                "use the features it was trained on, or another --bundle",
            )
        if size is not None and array.shape[1] != size:
            array = array.T
        if not len(array):
            raise EdgeHalError(f"the features {path} are empty", f"shape {array.shape}", todo)
        self._array, self._index = array, 0

    def read(self) -> NDArray[Any] | None:
        if self._index >= len(self._array):
            return None
        row = np.array(self._array[self._index], dtype=np.float32)
        self._index += 1
        if not np.isfinite(row).all():
            raise Undecodable  # one NaN would stay in the model's state for a whole receptive field
        return row

    def close(self) -> None:
        self._array = np.empty((0, 0), np.float32)  # lets go of the memory map


class DeviceReader:
    """A camera or a URL through OpenCV, asked for as little buffering as it offers."""

    def __init__(self, uri: str) -> None:
        cv2 = _cv2()
        if uri.isdigit():
            if os.name == "posix" and not Path(f"/dev/video{uri}").exists():
                raise EdgeHalError(f"there is no camera {uri}", _cameras(), WITHOUT_CAMERA)
            backend = getattr(cv2, "CAP_V4L2", cv2.CAP_ANY) if os.name == "posix" else cv2.CAP_ANY
            self._capture = cv2.VideoCapture(int(uri), backend)
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG"))
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        else:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
            limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
            self._capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            self._capture.release()
            why = _cameras() if uri.isdigit() else "it does not answer, or is not a video stream"
            raise EdgeHalError(f"cannot open the camera {redact(uri)}", why, WITHOUT_CAMERA)
        claimed = float(self._capture.get(cv2.CAP_PROP_FPS))
        believed = math.isfinite(claimed) and 1.0 <= claimed <= FPS_RANGE[1]
        self.rate: Fraction | None = exact_rate(claimed) if believed else None

    def grab(self) -> bool:
        return bool(self._capture.grab())

    def read(self) -> NDArray[Any] | None:
        """Decode what was grabbed."""
        ok, picture = self._capture.retrieve()
        if not ok:
            raise Undecodable
        return picture

    def close(self) -> None:
        self._capture.release()


def checked_rate(fps: float, what: str, todo: str = "say how many: --fps N") -> Fraction:
    if not (math.isfinite(fps) and FPS_RANGE[0] <= fps <= FPS_RANGE[1]):
        raise EdgeHalError(f"{what} claims {fps:g} frames per second", "it cannot be", todo)
    return exact_rate(fps)


def _cameras() -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"there is {', '.join(found)}" if found else "this machine has no /dev/video*"


def _cv2() -> ModuleType:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own errors say it once, and clearly
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        import cv2
    except ImportError as error:
        raise EdgeHalError(
            "cameras and videos need OpenCV, which is not installed",
            str(error),
            "pip install 'edge-hal[camera]' (on a Jetson: the system's python3-opencv)",
        ) from error
    return cv2
