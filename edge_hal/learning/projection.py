"""Fit of the front end: mean and deviation of the vectors, or of their principal components if it projects.

A pretrained encoder gives 1,280 numbers, which would cost the first layer 20 times as much as 64. Principal components
are found without labels, and a rotated or scaled input gives the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal.model.front_end import FrontEnd
from edge_hal.spec import FrontEndSpec

from .hmm.first_alignment import statistics

SMALL = 1e-8
"""Of the largest variance: what is below is rounding, and is not scaled to deviation 1."""
STARTER_COMPONENTS = 24
CLIP = 5.0


def fitted_front_end(spec: FrontEndSpec, vectors: Sequence[NDArray[np.float32]]) -> FrontEnd:
    """A front end for these vectors, (T, D) per recording."""
    front_end = FrontEnd(spec)
    if not spec.projected:
        front_end.fit(*statistics(vectors))
        return front_end
    mean, directions, variance = principal_components(vectors, spec.projected)
    deviation = np.sqrt(np.where(variance > SMALL * variance[0], variance, 0.0))
    front_end.fit(*(torch.from_numpy(each.astype(np.float32)) for each in (mean, deviation, directions)))
    return front_end


def leading_components(vectors: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """(T, STARTER_COMPONENTS) per recording, each component of variance 1: what the first alignment sees of the vectors
    of a pretrained encoder."""
    size = vectors[0].shape[1]
    spec = FrontEndSpec(size, 1, clip=CLIP, projected=min(STARTER_COMPONENTS, size))
    front_end = fitted_front_end(spec, vectors)
    return [front_end.z_scores(torch.from_numpy(x)).numpy() for x in vectors]


def principal_components(
    vectors: Sequence[NDArray[np.float32]], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,), directions (D, count) and variance (count,) of all vectors, the largest variance first."""
    total = sum(len(x) for x in vectors)
    mean = sum((x.sum(0, dtype=np.float64) for x in vectors), np.zeros(vectors[0].shape[1])) / total
    covariance = np.zeros((len(mean), len(mean)))
    for x in vectors:
        centred = x - mean
        covariance += centred.T @ centred / total
    variance, directions = np.linalg.eigh(covariance)
    variance, directions = variance[::-1][:count], directions[:, ::-1][:, :count]
    # The sign of an eigenvector differs between libraries: make its largest entry positive.
    turn = np.sign(directions[np.abs(directions).argmax(0), np.arange(count)])
    return mean, directions * turn, np.maximum(variance, 0.0)
