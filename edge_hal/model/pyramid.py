"""The pyramid: a bottom-up trunk of levels at decreasing rates, a top-down fusion, and heads at the bottom and the top.

The trunk of level l+1 pools the trunk of level l over a bin. Fused outputs never enter a trunk, so the receptive field
is finite. Levels are aligned in time by index arithmetic. If the level above has stride s, token t sees its bin
floor(t/s) - 1, the last one that was complete before t (causal), or bin floor(t/s), which contains t (two-sided
teacher). This is the deterministic alignment of HAL (arXiv 2602.24275), made causal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_hal.spec import PyramidSpec

from .attention import Block


@dataclass(frozen=True)
class Outputs:
    """The outputs of one pass over a batch, as logits.

    Attributes:
        frame: (B, T, K). change: (B, T). action: (B, T_top, K), None if there is one level.
        lagged: (B, T, L, K) of the heads with other lags, None if there are none.
        classes: (B, K) and class_tokens: (B, K, width), of the teacher only.
        fused, trunks, entries: per level (B, T_l, width_l): the fused output, the output of the trunk, and the input of
            its first block.
        valid: per level (B, T_l) which tokens exist.
    """

    frame: Tensor
    change: Tensor
    lagged: Tensor | None
    action: Tensor | None
    classes: Tensor | None
    class_tokens: Tensor | None
    fused: tuple[Tensor, ...]
    trunks: tuple[Tensor, ...]
    entries: tuple[Tensor, ...]
    valid: tuple[Tensor, ...]


class Level(nn.Module):
    """One level: entry, blocks, fusion with the level above, heads."""

    def __init__(self, spec: PyramidSpec, index: int, *, causal: bool, dropout: float) -> None:
        super().__init__()
        entry, top = spec.levels[index], index == spec.top
        below = spec.front_end.features if index == 0 else 2 * spec.levels[index - 1].width
        self.entry = nn.Linear(below, entry.width)
        self.blocks = nn.ModuleList(Block(entry, causal=causal, dropout=dropout) for _ in range(entry.blocks))
        self.norm = nn.LayerNorm(entry.width)
        if not top:
            self.own = nn.Linear(entry.width, entry.width)
            self.above = nn.Linear(spec.levels[index + 1].width, entry.width, bias=False)
            self.mix = nn.Linear(entry.width, entry.width)
        if index == 0:
            self.frame = nn.Linear(entry.width, len(spec.labels))
            self.change = nn.Linear(entry.width, 1)
            if spec.other_lags_s and causal:
                self.lagged = nn.Linear(entry.width, len(spec.other_lags_s) * len(spec.labels))
        elif top:
            self.action = nn.Linear(entry.width, len(spec.labels))

    def fuse(self, trunk: Tensor, held: Tensor | None) -> Tensor:
        """Combine the trunk with the fused output of the level above, repeated to this rate (None at the top)."""
        own: Tensor = self.norm(trunk)
        if held is None:
            return own
        fused: Tensor = own + self.mix(F.gelu(self.own(own) + self.above(held)))
        return fused


class Pyramid(nn.Module):
    """All levels. `causal=False` is the offline teacher; only it has class tokens."""

    def __init__(self, spec: PyramidSpec, *, causal: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.spec, self.causal = spec, causal
        self.levels = nn.ModuleList(
            Level(spec, index, causal=causal, dropout=dropout) for index in range(len(spec.levels))
        )
        if not causal:
            width = spec.levels[-1].width
            self.class_tokens = nn.Parameter(torch.randn(len(spec.labels), width) * 0.02)
            self.class_head = nn.Linear(width, len(spec.labels))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Outputs:
        """One pass over front-end features.

        Args:
            x: (B, T, 3 D). valid: (B, T) true for ticks that exist; they come first in each row.

        Returns:
            Outputs at T ticks. A causal level l has floor(T / period(l)) tokens; the teacher also has one for the last,
            incomplete bin.
        """
        spec, length = self.spec, x.shape[1]
        period = spec.period(spec.top)
        exists = valid if valid is not None else x.new_ones(x.shape[:2], dtype=torch.bool)
        tail = -length % period
        x, exists = F.pad(x, (0, 0, 0, tail)), F.pad(exists, (0, tail))

        trunks: list[Tensor] = []
        entries: list[Tensor] = []
        valids: list[Tensor] = []
        classes: Tensor | None = None
        levels = cast("list[Level]", list(self.levels))
        for index, level in enumerate(levels):
            if index > 0:
                x, exists = self._bins(trunks[-1], exists, spec.levels[index].stride)
            x = level.entry(x)
            entries.append(x)
            if index == spec.top and not self.causal:
                classes = self.class_tokens.expand(x.shape[0], -1, -1)
            for block in cast("list[Block]", list(level.blocks)):
                x, classes = block(x, exists, classes)
            trunks.append(x)
            valids.append(exists)

        fused: list[Tensor] = []
        above: Tensor | None = None
        for index in range(spec.top, -1, -1):
            held = None if above is None else self._hold(above, spec.levels[index + 1].stride)
            above = levels[index].fuse(trunks[index], held)
            fused.insert(0, above)

        counts = [
            -(-length // spec.period(index)) if not self.causal else length // spec.period(index)
            for index in range(len(self.levels))
        ]
        bottom, top = levels[0], levels[-1]
        tokens = None if classes is None else top.norm(classes)
        return Outputs(
            frame=bottom.frame(fused[0])[:, :length],
            change=bottom.change(fused[0])[:, :length, 0],
            lagged=self._lagged(fused[0][:, :length]),
            action=top.action(fused[-1])[:, : counts[-1]] if spec.top > 0 else None,
            # The logit of class c is entry c of class token c: the diagonal.
            classes=None if tokens is None else self.class_head(tokens).diagonal(dim1=1, dim2=2),
            class_tokens=tokens,
            fused=tuple(f[:, :n] for f, n in zip(fused, counts, strict=True)),
            trunks=tuple(t[:, :n] for t, n in zip(trunks, counts, strict=True)),
            entries=tuple(e[:, :n] for e, n in zip(entries, counts, strict=True)),
            valid=tuple(v[:, :n] for v, n in zip(valids, counts, strict=True)),
        )

    def _lagged(self, fused: Tensor) -> Tensor | None:
        if not (self.causal and self.spec.other_lags_s):
            return None
        bottom = cast("Level", self.levels[0])
        logits: Tensor = bottom.lagged(fused)
        return cast("Tensor", logits.unflatten(-1, (-1, len(self.spec.labels))))

    def _bins(self, trunk: Tensor, valid: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """(B, T, w) -> (B, T / stride, 2 w): mean and maximum over the existing tokens of each bin; and which bins
        exist."""
        bins = trunk.unflatten(1, (-1, stride))
        exists = valid.unflatten(1, (-1, stride)).unsqueeze(-1)
        count = exists.sum(2)
        mean = (bins * exists).sum(2) / count.clamp_min(1)
        peak = bins.masked_fill(~exists, torch.finfo(bins.dtype).min).amax(2)
        pooled = torch.cat([mean, peak.masked_fill(count == 0, 0.0)], -1)
        return pooled, count[..., 0] > 0

    def _hold(self, above: Tensor, stride: int) -> Tensor:
        """Fused outputs of the level above (B, n, w) -> what each token of this level sees (B, n * stride, w)."""
        if self.causal:
            above = F.pad(above, (0, 0, 1, 0))[:, :-1]
        return above.repeat_interleave(stride, dim=1)
