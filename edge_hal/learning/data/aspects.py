"""Shapes of the pictures of videos. All are squeezed to one size, so things look different in another shape."""

from __future__ import annotations

from edge_hal.pictures.resize import same_shape

from .step_texts import count_of
from .video_set import VideoSet


def known_aspects(videos: VideoSet) -> list[float]:
    """Width over height of all pictures, each value once: as shown, and of the arrays, which is all that is known of a
    picture at run time."""
    return sorted({round(aspect, 2) for video in videos.videos for aspect in video.aspect or ()})


def other_shapes(videos: VideoSet) -> str | None:
    """Names the videos whose pictures are shown in another shape than most; None if all are alike."""
    shown = {video.name: video.aspect.shown for video in videos.videos if video.aspect is not None}
    if not shown:
        return None
    usual = max(shown.values(), key=lambda one: sum(same_shape(one, other) for other in shown.values()))
    other = [f"{name} ({aspect:.2f})" for name, aspect in shown.items() if not same_shape(aspect, usual)]
    if not other:
        return None
    what = f"pictures of another shape in {count_of(other, 'video')}: width over height is {usual:.2f} in most"
    return f"{what}; all are squeezed to one size, so everything looks wider or narrower there"
