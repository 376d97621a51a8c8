"""The frames of a video file in any order, each the same as when the file is read from its begin.

Frame k of a file at a constant rate is the newest one of the file at k / rate (`learning/data/media_files.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.rate import instant_ns

from .video_file import VideoFile

FURTHER_NS = 3 * 10**9
"""Up to this far ahead frames are decoded one after the other; for frames further away the reader seeks in the file."""
EARLIER_NS = (0, 2 * 10**9, 10 * 10**9, 60 * 10**9)
"""If no key frame is found before the wanted time, the search begins this much earlier, then at the beginning."""


class FrameReader:
    """Keeps the file open, at the frame that was read last. For one thread.

    Args:
        rate: frames are numbered at it.
        unstamped_hz: the frame rate of a file without stamps, as for `VideoFile`.

    Raises:
        EdgeHalError: the file cannot be opened.
    """

    def __init__(self, path: Path, rate: Fraction, unstamped_hz: float | None = None) -> None:
        self._path, self._rate, self._unstamped_hz = path, rate, unstamped_hz
        with VideoFile(path, unstamped_hz=unstamped_hz) as video:
            video.times_ns()
            self._seekable = video.seekable
        self._video: VideoFile | None = None
        self._restart()

    def picture(self, number: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR of frame `number`, or of the newest one before it that can be decoded.

        Raises:
            EdgeHalError: there is none, or the file cannot be read any more.
        """
        wanted_ns = instant_ns(number, self._rate)
        if not self._at_ns <= wanted_ns < self._at_ns + FURTHER_NS:
            self._go_to(wanted_ns)
        self._read_until(wanted_ns)
        if self._frame is None or self._video is None:
            raise EdgeHalError(f"frame {number} of {self._path.name} cannot be decoded")
        return self._video.picture(self._frame)

    def close(self) -> None:
        if self._video is not None:
            self._video.close()

    def _restart(self) -> None:
        self.close()
        self._video = VideoFile(self._path, unstamped_hz=self._unstamped_hz)
        self._begin_at(self._video.frames(), 0)

    def _begin_at(self, frames: Iterator[tuple[int, Any]], at_ns: int, frame: Any = None) -> None:
        """The newest frame that was read is `frame`; `_ahead` is one that was read too early."""
        self._frames, self._at_ns, self._frame = frames, at_ns, frame
        self._ahead: tuple[int, Any] | None = None

    def _go_to(self, wanted_ns: int) -> None:
        assert self._video is not None
        for earlier in EARLIER_NS if self._seekable else ():
            if wanted_ns - earlier <= 0:
                break
            if not self._video.seek(wanted_ns - earlier):
                break
            frames = self._video.frames()
            first = next(((t_ns, frame) for t_ns, frame in frames if frame is not None and frame.key_frame), None)
            if first is not None and first[0] <= wanted_ns:
                return self._begin_at(frames, *first)
        self._restart()

    def _read_until(self, wanted_ns: int) -> None:
        """Read on to the newest frame that is not later."""
        while True:
            found = self._ahead or next(self._frames, None)
            self._ahead = found
            if found is None or found[0] > wanted_ns:
                return
            self._ahead = None
            self._at_ns = found[0]
            self._frame = found[1] if found[1] is not None else self._frame
