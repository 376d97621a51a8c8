"""A convolutional network of another library as a frame encoder: pixels are normalised before it, its last feature map
is averaged after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edge_hal.config import Encoder
from edge_hal.encoder_kind import EncoderKind
from edge_hal.errors import EdgeHalError
from edge_hal.export.graphs import export_encoder
from edge_hal.model.encoder import CoarseCopy, shares
from edge_hal.spec import EncoderSpec

from .pretrained import PretrainedEncoder


class FeatureMapEncoder(nn.Module):
    """uint8 BGR (H, W, 3) -> (1, C G G + unread): the mean of each of C channels in the cells of a G x G grid, and a
    coarse copy of the normalised picture.

    Args:
        network: normalised RGB (1, 3, H, W) -> feature map (1, C, h, w).
        mean, std: of each channel, RGB, for pixels in 0..255.
        coarse: rows of the copy; 0 for none.
    """

    mean: Tensor
    std: Tensor
    cells: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        height: int,
        width: int,
        grid: int,
        coarse: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))
        self.register_buffer("order", torch.tensor([2, 1, 0]))
        with torch.no_grad():
            found = network(torch.zeros(1, 3, height, width))
        if not isinstance(found, Tensor) or found.dim() != 4:
            raise EdgeHalError(
                "the model gives no feature map",
                "its features have no places in the picture"
                if isinstance(found, Tensor)
                else "it gives several results",
                "choose a convolutional network",
            )
        rows, columns = found.shape[2:]
        if grid > min(rows, columns):
            raise EdgeHalError(
                f"a grid of {grid}x{grid} cells", f"the last feature map has {rows} x {columns} places", exit_code=2
            )
        self.spec = EncoderSpec(height, width, found.shape[1] * grid * grid, coarse=coarse)
        self.register_buffer("cells", grid_cells(rows, columns, grid))
        self.coarse = CoarseCopy(self.spec)

    def forward(self, image: Tensor) -> Tensor:
        pictures = image.to(self.mean.dtype).unsqueeze(0).permute(0, 3, 1, 2)
        normalised = (pictures.index_select(1, self.get_buffer("order")) - self.mean) / self.std
        vector: Tensor = (self.network(normalised).flatten(2) @ self.cells).flatten(1)
        return self.coarse.behind(vector, normalised)


def grid_cells(rows: int, columns: int, grid: int) -> Tensor:
    """(rows columns, grid grid): the share of each place in each cell, see `shares`."""
    return torch.kron(shares(rows, grid), shares(columns, grid))


def encoder_of(
    settings: Encoder, kind: EncoderKind, network: nn.Module, mean: Sequence[float], std: Sequence[float], licence: str
) -> PretrainedEncoder:
    """The encoder of a network (see `FeatureMapEncoder`)."""
    sizes = (kind.height, kind.width, kind.grid, settings.coarse_rows)
    module = FeatureMapEncoder(network.eval(), mean, std, *sizes).eval()

    def write(path: Path) -> None:
        export_encoder(module, module.spec, path)

    return PretrainedEncoder(settings.kind, module.spec, licence, write)
