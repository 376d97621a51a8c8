"""Scores of the alignment that a training run found, against the frame labels of its videos."""

from __future__ import annotations

from pathlib import Path

from edge_hal.decoding.timeline import labels_from
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.learning.hmm.alignment_file import ALIGNMENT_FILE, read_alignment

from .scores import Scores, frame_labels, offline_scores


def alignment_scores(run: Path, videos: VideoSet) -> Scores:
    """Scores of `alignment.json` of the run directory `run`.

    Raises:
        EdgeHalError: the run has no alignment, or a video is missing from it.
    """
    path = (run if run.is_dir() else run.parent) / ALIGNMENT_FILE
    found = read_alignment(path)
    ids = {name: index for index, name in enumerate(videos.labels)}
    aligned = []
    for video, truth in zip(videos.videos, frame_labels(videos), strict=True):
        if video.name not in found:
            raise EdgeHalError(f"{path} has no video '{video.name}'", "", "use the split of the training")
        try:
            segments = [(ids[name], frame) for name, frame in found[video.name]["segments"]]
            starts, labels = [frame for _, frame in segments], [label for label, _ in segments]
            aligned.append(labels_from(starts, labels, len(truth)))
        except (KeyError, TypeError, ValueError) as error:
            unknown = f"; {error.args[0]!r} is no step of the data" if isinstance(error, KeyError) else ""
            why = f"its entry for '{video.name}' does not fit the data{unknown}"
            raise EdgeHalError(f"cannot use {path}", why, "train again") from error
    return offline_scores(aligned, videos)
