"""Decisions as labels and transition points: against a loop over every tick, for random decisions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.decoding.decoder import Decision
from edge_hal.decoding.timeline import labels_of, timeline_of, transition_points
from edge_hal.ticks import expand_labels

HZ = 10.0


def random_decisions(rng: np.random.Generator, ticks: int) -> list[Decision]:
    """As a decoder makes them: the first boundary is tick 0, and no label follows itself."""
    boundaries = np.sort(rng.choice(np.arange(1, ticks), int(rng.integers(0, min(6, ticks))), replace=False))
    starts = [0, *boundaries.tolist()]
    labels = np.cumsum(rng.integers(1, 4, len(starts))) % 4
    ends = [*starts[1:], ticks]
    return [
        Decision(int(label), int(labels[i - 1]) if i else None, start, int(rng.integers(start, end)), 0.5)
        for i, (label, start, end) in enumerate(zip(labels, starts, ends, strict=True))
    ]


@given(st.integers(0, 2**32 - 1), st.integers(2, 80), st.sampled_from([5.0, 10.0, 25.0, 29.97]))
@settings(deadline=None, max_examples=100)
def test_a_timeline_holds_the_newest_label_of_each_tick(seed: int, ticks: int, rate_hz: float) -> None:
    decisions = random_decisions(np.random.default_rng(seed), ticks)
    labels = [[d.label for d in decisions if d.boundary_tick <= tick][-1] for tick in range(ticks)]
    live = []
    for tick in range(ticks):
        decided = [d.label for d in decisions if d.decision_tick <= tick]
        live.append(decided[-1] if decided else decisions[0].label)
    assert labels_of(decisions, ticks).tolist() == labels

    frames = int(ticks / HZ * rate_hz) + 1
    timeline = timeline_of(decisions, HZ, ticks, frames, rate_hz)
    assert np.array_equal(timeline.labels, expand_labels(np.array(labels), frames, rate_hz, HZ))
    assert np.array_equal(timeline.live, expand_labels(np.array(live), frames, rate_hz, HZ))
    assert [(p.label, p.boundary_s, p.decision_s) for p in timeline.points] == [
        (d.label, d.boundary_tick / HZ, d.decision_tick / HZ) for d in decisions[1:]
    ]
    assert len(transition_points(decisions, HZ, with_first=True)) == len(decisions)


def test_without_decisions_there_are_no_transitions_and_the_label_is_0() -> None:
    timeline = timeline_of([], HZ, 3, 6, 20.0)
    assert timeline.labels.tolist() == timeline.live.tolist() == [0] * 6 and timeline.points == []
