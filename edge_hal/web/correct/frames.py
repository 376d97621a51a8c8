"""Frames of video files as JPEG, in any order: a bounded number of open files, and of pictures in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

from edge_hal.media.frame_reader import FrameReader
from edge_hal.media.jpeg import jpeg, small

OPEN_FILES = 4
CACHE_BYTES = 64_000_000


class _File:
    """A file that one thread reads at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reader: FrameReader | None = None
        self.closed = False

    def close(self) -> None:
        """Waits for the thread that reads it."""
        with self.lock:
            self.closed = True
            if self.reader is not None:
                self.reader.close()


class Frames:
    """For several threads. While one of them waits for a slow file, the others read other files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pictures: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._files: OrderedDict[str, _File] = OrderedDict()

    def jpeg(self, name: str, path: Path, rate: Fraction, unstamped_hz: float | None, number: int) -> bytes:
        """Frame `number` of the video `name`, with a longest side of 640 pixels. Raises EdgeHalError as `FrameReader`
        does."""
        while True:
            with self._lock:
                known = self._pictures.get((name, number))
                if known is not None:
                    self._pictures.move_to_end((name, number))
                    return known
                file = self._files.setdefault(name, _File())
                self._files.move_to_end(name)
                old = [self._files.popitem(last=False)[1] for _ in range(len(self._files) - OPEN_FILES)]
            for each in old:
                each.close()
            with file.lock:
                if file.closed:  # others were asked for meanwhile
                    continue
                file.reader = file.reader or FrameReader(path, rate, unstamped_hz)
                data = jpeg(small(file.reader.picture(number)))
            self._keep((name, number), data)
            return data

    def _keep(self, key: tuple[str, int], data: bytes) -> None:
        with self._lock:
            if key not in self._pictures:
                self._pictures[key] = data
                self._bytes += len(data)
            while self._bytes > CACHE_BYTES:
                self._bytes -= len(self._pictures.popitem(last=False)[1])
