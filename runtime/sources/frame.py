"""What a source delivers: one frame, and the counts of all frames it captured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame. `index` counts the frames that the source captured. `t_ns` is stream time: nanoseconds since the first
    frame. `captured_ns` is the monotonic clock at the capture. `data` is uint8 BGR (H, W, 3) or float32 (D,)."""

    index: int
    t_ns: int
    captured_ns: int
    data: NDArray[Any]


@dataclass(frozen=True)
class Intake:
    """Counts of a source so far, all read at one moment: `captured` = taken by the loop + `superseded` (replaced by a
    newer frame before the loop took them) + `undecodable` + `waiting`."""

    captured: int = 0
    superseded: int = 0
    undecodable: int = 0
    waiting: int = 0
