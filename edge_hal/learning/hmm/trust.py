"""Whether an alignment can be trusted, told without labels.

Restarts that agree can share an error, so their agreement alone does not tell. Three measures tell more. What agreement
do the step lists and durations give, if no features are seen? Would the steps explain the features as well in any other
order? And are the first and last steps squeezed, as they are if all steps are shifted? A weighted sum of the three is
the score. `benchmarks/caution.py` measures how well it separates wrong alignments from right ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.metrics import runs_of

from .em import Candidate, order_gain
from .problem import Problem
from .transcript_chain import Batch

IndexArray = NDArray[np.int64]

LEAST_SCORE = 0.7
WEIGHTS = {"agreement": 1.0, "order": 0.6, "short_ends": -0.6}
USUAL = {"agreement": 0.87, "order": 0.8, "short_ends": 0.0}
"""Medians of right alignments. What is far from them is named as the reason of a doubt."""


@dataclass(frozen=True)
class Evidence:
    """What is known of the alignment of one video. Defaults: of an alignment that needs no evidence.

    Attributes:
        agreement: the share of frames where a single kept restart gives the same label, averaged over the kept
            restarts before the genetic search. The worse ones count too, because the best few may share an error.
        chance: the share of frames where a draw from the step list and the durations alone gives the same label.
        order: how much of the order of its steps the features tell, at most 1: the log-likelihood minus that of the
            same model if every step may follow every other, divided by the logarithm of the number of such orders.
        short_ends: the share of its first and last segment that last as short as the model allows.
    """

    agreement: float = 1.0
    chance: float = 0.0
    order: float = 1.0
    short_ends: float = 0.0


def evidence_in(entry: Mapping[str, Any]) -> Evidence:
    """The evidence in the entry of a video in `alignment.json`. What a file of an earlier version lacks has its
    default."""
    given = {name: float(entry[name]) for name in Evidence.__dataclass_fields__ if name in entry}
    return Evidence(**given)


@dataclass(frozen=True)
class Trust:
    """The evidence of all videos together.

    Attributes:
        agreement: the share of the agreement that is possible beyond chance which was reached, at most 1.
        order, short_ends: means of the videos.
    """

    agreement: float
    order: float
    short_ends: float

    @classmethod
    def of(cls, evidence: Sequence[Evidence]) -> Trust:
        agreement, chance, order, short_ends = (
            float(np.mean([getattr(each, name) for each in evidence])) for name in Evidence.__dataclass_fields__
        )
        beyond = (agreement - chance) / (1 - chance) if chance < 1 else 1.0
        return cls(beyond, order, short_ends)

    @property
    def score(self) -> float:
        """Higher if the alignment is more likely to be right."""
        return sum(weight * float(getattr(self, name)) for name, weight in WEIGHTS.items())

    @property
    def doubtful(self) -> bool:
        """Most frames are probably wrong."""
        return self.score < LEAST_SCORE

    @property
    def weak(self) -> tuple[str, ...]:
        """Names of the measures that lower the score most: at least half as much as the worst of them, and at least
        one."""
        lost = {name: weight * (USUAL[name] - float(getattr(self, name))) for name, weight in WEIGHTS.items()}
        return tuple(name for name, loss in lost.items() if loss >= 0.5 * max(lost.values()))


def evidence_of(
    problem: Problem, model: Candidate, labels: Sequence[IndexArray], others: Sequence[Sequence[IndexArray]]
) -> tuple[Evidence, ...]:
    """The evidence of each video.

    Args:
        model: the best of those that the alignment comes from.
        labels: (T_i,) per video, the alignment. others: the same of each restart; none if there is one model only.
    """
    config, batches = problem.config, problem.batches()
    by_video = zip(problem.batch_order(), _chance_and_order(problem, model, batches), strict=True)
    found = [Evidence()] * len(labels)
    shortest = config.sub_states + config.pause
    for i, (posterior, gain) in by_video:
        steps, label = np.asarray(problem.lists[i], np.int64), labels[i]
        _, begins, ends = runs_of(label)
        lasts = (ends - begins)[[0, -1]]
        most = len(steps) * np.log(problem.count)
        found[i] = Evidence(
            float(np.mean([(other[i] == label).mean() for other in others])) if others else 1.0,
            float((posterior * (steps == label[:, None])).sum() / len(label)),
            float(gain / most) if most and np.isfinite(gain) else 1.0,
            float(np.mean(lasts <= shortest)) if len(steps) > 1 else 0.0,
        )
    return tuple(found)


def _chance_and_order(
    problem: Problem, model: Candidate, batches: Sequence[Batch]
) -> list[tuple[NDArray[np.floating], float]]:
    """Of each video, in the order of the batches: the posterior (T, M) of its segments without features, and the
    log-likelihood of its list beyond that of any order, NaN if it is too short."""
    gaussians, leave, config = model.counts.gaussians(), model.counts.leave(), problem.config
    found: list[tuple[NDArray[np.floating], float]] = []
    for batch in batches:
        emission = gaussians.log_likelihood(batch.x, config.last_power)
        chained, _ = batch.forward_backward(emission, leave[batch.chain])
        gain = order_gain(batch, chained, emission, leave, config)
        unseen = batch.segment_posteriors(batch.forward_backward(np.zeros_like(emission), leave[batch.chain])[1])
        found += zip(unseen, gain.tolist(), strict=True)
    return found
