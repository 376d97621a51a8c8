"""Scores of what a subscriber receives while the video runs: reports `now`, and transitions at each `--decide`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.calib.confidence import calibration_error
from edge_hal.decoding.decision_scores import decision_scores
from edge_hal.decoding.decode import beliefs_of, decode_posteriors
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.timeline import timeline_of
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
    procedure. `now_changes_per_min`: how often that label changes. `now_ece`: see `reported_error`. `decide`: the
    scores of each setting of `--decide`.

    Args:
        log_posteriors: (T, H K) per video. truth: (frames,) labels per video. rates_hz: of the frames.
    """
    found: dict[str, Any] = {"mof_now": None, "now_changes_per_min": None, "now_ece": None}
    if config.procedure is not None:
        shown, probability = [], []
        for p, y, hz in zip(log_posteriors, truth, rates_hz, strict=True):
            labels, probabilities = now_reports(p, config, spec)
            newest = expand_labels(np.arange(len(labels)), len(y), hz, spec.model_hz)
            shown.append(labels[newest])
            probability.append(probabilities[newest])
        found |= {**reported_scores(shown, truth, rates_hz), "now_ece": reported_error(shown, probability, truth)}
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


def reported_error(
    shown: Sequence[IntArray], probability: Sequence[NDArray[np.float64]], truth: Sequence[IntArray]
) -> float:
    """Expected calibration error, in per cent, of the probabilities (frames,) that reports gave to the labels (frames,)
    that they showed."""
    right = np.concatenate([labels == y for labels, y in zip(shown, truth, strict=True)])
    return 100 * calibration_error(np.concatenate(probability), right)


def now_reports(
    log_posterior: NDArray[np.float32], config: DecoderConfig, spec: PyramidSpec
) -> tuple[IntArray, NDArray[np.float64]]:
    """(T,) the label, and (T,) its probability, in the newest report at each tick. Nothing is known before the first
    report; there, what it says."""
    reporter = NowReporter(NOW_HZ)
    labels, probability, first = np.zeros(len(log_posterior), np.int64), np.zeros(len(log_posterior)), True
    for belief in beliefs_of(log_posterior, config, spec):
        now = belief.now
        if reporter.due(now, round(1e9 * now.tick / spec.model_hz)):
            begin, first = (0 if first else now.tick), False
            labels[begin:], probability[begin:] = now.label, now.probability[now.label]
    return labels, probability


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
