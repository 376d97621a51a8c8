"""How certain a segment must be before it can be a deviation, fitted on videos without mistakes that were held out.

All deviations in these videos are false. Of the limits that keep them within `MOST_FALSE`, those are chosen that find
most mistakes that are put into the same videos (`mistakes.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from edge_hal.procedure.conformance import Conformance, Deviation
from edge_hal.procedure.rules import Procedure

from .followed import EVERY_TICKS, Followed
from .mistakes import Mistake

MOST_FALSE = 0.7
"""False deviations in ten minutes, all kinds but `overdue` together. Those may add `MOST_OVERDUE`."""
MOST_OVERDUE = 0.3
LEAST_CONFIDENCE = (0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99)
LONGER = (1.0, 1.5, 2.0, 3.0)
"""Factors of `shortest_s`."""
DOUBT = (math.inf, 1.0, 0.5, 0.25, 0.12)
"""`doubt_s` over `shortest_s`."""
LATER = (1.0, 1.3, 1.7, 2.2, 3.0)
"""Factors of `overdue_s`."""


def fit_rules(
    procedure: Procedure, videos: Sequence[Followed], spoiled: Sequence[Mistake], model_hz: float
) -> Procedure:
    """The procedure with `least_confidence`, `shortest_s`, `doubt_s` and `overdue_s` fitted, alike for all steps.

    Args:
        videos: without mistakes. spoiled: the mistakes that should be found.
    """
    minutes = sum(len(video.probability) for video in videos) * EVERY_TICKS / model_hz / 60
    if not minutes:
        return procedure

    def false(rules: Procedure, *, overdue: bool) -> int:
        found = (each for video in videos for each in deviations(rules, video, model_hz))
        return sum((each.kind == "overdue") is overdue for each in found)

    def found(rules: Procedure) -> int:
        return sum(mistake.named_by(deviations(rules, mistake.followed, model_hz)) for mistake in spoiled)

    tried = [
        limited(procedure, least, longer, doubt)
        for least, longer, doubt in itertools.product(LEAST_CONFIDENCE, LONGER, DOUBT)
    ]
    counts = [false(rules, overdue=False) for rules in tried]
    # If nothing keeps the limit, the fewest false deviations do.
    most = max(MOST_FALSE * minutes / 10, min(counts))
    allowed = [(rules, count) for rules, count in zip(tried, counts, strict=True) if count <= most]
    chosen, _ = max(allowed, key=lambda each: (found(each[0]), -each[1]))
    for later in LATER:
        rules = later_overdue(chosen, later)
        if 10 * false(rules, overdue=True) / minutes <= MOST_OVERDUE:
            break
    return rules


def limited(procedure: Procedure, least: float, longer: float, doubt: float) -> Procedure:
    """The procedure with other limits of what a segment, and a missing step, must be."""
    return Procedure(
        {
            name: replace(
                step,
                least_confidence=least,
                shortest_s=round(step.shortest_s * longer, 2),
                doubt_s=None if doubt == math.inf else round(max(step.shortest_s * doubt, 0.01), 2),
            )
            for name, step in procedure.steps.items()
        }
    )


def later_overdue(procedure: Procedure, factor: float) -> Procedure:
    return Procedure(
        {
            name: step if step.overdue_s is None else replace(step, overdue_s=round(step.overdue_s * factor, 1))
            for name, step in procedure.steps.items()
        }
    )


def deviations(procedure: Procedure, video: Followed, model_hz: float) -> list[Deviation]:
    """Those that a stream reports."""
    conformance, found = Conformance(procedure, model_hz), []
    waiting = list(video.decisions)
    for number, believed in enumerate(video.probability):
        tick = (number + 1) * EVERY_TICKS - 1
        while waiting and waiting[0].decision_tick <= tick:
            decision = waiting.pop(0)
            found += conformance.decided(
                decision.label, decision.boundary_tick, decision.decision_tick, decision.confidence
            )
        found += conformance.passed(tick, believed)
    found += conformance.finish(len(video.probability) * EVERY_TICKS)
    return [each for each in found if isinstance(each, Deviation)]
