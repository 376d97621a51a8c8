"""The belief: which step goes on now, since when, what may follow, and for how long still.

The head with lag l describes a tick l later. For each tick the filter uses the available posteriors with the longest
lag. A tick that the longest lag has reached is final. The ticks after it are filtered anew for each belief.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_hal.procedure.rules import Array

from .forward_filter import FilterTables, ForwardFilter

LONGEST_AHEAD = 64
"""The remaining time is searched up to this many times the longest duration of the table."""
SMALLEST = 1e-300


@dataclass(frozen=True)
class Belief:
    """What is believed at `tick`, from all posteriors until then.

    Attributes:
        probability: (K,) that each label goes on at `tick`.
        joint: (K, n) for each label a factor times the probability of each first tick. The last column is a segment
            that begins at `tick`.
    """

    tick: int
    probability: Array
    joint: Array
    tables: FilterTables

    @property
    def label(self) -> int:
        """The most probable label."""
        label: int = int(np.argmax(self.probability))
        return label

    def at_temperature(self, temperature: float) -> Belief:
        """The same belief with probabilities p^(1 / temperature) that sum to 1. Their order stays. This is temperature
        scaling (Guo et al., On Calibration of Modern Neural Networks, ICML 2017)."""
        if temperature == 1:
            return self
        scaled = np.log(np.maximum(self.probability, SMALLEST)) / temperature
        probability = np.exp(scaled - scaled.max())
        return replace(self, probability=probability / probability.sum())

    def began(self, label: int) -> int:
        """The median of the first tick of `label`, if it goes on."""
        before = np.cumsum(self.joint[label])
        column = min(int(np.searchsorted(before, before[-1] / 2)), len(before) - 1)
        return self.tick - len(before) + 1 + column

    def known_begin(self, label: int) -> int | None:
        """As `began`; None if that is longer ago than the table of durations reaches, where all ages are one."""
        columns = self.joint.shape[1]
        began = self.began(label)
        return None if columns >= self.tables.lasts.shape[1] and began == self.tick - columns + 1 else began

    def next_labels(self, label: int) -> Array:
        """(K,) probability of each label to come after `label`."""
        return np.asarray(self.tables.follows[label])

    def remaining_ticks(self, label: int, quantiles: Sequence[float]) -> list[int]:
        """Quantiles of the ticks that `label` still lasts after `tick`, if it goes on now."""
        began = self.joint[label]
        ages = np.arange(len(began), 0, -1)  # ticks that the segment has had, `tick` included
        weight = began / np.maximum(self.tables.lasting(label, ages), SMALLEST)
        total = began.sum()

        def still_lasting(more: int) -> float:
            return float(weight @ self.tables.lasting(label, ages + more))

        found = []
        for quantile in quantiles:
            low, high = 0, LONGEST_AHEAD * self.tables.lasts.shape[1]
            while low < high and total > 0:  # the first number after which at most 1 - quantile still lasts
                middle = (low + high) // 2
                low, high = (low, middle) if still_lasting(middle + 1) <= (1 - quantile) * total else (middle + 1, high)
            found.append(low)
        return found


class Beliefs(NamedTuple):
    """`now` is for reports, and calibrated. `steady` is for decisions: it weighs the evidence less, so it is slower and
    flickers less."""

    now: Belief
    steady: Belief


class BeliefTracker:
    """Follows one epoch of one stream.

    Args:
        tables: of the procedure.
        evidence: weights as in `ForwardFilter`; the first is that of `now`, the last that of `steady`.
        lags_ticks: of the heads, ascending. The head with lag l describes tick t - l at tick t.
        now_temperature: of `now`, see `Belief.at_temperature`.
    """

    def __init__(
        self,
        tables: FilterTables,
        evidence: Sequence[float],
        lags_ticks: Sequence[int],
        now_temperature: float = 1.0,
    ) -> None:
        self.tables, self._evidence, self.lags_ticks = tables, evidence, tuple(lags_ticks)
        self._now_temperature = now_temperature
        self.reset()

    def reset(self) -> None:
        """Begin a new epoch."""
        different = tuple(dict.fromkeys(self._evidence))
        self._filter = ForwardFilter(self.tables, different, self.lags_ticks[-1] + 1)
        self._newest_tick = -1

    def resume(self, probability: Array, ages_ticks: Sequence[int], pause_ticks: int) -> None:
        """Begin an epoch with what was believed before it; as in `ForwardFilter.resume`."""
        self.reset()
        self._filter.resume(probability, ages_ticks, pause_ticks)

    def another(self) -> BeliefTracker:
        """One for another stream. It shares the tables."""
        return BeliefTracker(self.tables, self._evidence, self.lags_ticks, self._now_temperature)

    @property
    def needed(self) -> int:
        """How many ticks before the first new one `follow` reads."""
        return self.lags_ticks[-1]

    @property
    def newest_tick(self) -> int:
        """The tick of the last belief; -1 before the first."""
        return self._newest_tick

    def state(self) -> dict[str, Any]:
        return {"newest_tick": self._newest_tick, "filter": self._filter.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if the numbers do not belong together."""
        final = max(0, state["newest_tick"] + 1 - self.lags_ticks[-1])
        if state["filter"]["ticks"] != final:
            raise ValueError("the belief is not at the decoder's tick")
        self._filter.restore(state["filter"])
        self._newest_tick = state["newest_tick"]

    def follow(self, tick: int, heads: Mapping[int, NDArray[np.floating]]) -> Beliefs:
        """The beliefs at `tick`. See `follow_all`."""
        made = self.follow_all(tick, heads)
        return Beliefs(made[0].at_temperature(self._now_temperature), made[-1])

    def follow_all(self, tick: int, heads: Mapping[int, NDArray[np.floating]]) -> list[Belief]:
        """The belief at `tick` of each distinct weight of the evidence, in the order in which they were given.

        Args:
            heads: lag in ticks -> (n, K) log posteriors of that head at the ticks tick - n + 1 .. tick. They should
                reach back to the tick of the last call and by the longest lag; of ticks before, nothing is known.
        """
        longest = self.lags_ticks[-1]
        final = heads[longest]
        for at in range(max(longest, self._newest_tick + 1), tick + 1):
            self._filter.update(final[at - tick - 1] if at > tick - len(final) else None)
        self._newest_tick = tick
        rows = [self._row(tick, about, heads) for about in range(max(0, tick + 1 - longest), tick + 1)]
        return [Belief(tick, joint.sum(axis=1), joint, self.tables) for joint in self._filter.ahead(rows)]

    def _row(self, tick: int, about: int, heads: Mapping[int, NDArray[np.floating]]) -> NDArray[np.floating] | None:
        """The posteriors about tick `about` with the longest lag that are available at `tick`."""
        available = [lag for lag in self.lags_ticks if about + lag <= tick]
        if not available or about + available[-1] <= tick - len(heads[available[-1]]):
            return None
        row: NDArray[np.floating] = heads[available[-1]][about + available[-1] - tick - 1]
        return row
