"""Decoding by hysteresis: a new label must lead the moving average of the posteriors for a while.

The decision is made after `confirm_s`, so it comes later than the boundary. A decision therefore holds both times: the
tick of the decision, and the tick of the boundary, which is estimated from the posteriors of single ticks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .belief import Belief
from .decoder import Decision, Decoder
from .evidence import LOG_RATIO_LIMIT


class HysteresisDecoder(Decoder):
    """Uses `smooth_s`, `margin`, `confirm_s`, `min_duration_s` and `lead_s`."""

    def reset(self) -> None:
        super().reset()
        self._candidate: int | None = None
        self._candidate_since = 0

    def state(self) -> dict[str, Any]:
        return {**super().state(), "candidate": self._candidate, "candidate_since": self._candidate_since}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._candidate, self._candidate_since = state["candidate"], state["candidate_since"]

    def decide(self, tick: int, log_posterior: NDArray[np.float32], belief: Belief | None = None) -> Decision | None:
        mean = np.exp(log_posterior[-self.smooth_ticks :]).mean(axis=0)
        leader = int(mean.argmax())
        if leader == self.label or (self.label is not None and mean[leader] - mean[self.label] < self.config.margin):
            self._candidate = None
            return None
        if leader != self._candidate:
            self._candidate, self._candidate_since = leader, tick
        if tick - self._candidate_since < self._confirm_ticks:
            return None
        if self.label is not None and tick - self.since < self._min_ticks:
            return None
        row = None if self.label is None else self._boundary_row(tick, log_posterior, leader)
        self._candidate = None
        return self._change_label(tick, leader, row, *self._recent(tick, log_posterior))

    def _boundary_row(self, tick: int, log_posterior: NDArray[np.float32], leader: int) -> int:
        """`lead_s` before the row b that maximises sum_{t<b} log p(old) + sum_{t>=b} log p(new), where b respects
        `min_duration_s`. Only the sum of log p(new) - log p(old) over t >= b depends on b."""
        earliest = self.since + self._min_ticks
        rows = log_posterior[-(tick - earliest + 1) :]
        ratio = rows[:, leader] - rows[:, self.label]
        gain = np.clip(ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)[::-1].cumsum()
        return tick - int(gain.argmax()) - self._lead_ticks
