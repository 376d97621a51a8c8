"""The two latents of HAL: fast (what is visible) and slow (the action). They are used in training only.

After arXiv 2602.24275 (objective and released configuration): each latent is a Gaussian (mu, logvar) computed from a
token. An MLP decodes a sample of it to the input of the level. There is a KL term to N(0, I), and a term that makes the
slow latent change less than the fast one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_hal.spec import PyramidSpec

from .pyramid import Outputs

SPARSITY_OF_SLOW = 0.1
"""Weight of the slow latent's own changes inside the sparse-transition term (delta in the paper)."""


@dataclass(frozen=True)
class Mean:
    """A mean over `count` items of a batch. The means of parts of a batch, weighted by their counts, give its mean."""

    value: Tensor
    count: int


def mean_of(values: Tensor, exists: Tensor) -> Mean:
    """Mean of `values` (B, n, ...) over the tokens that exist (B, n); 0 if there are none."""
    chosen = values[exists]
    return Mean(chosen.mean() if len(chosen) else values.new_zeros(()), len(chosen))


@dataclass(frozen=True)
class LatentTerms:
    """Losses: mean squared reconstruction and KL per token, of the fast and the slow latent; sparse transitions."""

    reconstruction: tuple[Mean, Mean]
    kl: tuple[Mean, Mean]
    sparse: Mean


class Latent(nn.Module):
    """(mu, logvar) of a token and an MLP that decodes a sample of it."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.posterior = nn.Linear(width, 2 * size)
        self.decoder = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, trunk: Tensor, target: Tensor, exists: Tensor) -> tuple[Tensor, Mean, Mean]:
        """Returns mu (B, T, size), reconstruction error and KL, both means over tokens that exist."""
        mu, logvar = self.posterior(trunk).chunk(2, -1)
        logvar = logvar.clamp(-8, 8)
        sample = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu
        error = ((self.decoder(sample) - target.detach()) ** 2).mean(-1)
        kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(-1)
        return mu, mean_of(error, exists), mean_of(kl, exists)


class Latents(nn.Module):
    """Fast latent v on level 0, slow latent c on the top level."""

    def __init__(self, spec: PyramidSpec, size: int = 32) -> None:
        super().__init__()
        self.stride = spec.period(spec.top)
        self.fast = Latent(spec.levels[0].width, size)
        self.slow = Latent(spec.levels[-1].width, size)

    def forward(self, outputs: Outputs) -> LatentTerms:
        v, fast_error, fast_kl = self.fast(outputs.trunks[0], outputs.entries[0], outputs.valid[0])
        c, slow_error, slow_kl = self.slow(outputs.trunks[-1], outputs.entries[-1], outputs.valid[-1])
        # v is averaged over the bins of c, so that both change over the same time. Only complete bins are used, so that
        # padding has no effect.
        bins = min(c.shape[1], v.shape[1] // self.stride)
        ticks, shape = slice(bins * self.stride), (bins, self.stride)
        binned = v[:, ticks].unflatten(1, shape).mean(2)
        complete = outputs.valid[0][:, ticks].unflatten(1, shape).all(2)
        sparse = sparse_transitions(c[:, :bins], binned, complete)
        return LatentTerms((fast_error, slow_error), (fast_kl, slow_kl), sparse)


def sparse_transitions(slow: Tensor, fast: Tensor, exists: Tensor) -> Mean:
    """relu(sum w_c dC - sum w_v dV) + 0.1 sum w_c dC, with dX the change per step of unit-norm latents and
    w the softmax of the changes (arXiv 2602.24275, sparse transition constraint); a mean over the rows.

    Args:
        slow, fast: (B, n, size) at the same rate. exists: (B, n).
    """
    both = exists[:, 1:] & exists[:, :-1]
    if not both.any():
        return Mean(slow.new_zeros(()), len(slow))

    def change(x: Tensor) -> Tensor:
        unit = F.normalize(x, dim=-1, eps=1e-6)
        step = torch.sqrt(((unit[:, 1:] - unit[:, :-1]) ** 2).sum(-1) + 1e-12)
        weight = torch.softmax(step.masked_fill(~both, float("-inf")), -1)
        return (torch.nan_to_num(weight) * step).sum(-1)

    slow_change, fast_change = change(slow), change(fast)
    return Mean((F.relu(slow_change - fast_change) + SPARSITY_OF_SLOW * slow_change).mean(), len(slow))
