"""What is kept of a belief over a pause: each label's probability, and for how long it had gone on.

The state of the filter is much larger, and fits only the same durations at the same rate. This fits any bundle with the
same labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_hal.procedure.kept_cycle import LONGEST_AGE_S, MOST_LABELS
from edge_hal.procedure.rules import Array

from .belief import Belief

SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class KeptBelief:
    """By label: its probability, and the median of the seconds since it began, if it goes on."""

    labels: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, belief: Belief, labels: Sequence[str], model_hz: float) -> KeptBelief:
        ages = [(belief.tick + 1 - belief.began(number)) / model_hz for number in range(len(labels))]
        return cls({name: (float(belief.probability[k]), ages[k]) for k, name in enumerate(labels)})

    @property
    def action(self) -> str:
        """The most probable label."""
        return max(self.labels, key=lambda name: self.labels[name][0])

    @property
    def action_s(self) -> float:
        """For how long it had gone on."""
        return self.labels[self.action][1]

    def fits(self, labels: Sequence[str]) -> bool:
        """Whether these are its labels, in any order."""
        return self.labels.keys() == set(labels)

    def in_order(self, labels: Sequence[str], model_hz: float) -> tuple[Array, list[int]]:
        """(K,) the probabilities, and the ages in ticks, at least 1, in the order of `labels`."""
        pairs = [self.labels[name] for name in labels]
        return np.array([p for p, _ in pairs]), [max(1, round(age_s * model_hz)) for _, age_s in pairs]

    def to_dict(self) -> dict[str, Any]:
        return {name: list(pair) for name, pair in self.labels.items()}

    @classmethod
    def from_dict(cls, data: object) -> KeptBelief:
        """Inverse of `to_dict`. Raises ValueError for other data, whoever wrote it."""
        if not isinstance(data, Mapping) or not 0 < len(data) <= MOST_LABELS:
            raise ValueError("the belief has no labels")
        found: dict[str, tuple[float, float]] = {}
        for name, pair in data.items():
            if (
                not isinstance(pair, Sequence)
                or len(pair) != 2
                or not all(type(value) in (int, float) for value in pair)
            ):
                raise ValueError(f"the belief in '{name:.40}' is no pair of numbers")
            probability, age_s = pair
            if not (0 <= probability <= 1 and 0 <= age_s <= LONGEST_AGE_S):  # NaN is in no range
                raise ValueError(f"the belief in '{name:.40}' is out of range")
            found[name] = float(probability), float(age_s)
        if not math.isclose(sum(probability for probability, _ in found.values()), 1, abs_tol=SUM_TOLERANCE):
            raise ValueError("the probabilities of the belief do not sum to 1")
        return cls(found)
