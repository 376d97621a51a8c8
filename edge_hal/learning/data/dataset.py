"""Videos with ordered step lists, in the layout of MS-TCN. They are read lazily and checked before training.

    features/<id>.npy  (D, T) or (T, D)     or videos/<id>.mp4 (`media/names.py` lists the other types)
    transcripts/<id>.txt                    one action per line, in order (optional)
    groundTruth/<id>.txt                    one action per frame; it gives the transcript if there is none
    labels/                                 the same, or other labels, written by the user: see `labels/folder.py`;
                                            they come before groundTruth/
    mapping.txt                             `id name`, ids 0 .. K-1
    splits/{train,valid,test}.splitK.bundle one video per line (optional)

With `with_labels=False`, as for training from transcripts, no frame label is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.feature_file import as_float32, columns
from edge_hal.media.stamps import Missing
from edge_hal.metrics import IntArray, transcript_of
from edge_hal.task_file import read_task
from edge_hal.task_folder import is_task

from .harvested import read_harvested
from .labels.folder import check_list, labels_in
from .labels.segments import FoundLabels
from .media_files import VideoTimes, feature_length, find_layout, open_array, read_times
from .mstcn_files import (
    ACCEPT,
    Kind,
    Layout,
    find_kind,
    index_media,
    label_paths,
    names_in,
    only_suggested,
    read_mapping,
    text_file,
)
from .needed_files import missing_error, missing_files
from .step_texts import check_steps, count_of, nearest, read_names, read_step_list, read_timestamps

FEW_LABELS = 0.1
"""Frame labels for less than this share of the frames are no frame labels, but a step list."""


@dataclass(frozen=True)
class Video:
    """One recording of a data set.

    Attributes:
        length: number of frames. Those of a video file are counted at a constant rate (`media_files.VideoTimes`).
        rate_hz: frames per second; None if not known.
        labels: (length,) -1 for a frame without a label; None unless labels were asked for.
        missing: what a video file lacks, by its stamps.
        whole: it shows the procedure from its begin to its end, as far as is known. The procedure is learned from such
            videos.
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
    whole: bool = field(default=True, compare=False)

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


