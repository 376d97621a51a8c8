"""What a head with a lag is told: the rows of some ticks before."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Rows = TypeVar("Rows", bound=NDArray[Any])


def lagging(rows: Rows, ticks: int) -> Rows:
    """Rows (T, ...) delayed by `ticks`. The first row is repeated."""
    return cast("Rows", rows[np.maximum(np.arange(len(rows)) - ticks, 0)])
