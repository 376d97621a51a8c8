"""What vectors look like: a mixture of Gaussians with one covariance.

The distance of a vector is that of Mahalanobis to the nearest of M centres (Lee et al., arXiv 1807.03888, there with
one centre for each class). Of long vectors it looks at the first principal components and at what they leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_COMPONENTS = 64
LEAST_DISTANCE = 1e-9
FIELDS = ("mean", "scale", "components", "whiten", "centres", "rest")

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VectorMixture:
    """Attributes:
    mean, scale: (D,) of each number.
    components: (D, k) orthonormal: the principal components, k at most `MOST_COMPONENTS`.
    whiten: (k, k) makes the distance to a centre Euclidean.
    centres: (M, k), whitened.
    rest: mean square of what the components leave out; 0 if they leave nothing out.

    Raises:
        ValueError: shapes that do not fit, or numbers that are no such mixture.
    """

    mean: Array
    scale: Array
    components: Array
    whiten: Array
    centres: Array
    rest: float

    def __post_init__(self) -> None:
        size, count = self.components.shape if self.components.ndim == 2 else (0, 0)
        shapes = {"mean": (size,), "scale": (size,), "whiten": (count, count), "centres": (len(self.centres), count)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        finite = all(np.isfinite(getattr(self, name)).all() for name in FIELDS)
        if not 0 < count <= MOST_COMPONENTS or not len(self.centres) or not finite:
            raise ValueError("it has no components or centres, or a number is not finite")
        if self.scale.min() <= 0 or self.rest < 0:
            raise ValueError("a number is not positive")

    @property
    def size(self) -> int:
        """D, the numbers of a vector."""
        return len(self.mean)

    @cached_property
    def _map(self) -> Array:
        whitened: Array = self.components @ self.whiten / self.scale[:, None]
        return whitened

    @cached_property
    def _pull(self) -> Array:
        pull: Array = np.ascontiguousarray(-2 * self.centres.T)
        return pull

    @cached_property
    def _squares(self) -> Array:
        squares: Array = (self.centres**2).sum(axis=1)
        return squares

    def distances(self, x: NDArray[np.floating]) -> Array:
        """(n, D) -> (n,): logarithm of the squared distance, per component."""
        centred = x - self.mean
        white = centred @ self._map
        nearest = (white * white).sum(axis=1) + (self._squares + white @ self._pull).min(axis=1)
        found = nearest / len(self.whiten)
        if self.rest > 0:
            scaled = centred / self.scale
            outside = (scaled**2).sum(axis=1) - ((scaled @ self.components) ** 2).sum(axis=1)
            found = (found + outside / self.rest) / 2
        result: Array = np.log(np.maximum(found, LEAST_DISTANCE))
        return result

    def tensors(self, prefix: str = "") -> dict[str, NDArray[np.float32]]:
        """float32 arrays by name."""
        return {prefix + name: np.asarray(getattr(self, name), np.float32) for name in FIELDS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], prefix: str = "") -> VectorMixture:
        """Inverse of `tensors`, for float64 arrays; `rest` is a float."""
        return cls(**{name: arrays[prefix + name] for name in FIELDS})
