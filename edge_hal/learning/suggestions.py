"""Labels that a run suggests for its training videos: the segments of its alignment, and how certain each boundary is.

The confidence of a boundary is meant as the probability that the true one lies within `within_s`. It is the probability
that the student's posteriors and the step list give to that interval, times the agreement of the restarts of the
alignment on this video. Neither knows an error that the whole alignment shares: docs/labels.md has the measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edge_hal.errors import EdgeHalError
from edge_hal.metrics import IntArray, runs_of
from edge_hal.model.model_file import Checkpoint, load_checkpoint
from edge_hal.progress import ProgressCount

from .alignment_file import StoredAlignment, first_alignment_from, read_alignment
from .boundary_confidence import EVIDENCE_HZ, boundary_posteriors, mass_within, without_lag
from .data.dataset import Video, VideoSet
from .data.label_segments import SegmentedVideo, segments_of_labels
from .data.media_files import read_times
from .data.mstcn_files import count_of
from .data.recordings import SampledRecording, read_recordings
from .data.video_cache import VideoCache
from .networks.held_out import streamed_posteriors

WITHIN_S = 0.5


@dataclass(frozen=True)
class Boundary:
    """From one step to the next. `confidence`: that the true one lies within `within_s`, 0..1."""

    video: str
    time_s: float
    step_from: str
    step_to: str
    confidence: float
    within_s: float


def suggest_labels(
    run: Path,
    videos: VideoSet,
    within_s: float = WITHIN_S,
    progress: ProgressCount | None = None,
    *,
    cache: VideoCache | None = None,
) -> list[SegmentedVideo]:
    """The segments of the videos that the run was trained on; other videos are left out.

    Args:
        progress: called with the number of videos done and the total.

    Raises:
        EdgeHalError: the run or a video cannot be read, the run knows none of the videos, or the alignment does not fit
            them.
    """
    alignment = read_alignment((run if run.is_dir() else run.parent) / "alignment.json")
    known = [video for video in videos.videos if video.name in alignment]
    if not known:
        why = f"it was trained on {count_of(sorted(alignment), 'video')}"
        raise EdgeHalError(f"the run {run} knows none of the videos", why, "give the data of its training")
    loaded = load_checkpoint(run)
    found = []
    for video, recording in _recordings(replace(videos, videos=tuple(known)), alignment, loaded, cache):
        aligned = first_alignment_from(alignment, [recording], loaded.spec.labels)
        (labels,), (evidence,) = aligned.labels, aligned.evidence
        labelled = bool(alignment[video.name].get("labelled"))
        confidences = [1.0] * (len(runs_of(labels)[0]) - 1)
        if not labelled:
            confidences = [evidence.agreement * mass for mass in _masses(loaded, recording, labels, within_s)]
        found.append(_segmented(video, recording, labels, loaded.spec.labels, confidences))
        if progress is not None:
            progress(len(found), len(known))
    return found


def least_certain_first(videos: Sequence[SegmentedVideo], within_s: float) -> list[Boundary]:
    """All boundaries of the videos, sorted by their confidence."""
    found = [
        Boundary(video.name, after.first / video.rate_hz, before.step, after.step, confidence, within_s)
        for video in videos
        for before, after, confidence in zip(video.segments[:-1], video.segments[1:], video.confidences, strict=True)
    ]
    return sorted(found, key=lambda each: each.confidence)


def _recordings(
    videos: VideoSet, alignment: StoredAlignment, loaded: Checkpoint, cache: VideoCache | None
) -> Iterator[tuple[Video, SampledRecording]]:
    """Each video with its vectors, up to the last tick that was aligned."""
    spec = loaded.spec

    def aligned(video: Video) -> Video:
        frames = alignment[video.name].get("frames")
        return replace(video, length=min(video.length, frames)) if isinstance(frames, int) and frames > 0 else video

    short = replace(videos, videos=tuple(aligned(video) for video in videos.videos))
    if loaded.encoder is not None:
        read = read_recordings(short, spec.model_hz, spec.encoder, graph=loaded.encoder, cache=cache)
        yield from zip(videos.videos, read, strict=True)
        return
    for video, each in zip(videos.videos, short.videos, strict=True):
        yield video, read_recordings(replace(short, videos=(each,)), spec.model_hz, None)[0]


@torch.inference_mode()
def _masses(loaded: Checkpoint, recording: SampledRecording, labels: IntArray, within_s: float) -> Sequence[float]:
    spec = loaded.spec
    steps, begins, _ = runs_of(labels)
    features = loaded.front_end(torch.from_numpy(np.array(recording.inputs, np.float32)))
    (heads,) = streamed_posteriors(loaded.pyramid, [features])
    posteriors = boundary_posteriors(without_lag(heads, spec), steps.tolist(), EVIDENCE_HZ / spec.model_hz)
    return [float(mass) for mass in mass_within(posteriors, begins[1:], within_s * spec.model_hz)]


def _segmented(
    video: Video, recording: SampledRecording, labels: IntArray, names: Sequence[str], confidences: Sequence[float]
) -> SegmentedVideo:
    """Labels (T,) of ticks as segments of frames. The last one reaches to the end of the video."""
    assert video.rate_hz is not None
    steps, begins, _ = runs_of(labels)
    frames = np.repeat(steps, np.diff(np.append(recording.frames[begins], video.length)))
    file_frames = None
    if video.kind == "video":
        times = read_times(video.path, video.rate_hz)
        if not times.constant_rate:
            file_frames = np.array([-((-int(t) * times.rate) // 10**9) for t in times.times_ns], np.int64)
    segments = segments_of_labels(frames, names)
    return SegmentedVideo(
        video.name, video.path, video.kind, video.length, video.rate_hz, segments, tuple(confidences), file_frames
    )
