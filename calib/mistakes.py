"""Mistakes that are put into videos without any: a step left out, done again, or in the wrong order.

The posteriors of whole steps are left out, played again or swapped, and the belief follows the result. The belief
expects the usual order, so it is slower and less certain where a step comes in another one. Other labels for the same
decisions would not show that: limits fitted on them ask for more certainty than a mistake has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decoder import Decision
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.procedure.conformance import Deviation
from edge_hal.procedure.rules import Procedure
from edge_hal.spec import PyramidSpec

from .followed import Followed, follow

MOST_VIDEOS = 24
"""Mistakes are put into so many videos at most."""


@dataclass(frozen=True)
class Mistake:
    """A video with one mistake. `kind`: that of the deviation which names it. `label`: the step."""

    kind: str
    label: int
    followed: Followed

    def named_by(self, deviations: Sequence[Deviation]) -> bool:
        return any(each.kind == self.kind and self.label in (each.expected, each.seen) for each in deviations)


def put_mistakes(
    log_posteriors: Sequence[NDArray[np.float32]],
    followed: Sequence[Followed],
    config: DecoderConfig,
    spec: PyramidSpec,
) -> list[Mistake]:
    """Mistakes in some of the videos, one for each kind that is possible in a video.

    Args:
        log_posteriors: (T, H K) per video, and what was `followed` of them with the same `config`.
    """
    assert config.procedure is not None
    every, made = -(-len(followed) // MOST_VIDEOS), []
    for number in range(0, len(followed), max(1, every)):
        decisions = followed[number].decisions
        for kind, label, order in wrong_orders(config.procedure, [each.label for each in decisions], number):
            rows = in_order(log_posteriors[number], decisions, order, spec.lag_ticks)
            made.append(Mistake(kind, label, follow(rows, config, spec)))
    return made


def in_order(
    log_posteriors: NDArray[np.float32], decisions: Sequence[Decision], order: Sequence[int], lag_ticks: int
) -> NDArray[np.float32]:
    """The posteriors (T, H K) of the segments `order`, by their number. Those at tick t describe t - `lag_ticks`."""
    ticks = len(log_posteriors)
    cuts = [0, *(min(ticks, each.boundary_tick + lag_ticks) for each in decisions[1:]), ticks]
    return np.concatenate([log_posteriors[cuts[i] : cuts[i + 1]] for i in order])


def wrong_orders(procedure: Procedure, labels: Sequence[int], seed: int) -> Iterator[tuple[str, int, list[int]]]:
    """For each kind of mistake that the steps `labels` allow: the kind, the step, and the segments by their number."""
    steps, names = list(procedure.steps.values()), list(procedure.steps)
    rng, segments = np.random.default_rng(seed), list(range(len(labels)))
    needed = [
        i
        for i, k in enumerate(labels)
        if i > 0 and not steps[k].optional and not steps[k].background and labels.count(k) == 1
    ]
    if needed:
        i = int(rng.choice(needed))
        yield "skipped", labels[i], [*segments[:i], *segments[i + 1 :]]
    pairs = [
        i
        for i, (a, b) in enumerate(itertools.pairwise(labels))
        if names[a] in steps[b].requires and not steps[a].optional and a not in labels[:i]
    ]
    if pairs:
        i = int(rng.choice(pairs))
        yield "out_of_order", labels[i], [*segments[:i], i + 1, i, *segments[i + 2 :]]
    places = [
        (i, earlier)
        for i in range(2, len(labels) + 1)
        for earlier in range(i - 1)
        if not (steps[labels[earlier]].repeatable or steps[labels[earlier]].begins_cycle)
        and labels[earlier] not in (labels[i - 1], *labels[i : i + 1])
    ]
    if places:
        i, earlier = places[int(rng.integers(len(places)))]
        yield "repeated", labels[earlier], [*segments[:i], earlier, *segments[i:]]
