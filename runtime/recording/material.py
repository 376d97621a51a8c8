"""What a later training needs of a run: the source's own pictures, and what was believed when they were seen.

`pictures.mjpeg` holds the pictures that ticks showed, as JPEG at the source's size, one after the other.
`pictures.jsonl` has the frame, the stream time, the bytes and the size of each. `belief.jsonl` has, for each step of
the model, the decided action, the most probable one and its probability; the last two are null for a decoder without a
procedure.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edge_hal.files import private
from edge_hal.runtime.sources.frame import Frame
from edge_hal.runtime.stream.recognizer import Recognizer
from edge_hal.runtime.threads import Worker

PICTURES, INDEX, BELIEF = "pictures.mjpeg", "pictures.jsonl", "belief.jsonl"
DOUBTFUL = "doubtful"
"""An empty file in a piece that a doubt is near to. Such pieces are deleted last."""
UNCERTAIN = 0.7
"""A decision, or the most probable action, with a lower probability is uncertain. It is also the default of `edge-hal
harvest --below`, so a run keeps what harvest takes."""
UNCERTAIN_S = 1.0
"""A belief that is uncertain for this long is a doubt. At each transition it is uncertain for a moment."""
WAITING = 8
"""Pictures that may wait to be compressed. A further one is left out."""
QUALITY = 90
REST_S = 1.0

log = logging.getLogger("edge_hal.record")


@dataclass(eq=False)
class _Place:
    """Where pictures go, until it is closed."""

    pictures: IO[bytes]
    index: IO[str]
    whole: bool = True


class MaterialWriter:
    """Writes the material of one run, into one folder after the other. A thread of its own compresses the pictures. If
    it is too slow, or the disk is full, pictures are left out and the run goes on.

    Args:
        wait: let the loop wait for the thread, as a source does that waits for the loop. Then no picture is left out.
    """

    def __init__(self, recognizer: Recognizer, *, wait: bool) -> None:
        self.recognizer = recognizer
        self._wait = wait
        self._room = threading.Semaphore(WAITING)
        self._queue: queue.SimpleQueue[tuple[_Place, Frame | None] | None] = queue.SimpleQueue()
        self._place: _Place | None = None
        self._belief: IO[str] | None = None
        self._counts = {"kept": 0, "left_out": 0}
        self._thread = Worker(self._compress, "pictures", restarts=3)
        self._thread.start()

    def begin(self, folder: Path) -> None:
        """What comes next goes into `folder`. Raises OSError if the files cannot be made."""
        self.finish()
        pictures = open(folder / PICTURES, "wb", buffering=0, opener=private)  # noqa: SIM115
        index = open(folder / INDEX, "w", buffering=1, opener=private)  # noqa: SIM115
        self._belief = open(folder / BELIEF, "w", buffering=1, opener=private)  # noqa: SIM115
        self._place = _Place(pictures, index)

    def add(self, frame: Frame) -> None:
        """A tick shows this frame for the first time. It is (H, W, 3) uint8 BGR and nobody changes it."""
        if self._place is None or frame.data.ndim != 3:
            return
        rest_s = REST_S if self._wait else None
        while self._thread.failed or not self._room.acquire(blocking=self._wait, timeout=rest_s):
            if not self._wait or self._thread.failed:
                if not self._counts["left_out"]:
                    log.warning("the machine is too slow for the source's pictures: some are left out")
                self._counts["left_out"] += 1
                return
        self._queue.put((self._place, frame))

    def believed(self, t_ns: int) -> float | None:
        """Note what is believed at `t_ns`. Returns the probability of the most probable action, if it is known."""
        if self._belief is None:
            return None
        belief, labels = self.recognizer.belief, self.recognizer.spec.labels
        row: dict[str, Any] = {"t_ns": t_ns, "action": self.recognizer.action, "likely": None, "probability": None}
        if belief is not None:
            row |= {"likely": labels[belief.label], "probability": round(float(belief.probability[belief.label]), 4)}
        try:
            self._belief.write(json.dumps(row) + "\n")
        except OSError as error:
            self._end_belief(error.strerror)
        found: float | None = row["probability"]
        return found

    def health(self) -> dict[str, Any]:
        """`kept`: pictures on the disk. `left_out`: those for which there was no time or no room."""
        return {"pictures": dict(self._counts)}

    def finish(self) -> None:
        """Nothing more comes for this folder. What waits is still written, by the thread."""
        if self._place is not None:
            self._queue.put((self._place, None))
        self._place = None
        self._end_belief(None)

    def close(self) -> None:
        """Wait until all is written. May be called again."""
        self.finish()
        self._queue.put(None)
        self._thread.finish(progress=self._queue.qsize)

    def _end_belief(self, why: str | None) -> None:
        if self._belief is not None:
            with contextlib.suppress(OSError):
                self._belief.close()
            self._belief = None
            if why is not None:
                log.warning("what is believed is recorded no more in this recording, the run goes on: %s", why)

    def _compress(self) -> None:
        import cv2

        while (item := self._queue.get()) is not None:
            place, frame = item
            if frame is None:
                for file in (place.pictures, place.index):
                    with contextlib.suppress(OSError):
                        file.close()
                continue
            try:
                if place.whole:
                    _, found = cv2.imencode(".jpg", frame.data, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
                    self._write(place, frame, np.asarray(found).tobytes())
            finally:
                self._room.release()

    def _write(self, place: _Place, frame: Frame, jpeg: bytes) -> None:
        why: str | None = "no space left"
        try:
            if place.pictures.write(jpeg) == len(jpeg):
                height, width = frame.data.shape[:2]
                row = {"frame": frame.index, "t_ns": frame.t_ns, "bytes": len(jpeg), "size": [width, height]}
                place.index.write(json.dumps(row) + "\n")
                self._counts["kept"] += 1
                return
        except OSError as error:
            why = error.strerror
        place.whole = False
        self._counts["left_out"] += 1
        log.warning("the source's pictures end here in this recording, the run goes on: %s", why)


class DoubtWatch:
    """Says when the belief has been uncertain for `UNCERTAIN_S`."""

    def __init__(self) -> None:
        self._since_ns: int | None = None

    def follow(self, t_ns: int, probability: float | None) -> int | None:
        """When the doubt began that lasts at `t_ns`, or None."""
        if probability is None or probability >= UNCERTAIN:
            self._since_ns = None
            return None
        if self._since_ns is None:
            self._since_ns = t_ns
        return self._since_ns if t_ns - self._since_ns >= UNCERTAIN_S * 1e9 else None
