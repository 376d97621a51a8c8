"""A video as a page shows it, and the checks of what a page asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edge_hal.learning.data.video_set import Video

from .stored import Begins

MOST_SEGMENTS = 20_000


class StaleRevision(Exception):
    """Somebody else has changed the video since."""


@dataclass(frozen=True)
class Shown:
    """A video as a page shows it.

    Attributes:
        state: "found" by a run, "draft" (corrected, not accepted), "accepted", "suggested" (by `edge-hal harvest`), or
            "guess" (no run knows the video).
        segments: (step, first frame, confidence of the boundary there or None if it is not known).
        parts: (first, stop, step) of labels of some frames.
        note: what the user should know: a contradiction with the step list, a file that cannot be used.
    """

    name: str
    state: str
    segments: tuple[tuple[str, int, float | None], ...]
    parts: tuple[tuple[int, int, str], ...]
    note: str
    revision: str

    @property
    def labelled(self) -> int:
        """How many of the segments have a label of some frame."""
        stops = [first for _, first, _ in self.segments[1:]]
        each = zip(self.segments, [*stops, math.inf], strict=True)
        return sum(
            any(name == step and begin < stop and end > first for begin, end, name in self.parts)
            for (step, first, _), stop in each
        )


def check_frame(frame: int, video: Video) -> None:
    """Raises ValueError unless the video has it."""
    if not 0 <= frame < video.length:
        raise ValueError(f"there is no frame {frame}")


def check_begins(begins: Begins, steps: Mapping[str, int], length: int) -> None:
    """Raises ValueError unless they are segments of a video of `length` frames."""
    if not 0 < len(begins) <= MOST_SEGMENTS:
        raise ValueError(f"there are {len(begins)} segments")
    before, last = -1, ""
    for step, first in begins:
        if step not in steps:
            raise ValueError(f"there is no step {step[:80]!r}")
        if not before < first < length or (before < 0 and first != 0):
            raise ValueError(f"a segment begins at frame {first}, after one at {before} of {length} frames")
        if step == last:
            raise ValueError(f"two segments of {step[:80]!r} follow each other")
        before, last = first, step
