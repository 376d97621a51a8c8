"""A world in which the slow latent is known: HAL's generative process, and how well a learnt latent recovers it.

A discrete state s, Markov and slow, shows as a point c = e[s] of the slow space. The fast latents follow it,

    v[t] = rho v[t-1] + (1 - rho) m(c[t]) + sqrt(1 - rho^2) noise,

with m a random nonlinear map, and what is seen is x = g(v), g injective and nonlinear (arXiv 2602.24275: v has delayed
and hierarchical parents, c only delayed ones). `dwell` and `memory` set the two timescales: the paper's theory wants c
to stay while several v pass.

What is identified there is the slow *block*: c up to an invertible map. So recovery is measured both ways (as in von
Kuegelgen et al., NeurIPS 2021): c from the learnt latent (nothing lost), the learnt latent from c (nothing else in it).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

Array = NDArray[np.float64]

NEGATIVE_SLOPE = 0.3  # of the mixing's leaky rectifiers: bent enough, and far from singular
PLACINGS = 50  # draws of the states' points; the one with the widest smallest gap is kept


@dataclass(frozen=True)
class Process:
    """Sizes and timescales. `dwell`: mean ticks in a state; `memory`: ticks after which a fast latent has forgotten all
    but 1/e; `coupling`: spread of the states' means in the fast space, in standard deviations of the noise there (0:
    the slow latent governs nothing)."""

    states: int = 6
    slow_size: int = 2
    fast_size: int = 4
    size: int = 12
    dwell: float = 40.0
    memory: float = 1.5
    coupling: float = 1.0

    def __post_init__(self) -> None:
        if self.states < 2 or min(self.slow_size, self.fast_size) < 1 or self.size < self.fast_size:
            raise EdgeHalError("no such world", "it has two states or more, and no fewer signals than fast latents")
        if self.dwell < 1 or self.memory <= 0 or self.coupling < 0:
            raise EdgeHalError("no such world", "dwell >= 1 tick, memory > 0 and coupling >= 0 are needed")


@dataclass(frozen=True)
class Recording:
    """`states` (T,), `slow` (T, slow_size), `fast` (T, fast_size), `x` (T, size): what a sensor would see."""

    states: NDArray[np.int64]
    slow: Array
    fast: Array
    x: Array


class World:
    """One draw of the states' points, of m and of g; as many recordings as wanted."""

    def __init__(self, process: Process, seed: int) -> None:
        self.process = process
        rng = np.random.default_rng([seed, 0])
        self.points = max(
            (_whitened(rng.normal(size=(process.states, process.slow_size))) for _ in range(PLACINGS)), key=_gap
        )
        hidden = np.tanh(self.points @ rng.normal(size=(process.slow_size, 16)))
        means = np.tanh(hidden @ rng.normal(size=(16, process.fast_size)) / 2)
        self.means = process.coupling * (means - means.mean(0)) / means.std(0)
        sizes = [process.fast_size, process.size, process.size, process.size]
        self._layers = [_orthonormal(rng, m, n) for m, n in itertools.pairwise(sizes)]

    def recording(self, length: int, seed: int) -> Recording:
        """`length` ticks, the fast latents in their stationary state at the first."""
        process, rng = self.process, np.random.default_rng([seed, 1])
        leaves = rng.random(length) < 1 / process.dwell
        leaves[0] = False
        # A jump is to another state: 1 .. K-1 further on, round.
        jumps = np.where(leaves, rng.integers(1, process.states, length), 0)
        states = (rng.integers(process.states) + np.cumsum(jumps)) % process.states
        rho = np.exp(-1 / process.memory)
        drive = (1 - rho) * self.means[states] + np.sqrt(1 - rho**2) * rng.normal(size=(length, process.fast_size))
        fast = np.empty((length, process.fast_size))
        v = self.means[states[0]] + rng.normal(size=process.fast_size)
        for t in range(length):
            v = rho * v + drive[t]
            fast[t] = v
        return Recording(states, self.points[states], fast, self.mix(fast))

    def mix(self, fast: Array) -> Array:
        """g: (T, fast_size) -> (T, size)."""
        x = fast @ self._layers[0]
        for layer in self._layers[1:]:
            x = np.where(x > 0, x, NEGATIVE_SLOPE * x) @ layer
        return np.asarray(x)

    def unmix(self, x: Array) -> Array:
        """The inverse of g on what it can produce: (T, size) -> (T, fast_size)."""
        for layer in self._layers[:0:-1]:
            x = x @ layer.T
            x = np.where(x > 0, x, x / NEGATIVE_SLOPE)
        return np.asarray(x @ self._layers[0].T)

    def posterior(self, fast: Array, stride: int = 1) -> Array:
        """P(state at t | fast latents up to the end of t's bin), (T, fast_size) -> (T, states), by who knows the world:
        no causal learner can tell the bins of `stride` ticks more. Forward-backward, exact, since v[t] given v[t-1] and
        the state is Gaussian; T is a multiple of `stride`."""
        process = self.process
        rho, leave = np.exp(-1 / process.memory), 1 / process.dwell
        before = np.vstack([np.zeros((1, process.fast_size)), rho * fast[:-1]])
        drive = np.full((len(fast), 1), 1 - rho)
        variance = np.full((len(fast), 1), 1 - rho**2)
        drive[0] = variance[0] = 1.0  # the first is drawn about the mean of its state
        apart = ((fast - before)[:, None] - drive[:, None] * self.means) ** 2
        log_seen = -apart.sum(-1) / (2 * variance)
        seen = np.exp(log_seen - log_seen.max(1, keepdims=True))

        def moved(p: Array) -> Array:
            """One tick on; the chain is symmetric, so also one tick back."""
            return np.asarray((1 - leave) * p + leave * (p.sum() - p) / (process.states - 1))

        known, expected = np.empty_like(seen), np.empty_like(seen)
        for t in range(len(seen)):
            expected[t] = moved(known[t - 1]) if t else 1 / process.states
            known[t] = expected[t] * seen[t] / (expected[t] @ seen[t])
        for t in range(len(seen) - 2, -1, -1):
            if (t + 1) % stride:
                known[t] = known[t] * moved(known[t + 1] / expected[t + 1])
        return np.asarray(known)


