"""The procedure, estimated from labels of the training videos: order, rules, shares of time, durations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_hal.metrics import IntArray, runs_of
from edge_hal.procedure.rules import Procedure, Step

from .learn_rules import SURE, learn_rules

RULES_FALSE = 0.5
"""False deviations in ten minutes, by expectation, that the rules may make because the lists are few. The limits of
recognised steps are fitted on the same videos (`fit_rules.py`), whose lists these rules keep."""
PRIOR_SEGMENTS = 2.0
"""The durations of all steps together are a prior for each step, with the weight of this many segments. A step that
occurs once says little about its own spread."""
OVERDUE_SPREADS = 3.5
OVERDUE_FACTOR = 1.25
"""A step is overdue beyond this many spreads above its median, and beyond its longest example times this factor."""
SHORTEST_FACTOR = 0.5
"""Segments under this factor times (median / spread) are taken for wrong recognitions: 1 of 200 true ones is so short,
if durations are log-normal with a spread of 1.5."""
LEAST_CONFIDENCE = 0.4


def learn_procedure(
    labels: Sequence[IntArray],
    names: Sequence[str],
    model_hz: float,
    background: int | None = None,
    sure: float = SURE,
    rules_false: float = RULES_FALSE,
    mistakes: Sequence[IntArray] = (),
) -> Procedure:
    """The procedure of labels (T,) per video at the ticks of the model; `names` are those of the labels.

    Args:
        background: the label that is no step, if there is one.
        sure: how sure a rule must be; see `learn_rules`. `rules_false`: see `RULES_FALSE`.
        mistakes: labels of videos in which the procedure was not followed. They only say which rules are true.
    """
    count = len(names)
    most_false = rules_false * sum(map(len, labels)) / model_hz / 600
    lists, wrong = ([runs_of(video)[0].tolist() for video in some] for some in (labels, mistakes))
    rules = learn_rules(lists, count, background, sure, most_false, wrong)
    first, follows = np.zeros(count), np.zeros((count, count))
    log_s: list[list[float]] = [[] for _ in names]
    for video in labels:
        kinds, starts, stops = runs_of(video)
        first[kinds[0]] += 1
        np.add.at(follows, (kinds[:-1], kinds[1:]), 1)
        for kind, ticks in zip(kinds.tolist(), stops - starts, strict=True):
            log_s[kind].append(float(np.log(ticks / model_hz)))
    every = np.concatenate([np.asarray(each) for each in log_s])
    share = np.bincount(np.concatenate(list(labels)), minlength=count) / sum(map(len, labels))
    steps = {}
    for kind, name in enumerate(names):
        own = np.asarray(log_s[kind])
        weight = len(own) + PRIOR_SEGMENTS
        mean = (own.sum() + PRIOR_SEGMENTS * every.mean()) / weight
        variance = (((own - mean) ** 2).sum() + PRIOR_SEGMENTS * every.var()) / weight
        after = follows[kind].sum()
        median_s, spread = float(np.exp(mean)), float(np.exp(np.sqrt(variance)))
        longest_s = float(np.exp(own.max())) if len(own) else 0.0
        # The estimate of a spread from few examples is uncertain: the limit is wider then.
        limit_s = median_s * spread ** (OVERDUE_SPREADS * math.sqrt(1 + 1 / max(weight - 1, 1)))
        steps[name] = Step(
            first=round(float(first[kind] / len(labels)), 4),
            share=round(float(share[kind]), 5),
            median_s=round(median_s, 3),
            spread=round(spread, 3),
            then={names[to]: round(float(n / after), 4) for to, n in enumerate(follows[kind]) if n},
            requires={names[a]: sure for a, sure in sorted(rules.requires[kind].items())},
            not_after={names[b]: sure for b, sure in sorted(rules.not_after[kind].items())},
            optional=rules.optional[kind],
            repeatable=rules.repeatable[kind],
            begins_cycle=kind in rules.begins,
            ends_cycle=kind in rules.ends,
            background=kind == background,
            overdue_s=None if kind == background else round(max(limit_s, OVERDUE_FACTOR * longest_s), 1),
            shortest_s=round(min(SHORTEST_FACTOR * median_s / spread, 600.0), 2),
            least_confidence=LEAST_CONFIDENCE,
        )
    return Procedure(steps)
