"""Posteriors that are no numbers: the epoch ends, and if that goes on, the run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

LARGEST_LOG = 1e6
"""A log posterior beyond this is no probability. Divided by a small temperature it would overflow."""
SPOILED_S = 10.0
"""The run ends if the posteriors were not finite, again and again, for this long."""


class PosteriorCheck:
    """`spoiled`: whether a posterior of the last step was not finite. Then the epoch must end; `reset` begins another.

    Args:
        what: the bundle and its engines, for the error.
        todo: what the error advises.
    """

    def __init__(self, what: str, todo: str) -> None:
        self._what, self._todo = what, todo
        self.spoiled = False
        self._first_ns: int | None = None
        self._last_ns = 0

    def check(self, rows: NDArray[np.float32], t_ns: int) -> None:
        """Look at the log posteriors of a step at `t_ns`. Raises EdgeHalError if they were bad for `SPOILED_S`."""
        if (np.abs(rows) < LARGEST_LOG).all():  # NaN is not below anything
            return
        pause_ns = SPOILED_S * 1e9
        if self._first_ns is None or t_ns - self._last_ns > pause_ns:
            self._first_ns = t_ns
        self.spoiled, self._last_ns = True, t_ns
        if t_ns - self._first_ns >= pause_ns:
            raise EdgeHalError(
                f"the model gives no finite posteriors for {SPOILED_S:g} s",
                self._what,
                self._todo,
            )

    def reset(self) -> None:
        self.spoiled = False

    def state(self) -> list[Any]:
        return [self._first_ns, self._last_ns]

    def restore(self, state: list[Any]) -> None:
        """Raises ValueError if a time is out of range."""
        self._first_ns, self._last_ns = state
        if not all(type(value) is int and 0 <= value < 1 << 62 for value in (self._first_ns or 0, self._last_ns)):
            raise ValueError("a moment is out of range")