def _whitened(points: Array) -> Array:
    """Mean 0 and covariance 1, so that no direction of the slow space is favoured (where there are enough points)."""
    centred = points - points.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(u[:, s > 1e-9] * np.sqrt(len(points)))


def _gap(points: Array) -> float:
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    return float(apart[~np.eye(len(points), dtype=bool)].min())


def _orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """(rows, columns) with orthonormal rows; rows <= columns."""
    q, _ = np.linalg.qr(rng.normal(size=(columns, rows)))
    return np.asarray(q.T)


# Recovery -----------------------------------------------------------------------------------

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0)  # of the kernel, in median distances
RIDGES = (1e-3, 1e-1, 1e1)


def block_r2(source: tuple[Array, Array, Array], target: tuple[Array, Array, Array]) -> float:
    """How much of `target` is a function of `source`: R2 of kernel ridge regression on unseen points.

    Args:
        source, target: (n, p) and (n, q) of three parts: to fit on, to choose bandwidth and ridge on, to score on.
            Parts should be different recordings, since neighbouring ticks know each other.

    Returns:
        1 - squared error / squared deviation from the mean, both summed over all q columns; at most 1, below 0 where
        the regression is worse than the mean, and 0 where the target is constant: nothing there to recover.
    """
    scale = source[0].std(0)
    a, b, c = ((part - source[0].mean(0)) / np.where(scale > 1e-9, scale, 1.0) for part in source)
    mean = target[0].mean(0)
    fit = target[0] - mean
    if _sum_of_squares(target[2] - target[2].mean(0)) < 1e-12:
        return 0.0
    own, chosen, last = _squared_distances(a, a), _squared_distances(b, a), _squared_distances(c, a)
    median = max(float(np.median(own)), 1e-12)
    best, score = np.inf, 0.0
    for width in BANDWIDTHS:
        reach = 2 * width**2 * median
        value, vector = np.linalg.eigh(np.exp(-own / reach))
        turned = vector.T @ fit
        for ridge in RIDGES:
            weights = vector @ (turned / (np.maximum(value, 0) + ridge)[:, None])
            error = _sum_of_squares(np.exp(-chosen / reach) @ weights + mean - target[1])
            if error < best:
                best = error
                left = _sum_of_squares(np.exp(-last / reach) @ weights + mean - target[2])
                score = 1 - left / _sum_of_squares(target[2] - target[2].mean(0))
    return float(score)


def mean_correlation(truth: Array, learnt: Array) -> float:
    """Mean correlation coefficient: |Pearson correlation| of each true column (n, p) with a learnt one (n, q) of its
    own, in the best assignment, averaged over the true columns. 1 is recovery up to order, sign and scale, which is
    more than the theory promises for a block. All assignments are tried: for a few columns."""
    correlation = np.zeros((truth.shape[1], max(truth.shape[1], learnt.shape[1])))
    for (i, t), (j, z) in itertools.product(enumerate(truth.T), enumerate(learnt.T)):
        spread = t.std() * z.std()
        if spread > 1e-12:
            correlation[i, j] = abs(np.mean((t - t.mean()) * (z - z.mean())) / spread)
    rows = np.arange(len(correlation))
    return float(
        max(correlation[rows, list(p)].mean() for p in itertools.permutations(range(correlation.shape[1]), len(rows)))
    )


def _squared_distances(a: Array, b: Array) -> Array:
    return np.asarray(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0))


def _sum_of_squares(x: Array) -> float:
    return float((x**2).sum())
