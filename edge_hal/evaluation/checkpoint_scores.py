"""Scores of a checkpoint on videos with frame labels, streamed step by step as on a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decode import decode_posteriors
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.timeline import timeline_of
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.recordings import SampledRecording, read_recordings
from edge_hal.learning.data.video_cache import VideoCache
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.progress import ProgressCount
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import PyramidSpec

from .live_scores import live_scores
from .scores import Scores, frame_labels, frame_rates_hz, scores_of
from .step_completion import timeline_completions

if TYPE_CHECKING:
    from edge_hal.model.model_file import Checkpoint


class Streamed(NamedTuple):
    """The model's table, the log posteriors (T, H K) of each video, and the decoder."""

    spec: PyramidSpec
    log_posteriors: list[NDArray[np.float32]]
    decoder: DecoderConfig


def checkpoint_scores(
    checkpoint: Path,
    videos: VideoSet,
    progress: ProgressCount | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> Scores:
    """Stream every video through the checkpoint, decode, and score. See `stream_checkpoint`.

    The labels of the videos must be those of the checkpoint: see `with_labels_of`.
    """
    return stream_scores(stream_checkpoint(checkpoint, videos, progress, thresholds), videos)


def stream_scores(streamed: Streamed, videos: VideoSet) -> Scores:
    """The scores of what `stream_checkpoint` returned for these videos."""
    spec, posteriors, decoder = streamed
    truth, rates_hz = frame_labels(videos), frame_rates_hz(videos)
    timelines = [
        timeline_of(decode_posteriors(p, decoder, spec), spec.model_hz, len(p), len(y), hz)
        for p, y, hz in zip(posteriors, truth, rates_hz, strict=True)
    ]
    completed = timeline_completions(timelines, truth, rates_hz, videos.background)
    return {
        **scores_of(timelines, truth, rates_hz, videos.background),
        **{"pos": completed.pos, "completion_f1": completed.f1, "completion_delay_s": completed.delay_s},
        **live_scores(posteriors, truth, rates_hz, decoder, spec),
    }


def stream_checkpoint(
    checkpoint: Path,
    videos: VideoSet,
    progress: ProgressCount | None = None,
    thresholds: Mapping[str, float] | None = None,
    *,
    reading: ProgressCount | None = None,
    cache: VideoCache | None = None,
) -> Streamed:
    """Each video from a fresh stream: the encoder's graph, and the pyramid step by step. `thresholds` replace those of
    the checkpoint's decoder, by name. `reading` and `cache`: `progress` and `cache` of `read_recordings`.

    Raises:
        EdgeHalError: there is no checkpoint, or its labels are not those of the data.
    """
    from edge_hal.model.model_file import load_checkpoint
    from edge_hal.model.step import TorchEngine

    loaded = load_checkpoint(checkpoint)
    spec = loaded.spec
    if spec.labels != videos.labels[: len(spec.labels)]:
        raise EdgeHalError(f"the checkpoint {checkpoint} has other labels than the data", "they are matched by number")
    engines = [TorchEngine(loaded.pyramid, loaded.front_end, level) for level in range(len(spec.levels))]
    stream = PyramidStream(spec, engines)
    decoder = loaded.decoder.with_user_thresholds(thresholds or {})
    posteriors = []
    for number, recording in enumerate(_recordings(videos, loaded, reading, cache)):
        posteriors.append(stream_posteriors(stream, np.asarray(recording.inputs, np.float32)))
        if progress is not None:
            progress(number + 1, len(videos))
    return Streamed(spec, posteriors, decoder)


def _recordings(
    videos: VideoSet, loaded: Checkpoint, reading: ProgressCount | None, cache: VideoCache | None
) -> Iterator[SampledRecording]:
    """Vectors of each video: of video files by the encoder's graph, mapped; of feature files one after the other."""
    hz = loaded.spec.model_hz
    if loaded.encoder is not None:
        yield from read_recordings(videos, hz, loaded.spec.encoder, reading, graph=loaded.encoder, cache=cache)
        return
    for video in videos.videos:
        yield from read_recordings(replace(videos, videos=(video,)), hz, None)


def stream_posteriors(stream: PyramidStream, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log posteriors (T, H K) of vectors (T, D), from a fresh stream that takes one bin of the first level per step."""
    spec = stream.spec
    stream.reset()
    rows = [np.zeros((0, spec.heads_width), np.float32)]
    for start in range(0, len(vectors), spec.first_stride):
        part = vectors[start : start + spec.first_stride]
        stream.push(part, [round((start + i) * 1e9 / spec.model_hz) for i in range(len(part))])
        rows.append(stream.heads(len(part)).copy())
    return np.concatenate(rows)
