"""The sensor front end: z-score, clip, trailing mean, change and deviation, as part of the level-0 graph.

It has state and no learned part, so nothing has to be repeated by hand on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_hal.spec import FrontEndSpec

SMALL_CHUNK = 64
"""Up to here windows are stacked slices (which ONNX can say); beyond it a strided view (which it cannot)."""


class FrontEnd(nn.Module):
    """(T, D) vectors -> (T, 3 D): mean over the last `window` ticks, its change against the `window` ticks
    before, and the standard deviation inside the window. At the start of an epoch only what exists counts."""

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: FrontEndSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.zeros(spec.size))
        self.register_buffer("scale", torch.ones(spec.size))

    def fit(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the z-score from training statistics; a constant input is left unscaled."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 1.0))

    def step(self, x: Tensor, z: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Args:
            x: (C, D) new vectors.
            z: (history, D) past z-scores; n: (history, 1) one where they exist, else zero.

        Returns:
            features (C, 3 D) and the two states moved on by C.
        """
        chunk, window = x.shape[0], self.spec.window
        clipped = ((x - self.mean) * self.scale).clamp(-self.spec.clip, self.spec.clip)
        z = torch.cat([z, clipped], 0)
        n = torch.cat([n, torch.ones_like(clipped[:, :1])], 0)
        recent, count = self._windows(z[window:], chunk), self._windows(n[window:], chunk)
        before, earlier = self._windows(z, chunk), self._windows(n, chunk)
        total, had = count.sum(1), earlier.sum(1)
        mean = (recent * count).sum(1) / total
        past = (before * earlier).sum(1) / had.clamp_min(1.0)
        change = (mean - past) * had.clamp(max=1.0)
        variance = ((recent - mean.unsqueeze(1)) ** 2 * count).sum(1) / total
        deviation = torch.sqrt(variance + 1e-2)  # the floor keeps float16 and gradients sane near zero
        return torch.cat([mean, change, deviation], 1), z[chunk:], n[chunk:]

    def forward(self, x: Tensor, block: int = 4096) -> Tensor:
        """(T, D) -> (T, 3 D) of a whole recording, a block at a time so that memory stays bounded."""
        z = x.new_zeros(self.spec.history, self.spec.size)
        n = x.new_zeros(self.spec.history, 1)
        parts = []
        for start in range(0, x.shape[0], block):
            features, z, n = self.step(x[start : start + block], z, n)
            parts.append(features)
        return torch.cat(parts) if parts else x.new_zeros(0, self.spec.features)

    def _windows(self, x: Tensor, count: int) -> Tensor:
        """(count, window, D): the `count` windows that start at rows 0 .. count-1."""
        window = self.spec.window
        if count <= SMALL_CHUNK:
            return torch.stack([x[i : i + window] for i in range(count)])
        return x[: count + window - 1].unfold(0, window, 1).transpose(1, 2)
