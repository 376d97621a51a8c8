"""Labels that a run suggests for its training videos: the segments of its alignment, and how certain each boundary is.

The confidence of a boundary is meant as the probability that the true one lies within `within_s`. It is the probability
that the student's posteriors and the step list give to that interval, times the agreement of the restarts of the
alignment on this video. Neither knows an error that the whole alignment shares, such as a step that always begins too
late. Corrected videos show these errors, and `calibrated` learns from them. docs/labels.md has the measurement.
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

from .boundary_confidence import EVIDENCE_HZ, boundary_posteriors, mass_within, without_lag
from .data.labels.order import places_in_list
from .data.labels.segments import SegmentedVideo, segments_of_labels
from .data.media_files import read_times
from .data.recordings import SampledRecording, read_recordings
from .data.step_texts import count_of
from .data.video_cache import VideoCache
from .data.video_set import Video, VideoSet
from .hmm.alignment_file import ALIGNMENT_FILE, StoredAlignment, first_alignment_from, read_alignment
from .networks.held_out import streamed_posteriors

WITHIN_S = 0.5
PRIOR_BOUNDARIES = 2.0
"""Corrected boundaries of the same two steps for which the confidence without corrections counts."""


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
    alignment = read_alignment((run if run.is_dir() else run.parent) / ALIGNMENT_FILE)
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
        segmented = _segmented(video, recording, labels, loaded.spec.labels, confidences)
        found.append(replace(segmented, labelled=labelled))
        if progress is not None:
            progress(len(found), len(known))
    return found


@dataclass(frozen=True)
class Calibration:
    """`boundaries`: how many of `videos` corrected videos were compared, and how many of them were right."""

    videos: int
    boundaries: int
    right: int


def calibrated(
    found: Sequence[SegmentedVideo], corrected: VideoSet, within_s: float = WITHIN_S
) -> tuple[list[SegmentedVideo], Calibration]:
    """The segmented videos with confidences that agree with corrected labels.

    The confidence of a boundary is the share of corrected boundaries between the same two steps that were right. It is
    drawn to the confidence without corrections, scaled so that its mean is the share of all that were right.

    Args:
        corrected: videos with labels of all frames or of some. Those that the run was trained with show no error.
    """
    known = {video.name: video.labels for video in corrected.videos if video.labels is not None}
    right: dict[tuple[str, str], list[bool]] = {}
    masses: list[float] = []
    compared = 0
    for video in found:
        labels = None if video.labelled else known.get(video.name)
        if labels is None:
            continue
        pairs = _compared(video, labels, corrected.labels, within_s)
        compared += bool(pairs)
        for m, is_right in pairs:
            right.setdefault((video.segments[m].step, video.segments[m + 1].step), []).append(is_right)
            masses.append(video.confidences[m])
    every = [each for some in right.values() for each in some]
    calibration = Calibration(compared, len(every), sum(every))
    if not every:
        return list(found), calibration
    scale = (sum(every) + 1) / (len(every) + 2) / max(float(np.mean(masses)), 1e-3)

    def confidence(before: str, after: str, mass: float) -> float:
        seen = right.get((before, after), [])
        return (sum(seen) + PRIOR_BOUNDARIES * min(1.0, scale * mass)) / (len(seen) + PRIOR_BOUNDARIES)

    def anew(video: SegmentedVideo) -> SegmentedVideo:
        steps = [each.step for each in video.segments]
        found = map(confidence, steps[:-1], steps[1:], video.confidences)
        return video if video.labelled else replace(video, confidences=tuple(found))

    return [anew(video) for video in found], calibration


def _compared(video: SegmentedVideo, labels: IntArray, names: Sequence[str], within_s: float) -> list[tuple[int, bool]]:
    """The boundaries that the labels (T,) tell, as the index of the segment before it, and whether it was right."""
    listed = [names.index(each.step) for each in video.segments if each.step in names]
    places = places_in_list(labels, listed)
    if isinstance(places, int) or len(listed) < len(video.segments):
        return []  # the list of this video was corrected too
    begins = np.flatnonzero((places[1:] == places[:-1] + 1) & (places[:-1] >= 0)) + 1
    pairs = ((int(places[begin]) - 1, int(begin)) for begin in begins)
    return [(m, abs(begin - video.segments[m + 1].first) <= within_s * video.rate_hz + 1e-6) for m, begin in pairs]


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

    def aligned(recording: SampledRecording) -> SampledRecording:
        frames = alignment[recording.name].get("frames")
        count = int(np.searchsorted(recording.frames, frames)) if isinstance(frames, int) and frames > 0 else None
        labels = None if recording.labels is None else recording.labels[:count]
        return replace(recording, inputs=recording.inputs[:count], frames=recording.frames[:count], labels=labels)

    if loaded.encoder is not None:
        read = read_recordings(videos, spec.model_hz, spec.encoder, graph=loaded.encoder, cache=cache)
        yield from zip(videos.videos, map(aligned, read), strict=True)
        return
    for video in videos.videos:
        yield video, aligned(read_recordings(replace(videos, videos=(video,)), spec.model_hz, None)[0])


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
        file_frames = read_times(video.path, video.rate_hz).file_frames
    segments = segments_of_labels(frames, names)
    return SegmentedVideo(
        *(video.name, video.path, video.kind, video.length, video.rate_hz, segments, tuple(confidences)),
        file_frames=file_frames,
    )
