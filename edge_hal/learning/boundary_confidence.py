"""How certain each boundary of an alignment is, from the posteriors of a student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decode import split_heads
from edge_hal.metrics import IntArray
from edge_hal.spec import PyramidSpec

Array = NDArray[np.floating[Any]]

EVIDENCE_HZ = 1.0
"""Independent observations for which one second of posteriors counts."""


def without_lag(log_posteriors: Array, spec: PyramidSpec) -> Array:
    """(T, K) log posteriors of tick t itself, from heads (T, H K) that describe earlier ticks. Each tick takes the head
    with the longest lag that has reached it before the end of the video."""
    heads = split_heads(log_posteriors, spec)
    count = len(log_posteriors)
    shifted = np.empty_like(next(iter(heads.values())))
    for lag in sorted(heads):
        shifted[: max(0, count - lag)] = heads[lag][lag:]
        if lag == min(heads):
            shifted[max(0, count - lag) :] = heads[lag][-1]
    return shifted


def boundary_posteriors(log_p: Array, transcript: Sequence[int], power: float) -> Array:
    """(M - 1, T) the probability that segment m + 1 begins at tick t: of all segmentations in order, each segment with
    at least one tick, by the forward-backward algorithm (Rabiner 1989, section III) with free durations.

    Args:
        log_p: (T, K) log posteriors.
        power: they are raised to it, because neighbouring ticks are not independent.
    """
    seen = power * np.asarray(log_p, np.float64)[:, np.asarray(transcript)]
    ticks, count = seen.shape
    forward = np.full((ticks, count), -np.inf)
    backward = np.full((ticks, count), -np.inf)
    forward[0, 0], backward[-1, -1] = seen[0, 0], 0.0
    for t in range(1, ticks):
        forward[t] = forward[t - 1]
        forward[t, 1:] = np.logaddexp(forward[t, 1:], forward[t - 1, :-1])
        forward[t] += seen[t]
    for t in range(ticks - 2, -1, -1):
        after = backward[t + 1] + seen[t + 1]
        backward[t] = after
        backward[t, :-1] = np.logaddexp(backward[t, :-1], after[1:])
    begins = np.full((count - 1, ticks), -np.inf)
    begins[:, 1:] = (forward[:-1, :-1] + seen[1:, 1:] + backward[1:, 1:]).T
    begins -= begins.max(axis=1, keepdims=True, initial=-np.inf)
    found = np.exp(begins)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def mass_within(posteriors: Array, boundaries: IntArray, ticks: float) -> Array:
    """(M - 1,) the probability that each boundary lies within `ticks` of `boundaries` (M - 1,)."""
    at = np.arange(posteriors.shape[1])
    near = np.abs(at - np.asarray(boundaries)[:, None]) <= ticks
    return np.asarray((posteriors * near).sum(axis=1))
