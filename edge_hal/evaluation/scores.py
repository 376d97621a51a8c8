"""Scores of timelines against frame labels, and those of the floor: the uniform split of each step list.

What is scored is the timeline that a subscriber can draw from the events: each label from the boundary that its event
gives. `mof_live` instead scores the labels as a display showed them, detection delay included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_hal.decoding.timeline import Timeline
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.metrics import IntArray, score_transitions, score_videos, transitions_of, uniform_split

Scores = dict[str, Any]
"""Scores by name: numbers, None where nothing was matched, and `decide`, see `live_scores.py`."""


def scores_of(
    timelines: Sequence[Timeline],
    truth: Sequence[IntArray],
    rates_hz: Sequence[float],
    background: int | None,
) -> Scores:
    """All scores of a set of videos in one flat dictionary.

    Args:
        truth: (frames,) labels per video.
        rates_hz: frames per second of each video.
        background: the label of the background action, if there is one. `edit_bg` and `f1_*_bg` leave its segments
            out, as MS-TCN's script does for a class called background (and does not for the SIL of Breakfast).
    """
    labels = [t.labels for t in timelines]
    segments = score_videos(labels, list(truth), background=background)
    without = score_videos(labels, list(truth), background=background, count_background=False)
    live = score_videos([t.live for t in timelines], list(truth), background=background)
    events = score_transitions(
        [t.points for t in timelines],
        [transitions_of(y, hz) for y, hz in zip(truth, rates_hz, strict=True)],
        [len(y) / hz for y, hz in zip(truth, rates_hz, strict=True)],
    )
    steps = {f"{key}_bg": getattr(without, key) for key in ("edit", "f1_10", "f1_25", "f1_50")}
    return {**vars(segments), **steps, **vars(events), "mof_live": live.mof}


def offline_scores(labels: Sequence[IntArray], videos: VideoSet) -> Scores:
    """Scores of labels (frames,) per video that were found with the whole video at hand. They have no delay."""
    truth, rates_hz = frame_labels(videos), frame_rates_hz(videos)
    timelines = [Timeline(y, y, transitions_of(y, hz)) for y, hz in zip(labels, rates_hz, strict=True)]
    scores = scores_of(timelines, truth, rates_hz, videos.background)
    return {key: None if key.startswith("delay") else value for key, value in scores.items()}


def floor_scores(videos: VideoSet) -> Scores:
    """Scores of the uniform split of each video's own step list. A live system does not have that list."""
    truth = frame_labels(videos)
    return offline_scores(
        [uniform_split(video.transcript, len(y)) for video, y in zip(videos.videos, truth, strict=True)], videos
    )


def frame_labels(videos: VideoSet) -> list[IntArray]:
    """(frames,) labels of each video. Raises EdgeHalError if a video has none."""
    missing = [video.name for video in videos.videos if video.labels is None]
    if missing:
        raise EdgeHalError(f"video '{missing[0]}' has no frame labels", "scores need them")
    return [video.labels for video in videos.videos if video.labels is not None]


def frame_rates_hz(videos: VideoSet) -> list[float]:
    """Frames per second of each video. Raises EdgeHalError if one is not known."""
    missing = [video.name for video in videos.videos if video.rate_hz is None]
    if missing:
        raise EdgeHalError(f"the frame rate of {missing[0]} is not known", "", "give it: --set data.rate_hz=30")
    return [video.rate_hz for video in videos.videos if video.rate_hz is not None]
