"""A model of the input whose answers are known."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from edge_hal.decoding.familiarity import Familiarity
from edge_hal.decoding.vector_mixture import VectorMixture


def familiar_input(centres: ArrayLike, limit_times: float = 3.0, window_s: float = 1.0) -> Familiarity:
    """Vectors (D,) lie around the centres (M, D), variance 1. Once an hour normal input is `limit_times` as far from
    them as usual."""
    rows = np.asarray(centres, float)
    size = rows.shape[1]
    return Familiarity(
        VectorMixture(np.zeros(size), np.ones(size), np.eye(size), np.eye(size), rows, rest=0.0),
        window_s=window_s,
        usual=0.0,
        level=0.0,
        peaks_per_h=math.e,
        tail=2 * math.log(limit_times),
        shape=0.0,
    )
