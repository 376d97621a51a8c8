"""Exact rates and times: frame k of a regular series is at k / rate, without drift however large k is."""

from __future__ import annotations

import math
from fractions import Fraction

from edge_hal.errors import EdgeHalError

FPS_RANGE = (0.01, 1000.0)
"""Frame rates outside this range are not believed."""


def exact_rate(hz: float) -> Fraction:
    """The fraction that a rounded rate stands for (29.97... is 30000/1001), so that equal rates give equal times."""
    return Fraction(hz).limit_denominator(1_000_000)


def checked_rate(fps: float, what: str, todo: str = "give the frame rate: --fps N") -> Fraction:
    """The exact rate of `what`. Raises EdgeHalError outside `FPS_RANGE`, with `todo` as the next step."""
    if not (math.isfinite(fps) and FPS_RANGE[0] <= fps <= FPS_RANGE[1]):
        why = f"possible are {FPS_RANGE[0]:g} to {FPS_RANGE[1]:g}"
        raise EdgeHalError(f"{what}: {fps:g} frames per second", why, todo)
    return exact_rate(fps)


def instant_ns(index: int, rate: Fraction) -> int:
    """Time of element `index` of a regular series, ns. Rounded once, so no error accumulates."""
    return (2 * index * 10**9 * rate.denominator + rate.numerator) // (2 * rate.numerator)