def with_labels_of(videos: VideoSet, labels: tuple[str, ...], knower: str) -> VideoSet:
    """The videos with label numbers of a model. Labels are matched by name; `knower` names the model in notes.

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
            f"{knower} knows other steps than the data",
            f"the data have {', '.join(videos.labels[:5])}, {knower} has {', '.join(labels[:5])}",
            "give the data it was trained for",
        )
    notes = list(videos.notes)
    if only_data:
        notes.append(f"{knower} does not know {count_of(only_data, 'step')}: frames with this label count as wrong")
    if only_model:
        notes.append(f"the data do not have {count_of(only_model, 'step')} of {knower}")
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


def load_dataset(
    root: Path | str,
    *,
    split: int | None,
    part: Literal["train", "valid", "test"],
    with_labels: bool | Collection[str] = False,
    timestamps: bool = False,
    background: str | None = None,
    rate_hz: float | None = None,
    layout: Layout | None = None,
    kind: Kind | None = None,
    only: Collection[str] | None = None,
    own_labels: Mapping[str, FoundLabels] | None = None,
) -> VideoSet:
    """The videos of `part` of `split`; with `split=None` all videos there are, or the part of a task folder
    (`mstcn_files.names_in`).

    Args:
        with_labels: also load frame labels, of all videos or of the named ones.
        timestamps: take these labels from `timestamps/<video>.txt` instead of `groundTruth/`. Its lines read `frame
            step`, at least one per step.
        background: name of the background action, if there is one.
        rate_hz: frames per second of the features, and of video files without time stamps.
        layout: order of the axes of the feature files; default: found from their shapes.
        kind: what to read if both `features/` and `videos/` exist (default: features).
        only: leave out all other videos of the part.
        own_labels: what the user wrote, see `labels/folder.py`. For a video of `with_labels` it comes before all else.

    Raises:
        EdgeHalError: something is missing, damaged or contradictory; the message names it.
    """
    root = Path(root)
    kind = kind or find_kind(root)
    notes: list[str] = []
    files = index_media(root, kind, notes)
    names = names_in(root, files, split, part, own_labels or ())
    if part == "train" and split is None and is_task(root):
        waiting = only_suggested(root, sorted(files.keys() - set(names)), own_labels or ())
        if waiting:
            notes.append(f"{count_of(waiting, 'video')} left out, with suggestions only: {ACCEPT}")
    names = [name for name in names if only is None or name in only]

    labelled = set(names if with_labels is True else with_labels or ())
    own = {name: found for name, found in (own_labels or {}).items() if name in labelled and name in names}
    missing = missing_files(root, kind, names, files, labelled, timestamps, own)
    if missing:
        raise missing_error(root, missing, len(names))
    task = read_task(root)
    if task is not None and split is None and part == "test" and not task.file.test:
        notes.append("task.yaml names no test videos: the model may have been trained on those that are scored")
    labels = read_mapping(root, notes) if task is None or task.file.steps is None else task.file.steps
    check_steps(labels, root)
    ids = {name: i for i, name in enumerate(labels)}
    if background is not None and background not in ids:
        raise EdgeHalError(f"background {background!r} is no step of {root}", nearest(background, labels))

    # Frame labels are read if they are asked for, or if there is no transcript; the latter are not kept.
    transcripts: dict[str, tuple[int, ...]] = {}
    frame_labels: dict[str, IntArray] = {}
    lengths: dict[str, int] = {}
    disagree = []
    for name in names:
        written, per_frame = label_paths(root, name)
        if written.is_file():
            transcripts[name] = tuple(read_step_list(written, ids))
        stamped = timestamps and name in labelled
        if name in own:
            found = own[name]
            if found.marks is None:
                frame_labels[name] = labels_in(found, name, ids, 0, None, None)
                lengths[name] = len(frame_labels[name])
        elif (name in labelled and not stamped) or not written.is_file():
            read = np.array(read_names(per_frame, ids), np.int64)
            lengths[name] = read.size
            if transcripts.setdefault(name, transcript_of(read)) != transcript_of(read):
                disagree.append(name)
            if name in labelled and not stamped:
                frame_labels[name] = read
    if disagree:
        notes.append(f"{count_of(disagree, 'transcript')} differ from the frame labels collapsed")

    times: dict[str, VideoTimes] = {}
    if kind == "features":
        if names:
            layout = layout or find_layout(root, files, names, lengths)
        media = {name: (feature_length(files, names, name, layout), rate_hz) for name in names}
    else:
        times = {name: read_times(files[name], rate_hz) for name in names}
        media = {name: (found.length, found.rate_hz) for name, found in times.items()}
        notes.extend(note for found in times.values() for note in found.notes)

    videos, cut = [], {}
    harvested = read_harvested(root)
    for name in names:
        length, hz = media[name]
        if name in lengths:
            fitting = times[name].counts() if name in times else (length,)
            differ = min(abs(count - lengths[name]) for count in fitting)
            if differ > max(hz or 0.0, 0.02 * max(length, lengths[name])):
                todo = "check that both are of the same recording at the same rate"
                todo += "" if layout is None else f" (features were read as {layout})"
                if lengths[name] < FEW_LABELS * length:
                    todo = "write a step for each frame; a list of the steps belongs in transcripts/"
                raise EdgeHalError(
                    f"video {name} has {length} frames but {lengths[name]} frame labels",
                    "they may differ by a second or by 2 %, not more",
                    todo,
                )
            if differ:
                cut[name] = differ
        kept = frame_labels.get(name)
        if name in own and kept is None:
            kept = labels_in(own[name], name, ids, length, hz, times.get(name))
        elif timestamps and name in labelled and name not in own:
            path, frames = text_file(root / "timestamps", name), times[name].numbered if name in times else length
            kept = read_timestamps(path, ids, frames)
        if name in times:
            kept = None if kept is None else times[name].at_rate(kept)
            length = length if kept is None else min(length, len(kept))
        else:
            length = min(length, lengths.get(name, length))
            kept = None if kept is None else kept[:length]
        if name in own and kept is not None:
            if name not in transcripts:
                transcripts[name] = _listed_by(own[name], name, kept)
            note = check_list(own[name], name, kept, transcripts[name], labels, hz)
            notes += [note] if note else []
        videos.append(
            Video(
                name=name,
                path=files[name],
                kind=kind,
                transcript=transcripts[name],
                length=length,
                rate_hz=hz,
                labels=kept,
                layout=layout or "TD",
                missing=times[name].missing if name in times else None,
                whole=name not in harvested,
            )
        )
    if cut:
        most = max(cut.values())
        notes.append(
            f"{count_of(list(cut), 'video')} and their labels differ by up to {most} frames: cut to the shorter"
        )
    rates = {video.rate_hz for video in videos}
    return VideoSet(
        labels=labels,
        videos=tuple(videos),
        rate_hz=rates.pop() if len(rates) == 1 else None,
        background=None if background is None else ids[background],
        notes=tuple(notes),
    )


def _listed_by(found: FoundLabels, name: str, labels: IntArray) -> tuple[int, ...]:
    """The step list of a video that has none, from its labels. Raises EdgeHalError if they do not cover all frames."""
    if (labels < 0).any():
        why = f"{found.path} labels {(labels >= 0).mean():.0%} of its frames"
        raise EdgeHalError(f"video {name} has no step list", why, f"write transcripts/{name}.txt: one step a line")
    return transcript_of(labels)
