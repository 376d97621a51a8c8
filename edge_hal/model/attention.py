"""Pre-norm transformer block with attention over a sliding window, computed in one pass over a sequence or step by
step.

Positions are relative: the age of a token selects a learned bias, per head. Nothing is normalised over time or batch,
so a stream can be of any length, and steps give the same result as one pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_hal.spec import MASKED, LevelSpec

MLP_RATIO = 2


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)).

    Causal: a token attends to the last `window` tokens, itself included. Two-sided: to `window` - 1 on each side.
    """

    def __init__(self, level: LevelSpec, *, causal: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.window, self.heads, self.causal = level.window, level.heads, causal
        self.head_width = level.width // level.heads
        self.norm1 = nn.LayerNorm(level.width)
        self.qkv = nn.Linear(level.width, 3 * level.width)
        self.out = nn.Linear(level.width, level.width)
        self.norm2 = nn.LayerNorm(level.width)
        self.mlp = nn.Sequential(
            nn.Linear(level.width, MLP_RATIO * level.width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(MLP_RATIO * level.width, level.width),
        )
        self.dropout = nn.Dropout(dropout)
        ages = level.window if causal else 2 * level.window - 1
        self.age_bias = nn.Parameter(torch.zeros(level.heads, ages))

    def forward(self, x: Tensor, valid: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """One pass.

        Args:
            x: (B, T, width) tokens.
            valid: (B, T) true for tokens that exist.
            classes: (B, K, width) class tokens. They attend to all tokens, and all tokens attend to them (teacher
                only).
        """
        q, k, v = self._heads(self.norm1(x))
        if classes is None:
            x = x + self.dropout(self.out(self._banded(q, k, v, valid)))
        else:
            cq, ck, cv = self._heads(self.norm1(classes))
            x = x + self.dropout(self.out(self._banded(q, k, v, valid, ck, cv)))
            seen = F.pad(valid, (0, classes.shape[1]), value=True)
            mixed = F.scaled_dot_product_attention(
                cq, torch.cat([k, ck], 2), torch.cat([v, cv], 2), seen[:, None, None, :]
            )
            classes = classes + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
            classes = classes + self.mlp(self.norm2(classes))
        return x + self.dropout(self.mlp(self.norm2(x))), classes

    def step(self, x: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of C tokens with a cache of past keys and values; causal blocks only.

        Args:
            x: (C, width) new tokens.
            k, v: (heads, window - 1, head width) cached keys and values.
            bias: (heads, C, window - 1 + C) `step_bias` plus `MASKED` for tokens that do not exist.

        Returns:
            outputs (C, width), and the two caches after C more tokens.
        """
        chunk = x.shape[0]
        qkv = self.qkv(self.norm1(x)).reshape(chunk, 3 * self.heads, self.head_width).transpose(0, 1)
        q, new_k, new_v = qkv.split(self.heads, 0)
        keys, values = torch.cat([k, new_k], 1), torch.cat([v, new_v], 1)
        weights = torch.softmax(q @ keys.transpose(1, 2) * self.head_width**-0.5 + bias, -1)
        mixed = (weights @ values).transpose(0, 1).reshape(chunk, -1)
        x = x + self.out(mixed)
        return x + self.mlp(self.norm2(x)), keys[:, chunk:], values[:, chunk:]

    def step_bias(self, chunk: int) -> Tensor:
        """(heads, C, window - 1 + C) the age bias inside the window, `MASKED` outside."""
        return self._band(chunk, self.window - 1, self.window - 1 + chunk)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3 * self.heads, self.head_width).transpose(1, 2)
        q, k, v = qkv.split(self.heads, 1)
        return q, k, v

    def _band(self, queries: int, offset: int, keys: int) -> Tensor:
        """(heads, queries, keys) the bias of query i, at position `offset` + i, and key j, by the age `offset` + i -
        j."""
        device = self.age_bias.device
        age = offset + torch.arange(queries, device=device)[:, None]
        age = age - torch.arange(keys, device=device)
        low = 0 if self.causal else 1 - self.window
        inside = (age >= low) & (age < self.window)
        bias = self.age_bias[:, (age - low).clamp(0, self.age_bias.shape[1] - 1)]
        return bias.masked_fill(~inside, MASKED)

    def _banded(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        valid: Tensor,
        extra_k: Tensor | None = None,
        extra_v: Tensor | None = None,
    ) -> Tensor:
        """Attention over the window in blocks of `window` queries, so that memory grows with T x window and not T x
        T."""
        batch, heads, length, _ = q.shape
        size = min(self.window, length)
        blocks = -(-length // size)
        tail = blocks * size - length
        after = 0 if self.causal else size
        parts = 2 if self.causal else 3

        def around(x: Tensor) -> Tensor:  # (B, H, T, .) -> (B, H, blocks, parts * size, .)
            x = F.pad(x, (0, 0, size, tail + after)).unflatten(2, (-1, size))
            return torch.cat([x[:, :, i : i + blocks] for i in range(parts)], 3)

        q = F.pad(q, (0, 0, 0, tail)).unflatten(2, (blocks, size))
        exists = around(valid[:, None, :, None].to(q.dtype))[..., 0].unsqueeze(3)  # (B, 1, n, 1, keys)
        bias = self._band(size, size, parts * size)[None, :, None] + (1 - exists) * MASKED
        keys, values = around(k), around(v)
        if extra_k is not None and extra_v is not None:
            shape = (batch, heads, blocks, *extra_k.shape[2:])
            keys = torch.cat([keys, extra_k[:, :, None].expand(shape)], 3)
            values = torch.cat([values, extra_v[:, :, None].expand(shape)], 3)
            bias = F.pad(bias, (0, extra_k.shape[2]))
        mixed = F.scaled_dot_product_attention(q, keys, values, bias)
        return mixed.flatten(2, 3)[:, :, :length].transpose(1, 2).flatten(2)
