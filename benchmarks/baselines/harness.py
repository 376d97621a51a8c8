"""What every baseline shares with edge-hal: how the data are read, and how the streamed output is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_hal.commands.options.train_inputs import load_videos
from edge_hal.config import Config
from edge_hal.decoding.decode import decode_posteriors
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.timeline import timeline_of
from edge_hal.errors import EdgeHalError
from edge_hal.evaluation.scores import Scores, frame_labels, frame_rates_hz, offline_scores, scores_of
from edge_hal.learning.data.rates import with_model_rate
from edge_hal.learning.data.recordings import Labels, SampledRecording, read_recordings
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.learning.hmm.first_alignment import statistics
from edge_hal.model.front_end import FrontEnd
from edge_hal.spec import PyramidSpec
from edge_hal.ticks import expand_labels

Look = Callable[[Tensor], NDArray[np.float32]]
"""Features (T, 3 D) of one video -> log posteriors (T, K); row t describes tick t - `spec.lag_ticks`."""


@dataclass(frozen=True)
class Data:
    """What every method sees. `features` (T, 3 D) per training video; of other videos by `features_of`."""

    config: Config
    spec: PyramidSpec
    front_end: FrontEnd
    videos: VideoSet
    recordings: list[SampledRecording]
    features: list[Tensor]

    def features_of(self, videos: VideoSet) -> list[Tensor]:
        """Front-end features of other videos, with the statistics of the training videos."""
        return [
            self.front_end(torch.from_numpy(np.asarray(recording.inputs, np.float32)))
            for recording in read_recordings(videos, self.spec.model_hz, None)
        ]


@dataclass(frozen=True)
class Learnt:
    """Row t of `look` depends on ticks up to t; that of `offline`, with its own thresholds, on the whole
    video.
    `labels` (T,) per training video: the alignment, None where it was given."""

    look: Look
    decoder: DecoderConfig
    labels: list[Labels] | None = None
    offline: tuple[Look, DecoderConfig] | None = None


def read_data(root: Path, config: Config, split: int | None, *, with_labels: bool) -> Data:
    """The training videos, as `edge-hal train` reads them."""
    if config.model.encoder is not None:
        raise EdgeHalError("the baselines read features", "the configuration has a frame encoder", exit_code=2)
    videos = load_videos(root, config, split, "train", with_labels=with_labels)
    config = with_model_rate(config, videos)
    recordings = read_recordings(videos, config.model.hz, None)
    vectors = [np.asarray(recording.inputs, np.float32) for recording in recordings]
    background = None if videos.background is None else videos.labels[videos.background]
    spec = config.model.spec(videos.labels, background, vectors[0].shape[1])
    front_end = FrontEnd(spec.front_end)
    front_end.fit(*statistics(vectors))
    return Data(config, spec, front_end, videos, recordings, [front_end(torch.from_numpy(x)) for x in vectors])


def streamed_scores(look: Look, decoder: DecoderConfig, data: Data, videos: VideoSet) -> Scores:
    """Decode each video at the ticks where a device would, and score."""
    timelines = []
    for x, truth, hz in zip(data.features_of(videos), frame_labels(videos), frame_rates_hz(videos), strict=True):
        decisions = decode_posteriors(look(x), decoder, data.spec)
        timelines.append(timeline_of(decisions, data.spec.model_hz, len(x), len(truth), hz))
    return scores_of(timelines, frame_labels(videos), frame_rates_hz(videos), videos.background)


def aligned_scores(labels: Sequence[Labels], model_hz: float, videos: VideoSet) -> Scores:
    """An alignment (T,) per training video at the model's ticks, against frame labels. It has no delay."""
    truth, rates_hz = frame_labels(videos), frame_rates_hz(videos)
    at_frames = [expand_labels(y, len(t), hz, model_hz) for y, t, hz in zip(labels, truth, rates_hz, strict=True)]
    return offline_scores(at_frames, videos)
