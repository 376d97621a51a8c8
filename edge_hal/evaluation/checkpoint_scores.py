"""Scores of a checkpoint on videos with frame labels, streamed tick by tick, beside the floor.

The prediction that is scored is the timeline a subscriber can draw from the events: each label from the boundary its
transition placed. `mof_live` scores what was known at each frame as it was shown, delay included.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.hysteresis import Decision, DecoderConfig
from edge_hal.decoding.semi_markov import open_decoder
from edge_hal.errors import EdgeHalError
from edge_hal.features import encode_pictures
from edge_hal.learning.data.dataset import VideoSet, expand_labels
from edge_hal.learning.data.recordings import read_recordings
from edge_hal.metrics import IntArray, TransitionPoint, score_transitions, score_videos, transitions_of, uniform_split
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import PyramidSpec

Labels = IntArray


@dataclass(frozen=True)
class Timeline:
    """One video as its events tell it: `labels` and `live` (frames,), `points` the transitions."""

    labels: Labels
    live: Labels
    points: list[TransitionPoint]


def scores_of(
    timelines: Sequence[Timeline],
    truth: Sequence[Labels],
    rates_hz: Sequence[float],
    background: int | None,
) -> dict[str, float | None]:
    """All metrics of DESIGN section 4 in one flat dictionary. `edit_bg` and `f1_*_bg` leave segments of background out,
    as MS-TCN's script does with a class called background (and not with the SIL of Breakfast)."""
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


def floor(videos: VideoSet) -> list[Timeline]:
    """The uniform split of each video's own transcript, which no live system has. It has no delay."""
    timelines = []
    for video, truth, hz in zip(videos.videos, truths(videos), rates(videos), strict=True):
        labels = uniform_split(video.transcript, len(truth))
        timelines.append(Timeline(labels, labels, transitions_of(labels, hz)))
    return timelines


def floor_scores(videos: VideoSet) -> dict[str, float | None]:
    scores = scores_of(floor(videos), truths(videos), rates(videos), videos.background)
    return {key: None if key.startswith("delay") else value for key, value in scores.items()}


def checkpoint_scores(
    checkpoint: Path,
    videos: VideoSet,
    progress: Callable[[int, int], None] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, float | None]:
    """Stream every video through the checkpoint, decode, and score. See `stream_checkpoint`."""
    timelines = stream_checkpoint(checkpoint, videos, progress, thresholds)
    return scores_of(timelines, truths(videos), rates(videos), videos.background)


def stream_checkpoint(
    checkpoint: Path,
    videos: VideoSet,
    progress: Callable[[int, int], None] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> list[Timeline]:
    """Each video from a fresh stream: encoder graph, pyramid step by step, decoder at every bin.

    `thresholds` replace those of the checkpoint's decoder, by name.

    Raises:
        EdgeHalError: no checkpoint, or its labels are not those of the data.
    """
    from edge_hal.model.model_file import load_checkpoint
    from edge_hal.model.step import TorchEngine

    loaded = load_checkpoint(checkpoint)
    spec = loaded.spec
    if spec.labels != videos.labels:
        odd = sorted(set(spec.labels) ^ set(videos.labels))[:1] or ["their order"]
        raise EdgeHalError(f"the checkpoint {checkpoint} knows other actions than the data", f"see '{odd[0]}'")
    engines = [TorchEngine(loaded.pyramid, loaded.front_end, level) for level in range(len(spec.levels))]
    stream = PyramidStream(spec, engines)
    decoder = loaded.decoder.replaced(thresholds or {})
    timelines = []
    for number, video in enumerate(videos.videos):
        one = VideoSet(videos.labels, (video,), videos.rate_hz, videos.background)
        recording = read_recordings(one, spec.model_hz, spec.encoder)[0]
        vectors = recording.inputs
        if loaded.encoder is not None:
            vectors = encode_pictures(loaded.encoder, np.asarray(recording.inputs, np.uint8))
        decisions = decide(stream, np.asarray(vectors, np.float32), decoder)
        hz = rates(one)[0]
        timelines.append(timeline_of(decisions, spec, len(vectors), len(truths(one)[0]), hz))
        if progress is not None:
            progress(number + 1, len(videos))
    return timelines


def decide(stream: PyramidStream, vectors: NDArray[np.float32], config: DecoderConfig) -> list[Decision]:
    """One epoch: vectors (T, D) in, decisions out."""
    spec = stream.spec
    stream.reset()
    decoder = open_decoder(config, spec)
    decisions = []
    for start in range(0, len(vectors), spec.first_stride):
        part = vectors[start : start + spec.first_stride]
        times = [round((start + i) * 1e9 / spec.model_hz) for i in range(len(part))]
        stream.push(part, times)
        if len(part) == spec.first_stride:
            decision = decoder.decide(stream.ticks - 1, stream.posterior(spec.ring_capacity))
            if decision is not None:
                decisions.append(decision)
    return decisions


def timeline_of(decisions: Sequence[Decision], spec: PyramidSpec, ticks: int, frames: int, rate_hz: float) -> Timeline:
    """Decisions at ticks -> labels at frames. Before the first decision, its label (nothing else is known)."""
    labels, live = np.zeros(ticks, np.int64), np.zeros(ticks, np.int64)
    for number, decision in enumerate(decisions):
        labels[decision.boundary_tick :] = decision.label
        live[decision.decision_tick if number else 0 :] = decision.label
    points = [
        TransitionPoint(d.label, d.boundary_tick / spec.model_hz, d.decision_tick / spec.model_hz)
        for d in decisions
        if d.previous is not None
    ]
    return Timeline(
        expand_labels(labels, frames, rate_hz, spec.model_hz),
        expand_labels(live, frames, rate_hz, spec.model_hz),
        points,
    )


def alignment_scores(run: Path, videos: VideoSet) -> dict[str, float | None]:
    """The alignment of the training videos that a run found, against their frame labels.

    Raises:
        EdgeHalError: the run has no alignment, or lacks a video.
    """
    path = (run if run.is_dir() else run.parent) / "alignment.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise EdgeHalError(f"cannot read {path}", str(error), "train again") from error
    ids = {name: index for index, name in enumerate(videos.labels)}
    timelines = []
    for video, truth, hz in zip(videos.videos, truths(videos), rates(videos), strict=True):
        if video.name not in found:
            raise EdgeHalError(f"{path} has no video '{video.name}'", "", "use the split of the training")
        labels = np.zeros(len(truth), np.int64)
        try:
            for name, frame in found[video.name]["segments"]:
                labels[frame:] = ids[name]
        except (KeyError, TypeError, ValueError) as error:
            why = f"its entry for '{video.name}' does not fit the data"
            raise EdgeHalError(f"cannot use {path}", why, "train again") from error
        timelines.append(Timeline(labels, labels, transitions_of(labels, hz)))
    scores = scores_of(timelines, truths(videos), rates(videos), videos.background)
    return {key: None if key.startswith("delay") else value for key, value in scores.items()}


def truths(videos: VideoSet) -> list[Labels]:
    missing = [video.name for video in videos.videos if video.labels is None]
    if missing:
        raise EdgeHalError(f"video '{missing[0]}' has no frame labels", "scores need them")
    return [video.labels for video in videos.videos if video.labels is not None]


def rates(videos: VideoSet) -> list[float]:
    missing = [video.name for video in videos.videos if video.rate_hz is None]
    if missing:
        raise EdgeHalError(f"the frame rate of {missing[0]} is not known", "", "give it: --set data.rate_hz=30")
    return [video.rate_hz for video in videos.videos if video.rate_hz is not None]
