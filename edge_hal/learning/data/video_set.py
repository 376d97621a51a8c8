"""The videos of a data set, with their step lists and labels, and the labels of a model put over them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files.feature_file import as_float32, columns
from edge_hal.media.stamps import Missing
from edge_hal.media.video_file import Aspect
from edge_hal.metrics import IntArray

from .media_files import open_array
from .mstcn_files import Kind, Layout
from .step_texts import count_of

Shows = Literal["procedure", "part", "mistakes"]


@dataclass(frozen=True)
class Video:
    """One recording of a data set.

    Attributes:
        length: number of frames. Those of a video file are counted at a constant rate (`media_files.VideoTimes`).
        rate_hz: frames per second; None if not known.
        labels: (length,) -1 for a frame without a label; None unless labels were asked for.
        missing: what a video file lacks, by its stamps.
        aspect: of its pictures; None if it is not known.
        shows: the procedure from its begin to its end, as far as is known, or a part of it, or the procedure with
            mistakes. The procedure is learned from the first kind.
    """

    name: str
    path: Path
    kind: Kind
    transcript: tuple[int, ...]
    length: int
    rate_hz: float | None = None
    labels: IntArray | None = field(default=None, compare=False)
    layout: Layout = "TD"
    missing: Missing | None = field(default=None, compare=False)
    aspect: Aspect | None = field(default=None, compare=False)
    shows: Shows = field(default="procedure", compare=False)

    def read(self) -> NDArray[np.float32]:
        """Features (length, D). Raises EdgeHalError for a damaged file or a value that is not finite."""
        if self.kind != "features":
            raise EdgeHalError(f"{self.path} has no feature array", "it is a camera recording: read its frames")
        stored = open_array(self.path)
        frames = (stored.T if self.layout == "DT" else stored)[: self.length]
        features = as_float32(frames)
        finite = np.isfinite(features)
        if not finite.all():
            t, d = np.argwhere(~finite)[0]
            never = np.asarray(~finite.any(axis=0))
            raise EdgeHalError(
                f"video {self.name}: feature {d} of frame {t} is {frames[t, d]}",
                f"{self.path} holds a value that is not a finite float32"
                + (f"; {columns(never)} are never finite" if never.any() else ""),
                "remove these columns from all videos, here and where the model will run"
                if never.any()
                else "extract the features of this video again, or leave it out",
            )
        return features


@dataclass(frozen=True)
class VideoSet:
    """The videos of one part of one split. `notes`: what was assumed or repaired while reading."""

    labels: tuple[str, ...]
    videos: tuple[Video, ...]
    rate_hz: float | None = None
    background: int | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.videos)


def without_order(videos: VideoSet) -> VideoSet:
    """The videos with sorted step lists without repeats; a video with labels keeps its list. A note names the steps
    that occur in the same videos, because sets cannot tell them apart."""
    unordered = tuple(
        video if video.labels is not None else replace(video, transcript=tuple(sorted(set(video.transcript))))
        for video in videos.videos
    )
    notes = videos.notes
    if not any(video.labels is not None for video in unordered):
        holders: dict[tuple[bool, ...], list[str]] = {}
        for step, name in enumerate(videos.labels):
            holders.setdefault(tuple(step in video.transcript for video in unordered), []).append(name)
        alike = [", ".join(names) for held, names in holders.items() if len(names) > 1 and any(held)]
        if alike:
            groups = "; ".join(alike)
            notes += (f"these steps occur in the same videos, and sets alone cannot tell them apart: {groups}",)
    return replace(videos, videos=unordered, notes=notes)


def with_labels_of(videos: VideoSet, labels: tuple[str, ...], model_name: str) -> VideoSet:
    """The videos with label numbers of a model. Labels are matched by name; `model_name` names the model in notes.

    The labels of the result are those of the model, then those that only the data have: no model can be right there.

    Raises:
        EdgeHalError: no name is in both.
    """
    if videos.labels == labels:
        return videos
    only_data = [name for name in videos.labels if name not in labels]
    only_model = [name for name in labels if name not in videos.labels]
    if len(only_data) == len(videos.labels):
        raise EdgeHalError(
            f"{model_name} knows other steps than the data",
            f"the data have {', '.join(videos.labels[:5])}, {model_name} has {', '.join(labels[:5])}",
            "give the data it was trained for",
        )
    notes = list(videos.notes)
    if only_data:
        notes.append(f"{model_name} does not know {count_of(only_data, 'step')}: frames with this label count as wrong")
    if only_model:
        notes.append(f"the data do not have {count_of(only_model, 'step')} of {model_name}")
    every = (*labels, *only_data)
    number = np.array([every.index(name) for name in videos.labels] + [-1], np.int64)  # the last is for -1, unknown
    return replace(
        videos,
        labels=every,
        videos=tuple(
            replace(
                video,
                transcript=tuple(int(number[step]) for step in video.transcript),
                labels=None if video.labels is None else number[video.labels],
            )
            for video in videos.videos
        ),
        background=None if videos.background is None else int(number[videos.background]),
        notes=tuple(notes),
    )
