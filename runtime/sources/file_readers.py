"""Readers of files: a video, a folder of pictures, an array of feature vectors. Each `read` returns one frame."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .rate import checked_rate
from .source_spec import SourceKind, SourceSpec

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


class Undecodable(Exception):
    """A frame was captured but holds no picture or no finite vector."""


class Reader(Protocol):
    """`rate` is in frames per second. `read` returns the next frame's picture or vector, None at the end, or raises
    Undecodable."""

    rate: Fraction

    def read(self) -> NDArray[Any] | None: ...

    def close(self) -> None: ...


class VideoReader:
    """A video file. Its first frame is read at once, so that a file without a decodable frame is refused here."""

    def __init__(self, path: Path, fps: float | None) -> None:
        if not path.is_file():
            todo = "check the path given to --camera"
            raise EdgeHalError(f"cannot open the video {path}", "there is no such file", todo)
        if not os.access(path, os.R_OK):
            raise EdgeHalError(f"cannot open the video {path}", "permission denied", f"chmod u+r {path}")
        self._capture = opencv().VideoCapture(str(path))
        try:
            if not self._capture.isOpened():
                raise EdgeHalError(
                    f"{path} is not a video that OpenCV can open",
                    "" if path.stat().st_size else "the file is empty",
                    "try: ffprobe " + str(path),
                )
            claimed = float(self._capture.get(opencv().CAP_PROP_FPS)) if fps is None else fps
            self.rate = checked_rate(claimed, f"the video {path}")
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
    """Feature vectors from a .npy file of shape (T, D) or (D, T), opened as a memory map."""

    def __init__(self, path: Path, rate: Fraction, size: int | None) -> None:
        self.rate = rate
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
                f"their shape is {array.shape}, the bundle takes vectors of length {size}",
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
            raise Undecodable  # one NaN would stay in the model's state for its whole receptive field
        return row

    def close(self) -> None:
        self._array = np.empty((0, 0), np.float32)  # releases the memory map


class FolderReader:
    """The pictures in a folder, in the order of their names. All must have the size of the first one."""

    def __init__(self, path: Path, fps: float | None) -> None:
        todo = f"give the frame rate: --camera {path} --fps 10"
        if fps is None:
            raise EdgeHalError(f"the folder {path} has no frame rate", "pictures have none", todo, exit_code=2)
        self.rate = checked_rate(fps, f"the folder {path}")
        self._paths = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in PICTURES)
        if not self._paths:
            why = f"known: {', '.join(sorted(PICTURES))}"
            raise EdgeHalError(f"the folder {path} holds no picture", why, "check the path given to --camera")
        self._shape: tuple[int, ...] | None = None
        self._index = 0

    def read(self) -> NDArray[Any] | None:
        if self._index >= len(self._paths):
            return None
        picture: NDArray[Any] | None = opencv().imread(str(self._paths[self._index]), opencv().IMREAD_COLOR)
        self._index += 1
        if picture is None or (self._shape or picture.shape) != picture.shape:
            raise Undecodable
        self._shape = picture.shape
        return picture

    def close(self) -> None: ...


def open_file(source: SourceSpec, vector_size: int | None, fps: float | None) -> Reader:
    """The reader of a video, a folder of pictures or an array of feature vectors.

    Args:
        vector_size: the length of feature vectors, which distinguishes (T, D) from (D, T).
        fps: replaces the frame rate that a video claims; a folder needs it.

    Raises:
        EdgeHalError: it cannot be opened.
    """
    path = Path(source.target)
    if source.kind is SourceKind.FEATURES:
        assert source.rate is not None
        return FeatureReader(path, source.rate, vector_size)
    return FolderReader(path, fps) if path.is_dir() else VideoReader(path, fps)


def opencv() -> ModuleType:
    """The cv2 module, without its own messages. Raises EdgeHalError where it is not installed."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own errors replace its messages
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
