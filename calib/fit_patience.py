"""The settings of `--decide`, fitted on posteriors of videos that the network was not trained on.

A lower `decide_at` decides earlier and is wrong more often. The curve over `decide_at` gives three settings: `balanced`
has the best weighted mean of transition F1, F1@50 and live accuracy; `fast` is the earliest and `sure` the one with the
fewest false transitions, among those that are not much worse. A setting that another beats in all columns is never
chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.belief_decoder import BeliefDecoder
from edge_hal.decoding.decode import beliefs_of, memory_ticks
from edge_hal.decoding.decoder import Decision, DecoderConfig
from edge_hal.decoding.timeline import labels_of, live_labels_of, transition_points
from edge_hal.metrics import IntArray, mof, score_transitions, score_videos, transitions_of
from edge_hal.spec import PyramidSpec

DECIDE_HZ = (1.2, 1.8, 2.5, 5.0)
DECIDE_AT = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
COST = 0.03
"""How much worse than `balanced` the mean of transition F1 and F1@50 (0..1) of `fast` and `sure` may be."""
UNFITTED = {"fast": 0.6, "balanced": 0.9, "sure": 0.97}
"""The settings where no video was held out: those that were chosen most often in our measurements."""
COLUMNS = {
    "transition_f1": 1,
    "f1_50": 1,
    "mof_live": 1,
    "delay_s_median": -1,
    "delay_s_p90": -1,
    "false_per_min": -1,
}
"""The columns of the curve, 1 if more is better, -1 if less is. `changes_per_min` is neither."""

Row = dict[str, float | None]


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
) -> Curve:
    """The curve with the `decide_hz` whose best setting is best.

    Args:
        log_posteriors: (T, H K) per video, of a network that was not trained on it. labels: (T,) per video.
        config: holds the procedure, and the thresholds that are not fitted here.
        given: thresholds that are fixed.
    """
    hz = (given["decide_hz"],) if "decide_hz" in given else DECIDE_HZ
    at = (given["decide_at"],) if "decide_at" in given else DECIDE_AT
    curves = []
    for decide_hz in hz:
        settings = [config.changed({"decide_hz": decide_hz, "decide_at": each}) for each in at]
        decisions = [decide_all(p, settings, spec) for p in log_posteriors]
        rows = [decision_scores(each, labels, spec.model_hz) for each in zip(*decisions, strict=True)]
        curves.append(Curve(decide_hz, at, tuple(rows)))
    return max(curves, key=lambda curve: max(map(curve.quality, range(len(curve.rows)))))


def decide_all(
    log_posteriors: NDArray[np.float32], settings: Sequence[DecoderConfig], spec: PyramidSpec
) -> list[list[Decision]]:
    """The decisions of each setting on one video (T, H K). The settings differ in `decide_at` only, so they share the
    belief."""
    decoders = [BeliefDecoder(each, spec.model_hz, memory_ticks(spec)) for each in settings]
    found: list[list[Decision]] = [[] for _ in settings]
    shared = settings[0].changed({"belief_hz": settings[0].decide_hz})  # no second belief for reports
    for belief in beliefs_of(log_posteriors, shared, spec):
        for decoder, decisions in zip(decoders, found, strict=True):
            decision = decoder.decide(belief.steady.tick, None, belief.steady)
            if decision is not None:
                decisions.append(decision)
    return found


def decision_scores(decisions: Sequence[Sequence[Decision]], labels: Sequence[IntArray], hz: float) -> Row:
    """`COLUMNS` and `changes_per_min` of the decisions on videos with labels (T,) at `hz` ticks per second."""
    seconds = [len(y) / hz for y in labels]
    events = score_transitions(
        [transition_points(d, hz) for d in decisions], [transitions_of(y, hz) for y in labels], seconds
    )
    segments = score_videos(
        [labels_of(d, len(y)) for d, y in zip(decisions, labels, strict=True)], list(labels), background=None
    )
    live = [live_labels_of(d, len(y)) for d, y in zip(decisions, labels, strict=True)]
    changes = sum(max(0, len(d) - 1) for d in decisions)
    return {
        "transition_f1": events.transition_f1,
        "f1_50": segments.f1_50,
        "mof_live": mof(live, list(labels)),
        "changes_per_min": 60 * changes / sum(seconds),
        "delay_s_median": events.delay_s_median,
        "delay_s_p90": events.delay_s_p90,
        "false_per_min": events.false_per_min,
    }


def choose(curve: Curve) -> dict[str, float]:
    """`decide_at` of `fast`, `balanced` and `sure`; two may coincide."""
    indices = range(len(curve.rows))
    balanced = max((i for i in indices if not beaten(curve, i)), key=curve.quality)
    least = curve.events_quality(balanced) - COST
    good = [i for i in indices if curve.events_quality(i) >= least and not beaten(curve, i)]
    fast = min((i for i in good if i <= balanced and ordered(curve, i, balanced)), default=balanced)
    sure = max((i for i in good if i >= balanced and ordered(curve, balanced, i)), default=balanced)
    chosen = {"fast": fast, "balanced": balanced, "sure": sure}
    return {name: curve.decide_at[index] for name, index in chosen.items()}


def ordered(curve: Curve, faster: int, surer: int) -> bool:
    """Whether the delay does not fall and false transitions do not rise from one setting to the other."""
    a, b = curve.rows[faster], curve.rows[surer]
    return number(a["delay_s_median"]) <= number(b["delay_s_median"]) and number(a["false_per_min"]) >= number(
        b["false_per_min"]
    )


def beaten(curve: Curve, index: int) -> bool:
    """Whether another setting is at least as good in all columns and better in one."""
    own = curve.rows[index]
    for other in curve.rows:
        gains = [sign * (_value(other, key, sign) - _value(own, key, sign)) for key, sign in COLUMNS.items()]
        if min(gains) >= 0 and max(gains) > 0:
            return True
    return False


def _value(row: Row, key: str, sign: int) -> float:
    """A column; the worst value if nothing was matched."""
    value = row[key]
    return (0.0 if sign > 0 else 1e9) if value is None else value
