"""The procedure, estimated from labels of the training videos: order, shares of time, durations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_hal.decoding.procedure import Procedure, Step
from edge_hal.metrics import IntArray, runs_of

PRIOR_SEGMENTS = 2.0
"""The durations of all steps together are a prior for each step, with the weight of this many segments. A step that
occurs once says little about its own spread."""


def learn_procedure(labels: Sequence[IntArray], names: Sequence[str], model_hz: float) -> Procedure:
    """The procedure of labels (T,) per video at the ticks of the model; `names` are those of the labels."""
    count = len(names)
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
        steps[name] = Step(
            first=round(float(first[kind] / len(labels)), 4),
            share=round(float(share[kind]), 5),
            median_s=round(float(np.exp(mean)), 3),
            spread=round(float(np.exp(np.sqrt(variance))), 3),
            then={names[to]: round(float(n / after), 4) for to, n in enumerate(follows[kind]) if n},
        )
    return Procedure(steps)
