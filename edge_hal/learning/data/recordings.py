"""Training and test videos sampled at the model's rate: one vector or picture per tick, and labels at the same
ticks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.media.names import printable
from edge_hal.media.stamps import Missing
from edge_hal.metrics import IntArray, transcript_of
from edge_hal.parallel import Workers
from edge_hal.progress import ProgressCount
from edge_hal.spec import EncoderSpec
from edge_hal.ticks import ticks_of

from .extraction import Sampling, extract
from .labels.order import labels_at_ticks
from .media_files import ACCEPTED_SHARE, lacking_frames
from .video_cache import Sampled, VideoCache
from .video_set import Video, VideoSet

Labels = IntArray

log = logging.getLogger("edge_hal.data")


@dataclass(frozen=True)
class SampledRecording:
    """Attributes:
    transcript: the step list. If all ticks are labelled, the steps of these labels.
    inputs: (T, D) float32 vectors or (T, H, W, 3) uint8 pictures. Those of a video are mapped from a file.
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
    graph: Path | None = None,
    cache: VideoCache | None = None,
    accept_damaged: bool = True,
    workers: Workers | None = None,
) -> list[SampledRecording]:
    """Read every video at the ticks of the model. A warning names each video file that lacks frames.

    Args:
        progress: called with what is done and the total: ticks of video files, else videos.
        graph: the encoder's graph, if the vectors of video files are wanted and not their pictures.
        cache: where to look for the pictures or vectors of video files, and to keep them; None: in temporary files.
        workers: as for `extract`.

    Raises:
        EdgeHalError: a rate is not known, a file cannot be read, or the kind of video does not fit the configuration.
            Without `accept_damaged`: a video lacks more than `ACCEPTED_SHARE` of its frames.
    """
    for video in videos.videos:
        _check_kind(video, encoder)
    recordings = []
    if encoder is None:
        for number, video in enumerate(videos.videos):
            recordings.append(_recording(video, model_hz, None))
            if progress is not None:
                progress(number + 1, len(videos))
        return recordings
    sampling = Sampling.of(model_hz, encoder, graph)
    found = extract(videos.videos, sampling, cache, progress, workers=workers)
    for video, sampled in zip(videos.videos, found, strict=True):
        recordings.append(_recording(video, model_hz, sampled))
    lacking = [(recording.name, recording.missing) for recording in recordings if recording.missing is not None]
    for name, missing in lacking:
        if missing.share:
            log.warning("video %s: %s", printable(name), missing)
    most = [name for name, missing in lacking if missing.share > ACCEPTED_SHARE]
    if most and not accept_damaged:
        raise lacking_frames(most)
    return recordings


def _check_kind(video: Video, encoder: EncoderSpec | None) -> None:
    if video.rate_hz is None:
        raise EdgeHalError(f"the frame rate of {video.name} is not known", "", "give it: --set data.rate_hz=30")
    if (video.kind == "video") != (encoder is not None):
        raise EdgeHalError(
            f"{video.name} is a {video.kind} recording",
            "the configuration " + ("expects pictures" if encoder else "has no frame encoder"),
            "use a preset with an encoder for videos (tiny, jetson), one without for features (kinematics)",
            exit_code=2,
        )


def _recording(video: Video, model_hz: float, sampled: Sampled | None) -> SampledRecording:
    """`sampled`: what was extracted from a video file; None for features."""
    assert video.rate_hz is not None
    frames = ticks_of(video.length, video.rate_hz, model_hz)
    inputs: NDArray[np.float32] | NDArray[np.uint8]
    missing = None
    if sampled is None:
        inputs = video.read()[frames]
    else:
        inputs, missing = sampled.values[: len(frames)], sampled.missing
        frames = frames[: len(inputs)]
    transcript, labels = video.transcript, None
    if video.labels is not None:
        if (video.labels < 0).any():
            labels = labels_at_ticks(video.labels, frames, transcript)
        else:
            labels = np.asarray(video.labels[np.minimum(frames, len(video.labels) - 1)])
        if (labels >= 0).all():
            transcript = transcript_of(labels)  # a step shorter than a tick cannot be found
    return SampledRecording(video.name, transcript, inputs, frames, labels, missing)
