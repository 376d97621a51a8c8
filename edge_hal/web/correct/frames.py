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


class Frames:
    """For several threads. A file is read by one of them at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pictures: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._readers: OrderedDict[str, tuple[FrameReader, threading.Lock]] = OrderedDict()

    def jpeg(self, name: str, path: Path, rate: Fraction, unstamped_hz: float | None, number: int) -> bytes:
        """Frame `number` of the video `name`, with a longest side of 640 pixels. Raises EdgeHalError as `FrameReader`
        does."""
        with self._lock:
            known = self._pictures.get((name, number))
            if known is not None:
                self._pictures.move_to_end((name, number))
                return known
            if name not in self._readers:
                while len(self._readers) >= OPEN_FILES:
                    _, (old, in_use) = self._readers.popitem(last=False)
                    with in_use:
                        old.close()
                self._readers[name] = FrameReader(path, rate, unstamped_hz), threading.Lock()
            self._readers.move_to_end(name)
            reader, in_use = self._readers[name]
            in_use.acquire()
        try:
            data = jpeg(small(reader.picture(number)))
        finally:
            in_use.release()
        self._keep((name, number), data)
        return data

    def _keep(self, key: tuple[str, int], data: bytes) -> None:
        with self._lock:
            if key not in self._pictures:
                self._pictures[key] = data
                self._bytes += len(data)
            while self._bytes > CACHE_BYTES:
                self._bytes -= len(self._pictures.popitem(last=False)[1])
