"""The decoder of a new model, fitted on what the model says of its training videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.calib.fit_decoder import fit_decoder
from edge_hal.calib.fit_familiarity import PER_H
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.metrics import IntArray
from edge_hal.spec import PyramidSpec

from .data.video_set import Shows, VideoSet
from .outcome import NORMAL_VIDEOS, fitted_videos


def fitted_decoder(
    videos: VideoSet,
    spec: PyramidSpec,
    given: dict[str, Any],
    labels: Sequence[IntArray],
    streamed: Sequence[NDArray[np.float32]],
    *,
    held_out: bool,
    familiar: bool,
) -> DecoderConfig:
    """The decoder, fitted on some of the videos.

    Args:
        given: settings of the decoder that are not fitted.
        labels, streamed: labels (T,) and log posteriors (T, H K) per video.
        held_out: `streamed` is of students that have not seen the video.
        familiar: there is a model of familiar vectors.
    """
    some = fitted_videos(len(streamed))
    # A part of the procedure breaks its rules by where it begins.
    normal = _showing("procedure", videos) or list(range(len(streamed)))
    mistakes = _showing("mistakes", videos)
    decoder = fit_decoder(
        [streamed[i] for i in some],
        [labels[i] for i in some],
        spec,
        given,
        procedure=labels_of_procedure(labels, videos),
        held_out=held_out,
        normal=[streamed[normal[i]] for i in fitted_videos(len(normal), NORMAL_VIDEOS)],
        mistakes=[(streamed[i], labels[i]) for i in mistakes],
    )
    return replace(decoder, unfamiliar_per_h=given.get("unfamiliar_per_h", PER_H)) if familiar else decoder


def labels_of_procedure(labels: Sequence[IntArray], videos: VideoSet) -> list[IntArray]:
    """The labels from which the procedure is learned: those of videos that follow it; all, if those lack a step."""
    following = [labels[i] for i in _showing("procedure", videos)]
    if not following or set(np.unique(np.concatenate(list(labels)))) - set(np.unique(np.concatenate(following))):
        return list(labels)
    return following


def _showing(what: Shows, videos: VideoSet) -> list[int]:
    return [i for i, video in enumerate(videos.videos) if video.shows == what]
