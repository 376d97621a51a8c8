"""Calibration of confidences: temperatures, with which the `confidence` of an event, and the probability in a report
`now`, are the probability that it is right.

Trained networks are overconfident. Dividing the log posteriors by a temperature before they are averaged corrects this
and changes no decision (Guo et al., On Calibration of Modern Neural Networks, ICML 2017). The temperature is fitted on
events and not on frames, because decisions are made where frames are uncertain. The events must come from videos that
the model was not trained on; otherwise the confidences stay too high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decode import beliefs_of, decode_posteriors
from edge_hal.decoding.decoder import mean_posterior
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.metrics import IntArray
from edge_hal.plotting import QUIET, drawing
from edge_hal.spec import PyramidSpec

MIN_EVENTS = 30
TEMPERATURES = np.geomspace(0.25, 8.0, 141)
BINS = 10


@dataclass(frozen=True)
class Evidence:
    """One decision, or one belief: the log posteriors (n, K) that it averaged, its label, and whether the label was
    right."""

    log_posterior: NDArray[np.float32]
    label: int
    right: bool

    def confidence(self, temperature: float) -> float:
        return float(mean_posterior(self.log_posterior, temperature)[self.label])


@dataclass(frozen=True)
class Confidence:
    """The result of the fit.

    Attributes:
        right: share of the events that were right.
        ece_before, ece_after: expected calibration error, 0..1, at temperature 1 and at `temperature`.
        bins_before, bins_after: rows (mean confidence, share right, events) of the reliability diagrams.
    """

    temperature: float
    events: int
    right: float
    ece_before: float
    ece_after: float
    bins_before: tuple[tuple[float, float, int], ...]
    bins_after: tuple[tuple[float, float, int], ...]


def collect(
    log_posteriors: Sequence[NDArray[np.float32]], labels: Sequence[IntArray], config: DecoderConfig, spec: PyramidSpec
) -> list[Evidence]:
    """The decisions on log posteriors (T, H K) of labelled videos. A decision is right if its label is the true one at
    the tick it is about: its decision tick, minus the lag if the belief does not decide."""
    found, lag_ticks = [], 0 if config.believes else spec.lag_ticks
    for posterior, truth in zip(log_posteriors, labels, strict=True):
        for decision in decode_posteriors(posterior[: len(truth)], config, spec):
            tick = decision.decision_tick
            right = int(truth[max(0, tick - lag_ticks)]) == decision.label
            found.append(Evidence(decision.evidence, decision.label, right))
    return found


def collect_now(
    log_posteriors: Sequence[NDArray[np.float32]], labels: Sequence[IntArray], config: DecoderConfig, spec: PyramidSpec
) -> list[Evidence]:
    """What the reports `now` say at temperature 1, once a second. None without a procedure."""
    found, every = list[Evidence](), max(1, round(spec.model_hz))
    if config.procedure is None:
        return found
    config = replace(config, now_temperature=1.0)
    for posterior, truth in zip(log_posteriors, labels, strict=True):
        for belief in beliefs_of(posterior[: len(truth)], config, spec):
            now = belief.now
            if now.tick % every == 0:
                log_p = np.log(np.maximum(now.probability[None], 1e-9)).astype(np.float32)
                found.append(Evidence(log_p, now.label, int(truth[now.tick]) == now.label))
    return found


def fit_confidence(evidence: Sequence[Evidence]) -> Confidence:
    """The temperature with the least cross-entropy between confidence and being right.

    Raises:
        EdgeHalError: there are fewer than `MIN_EVENTS` events.
    """
    if len(evidence) < MIN_EVENTS:
        why = f"there are {len(evidence)} events, at least {MIN_EVENTS} are needed"
        raise EdgeHalError("confidence cannot be calibrated", why, "give more labelled videos that were held out")
    right = np.array([event.right for event in evidence])

    def cost(temperature: float) -> float:
        p = np.clip([event.confidence(temperature) for event in evidence], 1e-4, 1 - 1e-4)
        return float(-np.where(right, np.log(p), np.log(1 - p)).mean())

    best = float(min(TEMPERATURES, key=cost))
    before, after = (np.array([event.confidence(t) for event in evidence]) for t in (1.0, best))
    return Confidence(
        round(best, 3),
        len(evidence),
        float(right.mean()),
        error_at(evidence, 1.0),
        error_at(evidence, best),
        reliability(before, right),
        reliability(after, right),
    )


def error_at(evidence: Sequence[Evidence], temperature: float) -> float:
    """The expected calibration error, 0..1, of these decisions at a temperature."""
    if not evidence:
        raise EdgeHalError("there is nothing to check confidences on", "no event was decided on these videos")
    confidence = np.array([event.confidence(temperature) for event in evidence])
    return calibration_error(confidence, np.array([event.right for event in evidence]))


def reliability(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> tuple[tuple[float, float, int], ...]:
    """Rows (mean confidence, share right, events) of up to `BINS` bins with equal numbers of events."""
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return tuple((float(confidence[p].mean()), float(right[p].mean()), len(p)) for p in parts)


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Expected calibration error: the mean over events of |mean confidence - share right| of their bin."""
    rows = reliability(confidence, right)
    return float(sum(count * abs(mean - share) for mean, share, count in rows) / len(confidence))


def draw(path: Path, found: Confidence) -> None:
    """Write the reliability diagram before and after as PNG."""
    with drawing(path, 1, 1, (4.5, 4.5)) as (figure, axes):
        axis = axes[0, 0]
        axis.plot([0, 1], [0, 1], color=QUIET, linewidth=1)
        for rows, ece, name in (
            (found.bins_before, found.ece_before, "as trained"),
            (found.bins_after, found.ece_after, f"temperature {found.temperature:g}"),
        ):
            axis.plot([row[0] for row in rows], [row[1] for row in rows], "o-", label=f"{name}: ECE {ece:.3f}")
        axis.set(xlabel="confidence of an event", ylabel="share that was right", xlim=(0, 1), ylim=(0, 1.02))
        axis.legend(loc="lower right")
        figure.tight_layout()
