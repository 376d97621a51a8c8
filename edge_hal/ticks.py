"""Frames and ticks: which frame a tick of the model sees, and labels from one rate to the other.

Frame i is at i / rate_hz seconds, tick k at k / model_hz.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.metrics import IntArray


def ticks_of(length: int, rate_hz: float, model_hz: float) -> NDArray[np.int64]:
    """(T,) the frame that each tick sees: the newest one that is not later than the tick. The last tick is not later
    than the last of `length` frames."""
    frame, tick = _ratio(rate_hz, model_hz)
    if length <= 0:
        return np.zeros(0, np.int64)
    # In integers: with floats, k / model_hz >= i / rate_hz is wrong if both sides are equal.
    return np.arange((length - 1) * tick // frame + 1, dtype=np.int64) * frame // tick


def expand_labels(tick_labels: IntArray, length: int, rate_hz: float, model_hz: float) -> IntArray:
    """(length,) the label of each frame: that of the newest tick that is not later than the frame."""
    frame, tick = _ratio(rate_hz, model_hz)
    newest = np.arange(length, dtype=np.int64) * tick // frame
    return np.asarray(tick_labels)[np.minimum(newest, len(tick_labels) - 1)]


def _ratio(rate_hz: float, model_hz: float) -> tuple[int, int]:
    """Coprime integers (frame, tick) with frame / tick = rate_hz / model_hz."""
    if not (rate_hz > 0 and model_hz > 0 and np.isfinite(rate_hz) and np.isfinite(model_hz)):
        raise EdgeHalError(f"rates must be positive, not {rate_hz} Hz and {model_hz} Hz")
    # A denominator of 10,000 is enough for 30000/1001, and products stay far below the limit of int64.
    rates = [Fraction(hz).limit_denominator(10_000) for hz in (rate_hz, model_hz)]
    if 0 in rates:
        raise EdgeHalError(f"rates of {rate_hz} Hz and {model_hz} Hz are too low")
    quotient = rates[0] / rates[1]
    return quotient.numerator, quotient.denominator
