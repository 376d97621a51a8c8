"""How certain a segment must be before it can be a deviation, fitted on videos without mistakes that were held out.

All deviations in these videos are false. Of the limits that keep them within `MOST_FALSE`, those are chosen that do
best on the videos of mistakes (`known_mistakes.py`). Of equal ones, those are chosen that find most mistakes that are
put into the decisions of the normal videos: a step left out, done again or in the wrong order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_hal.decoding.decoder import Decision
from edge_hal.procedure.rules import Procedure

from .followed import EVERY_TICKS, Followed, deviations
from .known_mistakes import KnownMistakes

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
MOST_SPOILED = 24
"""At most this many videos get mistakes."""


def fit_rules(
    procedure: Procedure, videos: Sequence[Followed], model_hz: float, known: Sequence[KnownMistakes] = ()
) -> Procedure:
    """The procedure with `least_confidence`, `shortest_s`, `doubt_s` and `overdue_s` fitted, alike for all steps.

    Args:
        videos: without mistakes.
        known: videos with mistakes.
    """
    minutes = sum(len(video.probability) for video in videos) * EVERY_TICKS / model_hz / 60
    if not minutes:
        return procedure

    def false(rules: Procedure, *, overdue: bool) -> int:
        found = (each for video in videos for each in deviations(rules, video, model_hz))
        return sum((each.kind == "overdue") is overdue for each in found)

    tried = [
        limited(procedure, least, longer, doubt)
        for least, longer, doubt in itertools.product(LEAST_CONFIDENCE, LONGER, DOUBT)
    ]
    counts = [false(rules, overdue=False) for rules in tried]
    # If nothing keeps the limit, the fewest false deviations do.
    most = max(MOST_FALSE * minutes / 10, min(counts))
    allowed = [rules for rules, count in zip(tried, counts, strict=True) if count <= most]
    some = [video for number, video in enumerate(videos) if number % -(-len(videos) // MOST_SPOILED) == 0]
    spoiled = [mistake for number, video in enumerate(some) for mistake in mistakes(procedure, video, number)]

    def found(rules: Procedure) -> tuple[int, int]:
        named = sum(each.named(deviations(rules, each.video, model_hz)) for each in known)
        return named, sum(
            any(
                each.kind == kind and label in (each.expected, each.seen) for each in deviations(rules, video, model_hz)
            )
            for kind, label, video in spoiled
        )

    chosen = max(allowed, key=found)
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


def mistakes(procedure: Procedure, video: Followed, seed: int) -> list[tuple[str, int, Followed]]:
    """The video with a mistake in its decisions, one for each kind that is possible: (kind, label, video)."""
    steps, names = list(procedure.steps.values()), list(procedure.steps)
    rng, labels = np.random.default_rng(seed), [d.label for d in video.decisions]
    found: list[tuple[str, int, Followed]] = []

    def add(kind: str, label: int, changed: list[int]) -> None:
        found.append((kind, label, with_labels(video, changed)))

    needed = [i for i, k in enumerate(labels) if i > 0 and not steps[k].optional and not steps[k].background]
    if needed:
        i = int(rng.choice(needed))
        add("skipped", labels[i], [*labels[:i], labels[i - 1], *labels[i + 1 :]])
    pairs = [
        i
        for i, (a, b) in enumerate(itertools.pairwise(labels))
        if names[a] in steps[b].requires and not steps[a].optional
    ]
    if pairs:
        i = int(rng.choice(pairs))
        add("out_of_order", labels[i], [*labels[:i], labels[i + 1], labels[i], *labels[i + 2 :]])
    places = [
        (i, earlier)
        for i in range(2, len(labels))
        for earlier in labels[: i - 1]
        if not steps[earlier].repeatable and earlier != labels[i - 1]
    ]
    if places:
        i, label = places[int(rng.integers(len(places)))]
        add("repeated", label, [*labels[:i], label, *labels[i + 1 :]])
    return found


def with_labels(video: Followed, labels: Sequence[int]) -> Followed:
    """Other labels for the decisions, and for what was believed meanwhile. Two in a row with one label are one."""
    probability, kept = video.probability.copy(), list[Decision]()
    # A step is believed for a while after its end, until the next one is decided.
    stops = [*(d.decision_tick // EVERY_TICKS + 1 for d in video.decisions[1:]), len(probability)]
    for decision, label, stop in zip(video.decisions, labels, stops, strict=True):
        part = slice(decision.boundary_tick // EVERY_TICKS, stop)
        if label != decision.label:
            probability[part, label] += probability[part, decision.label]
            probability[part, decision.label] = 0.0
        if not kept or kept[-1].label != label:
            kept.append(replace(decision, label=label))
    return Followed(tuple(kept), probability)
