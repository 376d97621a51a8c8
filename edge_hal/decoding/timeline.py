"""Decisions as labels and as transition points: what a subscriber knows of one recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_hal.metrics import IntArray, TransitionPoint
from edge_hal.ticks import expand_labels

from .decoder import Decision


@dataclass(frozen=True)
class Timeline:
    """One recording as its events describe it.

    Attributes:
        labels: (frames,) each label from the boundary that its event gives.
        live: (frames,) each label from its decision on: what a display showed at the time.
        points: the transitions. The first label of a recording is none.
    """

    labels: IntArray
    live: IntArray
    points: list[TransitionPoint]


def labels_from(starts: Sequence[int], labels: Sequence[int], length: int) -> IntArray:
    """(length,): labels[i] from starts[i] on, until the next start; 0 before the first."""
    filled = np.zeros(length, np.int64)
    for start, label in zip(starts, labels, strict=True):
        filled[start:] = label
    return filled


def labels_of(decisions: Sequence[Decision], ticks: int) -> IntArray:
    """(ticks,): the label of each tick, by the boundaries. The first decision holds from tick 0."""
    return labels_from([d.boundary_tick for d in decisions], [d.label for d in decisions], ticks)


def live_labels_of(decisions: Sequence[Decision], ticks: int) -> IntArray:
    """(ticks,): each label from its decision on. Nothing is known before the first decision; there, its label."""
    decided = [d.decision_tick if number else 0 for number, d in enumerate(decisions)]
    return labels_from(decided, [d.label for d in decisions], ticks)


def transition_points(
    decisions: Sequence[Decision], model_hz: float, *, with_first: bool = False
) -> list[TransitionPoint]:
    """The transitions, in seconds. `with_first` also counts the first label of an epoch."""
    return [
        TransitionPoint(d.label, d.boundary_tick / model_hz, d.decision_tick / model_hz)
        for d in decisions
        if with_first or d.previous is not None
    ]


def timeline_of(decisions: Sequence[Decision], model_hz: float, ticks: int, frames: int, rate_hz: float) -> Timeline:
    """Decisions over `ticks` ticks as labels of `frames` frames at `rate_hz`. Nothing is known before the first
    decision; there, `live` has its label."""
    live = live_labels_of(decisions, ticks)
    return Timeline(
        expand_labels(labels_of(decisions, ticks), frames, rate_hz, model_hz),
        expand_labels(live, frames, rate_hz, model_hz),
        transition_points(decisions, model_hz),
    )
