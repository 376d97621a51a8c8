"""What a bundle accepts as a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.feature_file import as_float32, is_real


def check_frame(data: NDArray[Any], size: int, *, pictures: bool) -> None:
    """Raises EdgeHalError if `data` is no frame of the stream.

    Args:
        data: a uint8 BGR picture (H, W, 3) of any size, or a vector (size,) of finite numbers.
        pictures: whether the bundle has an encoder for pictures.
    """
    shape = data.shape
    if data.ndim == 1:
        if shape != (size,) or not is_real(data.dtype):
            raise EdgeHalError(f"a vector has shape {shape} and type {data.dtype}", f"the bundle takes ({size},)")
        if not np.isfinite(as_float32(data)).all():
            raise EdgeHalError(
                "a vector holds a number that is not finite in float32",
                "it would spoil every tick within the receptive field",
                "leave the frame out: a short gap is bridged",
            )
    elif not pictures:
        raise EdgeHalError(f"a frame has shape {shape}", f"the bundle has no encoder, it takes vectors ({size},)")
    elif data.dtype != np.uint8 or data.ndim != 3 or shape[2] != 3 or 0 in shape:
        raise EdgeHalError(
            f"a frame has shape {shape} and type {data.dtype}",
            "the encoder takes uint8 BGR pictures (height, width, 3)",
        )
