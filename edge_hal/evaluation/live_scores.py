"""Scores of what a subscriber is told while the video runs: the reports `now`, and transitions at each patience."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decision_scores import decision_scores
from edge_hal.decoding.decode import beliefs_of, decode_posteriors
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.timeline import labels_from, timeline_of
from edge_hal.metrics import IntArray, mof
from edge_hal.runtime.stream.now import NowReporter
from edge_hal.spec import PyramidSpec
from edge_hal.ticks import expand_labels

from .scores import Scores

NOW_HZ = 10.0
"""The default of `--now-hz`."""


def live_scores(
    log_posteriors: Sequence[NDArray[np.float32]],
    truth: Sequence[IntArray],
    rates_hz: Sequence[float],
    config: DecoderConfig,
    spec: PyramidSpec,
) -> dict[str, Any]:
    """`mof_now`: per cent of the frames right, each with the label of the newest report `now`; None without a
    procedure. `now_changes_per_min`: how often that label changes. `decide`: the scores of each setting of `--decide`.

    Args:
        log_posteriors: (T, H K) per video. truth: (frames,) labels per video. rates_hz: of the frames.
    """
    found: dict[str, Any] = {"mof_now": None, "now_changes_per_min": None}
    if config.procedure is not None:
        reports = [now_labels(p, config, spec) for p in log_posteriors]
        shown = [
            expand_labels(labels, len(y), hz, spec.model_hz)
            for labels, y, hz in zip(reports, truth, rates_hz, strict=True)
        ]
        found |= reported_scores(shown, truth, rates_hz)
    found["decide"] = {
        name: patience_scores(log_posteriors, truth, rates_hz, config.with_decide(name), spec)
        for name in config.patience
    }
    return found


def reported_scores(shown: Sequence[IntArray], truth: Sequence[IntArray], rates_hz: Sequence[float]) -> Scores:
    """`mof_now` and `now_changes_per_min` of the labels (frames,) that reports showed."""
    minutes = sum(len(y) / hz for y, hz in zip(truth, rates_hz, strict=True)) / 60
    changes = sum(int((np.diff(labels) != 0).sum()) for labels in shown)
    return {"mof_now": mof(shown, list(truth)), "now_changes_per_min": changes / minutes}


def now_labels(log_posterior: NDArray[np.float32], config: DecoderConfig, spec: PyramidSpec) -> IntArray:
    """(T,) the label of the newest report at each tick. Nothing is known before the first report; there, its label."""
    reporter = NowReporter(NOW_HZ)
    ticks: list[int] = []
    labels: list[int] = []
    for belief in beliefs_of(log_posterior, config, spec):
        now = belief.now
        if reporter.due(now, round(1e9 * now.tick / spec.model_hz)):
            ticks.append(now.tick if ticks else 0)
            labels.append(now.label)
    return labels_from(ticks, labels, len(log_posterior))


def patience_scores(
    log_posteriors: Sequence[NDArray[np.float32]],
    truth: Sequence[IntArray],
    rates_hz: Sequence[float],
    config: DecoderConfig,
    spec: PyramidSpec,
) -> Scores:
    """The scores of the transitions that `config` decides; see `decision_scores`."""
    timelines = [
        timeline_of(decode_posteriors(p, config, spec), spec.model_hz, len(p), len(y), hz)
        for p, y, hz in zip(log_posteriors, truth, rates_hz, strict=True)
    ]
    return {**decision_scores(timelines, truth, rates_hz)}
