"""A video as a stream follows it: its decisions, and the deviations that the rules make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decode import follow_posteriors
from edge_hal.decoding.decoder import Decision
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.metrics import IntArray, runs_of
from edge_hal.procedure.conformance import Conformance, Deviation
from edge_hal.procedure.rules import Procedure
from edge_hal.spec import PyramidSpec

EVERY_TICKS = 5
"""Ticks over which the belief is averaged here. The rules look at the time once in them."""


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


def follow_labels(labels: IntArray, count: int, delay_ticks: int = 0) -> Followed:
    """A video whose decisions are its labels (T,), of `count` steps, each `delay_ticks` after it began."""
    kinds, starts, _ = runs_of(labels)
    previous = [None, *kinds[:-1].tolist()]
    decisions = [
        Decision(label, before, start, start + delay_ticks, 1.0)
        for label, before, start in zip(kinds.tolist(), previous, starts.tolist(), strict=True)
    ]
    return Followed(tuple(decisions), np.eye(count)[labels[: len(labels) - len(labels) % EVERY_TICKS : EVERY_TICKS]])


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
