"""The check of feature vectors before training: what is constant, repeated, or lost its digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files.feature_file import LARGEST, coarse_note, columns, spread_of

from .media_files import open_array
from .recordings import SampledRecording
from .video_set import VideoSet


def check_features(videos: VideoSet, recordings: Sequence[SampledRecording]) -> list[str]:
    """What the user should know of the features of these recordings.

    Raises:
        EdgeHalError: nothing can be learned from them, or they are too large for float32.
    """
    vectors = [np.asarray(recording.inputs, np.float32) for recording in recordings]
    spread = spread_of(vectors)
    constant = spread.constant
    large = np.maximum(np.abs(spread.mean), spread.deviation) > LARGEST
    if large.any():
        todo = "divide them by a constant"
        raise EdgeHalError("the features are too large", f"{columns(large)} exceed {LARGEST:g}", todo)
    if constant.all():
        raise EdgeHalError(
            "nothing can be learned from these features",
            f"all {len(constant)} are constant over all videos",
            "extract the features again",
        )
    notes = []
    if constant.any():
        lost = (constant & (spread.mean != 0)).any()
        why = " (an offset can be so large that float32 does not hold what changes)" if lost else ""
        notes.append(f"{columns(constant)} are constant over all videos{why} and will be ignored")
    repeated = _repeated(vectors, ~constant)
    if repeated.any():
        notes.append(f"{columns(repeated)} are equal to an earlier one in all videos: they add nothing")
    # The type of a file, once for each: files of one set may differ.
    for dtype in sorted({open_array(video.path).dtype for video in videos.videos}, key=str):
        note = coarse_note(spread, dtype)
        if note is not None:
            notes.append(note)
    return notes


def _repeated(vectors: Sequence[NDArray[np.float32]], among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(D,) the columns that are equal to an earlier one of `among` in all rows."""
    seen: set[tuple[int, ...]] = set()
    repeated = np.zeros(len(among), np.bool_)
    rows = [np.ascontiguousarray(x.T) for x in vectors]
    for column in np.flatnonzero(among):
        values = tuple(hash(x[column].tobytes()) for x in rows)
        repeated[column] = values in seen
        seen.add(values)
    return repeated
