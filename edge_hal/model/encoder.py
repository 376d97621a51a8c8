"""The frame encoder: a small convolutional network from a uint8 BGR picture to a vector.

It is exported as a graph of its own, and the same file computes the training features and runs on the device. Positions
in the picture matter at a workbench, so the last feature map is flattened and not averaged.

It learns what tells the steps apart, and little else. So a coarse copy of the picture may follow its numbers: what is
strange is seen there (`decoding/familiarity.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_hal.spec import EncoderSpec

WIDTHS = (16, 32, 64, 96)


class FrameEncoder(nn.Module):
    """uint8 (H, W, 3) or (B, H, W, 3) -> float (B, size + unread). It includes the normalisation of pixels."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, height, width = 3, spec.height, spec.width
        for after in WIDTHS:
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),  # with running statistics: a fixed affine map at inference
                nn.ReLU(),
            ]
            before, height, width = after, -(-height // 2), -(-width // 2)
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(before * height * width, spec.size)
        self.norm = nn.LayerNorm(spec.size)
        self.coarse = CoarseCopy(spec)

    def forward(self, image: Tensor) -> Tensor:
        pictures = image.to(self.head.weight.dtype)  # first, because TensorRT cannot permute uint8
        pictures = pictures if image.dim() == 4 else pictures.unsqueeze(0)
        x = pictures.permute(0, 3, 1, 2) / 127.5 - 1.0
        vectors: Tensor = self.norm(self.head(self.convolutions(x).flatten(1)))
        return self.coarse.behind(vectors, x)


class CoarseCopy(nn.Module):
    """Pictures (B, 3, H, W) -> (B, unread): the means of their cells, channel by channel."""

    rows: Tensor
    columns: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.exists = spec.coarse > 0
        for name, length, count in zip(("rows", "columns"), (spec.height, spec.width), spec.coarse_shape, strict=True):
            self.register_buffer(name, shares(length, count), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.rows.T @ x @ self.columns).flatten(1)

    def behind(self, vectors: Tensor, x: Tensor) -> Tensor:
        """(B, size) -> (B, size + unread)."""
        return torch.cat([vectors, self(x)], 1) if self.exists else vectors


def shares(length: int, count: int) -> Tensor:
    """(length, count): the share of each place in each of `count` cells. A column sums to 1. Cells overlap where
    `length` does not divide evenly, as in adaptive average pooling."""
    found = torch.zeros(length, count)
    for k in range(count):
        cell = slice(k * length // count, -(-(k + 1) * length // count))
        found[cell, k] = 1 / len(found[cell])
    return found


def augmentation(image: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Random numbers for `augmented`, one entry for each picture of `image` (B, H, W, 3): gain, tint, offset, and the
    rows and columns of a shift of a few pixels."""
    batch, height, width, _ = image.shape
    gain = 1 + 0.25 * (2 * torch.rand(batch, 1, 1, 1, generator=generator) - 1)
    tint = 1 + 0.08 * torch.randn(batch, 1, 1, 3, generator=generator)
    offset = 12 * torch.randn(batch, 1, 1, 1, generator=generator)
    reach = (max(1, height // 24), max(1, width // 24))
    rows = torch.randint(-reach[0], reach[0] + 1, (batch, 1), generator=generator)
    columns = torch.randint(-reach[1], reach[1] + 1, (batch, 1), generator=generator)
    return gain, tint, offset, rows, columns


def augmented(image: Tensor, gain: Tensor, tint: Tensor, offset: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Training pictures with the random numbers of `augmentation`, and with noise on each pixel. Noise is drawn here,
    so that each of several processes draws that of its pictures only.

    Args:
        image: (B, H, W, 3) uint8.
    """
    batch, height, width, _ = image.shape
    x = image.float() * gain * tint + offset
    x = x + 5 * torch.randn_like(x)
    rows = (rows + torch.arange(height, device=x.device)).clamp(0, height - 1)
    columns = (columns + torch.arange(width, device=x.device)).clamp(0, width - 1)
    index = torch.arange(batch, device=x.device)[:, None, None]
    return x[index, rows[:, :, None], columns[:, None, :]].clamp(0, 255).to(torch.uint8)
