"""The resize of pictures. Training, calibration and runtime use this function, so that they see the same pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

ALIKE = 1.15
"""Two shapes are alike if their ratios of width to height differ by no more than this factor: 16:9 and 16:10 are, 16:9
and 4:3 are not."""


def same_shape(aspect: float, other: float) -> bool:
    """Whether pictures of these ratios of width to height look alike after `resize`."""
    return max(aspect, other) <= ALIKE * min(aspect, other)


def resize(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """uint8 BGR (H, W, 3) of any size -> (height, width, 3). The aspect ratio is not kept; shrinking averages areas.

    Raises:
        EdgeHalError: not a uint8 picture with three channels.
    """
    import cv2

    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise EdgeHalError(
            f"a frame has shape {frame.shape} and type {frame.dtype}",
            "the encoder takes uint8 BGR pictures (height, width, 3)",
        )
    if frame.shape[:2] == (height, width):
        return frame
    shrinking = frame.shape[0] >= height and frame.shape[1] >= width
    mode = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, height), interpolation=mode), dtype=np.uint8)
