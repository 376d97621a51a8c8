"""The choice of rates from the step lists and the lengths of the videos: that of the model, if the configuration has
none, and that of the alignment."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_hal.config import Config
from edge_hal.errors import EdgeHalError

from .video_set import VideoSet

TICKS_PER_STEP = 20.0
SLOWEST_HZ, FASTEST_HZ = 4.0, 15.0
"""Below the first, a front-end window has fewer than two ticks. Above the second, no measured score improved."""
FIRST_ALIGN_HZ = 2.0
"""Samples per second of the first alignment."""
TOKENS_PER_SEGMENT = 20.0
SLOWEST_ALIGN_HZ, FASTEST_ALIGN_HZ = 1.5, 5.0
"""Limits of the teacher's alignment rate. The windows of the boundary alignment (7 and 31 samples) suit segments of
about `TOKENS_PER_SEGMENT` samples."""


def choose_align_hz(durations_s: Sequence[float], transcripts: Sequence[Sequence[int]]) -> float:
    """The rate of the teacher, within limits, at which a mean segment has `TOKENS_PER_SEGMENT` tokens."""
    mean_s = sum(durations_s) / max(1, sum(len(transcript) for transcript in transcripts))
    return min(max(TOKENS_PER_SEGMENT / mean_s, SLOWEST_ALIGN_HZ), FASTEST_ALIGN_HZ)


def with_model_rate(config: Config, videos: VideoSet) -> Config:
    """`config` with a `model_hz`. It is the frame rate divided by an integer, so that a mean step has about
    `TICKS_PER_STEP` ticks.

    Raises:
        EdgeHalError: the frame rate is not known.
    """
    if config.model.model_hz is not None:
        return config
    seconds, steps = 0.0, 0
    for video in videos.videos:
        if video.rate_hz is None:
            raise EdgeHalError(f"the frame rate of {video.name} is not known", "", "give it: --set data.rate_hz=30")
        seconds, steps = seconds + video.length / video.rate_hz, steps + len(video.transcript)
    wanted = min(max(TICKS_PER_STEP * steps / seconds, SLOWEST_HZ), FASTEST_HZ)
    source_hz = videos.videos[0].rate_hz
    assert source_hz is not None
    fewest, most = math.ceil(source_hz / FASTEST_HZ), max(1, math.floor(source_hz / SLOWEST_HZ))
    model_hz = source_hz / min(max(round(source_hz / wanted), fewest), most)
    return config.model_copy(update={"model": config.model.model_copy(update={"model_hz": model_hz})})
