"""What a subscriber knows of videos that a run streams offline."""

from __future__ import annotations

from pathlib import Path

from edge_hal.decoding.decode import decode_posteriors
from edge_hal.decoding.timeline import Timeline, timeline_of
from edge_hal.evaluation.checkpoint_scores import stream_checkpoint
from edge_hal.evaluation.scores import frame_labels, frame_rates_hz
from edge_hal.learning.data.video_set import VideoSet


def streamed_timelines(run: Path, videos: VideoSet) -> list[Timeline]:
    """One timeline per video, decided as the run's decoder does."""
    spec, posteriors, decoder = stream_checkpoint(run, videos)
    return [
        timeline_of(decode_posteriors(p, decoder, spec), spec.model_hz, len(p), len(y), hz)
        for p, y, hz in zip(posteriors, frame_labels(videos), frame_rates_hz(videos), strict=True)
    ]
