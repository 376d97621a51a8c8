"""Videos whose pictures have another shape than most. All are squeezed to one size, so things look different there."""

from __future__ import annotations

import numpy as np

from edge_hal.preprocess import same_shape

from .step_texts import count_of
from .video_set import VideoSet


def usual_aspect(videos: VideoSet) -> float | None:
    """Width over height of most pictures, as the median of the videos; None if no video tells it."""
    known = [video.aspect for video in videos.videos if video.aspect is not None]
    return float(np.median(known)) if known else None


def other_shapes(videos: VideoSet) -> str | None:
    """Names the videos of another shape; None if all are alike."""
    usual = usual_aspect(videos)
    if usual is None:
        return None
    other = [
        f"{video.name} ({video.aspect:.2f})"
        for video in videos.videos
        if video.aspect is not None and not same_shape(video.aspect, usual)
    ]
    if not other:
        return None
    what = f"pictures of another shape in {count_of(other, 'video')}: width over height is {usual:.2f} in most"
    return f"{what}; all are squeezed to one size, so everything looks wider or narrower there"
