"""The front end for vectors: z-score, clipping, trailing mean, change and deviation, as a part of the level-0 graph.

Long vectors are projected on their principal components first, so that the state and the first layer stay small. It has
state but nothing that is learned by gradients. Since it is in the graph, the device needs no code for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_hal.spec import FrontEndSpec

SMALL_CHUNK = 64
"""Up to this chunk size windows are stacked slices, which ONNX can express; above, a strided view, which it cannot."""


class FrontEnd(nn.Module):
    """Vectors (T, D) -> features (T, 3 Z): the mean over the last `window` ticks, its difference from the mean over the
    `window` ticks before, and the standard deviation in the window. At the start of an epoch, only existing ticks
    count. Z is D, or the number of principal components."""

    mean: Tensor
    scale: Tensor
    directions: Tensor

    def __init__(self, spec: FrontEndSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.zeros(spec.size))
        self.register_buffer("scale", torch.ones(spec.width))
        if spec.projected:
            self.register_buffer("directions", torch.eye(spec.size, spec.projected))

    def fit(self, mean: Tensor, deviation: Tensor, directions: Tensor | None = None) -> None:
        """Set mean (D,) and scale of the z-score. An input of deviation 0 is ignored: its z-score is always 0.

        Args:
            deviation: (Z,) standard deviations, of the components if there are `directions`.
            directions: (D, Z) the principal components, for a front end that projects.
        """
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 0, 1 / deviation, 0.0))
        if directions is not None:
            self.directions.copy_(directions)

    def z_scores(self, x: Tensor) -> Tensor:
        """(T, D) -> (T, Z), clipped."""
        centred = x - self.mean
        if self.spec.projected:
            centred = centred @ self.directions
        return (centred * self.scale).clamp(-self.spec.clip, self.spec.clip)

    def step(self, x: Tensor, z: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Args:
            x: (C, D) new vectors.
            z: (history, Z) past z-scores; n: (history, 1) 1 if they exist, otherwise 0.

        Returns:
            features (C, 3 Z), and the two states after C more ticks.
        """
        chunk, window = x.shape[0], self.spec.window
        clipped = self.z_scores(x)
        z = torch.cat([z, clipped], 0)
        n = torch.cat([n, torch.ones_like(clipped[:, :1])], 0)
        recent, count = self._windows(z[window:], chunk), self._windows(n[window:], chunk)
        before, earlier = self._windows(z, chunk), self._windows(n, chunk)
        total, had = count.sum(1), earlier.sum(1)
        mean = (recent * count).sum(1) / total
        past = (before * earlier).sum(1) / had.clamp_min(1.0)
        change = (mean - past) * had.clamp(max=1.0)
        variance = ((recent - mean.unsqueeze(1)) ** 2 * count).sum(1) / total
        deviation = torch.sqrt(variance + 1e-2)  # the constant limits gradients, and rounding in float16, near zero
        return torch.cat([mean, change, deviation], 1), z[chunk:], n[chunk:]

    def forward(self, x: Tensor, block: int = 4096) -> Tensor:
        """(T, D) -> (T, 3 Z) of a whole recording, in blocks so that memory is bounded."""
        z = x.new_zeros(self.spec.history, self.spec.width)
        n = x.new_zeros(self.spec.history, 1)
        parts = []
        for start in range(0, x.shape[0], block):
            features, z, n = self.step(x[start : start + block], z, n)
            parts.append(features)
        return torch.cat(parts) if parts else x.new_zeros(0, self.spec.features)

    def _windows(self, x: Tensor, count: int) -> Tensor:
        """(count, window, Z) the windows that start at rows 0 .. count-1."""
        window = self.spec.window
        if count <= SMALL_CHUNK:
            return torch.stack([x[i : i + window] for i in range(count)])
        return x[: count + window - 1].unfold(0, window, 1).transpose(1, 2)
