"""The sub-states that the chain of a video passes through: how many each segment of its transcript has, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PAUSE_SHARE = 0.25  # of a sub-state's share of a segment, in the first initialise


@dataclass(frozen=True, eq=False)
class Chain:
    """The positions of one video, in order.

    Attributes:
        parts: (M,) how many positions each segment has, the pause among them.
        states, segments: (P,) the state of each position, and the segment that it belongs to.
        shares: (P,) its share of the segment, in the first split.
    """

    parts: NDArray[np.int64]
    states: NDArray[np.int64]
    segments: NDArray[np.int64]
    shares: Array


def chain_of(
    length: int,
    transcript: Sequence[int],
    sub_states: int,
    pause: int | None,
    known_segments: NDArray[np.int64] | None,
) -> Chain:
    """The chain of a video of `length` frames. One that is too short for all sub-states has fewer, and no pause.

    Args:
        pause: index of the state that all actions share; None for no pause.
        known_segments: (T,) the segment that each frame is known to belong to, -1 if it is not known.
    """
    fit = length // len(transcript)
    paused = pause is not None and fit > sub_states
    most = min(sub_states, fit) + int(paused)
    parts = np.full(len(transcript), most)
    if known_segments is not None:
        parts = parts_that_fit(parts, known_segments)
    states, shares = [], []
    for step, part in zip(transcript, parts.tolist(), strict=True):
        own = part - int(paused and part == most)
        states.append(step * sub_states + np.arange(own) * sub_states // own)
        shares.append(np.ones(own))
        if own < part:
            states.append(np.array([pause]))
            shares.append(np.array([PAUSE_SHARE]))
    segments = np.repeat(np.arange(len(transcript)), parts)
    return Chain(parts, np.concatenate(states), segments, np.concatenate(shares))


def parts_that_fit(parts: NDArray[np.int64], known_segments: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of sub-states of each segment (M,), made smaller where known segments (T,) leave fewer frames. A chain
    stays at least one frame in each sub-state, so without this the chain of such a video would be impossible."""
    parts = parts.copy()
    known = {m: np.flatnonzero(known_segments == m) for m in np.unique(known_segments[known_segments >= 0]).tolist()}
    while True:
        begin = anchor = 0  # the earliest begin of segment m, and the first segment that has an influence on it
        crowded = None
        for m, part in enumerate(parts.tolist()):
            if m in known and begin > known[m][0]:
                crowded = m
                break
            begin += part
            if m in known and begin <= known[m][-1] + 1:
                begin, anchor = int(known[m][-1]) + 1, m + 1
        if crowded is None and begin > len(known_segments):
            crowded = len(parts)
        if crowded is None or anchor == crowded or parts[anchor:crowded].max() == 1:  # they fit, or nothing does
            return parts
        parts[anchor + int(parts[anchor:crowded].argmax())] -= 1


def stops_of(known_segments: NDArray[np.int64], shares: Sequence[Array]) -> NDArray[np.int64]:
    """The frame where each position of a video with known segments ends. A segment ends half-way between its last known
    frame and the first known frame of the next. Segments that are not known divide what lies between those that are,
    each with as much for itself as the two known ones have together. Sub-states divide segment m by `shares[m]`."""
    edges = np.zeros(len(shares) + 1, np.int64)
    edges[-1] = len(known_segments)
    present, end = np.unique(known_segments[known_segments >= 0]), 0
    for before, after in zip([-1, *present], [*present, len(shares)], strict=True):
        begin, stop = end, len(known_segments)
        if after < len(shares):
            known = np.flatnonzero(known_segments == after)
            stop, end = int(known[0]), int(known[-1]) + 1
        missing = after - before - 1
        halves = 2 * np.arange(missing + 1) + (before >= 0)  # half a part for each known neighbour, one for the others
        parts = max(2 * missing + (before >= 0) + (after < len(shares)), 1)
        edges[before + 1 : after + 1] = (begin + (stop - begin) * halves / parts + 0.5).astype(np.int64)
    edges[0] = 0
    inside = [width * share.cumsum() / share.sum() for width, share in zip(np.diff(edges), shares, strict=True)]
    return np.concatenate([np.round(e + x).astype(np.int64) for e, x in zip(edges, inside, strict=False)])
