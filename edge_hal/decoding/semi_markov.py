"""Decoding with the procedure: an online Viterbi filter of a hidden semi-Markov model.

A state is a pair (label, first tick). The model knows the order of the steps and the distribution of their durations
(`procedure/rules.py`). Durations are explicit as in Yu, Hidden semi-Markov models, Artificial Intelligence 174 (2010),
section 3.

The likelihood of a tick is its posterior divided by the square root of the label's share of time. Neighbouring ticks
are not independent, so the log likelihoods are scaled: one second counts as `evidence_hz` independent observations.

At each decision the most likely path up to the newest tick is traced back by `confirm_s`. The label there is
published, with the boundary of the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .belief import Belief
from .decoder import Decision, Decoder
from .decoder_config import DecoderConfig
from .evidence import LOG_RATIO_LIMIT, SHARE_POWER

MOST_SEGMENTS = 1 << 23
"""Segments that the path back through `confirm_s` may need: 128 MB."""
FIRST_S = 2.0
"""The first label of an epoch is decided after this long, or after half the median of the shortest step if that is
less. Before, no evidence from earlier ticks supports it, and correcting a wrong first label costs a transition."""


class SemiMarkovDecoder(Decoder):
    """The filter over one epoch of one stream.

    Work and memory per tick are constant: all first ticks that lie further back than the longest duration share one
    column, which keeps the best of each label.
    """

    def __init__(self, config: DecoderConfig, model_hz: float, lag_ticks: int = 0) -> None:
        assert config.procedure is not None
        self._tables = config.procedure.tables(model_hz)
        self._evidence_scale = config.evidence_hz / model_hz
        first_s = min([FIRST_S, *(0.5 * step.median_s for step in config.procedure.steps.values())])
        self._first_decision_tick = lag_ticks + round(max(first_s, config.confirm_s) * model_hz)
        # Columns are ordered by first tick, the newest last, so durations decrease along the columns.
        self._log_duration = self._tables.duration[:, ::-1]
        self._log_survival = self._tables.survival[:, ::-1]
        labels = len(config.procedure.steps)
        if config.confirm_s * model_hz * labels > MOST_SEGMENTS:
            why = f"{config.confirm_s:g} s x {model_hz:g} Hz x {labels} labels need too much memory"
            raise EdgeHalError("the procedure cannot be followed", why, "make decoder.confirm_s smaller")
        super().__init__(config, model_hz, lag_ticks)

    def reset(self) -> None:
        super().reset()
        labels, longest = self._tables.duration.shape
        self._newest_tick = -1
        self._evidence = np.zeros(labels)  # cumulative log likelihood of each label
        # Of each (label, first tick): the score of the best path, minus the label's evidence before the first tick.
        self._score = np.full((labels, 2 * longest), -np.inf)
        self._first_tick = np.zeros((labels, 2 * longest), np.int64)
        self._columns = 0  # how many columns of the two arrays above are in use
        # For each of the last ticks and each label that begins there: the segment before it, as (label, first tick).
        self._predecessor = np.full((2, self._confirm_ticks + 2, labels), -1, np.int64)

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "newest_tick": self._newest_tick,
            "evidence": self._evidence.copy(),
            "score": self._score.copy(),
            "first_tick": self._first_tick.copy(),
            "columns": self._columns,
            "predecessor": self._predecessor.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._newest_tick, self._columns = state["newest_tick"], state["columns"]
        self._evidence, self._score = state["evidence"].copy(), state["score"].copy()
        self._first_tick, self._predecessor = state["first_tick"].copy(), state["predecessor"].copy()
        # The path back from the newest tick must end: each segment begins after the one before it.
        slots, newest = self._predecessor.shape[1], self._newest_tick
        began = newest - (newest - np.arange(slots)) % slots
        before, first = self._predecessor[0], self._predecessor[1]
        if not (
            0 <= self._columns <= self._score.shape[1]
            and self._first_tick.min() >= 0
            and self._first_tick.max() <= max(newest, 0)
            and before.min() >= -1
            and before.max() < len(self._evidence)
            and (first < np.maximum(began, 0)[:, None]).all()
            and np.isfinite(self._evidence).all()
        ):
            raise ValueError("the decoder's paths are out of range")

    def decide(self, tick: int, log_posterior: NDArray[np.float32], belief: Belief | None = None) -> Decision | None:
        new = log_posterior[-(tick - self._newest_tick) :]
        for offset, row in enumerate(new):
            self._update(tick + 1 - len(new) + offset, row.astype(np.float64))
        self._newest_tick = tick
        label, first_tick = self._trace_back(tick)
        if label == self.label:
            return None
        if self.label is None:
            if tick < self._first_decision_tick:
                return None
            return self._change_label(tick, label, None, *self._recent(tick, log_posterior))
        if tick - self.since < self._min_ticks:
            return None
        return self._change_label(tick, label, first_tick - self._lead_ticks, *self._recent(tick, log_posterior))

    def _update(self, tick: int, log_posterior: NDArray[np.float64]) -> None:
        """One step of the forward recursion: add a column for segments that begin at `tick`, then add the evidence of
        the tick, from log posteriors (K,)."""
        labels = np.arange(len(self._evidence))
        longest = self._log_duration.shape[1]
        if self._columns == 2 * longest:  # the arrays are full: drop the older half
            self._score[:, :longest], self._first_tick[:, :longest] = (
                self._score[:, longest:],
                self._first_tick[:, longest:],
            )
            self._columns = longest
        slot = tick % self._predecessor.shape[1]
        if not self._columns:
            entry = self._tables.first
            self._predecessor[:, slot] = -1
        else:
            window = self._window()
            ended = self._score[:, window] + self._log_duration[:, longest - (window.stop - window.start) :]
            best = ended.argmax(axis=1)
            value = ended[labels, best] + self._evidence
            reached = value[:, None] + self._tables.follows
            before = reached.argmax(axis=0)
            entry = reached[before, labels]
            self._predecessor[0, slot] = before
            self._predecessor[1, slot] = self._first_tick[before, window.start + best[before]]
        self._score[:, self._columns] = entry - self._evidence
        self._first_tick[:, self._columns] = tick
        self._columns += 1
        oldest = self._window().start
        if oldest:  # beyond the longest duration: merge the column before the window into the oldest one inside
            better = self._score[:, oldest - 1] > self._score[:, oldest]
            self._score[better, oldest] = self._score[better, oldest - 1]
            self._first_tick[better, oldest] = self._first_tick[better, oldest - 1]
        # Limited for the same reason as in hysteresis: one wrong and very confident tick must not decide.
        limited = np.maximum(log_posterior - log_posterior.max(), -LOG_RATIO_LIMIT)
        self._evidence = self._evidence + self._evidence_scale * (limited - SHARE_POWER * self._tables.share)

    def _window(self) -> slice:
        """The columns within the longest duration."""
        return slice(max(0, self._columns - self._log_duration.shape[1]), self._columns)

    def _trace_back(self, tick: int) -> tuple[int, int]:
        """Label and first tick of the segment that holds tick - `confirm_s` on the most likely path."""
        window = self._window()
        count = window.stop - window.start
        now = self._score[:, window] + self._log_survival[:, -count:] + self._evidence[:, None]
        label, column = divmod(int(now.argmax()), count)
        first_tick = int(self._first_tick[label, window.start + column])
        while first_tick > max(tick - self._confirm_ticks, 0):
            slot = first_tick % self._predecessor.shape[1]
            label, first_tick = int(self._predecessor[0, slot, label]), int(self._predecessor[1, slot, label])
        return label, first_tick
