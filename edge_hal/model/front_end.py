"""The front end for vectors: z-score, clipping, trailing mean, change and deviation, as a part of the level-0 graph.

Long vectors may be projected on their principal components first, so that the state and the first layer stay small. It
has state but nothing that is learned by gradients. Since it is in the graph, the device needs no code for it.

With a *baseline*, z-scores are standardised once more by their own mean and deviation over some seconds before. What
stays the same during these seconds then has no influence: the bench, the light, the clothes, the view, and the state
that the earlier steps have left behind. What moves remains. A hand that rests as long is lost too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_hal.spec import FrontEndSpec

SMALL_CHUNK = 64
"""Up to this chunk size windows are stacked slices, which ONNX can express; above, a strided view, which it cannot."""
LONGEST_BLOCK, WINDOWS_SIZE = 4096, 1 << 24
"""Ticks, and numbers in their windows, that are computed at once for a whole recording."""
STILL = 0.1
"""Variance, in squared z-scores, that is added to that of the baseline: noise of a picture that stands still is not
enlarged to that of a motion."""


class FrontEnd(nn.Module):
    """Vectors (T, D) -> features (T, 3 Z): the mean over the last `window` ticks, its difference from the mean over the
    `window` ticks before, and the standard deviation in the window. At the start of an epoch, only existing ticks
    count, here and in the baseline. Z is the number of the numbers that are read, or of the principal components."""

    mean: Tensor
    scale: Tensor
    directions: Tensor

    def __init__(self, spec: FrontEndSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.zeros(spec.read))
        self.register_buffer("scale", torch.ones(spec.width))
        if spec.projected:
            self.register_buffer("directions", torch.eye(spec.read, spec.projected))

    def fit(self, mean: Tensor, deviation: Tensor, directions: Tensor | None = None) -> None:
        """Set mean (R,), of the numbers that are read, and scale of the z-score. An input of deviation 0 is ignored:
        its z-score is always 0.

        Args:
            deviation: (Z,) standard deviations, of the components if there are `directions`.
            directions: (R, Z) the principal components, for a front end that projects.
        """
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 0, 1 / deviation, 0.0))
        if directions is not None:
            self.directions.copy_(directions)

    def z_scores(self, x: Tensor) -> Tensor:
        """(T, D) -> (T, Z), clipped."""
        centred = (x[:, : self.spec.read] if self.spec.unread else x) - self.mean
        if self.spec.projected:
            centred = centred @ self.directions
        return (centred * self.scale).clamp(-self.spec.clip, self.spec.clip)

    def standardised(self, z: Tensor, y: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z-scores relative to their mean and deviation over the window of the baseline, themselves included.

        Args:
            z: (C, Z) new z-scores.
            y: (baseline_history, Z) past ones; m: (baseline_history, 1) 1 if they exist, otherwise 0.

        Returns:
            (C, Z), clipped, and the two states after C more ticks. The first of an epoch is 0.
        """
        chunk, window = z.shape[0], self.spec.baseline
        y = torch.cat([y, z], 0)
        m = torch.cat([m, torch.ones_like(z[:, :1])], 0)
        rows, exist = self._windows(y, chunk, window), self._windows(m, chunk, window)
        weights = (exist / exist.sum(1, keepdim=True)).transpose(1, 2)
        mean = weights @ rows  # (C, 1, Z); a product reads the window once
        rest = rows - mean
        variance = (weights @ (rest * rest)).squeeze(1)
        relative = (z - mean.squeeze(1)) / torch.sqrt(variance + STILL)
        return relative.clamp(-self.spec.clip, self.spec.clip), y[chunk:], m[chunk:]

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Args:
            x: (C, D) new vectors.
            states: z (history, Z) the past z-scores, n (history, 1) 1 if they exist, otherwise 0; with a baseline also
                y and m of `standardised`.

        Returns:
            features (C, 3 Z), and the states after C more ticks.
        """
        z, n, *baseline = states
        chunk, window = x.shape[0], self.spec.window
        clipped = self.z_scores(x)
        if baseline:
            clipped, *baseline = self.standardised(clipped, *baseline)
        z = torch.cat([z, clipped], 0)
        n = torch.cat([n, torch.ones_like(clipped[:, :1])], 0)
        recent, count = self._windows(z[window:], chunk, window), self._windows(n[window:], chunk, window)
        before, earlier = self._windows(z, chunk, window), self._windows(n, chunk, window)
        total, had = count.sum(1), earlier.sum(1)
        mean = (recent * count).sum(1) / total
        past = (before * earlier).sum(1) / had.clamp_min(1.0)
        change = (mean - past) * had.clamp(max=1.0)
        variance = ((recent - mean.unsqueeze(1)) ** 2 * count).sum(1) / total
        deviation = torch.sqrt(variance + 1e-2)  # the constant limits gradients, and rounding in float16, near zero
        return torch.cat([mean, change, deviation], 1), z[chunk:], n[chunk:], *baseline

    def first_states(self, like: Tensor) -> tuple[Tensor, ...]:
        """The states at the start of an epoch, of the type of `like`."""
        return tuple(like.new_zeros(shape) for shape in self.spec.states.values())

    def relative(self, z: Tensor) -> Tensor:
        """(T, Z) -> (T, Z): the z-scores of a whole recording, relative to their baseline if there is one."""
        if not self.spec.baseline:
            return z
        _, _, y, m = self.first_states(z)
        parts = [z[:0]]
        for start in range(0, len(z), self._block):
            found, y, m = self.standardised(z[start : start + self._block], y, m)
            parts.append(found)
        return torch.cat(parts)

    def forward(self, x: Tensor, block: int | None = None) -> Tensor:
        """(T, D) -> (T, 3 Z) of a whole recording, in blocks so that memory is bounded."""
        block = block or self._block
        states = [*self.first_states(x)]
        parts = [x.new_zeros(0, self.spec.features)]
        for start in range(0, len(x), block):
            features, *states = self.step(x[start : start + block], *states)
            parts.append(features)
        return torch.cat(parts)

    @property
    def _block(self) -> int:
        """Ticks whose windows are held in memory at once."""
        window = max(self.spec.window, self.spec.baseline)
        return max(1, min(LONGEST_BLOCK, WINDOWS_SIZE // (window * self.spec.width)))

    @staticmethod
    def _windows(x: Tensor, count: int, window: int) -> Tensor:
        """(count, window, Z) the windows that start at rows 0 .. count-1."""
        if count <= SMALL_CHUNK:
            return torch.stack([x[i : i + window] for i in range(count)])
        return x[: count + window - 1].unfold(0, window, 1).transpose(1, 2)
