"""Scores. `segments`: frame labels as segments. `segmentation`: scores of the literature, in per cent. `transitions`:
scores of the transitions that a subscriber receives."""

from .segmentation import (
    OVERLAPS,
    Scores,
    edit_score,
    f1_at,
    iod_isba,
    iod_tasl,
    iou_isba,
    iou_tasl,
    mof,
    mof_without_background,
    score_videos,
)
from .segments import IntArray, Segment, runs_of, segments_of, transcript_of, uniform_split
from .transitions import TransitionPoint, TransitionScores, match_transitions, score_transitions, transitions_of

__all__ = [
    "OVERLAPS",
    "IntArray",
    "Scores",
    "Segment",
    "TransitionPoint",
    "TransitionScores",
    "edit_score",
    "f1_at",
    "iod_isba",
    "iod_tasl",
    "iou_isba",
    "iou_tasl",
    "match_transitions",
    "mof",
    "mof_without_background",
    "runs_of",
    "score_transitions",
    "score_videos",
    "segments_of",
    "transcript_of",
    "transitions_of",
    "uniform_split",
]
