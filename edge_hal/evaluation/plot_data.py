"""What the charts of `edge-hal plot` show, out of streamed posteriors and true labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decode import beliefs_of, decode_posteriors
from edge_hal.decoding.decoder import Decision
from edge_hal.decoding.timeline import timeline_of
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.metrics import IntArray, TransitionPoint, match_transitions, transitions_of
from edge_hal.spec import PyramidSpec
from edge_hal.ticks import expand_labels, ticks_of

from .checkpoint_scores import Streamed
from .live_scores import now_reports
from .scores import frame_labels, frame_rates_hz

TOLERANCE_S = 1.0
"""A transition is right if a true one with its label is at most this far away, as in the scores."""


@dataclass(frozen=True)
class StreamedVideo:
    """One video.

    Attributes:
        truth, streamed: (frames,) labels; `streamed` by the boundaries of the transitions.
        now: (frames,) label of the newest report; None without a procedure.
        confidence: begin in s, end in s and confidence of each decided segment.
        points: the transitions.
    """

    name: str
    rate_hz: float
    truth: IntArray
    streamed: IntArray
    now: IntArray | None = None
    confidence: tuple[tuple[float, float, float], ...] = ()
    points: tuple[TransitionPoint, ...] = ()
    point_confidence: tuple[float, ...] = ()


def streamed_videos(streamed: Streamed, videos: VideoSet) -> list[StreamedVideo]:
    """The labels of the videos must be those of the model: see `with_labels_of`."""
    spec, posteriors, decoder = streamed
    found = []
    for video, truth, hz, rows in zip(
        videos.videos, frame_labels(videos), frame_rates_hz(videos), posteriors, strict=True
    ):
        decisions = decode_posteriors(rows, decoder, spec)
        timeline = timeline_of(decisions, spec.model_hz, len(rows), len(truth), hz)
        now = None
        if decoder.procedure is not None:
            now = expand_labels(now_reports(rows, decoder, spec)[0], len(truth), hz, spec.model_hz)
        segments = _segments(decisions, spec, len(truth) / hz)
        told = tuple(decision.confidence for decision in decisions if decision.previous is not None)
        found.append(StreamedVideo(video.name, hz, truth, timeline.labels, now, segments, tuple(timeline.points), told))
    return found


def confusion(videos: Sequence[StreamedVideo], count: int) -> NDArray[np.float64]:
    """(count, count) seconds in which the true label (row) was streamed as another or the same (column)."""
    seconds = np.zeros((count, count))
    for video in videos:
        np.add.at(seconds, (video.truth, video.streamed), 1 / video.rate_hz)
    return seconds


def delays_s(videos: Sequence[StreamedVideo]) -> list[float]:
    """Of each transition that is right: its decision less the true boundary."""
    return [video.points[i].decision_s - truth[j].boundary_s for video in videos for i, j, truth in _matched(video)]


def transition_confidence(videos: Sequence[StreamedVideo]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of each transition: its confidence, and whether it is right."""
    confidence: list[float] = []
    right: list[bool] = []
    for video in videos:
        matched = {i for i, _, _ in _matched(video)}
        confidence += video.point_confidence
        right += [i in matched for i in range(len(video.points))]
    return np.array(confidence, float), np.array(right, bool)


def now_confidence(streamed: Streamed, videos: VideoSet) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Of each tick of all videos: the probability of the label that is most probable now, and whether it is right. None
    without a procedure."""
    spec, posteriors, decoder = streamed
    if decoder.procedure is None:
        return None
    probability: list[float] = []
    right: list[bool] = []
    for rows, truth, hz in zip(posteriors, frame_labels(videos), frame_rates_hz(videos), strict=True):
        frames = ticks_of(len(truth), hz, spec.model_hz)
        for belief in beliefs_of(rows, decoder, spec):
            now = belief.now
            frame = frames[min(now.tick, len(frames) - 1)]
            probability.append(float(now.probability[now.label]))
            right.append(bool(truth[frame] == now.label))
    return np.array(probability, float), np.array(right, bool)


def _segments(
    decisions: Sequence[Decision], spec: PyramidSpec, duration_s: float
) -> tuple[tuple[float, float, float], ...]:
    begins_s = [decision.boundary_tick / spec.model_hz for decision in decisions]
    ends_s = [*begins_s[1:], duration_s]
    confidence = [decision.confidence for decision in decisions]
    return tuple(zip(begins_s, ends_s, confidence, strict=False))


def _matched(video: StreamedVideo) -> list[tuple[int, int, list[TransitionPoint]]]:
    truth = transitions_of(video.truth, video.rate_hz)
    return [(i, j, truth) for i, j in match_transitions(video.points, truth, TOLERANCE_S)]
