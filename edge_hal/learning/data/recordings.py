"""Training and test videos sampled at the model's rate: one vector or picture per tick, and labels at the same
ticks."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.features import read_pictures
from edge_hal.media.names import printable
from edge_hal.media.stamps import Missing
from edge_hal.metrics import IntArray, transcript_of
from edge_hal.progress import ProgressCount
from edge_hal.spec import EncoderSpec
from edge_hal.ticks import tick_times_ns, ticks_of

from .dataset import Video, VideoSet
from .mstcn_files import count_of

Labels = IntArray

ACCEPTED_SHARE = 0.1
"""A training video may lack this share of its frames."""

log = logging.getLogger("edge_hal.data")


@dataclass(frozen=True)
class SampledRecording:
    """Attributes:
    transcript: the step list. If all ticks are labelled, the steps of these labels.
    inputs: (T, D) float32 vectors or (T, H, W, 3) uint8 pictures.
    frames: (T,) the frame that each tick sees.
    labels: (T,) -1 if not known; None unless labels were asked for.
    missing: what a video file lacks; None for features.
    """

    name: str
    transcript: tuple[int, ...]
    inputs: NDArray[np.float32] | NDArray[np.uint8]
    frames: NDArray[np.int64]
    labels: Labels | None
    missing: Missing | None = None


def read_recordings(
    videos: VideoSet,
    model_hz: float,
    encoder: EncoderSpec | None,
    progress: ProgressCount | None = None,
    *,
    accept_damaged: bool = True,
) -> list[SampledRecording]:
    """Read every video at the ticks of the model. A warning names each video file that lacks frames.

    Raises:
        EdgeHalError: a rate is not known, a file cannot be read, or the kind of video does not fit the configuration.
            Without `accept_damaged`: a video lacks more than `ACCEPTED_SHARE` of its frames.
    """
    recordings = []
    for number, video in enumerate(videos.videos):
        recordings.append(_read(video, model_hz, encoder))
        if progress is not None:
            progress(number + 1, len(videos))
    lacking = [(recording.name, recording.missing) for recording in recordings if recording.missing is not None]
    for name, missing in lacking:
        if missing.share:
            log.warning("video %s: %s", printable(name), missing)
    most = [printable(name) for name, missing in lacking if missing.share > ACCEPTED_SHARE]
    if most and not accept_damaged:
        raise EdgeHalError(
            f"{count_of(most, 'video')} with more than {ACCEPTED_SHARE:.0%} of the frames missing",
            "steps could lie in what is missing, and the step lists would not fit",
            "repair or leave out the videos, or use them as they are: --accept-damaged",
        )
    return recordings


def _read(video: Video, model_hz: float, encoder: EncoderSpec | None) -> SampledRecording:
    if video.rate_hz is None:
        raise EdgeHalError(f"the frame rate of {video.name} is not known", "", "give it: --set data.rate_hz=30")
    if (video.kind == "video") != (encoder is not None):
        raise EdgeHalError(
            f"{video.name} is a {video.kind} recording",
            "the configuration " + ("expects pictures" if encoder else "has no frame encoder"),
            "use a preset with an encoder for videos (tiny, jetson), one without for features (kinematics)",
            exit_code=2,
        )
    frames = ticks_of(video.length, video.rate_hz, model_hz)
    inputs: NDArray[np.float32] | NDArray[np.uint8]
    missing = None
    if encoder is None:
        inputs = video.read()[frames]
    else:
        at_ns = tick_times_ns(len(frames), model_hz)
        inputs, missing = read_pictures(video.path, at_ns, encoder.height, encoder.width, video.rate_hz)
        frames = frames[: len(inputs)]
    transcript, labels = video.transcript, None
    if video.labels is not None:
        labels = _at_ticks(video.labels, frames)
        if (labels >= 0).all():
            transcript = transcript_of(labels)  # a step shorter than a tick cannot be found
    return SampledRecording(video.name, transcript, inputs, frames, labels, missing)


def _at_ticks(labels: Labels, frames: NDArray[np.int64]) -> Labels:
    """Labels of frames -> labels of ticks. If only some frames are labelled, each label goes to the next tick."""
    if (labels >= 0).all():
        return np.asarray(labels[np.minimum(frames, len(labels) - 1)])
    known = np.flatnonzero(labels >= 0)
    ticks = np.full(len(frames), -1, np.int64)
    ticks[np.minimum(np.searchsorted(frames, known), len(frames) - 1)] = labels[known]
    return ticks
