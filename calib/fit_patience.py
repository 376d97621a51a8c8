"""The settings of `--decide`, fitted on posteriors of videos that the network was not trained on.

A lower `decide_at` decides earlier and is wrong more often. `balanced` has nearly the best weighted mean of transition
F1, F1@50 and live accuracy. `fast` is the earliest and `sure` the one with the fewest false transitions, among those
that are not much worse. A setting that another one of the same curve beats in all columns is never chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.belief import BeliefTracker
from edge_hal.decoding.belief_decoder import BeliefDecoder
from edge_hal.decoding.decision_scores import COLUMNS, DECIDE_AT, Row, decision_scores
from edge_hal.decoding.decode import memory_ticks, split_heads
from edge_hal.decoding.decoder import Decision
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.forward_filter import filter_tables
from edge_hal.decoding.timeline import timeline_of
from edge_hal.metrics import IntArray
from edge_hal.spec import PyramidSpec

DECIDE_HZ = (1.2, 1.8, 2.5, 3.5, 5.0)
USUAL = (2.5, 0.9)
"""`decide_hz` and `decide_at` that `balanced` has unless others are better by `TOLERANCE`. Few videos are held out, and
their labels are those of the alignment, so small differences say nothing."""
TOLERANCE = 0.02
COST = 0.03
"""How much worse than `balanced` the mean of transition F1 and F1@50 (0..1) of `fast` and `sure` may be."""
UNFITTED = {"fast": 0.7, "balanced": USUAL[1], "sure": 0.97}
"""The settings where no video was held out."""
ORDERED = {"delay_s_median": 1, "false_per_min": -1}
"""Scores that must rise (1) or fall (-1) from `fast` to `sure`."""


@dataclass(frozen=True)
class Curve:
    """Scores by `decide_at`, with `decide_hz` of the best setting. `rows[i]` belongs to `decide_at[i]`."""

    decide_hz: float
    decide_at: tuple[float, ...]
    rows: tuple[Row, ...]

    def table(self) -> tuple[Row, ...]:
        """The rows as a bundle keeps them."""
        return tuple(
            {"decide_at": at, **{key: None if value is None else round(value, 4) for key, value in row.items()}}
            for at, row in zip(self.decide_at, self.rows, strict=True)
        )

    def quality(self, index: int) -> float:
        """The mean of transition F1, F1@50 and live accuracy, 0..1. Live accuracy has a tenth of the weight: who needs
        it reads the reports `now`."""
        return 0.9 * self.events_quality(index) + 0.1 * number(self.rows[index]["mof_live"]) / 100

    def events_quality(self, index: int) -> float:
        """The mean of transition F1 and F1@50, 0..1."""
        row = self.rows[index]
        return (number(row["transition_f1"]) + number(row["f1_50"]) / 100) / 2


def number(value: float | None) -> float:
    return 0.0 if value is None else value


def fit_curve(
    log_posteriors: Sequence[NDArray[np.float32]],
    labels: Sequence[IntArray],
    spec: PyramidSpec,
    config: DecoderConfig,
    given: Mapping[str, float],
) -> tuple[Curve, int]:
    """The curve of the best `decide_hz`, and which of its rows is `balanced`: of all settings whose quality is within
    `TOLERANCE` of the best, the one nearest to `USUAL`.

    Args:
        log_posteriors: (T, H K) per video, of a network that was not trained on it. labels: (T,) per video.
        config: holds the procedure, and the thresholds that are not fitted here.
        given: thresholds that are fixed.
    """
    hz = (given["decide_hz"],) if "decide_hz" in given else DECIDE_HZ
    at = (given["decide_at"],) if "decide_at" in given else DECIDE_AT
    settings = [config.with_thresholds({"decide_hz": h, "decide_at": a}) for h in hz for a in at]
    decisions = [decide_all(p, settings, spec) for p in log_posteriors]
    rows = [label_scores(each, labels, spec.model_hz) for each in zip(*decisions, strict=True)]
    curves = [Curve(h, at, tuple(rows[i * len(at) : (i + 1) * len(at)])) for i, h in enumerate(hz)]
    points = [(curve, i) for curve in curves for i in range(len(at))]
    least = max(curve.quality(i) for curve, i in points) - TOLERANCE
    good = [(curve, i) for curve, i in points if curve.quality(i) >= least and not beaten(curve, i)]
    return min(good, key=lambda point: distance(point[0].decide_hz, point[0].decide_at[point[1]]))


def distance(decide_hz: float, decide_at: float) -> float:
    """From `USUAL`: factors of the evidence, and log-odds of the probability."""
    odds = [math.log(p / (1 - p)) for p in (decide_at, USUAL[1])]
    return abs(math.log(decide_hz / USUAL[0])) + 0.5 * abs(odds[0] - odds[1])


def decide_all(
    log_posteriors: NDArray[np.float32], settings: Sequence[DecoderConfig], spec: PyramidSpec
) -> list[list[Decision]]:
    """The decisions of each setting on one video (T, H K). The settings differ in `decide_hz` and `decide_at` only."""
    heads = split_heads(log_posteriors, spec)
    hz = list(dict.fromkeys(setting.decide_hz for setting in settings))
    assert settings[0].procedure is not None
    tables = filter_tables(settings[0].procedure, spec.model_hz, settings[0].free_order)
    tracker = BeliefTracker(tables, [each / spec.model_hz for each in hz], sorted(heads))
    decoders = [BeliefDecoder(each, spec.model_hz, memory_ticks(spec)) for each in settings]
    found: list[list[Decision]] = [[] for _ in settings]
    for tick in range(len(log_posteriors)):
        beliefs = tracker.follow_all(tick, {lag: rows[: tick + 1] for lag, rows in heads.items()})
        for decoder, decisions in zip(decoders, found, strict=True):
            decision = decoder.decide(tick, None, beliefs[hz.index(decoder.config.decide_hz)])
            if decision is not None:
                decisions.append(decision)
    return found


def label_scores(decisions: Sequence[Sequence[Decision]], labels: Sequence[IntArray], hz: float) -> Row:
    """The scores of the decisions on videos with labels (T,) at `hz` ticks per second."""
    timelines = [timeline_of(d, hz, len(y), len(y), hz) for d, y in zip(decisions, labels, strict=True)]
    return decision_scores(timelines, labels, [hz] * len(labels))


def choose(curve: Curve, balanced: int) -> dict[str, float]:
    """`decide_at` of `fast`, `balanced` and `sure`, where `balanced` is a row of the curve. Two may coincide."""
    least = curve.events_quality(balanced) - COST
    good = [i for i in range(len(curve.rows)) if curve.events_quality(i) >= least and not beaten(curve, i)]
    fast = min((i for i in good if i <= balanced and ordered(curve, i, balanced)), default=balanced)
    sure = max((i for i in good if i >= balanced and ordered(curve, balanced, i)), default=balanced)
    chosen = {"fast": fast, "balanced": balanced, "sure": sure}
    return {name: curve.decide_at[index] for name, index in chosen.items()}


def ordered(curve: Curve, faster: int, surer: int) -> bool:
    """Whether the delay does not fall and false transitions do not rise from one setting to the other."""
    a, b = curve.rows[faster], curve.rows[surer]
    # A setting that finds no transition is not the fastest: its delay counts as the largest.
    return all(_value(a, key, -1) * sign <= _value(b, key, -1) * sign for key, sign in ORDERED.items())


def beaten(curve: Curve, index: int) -> bool:
    """Whether another setting is at least as good in all columns and better in one."""
    own = curve.rows[index]
    for other in curve.rows:
        gains = [sign * (_value(other, key, sign) - _value(own, key, sign)) for key, _, sign, _ in COLUMNS if sign]
        if min(gains) >= 0 and max(gains) > 0:
            return True
    return False


def _value(row: Row, key: str, sign: int) -> float:
    """A column; the worst value if nothing was matched."""
    value = row[key]
    return (0.0 if sign > 0 else 1e9) if value is None else value
