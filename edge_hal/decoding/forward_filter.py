"""The forward recursion of a hidden semi-Markov model over (step, time since it began).

Durations are explicit, as in Yu, Hidden semi-Markov models, Artificial Intelligence 174 (2010), section 3; durations
beyond the table have a geometric tail. The order of the steps is that of the procedure, mixed with a free change to any
other step, so that an order that no step list shows is followed too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.procedure.rules import Array, Procedure

from .evidence import LOG_RATIO_LIMIT, SHARE_POWER

NEGLIGIBLE = 1e-120
"""Smaller masses are dropped: they cannot matter again, and arithmetic on denormal numbers is slow."""
FASTEST_TAIL, SLOWEST_TAIL = 0.5, 1e-4
"""Limits of the probability to end at each tick beyond the longest duration of the table."""
MOST_ENTRIES = 1 << 21
"""Labels times durations that the filter may need: 100 MB of state."""


@dataclass(frozen=True)
class FilterTables:
    """Probabilities of K labels, with durations of 1 .. D ticks in the table.

    Attributes:
        ends: (K, D) a segment ends after exactly d ticks. The last column is for segments that have reached D ticks:
            they end at each tick with probability `tail`.
        lasts: (K, D) it lasts at least d ticks.
        tail: (K,) as above.
        follows: (K, K) label j comes after label i.
        first: (K,) an epoch begins with it.
        share: (K,) log share of the time.
    """

    ends: Array
    lasts: Array
    tail: Array
    follows: Array
    first: Array
    share: Array

    def lasting(self, label: int, ticks: NDArray[np.integer]) -> Array:
        """Probability that a segment of `label` lasts at least `ticks`, each 1 or more; also beyond the table."""
        longest = self.lasts.shape[1]
        beyond = np.maximum(ticks - longest, 0)
        return np.asarray(self.lasts[label, np.minimum(ticks, longest) - 1] * (1 - self.tail[label]) ** beyond)


def filter_tables(procedure: Procedure, model_hz: float, free: float) -> FilterTables:
    """The tables at `model_hz` ticks per second.

    Args:
        free: the probability that the next step is any of the others, whatever the procedure says.

    Raises:
        EdgeHalError: there are too many labels and durations.
    """
    tables = procedure.tables(model_hz)
    labels, longest = tables.duration.shape
    if labels * longest > MOST_ENTRIES:
        why = f"{labels} labels and durations of up to {longest / model_hz:.0f} s need too much memory"
        raise EdgeHalError("the procedure cannot be followed", why, "make the durations in procedure.json shorter")
    ends, beyond = tables.open_duration.copy(), 1 - tables.open_duration.sum(axis=1)
    lasts = ends[:, ::-1].cumsum(axis=1)[:, ::-1] + np.maximum(beyond, 0.0)[:, None]
    tail = np.clip(ends[:, -1] / np.maximum(lasts[:, -1], NEGLIGIBLE), SLOWEST_TAIL, FASTEST_TAIL)
    ends[:, -1] = lasts[:, -1] * tail
    follows = np.exp(tables.follows)
    if labels > 1:
        follows /= follows.sum(axis=1, keepdims=True)
        follows = (1 - free) * follows + free * (1 - np.eye(labels)) / (labels - 1)
    else:
        follows = np.ones((1, 1))
    first = np.exp(tables.first)
    return FilterTables(ends, lasts, tail, follows, first / first.sum(), tables.share)


class ForwardFilter:
    """The filter over the ticks of one epoch, for several weights of the evidence at once (V of them). Work and memory
    per tick are constant.

    A column holds the mass of the segments that begin at one tick, times the likelihood since then. Whether they have
    lasted until now is applied when a column is read. So a tick adds one column and multiplies the others.

    The likelihood of a tick is its posterior divided by the square root of the label's share of time, as in
    `semi_markov.py`, to the power `evidence`.

    Args:
        evidence: the weights. most_ahead: how many ticks `ahead` may look.
    """

    def __init__(self, tables: FilterTables, evidence: Sequence[float], most_ahead: int = 0) -> None:
        self.tables, self._evidence, self.most_ahead = tables, np.asarray(evidence)[:, None], most_ahead
        # Durations decrease along the columns, as the age of the columns below does. `most_ahead` more than in the
        # tables, since a segment may pass the longest one while it is looked ahead.
        self._ends, self._lasts = (_with_tail(each, tables.tail, most_ahead)[:, ::-1].copy() for each in _pair(tables))
        self._share = SHARE_POWER * tables.share
        self._longest = tables.ends.shape[1]
        self.reset()

    def reset(self) -> None:
        self.ticks = 0  # how many have been filtered
        self._mass = np.zeros((len(self._evidence), len(self.tables.first), 3 * self._longest + 2))
        self._columns = 0  # how many columns are in use

    def state(self) -> dict[str, Any]:
        return {"ticks": self.ticks, "columns": self._columns, "mass": self._mass.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if the numbers do not belong together."""
        mass, columns = state["mass"], state["columns"]
        if not (0 <= columns <= self._mass.shape[2] and np.isfinite(mass).all() and (mass >= 0).all()):
            raise ValueError("the belief is out of range")
        if columns and not (mass[..., max(0, columns - self._longest) : columns].sum(axis=(1, 2)) > 0).all():
            raise ValueError("the belief has no mass")
        self.ticks, self._columns, self._mass = state["ticks"], columns, mass.copy()

    def resume(self, probability: Array, ages_ticks: Sequence[int], pause_ticks: int) -> None:
        """Begin an epoch with a belief instead of the procedure's `first`.

        Args:
            probability: (K,) of each label at some tick before the epoch. They sum to 1.
            ages_ticks: how many ticks each label had lasted then, that tick included, if it went on.
            pause_ticks: how many ticks lie between that tick and the first one of the epoch. Nothing is known of them.
        """
        self.reset()
        self._columns = self._longest
        ages = np.clip(np.asarray(ages_ticks, np.int64), 1, self._longest)
        labels = np.arange(len(ages))
        lasting = np.maximum(self.tables.lasts[labels, ages - 1], NEGLIGIBLE)
        self._mass[:, labels, self._longest - ages] = probability / lasting
        for _ in range(pause_ticks):
            self.update(None)
        self.ticks = 0

    def update(self, log_posterior: NDArray[np.floating] | None) -> None:
        """Filter the next tick, with its log posteriors (K,), or None if nothing is known of it."""
        if self._columns == self._mass.shape[2]:
            self._move_to_front()
        old = self._mass[..., self._window()]
        entry = self._ended(old, 1) @ self.tables.follows if old.shape[2] else self.tables.first
        self._mass[..., self._columns] = entry
        self._columns += 1
        self.ticks += 1
        window = self._window()
        if window.start:  # segments that have reached the longest duration share one column
            self._mass[..., window.start] += self._mass[..., window.start - 1] * (1 - self.tables.tail)
        mass = self._mass[..., window]
        if log_posterior is not None:
            mass *= self._likelihood(log_posterior)[..., None]
        mass /= mass.sum(axis=(1, 2), keepdims=True)

    def ahead(self, rows: Sequence[NDArray[np.floating] | None]) -> Array:
        """(V, K, n) probability of each label and each first tick, after further ticks with log posteriors (K,) each,
        or None. The newest first tick, which is the newest tick, is last. Segments that have lasted longer than the
        table are in the first column. The filter itself stays where it is.
        """
        old = self._mass[..., self._window()]
        count, ahead = old.shape[2], len(rows)
        joint = np.zeros((*old.shape[:2], count + ahead))
        new = joint[..., count:]  # the mass of segments that begin ahead
        grown = np.ones(old.shape[:2])  # the likelihood of all ticks ahead so far
        for step, row in enumerate(rows):
            if count or step:
                ended = self._ended(old, step + 1) * grown if count else np.zeros_like(grown)
                if step:
                    ended = ended + self._ended(new[..., :step], 1)
                new[..., step] = ended @ self.tables.follows
            else:
                new[..., step] = self.tables.first
            if row is not None:
                likelihood = self._likelihood(row)
                grown = grown * likelihood
                new[..., : step + 1] *= likelihood[..., None]
        np.multiply(old, grown[..., None], out=joint[..., :count])
        joint *= self._lasts[:, self._lasts.shape[1] - count - ahead :]
        joint /= joint.sum(axis=(1, 2), keepdims=True)
        return joint

    def _ended(self, columns: Array, ticks: int) -> Array:
        """(V, K) the mass of segments that end when `ticks` more have passed, the newest column's first included."""
        stop = self._ends.shape[1] - ticks + 1
        return np.asarray(np.einsum("vkd,kd->vk", columns, self._ends[:, stop - columns.shape[2] : stop]))

    def _likelihood(self, log_posterior: NDArray[np.floating]) -> Array:
        """(V, K) relative to the greatest one, so that many ticks with much weight do not overflow."""
        row = np.asarray(log_posterior, np.float64)
        # Limited as in the other decoders: one wrong and very confident tick must not decide.
        limited = np.maximum(row - row.max(), -LOG_RATIO_LIMIT)
        exponent = self._evidence * (limited - self._share)
        return np.asarray(np.exp(exponent - exponent.max(axis=1, keepdims=True)))

    def _window(self) -> slice:
        """The columns within the longest duration."""
        return slice(max(0, self._columns - self._longest), self._columns)

    def _move_to_front(self) -> None:
        """Make room for more columns: keep those within the longest duration."""
        kept = self._mass[..., self._window()].copy()
        kept[kept < NEGLIGIBLE] = 0
        self._columns = kept.shape[2]
        self._mass[..., : self._columns] = kept


def _pair(tables: FilterTables) -> tuple[Array, Array]:
    return tables.ends, tables.lasts


def _with_tail(table: Array, tail: Array, more: int) -> Array:
    """(K, D + more): a table of durations, continued by the geometric tail."""
    falling = (1 - tail[:, None]) ** np.arange(1, more + 1)
    return np.concatenate([table, table[:, -1:] * falling], axis=1)
