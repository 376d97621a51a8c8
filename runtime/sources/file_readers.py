"""Readers of files: a video, a folder of pictures, an array of feature vectors."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable
from edge_hal.files.feature_file import as_float32, coarse_note_of, open_features
from edge_hal.media.names import PICTURE_SUFFIXES, printable, with_suffix
from edge_hal.media.stamps import Missing
from edge_hal.media.video_file import VideoFile
from edge_hal.rate import checked_rate, instant_ns

from .source_spec import SourceKind, SourceSpec


class Undecodable(Exception):
    """A frame was captured but holds no picture or no finite vector."""


class Reader(Protocol):
    """`rate`: frames per second. `notes`: what the user should know before the first frame.

    `read`: time of the next frame in nanoseconds since the first, and its picture or vector, or None where it cannot be
    decoded. None at the end. `loss`: after the end, what the file announced and did not give.
    """

    rate: Fraction
    notes: list[str]

    def read(self) -> tuple[int, NDArray[Any] | None] | None: ...

    def loss(self) -> str | None: ...

    def close(self) -> None: ...


class VideoReader:
    """A video file. Its first picture is decoded at once, so that a file without one is refused here."""

    def __init__(self, path: Path, fps: float | None) -> None:
        self._video = VideoFile(path, fps)
        self.rate, self.notes = self._video.rate, self._video.notes
        try:
            self._frames = self._read_all()
            self._waiting: deque[tuple[int, NDArray[Any] | None]] = deque()
            for t_ns, picture in self._frames:
                self._waiting.append((t_ns, picture))
                if picture is not None:
                    return
            shown = printable(path)
            raise EdgeHalError(
                f"the video {shown} holds no frame that can be decoded",
                "it is damaged or cut off",
                f"convert it: ffmpeg -i {shown} -c:v libx264 converted.mp4",
            )
        except BaseException:
            self.close()
            raise

    def read(self) -> tuple[int, NDArray[Any] | None] | None:
        return self._waiting.popleft() if self._waiting else next(self._frames, None)

    def loss(self) -> str | None:
        missing = self._video.missing()
        return str(missing) if missing.share else None

    def close(self) -> None:
        self._video.close()

    def _read_all(self) -> Iterator[tuple[int, NDArray[Any] | None]]:
        video = self._video
        return ((t_ns, None if frame is None else video.picture(frame)) for t_ns, frame in video.frames())


class FeatureReader:
    """Feature vectors from a .npy file of shape (T, D) or (D, T), opened as a memory map."""

    def __init__(self, path: Path, rate: Fraction, size: int | None) -> None:
        self.rate, self.notes = rate, list[str]()
        todo = "give features:FILE.npy@HZ with an array of numbers (T, D) or (D, T)"
        array = open_features(path, todo)
        if size is not None and size not in array.shape:
            raise EdgeHalError(
                f"the features {path} do not fit the bundle",
                f"their shape is {array.shape}, the bundle takes vectors of length {size}",
                "use the features it was trained on, or another --bundle",
            )
        if size is not None and array.shape[1] != size:
            array = array.T
        note = coarse_note_of(array)
        if note is not None:
            self.notes.append(note)
        self._array, self._index, self._unfit = array, 0, 0

    def read(self) -> tuple[int, NDArray[Any] | None] | None:
        if self._index >= len(self._array):
            return None
        t_ns, row = instant_ns(self._index, self.rate), as_float32(self._array[self._index])
        self._index += 1
        # One NaN would stay in the model's state for its whole receptive field.
        finite = bool(np.isfinite(row).all())
        self._unfit += not finite
        return t_ns, row if finite else None

    def loss(self) -> str | None:
        text = f"{self._unfit} of {self._index} vectors were left out: they hold numbers that are not finite"
        return text if self._unfit else None

    def close(self) -> None:
        self._array = np.empty((0, 0), np.float32)  # releases the memory map


class FolderReader:
    """The pictures in a folder, in the natural order of their names: f_2 before f_10. Their sizes may differ."""

    def __init__(self, path: Path, fps: float | None) -> None:
        shown = printable(path)
        try:
            self._paths, others = with_suffix(path.iterdir(), PICTURE_SUFFIXES)
        except OSError as error:
            raise EdgeHalError(f"cannot read the folder {shown}", error.strerror or str(error), "check it") from error
        if not self._paths:
            why = f"known: {', '.join(sorted(PICTURE_SUFFIXES))}"
            raise EdgeHalError(f"the folder {shown} holds no picture", why, "check the path given to --camera")
        if fps is None:
            todo = f"give the frame rate: --camera {shown} --fps 10"
            raise EdgeHalError(f"the folder {shown} has no frame rate", "pictures have none", todo, exit_code=2)
        self.rate = checked_rate(fps, f"the folder {shown}")
        for picture in self._paths:
            check_readable(picture, f"cannot read the folder {shown}")
        names = ", ".join(printable(other.name) for other in others[:3]) + (", ..." if len(others) > 3 else "")
        self.notes = [f"ignored, no pictures: {names}"] if others else []
        self._index = self._undecodable = 0

    def read(self) -> tuple[int, NDArray[Any] | None] | None:
        if self._index >= len(self._paths):
            return None
        t_ns, picture = instant_ns(self._index, self.rate), _read_picture(self._paths[self._index])
        self._index += 1
        self._undecodable += picture is None
        return t_ns, picture

    def loss(self) -> str | None:
        return str(Missing(self._index, self._undecodable, 0)) if self._undecodable else None

    def close(self) -> None: ...


def _read_picture(path: Path) -> NDArray[Any] | None:
    """uint8 BGR, or None. The file is read here, because OpenCV crashes on names that are not UTF-8."""
    try:
        data = np.fromfile(path, np.uint8)
        return opencv().imdecode(data, opencv().IMREAD_COLOR) if data.size else None
    except (OSError, opencv().error):
        return None


def open_file(source: SourceSpec, vector_size: int | None, fps: float | None) -> Reader:
    """The reader of a video, a folder of pictures or an array of feature vectors.

    Args:
        vector_size: the length of feature vectors, which distinguishes (T, D) from (D, T).
        fps: replaces the time stamps of a video; a folder needs it.

    Raises:
        EdgeHalError: it cannot be opened.
    """
    path = Path(source.target)
    check_readable(path)
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
