"""The decoder that knows the procedure: a semi-Markov filter over the order of steps and their durations.

Its states are pairs (label, the tick it began at). A posterior divided by the root of the label's share of time counts
as evidence, `evidence_hz` independent looks a second: neighbouring ticks are no independent witnesses. The likeliest
path (Viterbi) is followed on line; what it says of `confirm_s` ago is what is published, with the path's own boundary.
Explicit durations as in Yu, Hidden semi-Markov models, Artificial Intelligence 174 (2010), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.spec import PyramidSpec

from .hysteresis import LOG_RATIO_LIMIT, Decision, Decoder, DecoderConfig

SHARE_POWER = 0.5
"""Posteriors are likelihoods times shares of time; networks follow the shares less than fully."""


FIRST_S = 2.0
"""The first label of an epoch waits so long, or half the shortest step: nothing before it speaks for it, and taking it
back is a transition."""


class ProcedureDecoder(Decoder):
    """One epoch of one stream. Work and memory of a tick are constant: beginnings further back than the longest
    duration are merged, each label's best one kept."""

    def __init__(self, config: DecoderConfig, model_hz: float, lag_ticks: int = 0) -> None:
        assert config.procedure is not None
        self._tables = config.procedure.tables(model_hz)
        self._power = config.evidence_hz / model_hz
        first_s = min([FIRST_S, *(0.5 * step.median_s for step in config.procedure.steps.values())])
        self._settled = lag_ticks + round(max(first_s, config.confirm_s) * model_hz)
        # Newest beginning last, so that ages run backwards.
        self._ended = self._tables.duration[:, ::-1]
        self._goes_on = self._tables.survival[:, ::-1]
        super().__init__(config, model_hz, lag_ticks)

    def reset(self) -> None:
        super().reset()
        labels, ages = self._tables.duration.shape
        self._seen = -1
        self._total = np.zeros(labels)  # evidence so far, per label
        self._score = np.full((labels, 2 * ages), -np.inf)  # of each beginning, less the evidence before it
        self._began = np.zeros((labels, 2 * ages), np.int64)
        self._kept = 0
        self._before = np.full((2, self._confirm + 2, labels), -1, np.int64)  # label and beginning of what went before

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "_seen": self._seen,
            "_total": self._total.copy(),
            "_score": self._score.copy(),
            "_began": self._began.copy(),
            "_kept": self._kept,
            "_before": self._before.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._seen, self._kept = state["_seen"], state["_kept"]
        self._total, self._score = state["_total"].copy(), state["_score"].copy()
        self._began, self._before = state["_began"].copy(), state["_before"].copy()

    def decide(self, tick: int, log_posterior: NDArray[np.float32]) -> Decision | None:
        new = log_posterior[-(tick - self._seen) :]
        for offset, row in enumerate(new):
            self._follow(tick + 1 - len(new) + offset, row.astype(np.float64))
        self._seen = tick
        label, began = self._path(tick)
        if label == self.label:
            return None
        if self.label is None:
            return None if tick < self._settled else self._take_over(tick, label, None, log_posterior)
        if tick - self.since < self._shortest:
            return None
        return self._take_over(tick, label, began - self._lead, log_posterior)

    def _follow(self, tick: int, log_posterior: NDArray[np.float64]) -> None:
        """A label may begin at `tick`, after another that ended there; then the evidence of the tick counts."""
        labels = np.arange(len(self._total))
        ages = self._ended.shape[1]
        if self._kept == 2 * ages:  # room at the end again
            self._score[:, :ages], self._began[:, :ages] = self._score[:, ages:], self._began[:, ages:]
            self._kept = ages
        here = tick % self._before.shape[1]
        if not self._kept:
            entry = self._tables.first
            self._before[:, here] = -1
        else:
            window = self._window()
            ended = self._score[:, window] + self._ended[:, ages - (window.stop - window.start) :]
            best = ended.argmax(axis=1)
            value = ended[labels, best] + self._total
            reached = value[:, None] + self._tables.follows
            came = reached.argmax(axis=0)
            entry = reached[came, labels]
            self._before[0, here] = came
            self._before[1, here] = self._began[came, window.start + best[came]]
        self._score[:, self._kept] = entry - self._total
        self._began[:, self._kept] = tick
        self._kept += 1
        oldest = self._window().start
        if oldest:  # what is too old to be told apart goes on as the oldest
            better = self._score[:, oldest - 1] > self._score[:, oldest]
            self._score[better, oldest] = self._score[better, oldest - 1]
            self._began[better, oldest] = self._began[better, oldest - 1]
        # A single confident blunder of the model argues no louder here than in hysteresis.
        told = np.maximum(log_posterior - log_posterior.max(), -LOG_RATIO_LIMIT)
        self._total = self._total + self._power * (told - SHARE_POWER * self._tables.share)

    def _window(self) -> slice:
        return slice(max(0, self._kept - self._ended.shape[1]), self._kept)

    def _path(self, tick: int) -> tuple[int, int]:
        """Label and beginning, on the likeliest path, of what went on `confirm_s` before `tick`."""
        window = self._window()
        count = window.stop - window.start
        now = self._score[:, window] + self._goes_on[:, -count:] + self._total[:, None]
        label, slot = divmod(int(now.argmax()), count)
        began = int(self._began[label, window.start + slot])
        while began > max(tick - self._confirm, 0):
            here = began % self._before.shape[1]
            label, began = int(self._before[0, here, label]), int(self._before[1, here, label])
        return label, began


def open_decoder(config: DecoderConfig, spec: PyramidSpec) -> Decoder:
    """The filter over the procedure where there is one to follow, else hysteresis."""
    hysteresis = config.procedure is None or config.evidence_hz == 0
    return (Decoder if hysteresis else ProcedureDecoder)(config, spec.model_hz, spec.lag_ticks)
