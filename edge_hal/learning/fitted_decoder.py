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

from .data.video_set import VideoSet
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
    # A piece of the procedure would break its rules by where it begins.
    whole = [i for i, video in enumerate(videos.videos) if video.whole] or list(range(len(streamed)))
    decoder = fit_decoder(
        [streamed[i] for i in some],
        [labels[i] for i in some],
        spec,
        given,
        procedure=labels_of_whole(labels, videos),
        held_out=held_out,
        normal=[streamed[whole[i]] for i in fitted_videos(len(whole), NORMAL_VIDEOS)],
    )
    return replace(decoder, unfamiliar_per_h=given.get("unfamiliar_per_h", PER_H)) if familiar else decoder


def labels_of_whole(labels: Sequence[IntArray], videos: VideoSet) -> list[IntArray]:
    """The labels of the whole videos, from which the procedure is learned; all labels, if those lack a step."""
    whole = [found for found, video in zip(labels, videos.videos, strict=True) if video.whole]
    if not whole or set(np.unique(np.concatenate(list(labels)))) - set(np.unique(np.concatenate(whole))):
        return list(labels)
    return whole
