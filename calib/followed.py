"""What a stream decides and believes on one video, for fits of what follows the decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decode import follow_posteriors
from edge_hal.decoding.decoder import Decision
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.spec import PyramidSpec

EVERY_TICKS = 5
"""The rules look at the time so often here."""


@dataclass(frozen=True)
class Followed:
    """The decisions on one video, and what was believed: (ticks // EVERY_TICKS, K)."""

    decisions: tuple[Decision, ...]
    probability: NDArray[np.float64]


def follow(log_posteriors: NDArray[np.float32], config: DecoderConfig, spec: PyramidSpec) -> Followed:
    """One video, as a stream decides it: log posteriors (T, H K)."""
    assert config.believes
    decisions, rows = [], []
    for belief, decision in follow_posteriors(log_posteriors, config, spec):
        decisions += [] if decision is None else [decision]
        rows += [] if belief is None else [belief.probability]
    whole = len(rows) - len(rows) % EVERY_TICKS
    probability = np.reshape(rows[:whole], (-1, EVERY_TICKS, len(spec.labels))).mean(axis=1)
    return Followed(tuple(decisions), probability)
