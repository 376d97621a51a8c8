"""The scores by which settings of `--decide` are compared, and how tables show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edge_hal.metrics import IntArray, mof, score_transitions, score_videos, transitions_of

from .timeline import Timeline

Row = dict[str, float | None]
"""Scores by the keys of `COLUMNS`; None where nothing was matched."""
DECIDE_AT = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""The probabilities for which the scores are computed."""


class Column(NamedTuple):
    """One score. `better` is 1 if more is better, -1 if less is, 0 if it is neither. `digits` after the point."""

    key: str
    heading: str
    better: int
    digits: int


COLUMNS = (
    Column("transition_f1", "F1", 1, 3),
    Column("f1_50", "F1@50", 1, 1),
    Column("mof_live", "live, %", 1, 1),
    Column("changes_per_min", "changes/min", 0, 1),
    Column("delay_s_median", "delay, s", -1, 2),
    Column("delay_s_p90", "90 %, s", -1, 2),
    Column("false_per_min", "false/min", -1, 2),
)


def shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def decision_scores(timelines: Sequence[Timeline], truth: Sequence[IntArray], rates_hz: Sequence[float]) -> Row:
    """The scores `COLUMNS` of videos.

    Args:
        timelines: of the decisions, one per video. truth: (frames,) labels per video. rates_hz: frames per second.
    """
    seconds = [len(y) / hz for y, hz in zip(truth, rates_hz, strict=True)]
    points = [timeline.points for timeline in timelines]
    true_points = [transitions_of(y, hz) for y, hz in zip(truth, rates_hz, strict=True)]
    events = score_transitions(points, true_points, seconds)
    return {
        "transition_f1": events.transition_f1,
        "f1_50": score_videos([timeline.labels for timeline in timelines], list(truth), background=None).f1_50,
        "mof_live": mof([timeline.live for timeline in timelines], list(truth)),
        "changes_per_min": 60 * sum(map(len, points)) / sum(seconds),
        "delay_s_median": events.delay_s_median,
        "delay_s_p90": events.delay_s_p90,
        "false_per_min": events.false_per_min,
    }
