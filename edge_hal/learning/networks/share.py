"""The share of a batch that one process computes, so that all shares together give what one process would compute.

Means are weighted by their numbers of items. Each row of the batch has a generator of its own for the random numbers of
the network, so a process draws those of its rows only. Batch normalisation uses the statistics of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from edge_hal.model.latents import Mean

from .world import World


class Term:
    """A part of the loss: `weight` times the sum of `means`."""

    def __init__(self, weight: float, *means: Mean) -> None:
        self.weight, self.means = weight, means

    def value(self, shares: Sequence[Tensor] | None = None) -> Tensor:
        """The term. `shares`: a factor for each mean."""
        values = [mean.value for mean in self.means]
        if shares is not None:
            values = [value * share for value, share in zip(values, shares, strict=True)]
        return self.weight * reduce(torch.add, values)


@dataclass(frozen=True)
class Batch:
    """One step of training.

    Attributes:
        losses: makes the terms of the loss from `tensors`, or from the same rows of all of them.
        tensors: the first has one entry for each row of the batch, the others the same number or a multiple of it.
    """

    losses: Callable[..., list[Term]]
    tensors: tuple[Tensor, ...]


class Loss(nn.Module):
    """The loss of a batch. `module`: the network, so that its parameters are those of this module."""

    def __init__(self, module: nn.Module, world: World) -> None:
        super().__init__()
        self.module, self.world = module, world

    def forward(self, batch: Batch, device: torch.device) -> Tensor:
        """The loss. With several processes: their mean is the loss of the whole batch, and the mean of their gradients
        is its gradient."""
        rows = Rows(len(batch.tensors[0]), self.world, device)
        with rows:
            terms = batch.losses(*(rows.of(x).to(device) for x in batch.tensors))
        if self.world.size == 1:
            return _total(term.value() for term in terms)
        here = torch.tensor([0 if rows.idle else mean.count for term in terms for mean in term.means])
        total = self.world.sum(here.clone())
        shares = iter((self.world.size * here / total.clamp_min(1)).float().to(device))
        return _total(term.value([next(shares) for _ in term.means]) for term in terms)


def _total(values: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, values)


class Rows(TorchFunctionMode):
    """The rows of a batch of `count` that this process computes. A process for which none is left computes the first
    and does not count it.

    As a context it replaces what would depend on the number of processes: dropout, `randn_like`, and batch
    normalisation. Each row has a generator, whose seed comes from the global one.
    """

    def __init__(self, count: int, world: World, device: torch.device) -> None:
        super().__init__()
        self.count, self.world = count, world
        self.begin, self.end = (count * rank // world.size for rank in (world.rank, world.rank + 1))
        self.idle = self.begin == self.end
        if self.idle:
            self.begin, self.end = 0, 1
        seeds = torch.randint(2**63 - 1, (count,)).tolist()
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds[self.begin : self.end]]

    def of(self, whole: Tensor) -> Tensor:
        """The entries of these rows. `whole` has the same number of entries for each row."""
        each = len(whole) // self.count
        return whole[self.begin * each : self.end * each]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is torch.randn_like:
            return self._drawn(torch.empty_like(*args), Tensor.normal_)
        shared = self.world.size > 1 and func is F.batch_norm
        if shared and kwargs.get("training", args[5] if len(args) > 5 else False):
            return self._normalised(*args, **kwargs)
        return func(*args, **kwargs)

    def _drawn(self, x: Tensor, draw: Callable[..., Tensor], *settings: float) -> Tensor:
        """`x`, filled by `draw` row by row."""
        for row, generator in zip(x.chunk(len(self.generators)), self.generators, strict=True):
            draw(row, *settings, generator=generator)
        return x

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        return x * self._drawn(torch.empty_like(x), Tensor.bernoulli_, 1 - p).div_(1 - p)

    def _normalised(
        self,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor,
        bias: Tensor,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        """As `F.batch_norm`; the running statistics become those of the whole batch too."""
        sums = torch.stack([x.sum((0, 2, 3)), (x * x).sum((0, 2, 3))]).detach().double()
        number = torch.full((1, sums.shape[1]), x[:, 0].numel(), dtype=sums.dtype, device=x.device)
        found = self.world.sum(torch.cat([sums, number]) * (not self.idle))
        total = found[2]
        of_batch = found[0] / total
        spread = found[1] / total - of_batch**2
        with torch.no_grad():
            mean.lerp_(of_batch.to(mean.dtype), momentum)
            variance.lerp_((spread * total / (total - 1)).to(variance.dtype), momentum)
        normalised: Tensor = _BatchNorm.apply(  # type: ignore[no-untyped-call]
            x, weight, bias, of_batch.to(x.dtype), spread.to(x.dtype), eps, self, float(total[0])
        )
        return normalised


class _BatchNorm(torch.autograd.Function):
    """Normalisation by the statistics of the whole batch. Its gradient includes what each row does to them (Ioffe and
    Szegedy, ICML 2015, section 3)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, spread: Tensor, eps: float, *more: Any
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, spread)
        ctx.eps, ctx.rows, ctx.total = eps, *more
        return F.batch_norm(x, mean, spread, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        gradient = given[0]
        x, weight, mean, spread = ctx.saved_tensors
        rest = (weight, mean, spread, None, None, False, ctx.eps, [False, True, True])
        _, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(gradient, x, *rest)
        sums = torch.stack([to_bias, to_weight])
        of_all = ctx.rows.world.sum(sums * (not ctx.rows.idle)) / ctx.total
        inverse = torch.rsqrt(spread + ctx.eps)
        # (gradient - of_all[0] - of_all[1] * (x - mean) * inverse) * weight * inverse, in two passes
        scale, slope = weight * inverse, -of_all[1] * weight * inverse**2
        inside = (None, slice(None), None, None)
        to_x = torch.addcmul((-of_all[0] * scale - slope * mean)[inside], x, slope[inside])
        return to_x.addcmul_(gradient, scale[inside]), to_weight, to_bias, None, None, None, None, None
