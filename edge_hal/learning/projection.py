"""Fit of the front end: mean and deviation of the vectors, or of their principal components if it projects.

Principal components are found without labels, and a rotated or scaled input gives the same ones. The student sees them
only if `model.projected` is given; the first alignments always work on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal.model.front_end import FrontEnd
from edge_hal.spec import FrontEndSpec

from .data.recordings import Labels
from .hmm.first_alignment import statistics

SMALL = 1e-8
"""Variances below this share of the largest one are rounding, and are not scaled to deviation 1."""
STARTER_COMPONENTS, DISCRIMINANT_COMPONENTS = 24, 64
"""Principal components of the vectors of a pretrained encoder: those that the first alignment sees, and those in which
the discriminants are found."""
SHRINKAGE = 0.1
SMALLEST = 1e-12
"""Variance within segments is taken for no less, so that vectors that never change have discriminants too."""


def fitted_front_end(spec: FrontEndSpec, vectors: Sequence[NDArray[np.float32]]) -> FrontEnd:
    """A front end for these vectors, (T, D) per recording."""
    front_end, vectors = FrontEnd(spec), [x[:, : spec.read] for x in vectors]
    if not spec.projected:
        front_end.fit(*statistics(vectors))
        return front_end
    mean, directions, variance = principal_components(vectors, spec.projected)
    deviation = np.sqrt(np.where(variance > SMALL * variance[0], variance, 0.0))
    front_end.fit(*(torch.from_numpy(each.astype(np.float32)) for each in (mean, deviation, directions)))
    return front_end


def leading_components(vectors: Sequence[NDArray[np.float32]], count: int) -> list[NDArray[np.float32]]:
    """(T, count) per recording: the first principal components, each of variance 1, clipped as in the front end."""
    size = vectors[0].shape[1]
    front_end = fitted_front_end(FrontEndSpec(size, 1, projected=min(count, size)), vectors)
    return [front_end.z_scores(torch.from_numpy(x)).numpy() for x in vectors]


def discriminants(vectors: Sequence[NDArray[np.float32]], labels: Sequence[Labels]) -> list[NDArray[np.float32]]:
    """(T, classes - 1) per recording: the directions that separate the labels (T,) best, relative to the spread within
    a label.

    Linear discriminant analysis (Rao 1948) of the first components, with a regularised covariance (Friedman 1989). Each
    recording is centred, so that what tells recordings apart does not count.
    """
    centred = [x - x.mean(0) for x in leading_components(vectors, DISCRIMINANT_COMPONENTS)]
    rows, label = np.concatenate(centred).astype(np.float64), np.concatenate(labels)
    classes, member = np.unique(label, return_inverse=True)
    if len(classes) < 2:
        return centred
    means = np.stack([rows[member == i].mean(0) for i in range(len(classes))])
    apart = means - rows.mean(0)
    between = (apart * np.bincount(member)[:, None]).T @ apart / len(rows)
    rest = rows - means[member]
    within = rest.T @ rest / len(rows)
    size = len(within)
    even = max(float(np.trace(within)) / size, SMALLEST)
    within = (1 - SHRINKAGE) * within + SHRINKAGE * even * np.eye(size)
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    directions = whiten.T @ np.linalg.eigh(whiten @ between @ whiten.T)[1][:, ::-1]
    kept = directions[:, : len(classes) - 1]
    return [(x @ kept).astype(np.float32) for x in centred]


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
