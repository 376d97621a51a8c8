"""Which place of a step list each labelled frame belongs to, if only some frames are labelled; and such labels at
ticks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_hal.metrics import IntArray, runs_of, transcript_of

IMPOSSIBLE = np.inf


def places_in_list(labels: IntArray, transcript: Sequence[int]) -> NDArray[np.int64] | int:
    """(T,) the index in the step list of the segment of each labelled frame, -1 for a frame without a label.

    Labels may leave out steps. Where a step occurs more than once in the list and the order leaves a choice, each
    labelled part goes to the place that its time suggests, as if all segments were of one length.

    Args:
        labels: (T,) -1 for a frame without a label.

    Returns:
        If the list has no such places: the first frame whose label fits none.
    """
    labels, steps = np.asarray(labels, np.int64), np.asarray(transcript, np.int64)
    values, starts, stops = runs_of(labels)
    known = values >= 0
    values, starts, stops = values[known], starts[known], stops[known]
    places = np.full(len(labels), -1, np.int64)
    if not len(values):
        return places
    expected = np.arange(len(steps)) + 0.5
    cost = np.full((len(values), len(steps)), IMPOSSIBLE)
    before = np.zeros(cost.shape, np.int64)
    for run, (value, start, stop) in enumerate(zip(values, starts, stops, strict=True)):
        own = np.where(steps == value, np.abs((start + stop) / 2 / len(labels) * len(steps) - expected), IMPOSSIBLE)
        if run == 0:
            reached = np.where(np.arange(len(steps)) <= start, 0.0, IMPOSSIBLE)  # a frame for each step before it
        else:
            # After a gap of g frames up to g steps may have been left out; without one the next step follows.
            gap, reached = int(start - stops[run - 1]), np.full(len(steps), IMPOSSIBLE)
            for skipped in range(0 if gap else 1, min(gap + 1, len(steps) - 1) + 1):
                shifted = np.append(np.full(skipped, IMPOSSIBLE), cost[run - 1][: len(steps) - skipped])
                better = shifted < reached
                reached = np.where(better, shifted, reached)
                before[run] = np.where(better, np.arange(len(steps)) - skipped, before[run])
        cost[run] = own + reached
        if run == len(values) - 1:  # a frame for each step after it
            cost[run] = np.where(len(steps) - 1 - np.arange(len(steps)) <= len(labels) - stop, cost[run], IMPOSSIBLE)
        if not np.isfinite(cost[run]).any():
            return int(start)
    place = int(cost[-1].argmin())
    for run in range(len(values) - 1, -1, -1):
        places[starts[run] : stops[run]] = place
        place = int(before[run, place])
    return places


def labels_at_ticks(
    labels: IntArray, frames: NDArray[np.int64], transcript: Sequence[int], *, furthest: int | None = 1
) -> IntArray:
    """Labels (T,) of some frames -> labels of ticks, of which tick t shows frame frames[t]; -1 where there is none.

    A label goes to the next tick. If that belongs to an earlier step, or leaves no tick for a step between the two or
    after it, it goes up to `furthest` ticks from there (None: as far as it must). If that does not help, it is left
    out: at a lower rate, labels that follow the step list could contradict it.
    """
    ticks = np.full(len(frames), -1, np.int64)
    next_tick = np.minimum(np.searchsorted(frames, np.arange(len(labels))), len(frames) - 1)
    places = places_in_list(labels, transcript)
    if isinstance(places, int):  # they contradict the list; whoever uses them says so
        ticks[next_tick[labels >= 0]] = labels[labels >= 0]
        return ticks
    place_before, end_before = -1, -1
    for place, start, stop in zip(*runs_of(places), strict=True):
        if place < 0:
            continue
        # The ticks that show these frames, each frame once; if there are none, the next one.
        first, newest = next_tick[start], frames[max(0, np.searchsorted(frames, stop) - 1)]
        last = max(first, np.searchsorted(frames, newest))
        begin = max(first, end_before + max(0, place - place_before))
        latest = len(frames) - len(transcript) + place  # a tick for each step after it
        if furthest is None:
            begin = min(begin, latest)
        end = min(max(begin, last), latest)
        if 0 <= begin <= end and (furthest is None or begin <= max(last, first + furthest)):
            ticks[begin : end + 1] = labels[start]
            place_before, end_before = place, end
    return ticks


def check_order(labels: IntArray, transcript: Sequence[int]) -> int | None:
    """The first frame whose label contradicts the step list; None if there is none."""
    found = places_in_list(labels, transcript)
    return found if isinstance(found, int) else None


def order_differs(labels: IntArray, transcript: Sequence[int]) -> tuple[int, int] | None:
    """For labels of all frames: the first frame of the first segment that is not that of the list, and its index in the
    list; None if all are. The frame is the length of the video if the list has more steps."""
    values, starts, _ = runs_of(labels)
    if tuple(transcript) == transcript_of(labels):
        return None
    pairs = enumerate(zip(values, transcript, strict=False))
    at = next((m for m, (value, listed) in pairs if value != listed), min(len(values), len(transcript)))
    return int(starts[at]) if at < len(values) else len(labels), at
