"""Learn what input vectors look like, and how often normal videos exceed a distance from it.

The distances are those of videos that were held out. There are more folds than for the decoder, because a model of
half of the videos finds the other half much stranger than a model of all finds a new one, and this model is quick to
fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.familiarity import Familiarity
from edge_hal.decoding.vector_mixture import MOST_COMPONENTS, Array, VectorMixture

FOLDS = 4
LEAST_VIDEOS = 4
LEAST_PEAKS = 5
ROUNDING = 1e-6
"""Peaks that differ from the level by less are those of vectors that never change."""
LEAST_SPREAD = 1e-6
"""Distances that differ by less are those of vectors that never change."""
MOST_VECTORS = 20_000
BLOCK = 4096
"""Vectors that are scored at once: long videos of long vectors would fill the memory in float64."""
CENTRES = 32
DECIMALS = 5
"""Decimals of the stored components. Their entries are about 0.03 for long vectors; more decimals would only make the
file larger."""
ROUNDS, ITERATIONS = 2, 25
SHRINKAGE = 0.1
"""Weight of an isotropic covariance beside that of the vectors around their centres."""
WINDOW_S = 3.0
PER_H = 1.0
"""False alarms an hour, by default."""
LEVEL_QUANTILE = 0.9
LARGEST_SHAPE = 0.25
"""Limit of the absolute shape parameter of the tail, because its estimate from few peaks is rough."""


@dataclass(frozen=True)
class Fit:
    """A mixture of some numbers of the vectors.

    Attributes:
        held_out: the distances (T,) of each video, by mixtures of the other folds.
        mean, spread: of these, all together.
    """

    mixture: VectorMixture
    held_out: list[Array]
    mean: float
    spread: float


def fit_familiarity(videos: Mapping[str, NDArray[np.floating]], model_hz: float, unread: int = 0) -> Familiarity | None:
    """The model of the vectors (T, D) of normal videos by name; None for fewer than `LEAST_VIDEOS`, or if they are too
    short for a tail. Names that are neighbours in the alphabet are mostly held out together: often they are of one
    person, or of one day.

    Args:
        unread: how many numbers at the end of a vector are a coarse copy of the picture.
    """
    if len(videos) < LEAST_VIDEOS:
        return None
    in_order = [videos[name] for name in sorted(videos)]
    window = max(1, round(WINDOW_S * model_hz))
    vector = fit([video[:, : video.shape[1] - unread] for video in in_order])
    distances, coarse, offset, gain = vector.held_out, None, 0.0, 1.0
    if unread:
        coarse = fit([video[:, video.shape[1] - unread :] for video in in_order])
        # Without a spread nothing says what is far in the copy: it has next to no weight then.
        gain = max(vector.spread, LEAST_SPREAD) / coarse.spread if coarse.spread > LEAST_SPREAD else LEAST_SPREAD
        offset = vector.mean - gain * coarse.mean
        pairs = zip(distances, coarse.held_out, strict=True)
        distances = [np.maximum(near, offset + gain * also) for near, also in pairs]
    averages = [trailing(each, window) for each in distances]
    hours = sum(map(len, distances)) / model_hz / 3600
    together = np.concatenate(averages)
    if not len(together):
        return None
    level = float(np.quantile(together, LEVEL_QUANTILE))
    peaks = np.concatenate([peaks_over(each, level, window) for each in averages]) - level
    if len(peaks) < LEAST_PEAKS or peaks.mean() <= ROUNDING * max(1.0, abs(level)):
        return None
    tail, shape = fit_tail(peaks)
    return Familiarity(
        vector=vector.mixture,
        window_s=WINDOW_S,
        usual=float(np.concatenate(distances).mean()),
        level=level,
        peaks_per_h=len(peaks) / hours,
        tail=tail,
        shape=shape,
        coarse=None if coarse is None else coarse.mixture,
        offset=offset,
        gain=gain,
    )


def fit(videos: Sequence[NDArray[np.floating]]) -> Fit:
    """The mixture of vectors (T, D), and the distances of videos that were held out."""
    folds = np.arange(len(videos)) * FOLDS // len(videos)
    held_out: list[Array] = []
    for fold in range(FOLDS):
        mixture = learn([video for video, own in zip(videos, folds, strict=True) if own != fold])
        for video in (video for video, own in zip(videos, folds, strict=True) if own == fold):
            blocks = [mixture.distances(video[first : first + BLOCK]) for first in range(0, len(video), BLOCK)]
            held_out.append(np.concatenate(blocks))
    together = np.concatenate(held_out)
    return Fit(learn(videos), held_out, float(together.mean()), float(together.std()))


def learn(videos: Sequence[NDArray[np.floating]]) -> VectorMixture:
    """Components, and k-means of the whitened vectors. It is fitted in `ROUNDS`, because which centre is nearest
    depends on the covariance around the centres."""
    every = -(-sum(map(len, videos)) // MOST_VECTORS)
    x = np.concatenate([np.asarray(video[::every], np.float64) for video in videos])
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 1e-6 * np.maximum(1.0, np.abs(mean)), spread, 1.0)
    scaled = (x - mean) / scale
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    count = min(MOST_COMPONENTS, len(values))
    components = np.ascontiguousarray(vectors[:, ::-1][:, :count]).round(DECIMALS)
    rest = float(values[: len(values) - count].sum())
    inside = scaled @ components
    whiten = np.eye(count)
    rng = np.random.default_rng(0)
    for _ in range(ROUNDS):
        nearest = cluster(inside @ whiten, CENTRES, rng)
        used = np.unique(nearest)
        centres = np.stack([inside[nearest == number].mean(axis=0) for number in used])
        around = inside - centres[np.searchsorted(used, nearest)]
        covariance = around.T @ around / len(around)
        even = max(float(np.trace(covariance)) / count, 1e-6) * np.eye(count)
        whiten = np.linalg.cholesky(np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * even))
    return VectorMixture(
        mean=mean,
        scale=scale,
        components=components,
        whiten=whiten,
        centres=centres @ whiten,
        rest=max(0.0, rest) if count < len(values) else 0.0,
    )


def cluster(x: Array, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """k-means: (n, k) -> (n,) the number of a centre. Centres without a vector are left out."""
    centres = x[rng.choice(len(x), min(count, len(x)), replace=False)]
    for _ in range(ITERATIONS):
        nearest = ((centres**2).sum(axis=1) - 2 * x @ centres.T).argmin(axis=1)
        centres = np.stack([x[nearest == number].mean(axis=0) for number in np.unique(nearest)])
    return np.asarray(((centres**2).sum(axis=1) - 2 * x @ centres.T).argmin(axis=1), np.int64)


def trailing(values: Array, window: int) -> Array:
    """Means of each `window` values in a row."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means: Array = (sums[window:] - sums[:-window]) / window if len(values) >= window else np.zeros(0)
    return means


def peaks_over(averages: Array, level: float, window: int) -> Array:
    """The largest value of each run over `level`. Runs that are apart by at most a window are one: an episode."""
    over = np.flatnonzero(averages > level)
    runs = np.split(over, np.flatnonzero(np.diff(over) > window) + 1)
    return np.array([averages[run].max() for run in runs if len(run)])


def fit_tail(peaks: Array) -> tuple[float, float]:
    """Scale and shape of a generalised Pareto distribution by probability-weighted moments (Hosking and Wallis 1987,
    *Technometrics* 29:3), the shape within `LARGEST_SHAPE`."""
    ordered, count = np.sort(peaks), len(peaks)
    first = float(ordered.mean())
    weighted = float(((1 - (np.arange(1, count + 1) - 0.35) / count) * ordered).mean())
    spread = first - 2 * weighted
    shape = 2 - first / spread if spread > 0 else -LARGEST_SHAPE
    shape = float(np.clip(shape, -LARGEST_SHAPE, LARGEST_SHAPE))
    return first * (1 - shape), shape
