"""Small JPEG pictures, for people who look at a page."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

SIDE, QUALITY = 640, 75
"""Longest side in pixels, and the quality of the JPEG."""


def small(picture: NDArray[Any], side: int = SIDE) -> NDArray[Any]:
    """The picture, or the same with a longest side of `side` pixels."""
    import cv2

    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    found: NDArray[Any] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return found


def jpeg(picture: NDArray[Any], quality: int = QUALITY) -> bytes:
    """A picture (H, W, 3) uint8 BGR as JPEG."""
    import cv2

    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise EdgeHalError("a picture cannot be encoded as JPEG", f"its shape is {picture.shape}")
    return bytes(data)
