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

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from edge_hal.errors import EdgeHalError
from edge_hal.metrics import IntArray, transcript_of
from edge_hal.task_file import read_task

from .harvested import read_harvested
from .labels.folder import check_list, labels_in
from .labels.segments import FoundLabels
from .media_files import VideoTimes, feature_length, find_layout, read_times
from .mstcn_files import (
    ACCEPT,
    Kind,
    Layout,
    check_one_list_each,
    find_kind,
    index_media,
    label_paths,
    listed_videos,
    names_in,
    only_suggested,
    read_mapping,
    text_file,
    video_names,
)
from .needed_files import missing_error, missing_files
from .step_texts import check_steps, count_of, nearest, read_names, read_step_list, read_timestamps
from .video_set import Shows, Video, VideoSet

FEW_LABELS = 0.1
"""Frame labels for less than this share of the frames are no frame labels, but a step list."""


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
    mistakes: Collection[str] = (),
) -> VideoSet:
    """The videos of `part` of `split`; with `split=None` all videos there are, or the part of a task folder
    (`mstcn_files.names_in`).

    Args:
        with_labels: also load frame labels, of all videos or of the named ones.
        timestamps: take these labels from `timestamps/<video>.txt` instead of `groundTruth/`. Its lines read `frame
            step`; there is at least one.
        background: name of the background action, if there is one.
        rate_hz: frames per second of the features, and of video files without time stamps.
        layout: order of the axes of the feature files; default: found from their shapes.
        kind: what to read if both `features/` and `videos/` exist (default: features).
        only: leave out all other videos of the part.
        own_labels: what the user wrote, see `labels/folder.py`. For a video of `with_labels` it comes before all else.
        mistakes: videos in which the procedure was not followed; a suffix is accepted.

    Raises:
        EdgeHalError: something is missing, damaged or contradictory; the message names it.
    """
    root = Path(root)
    kind = kind or find_kind(root)
    notes: list[str] = []
    files = index_media(root, kind, notes)
    names = names_in(root, files, split, part, own_labels or ())
    task = read_task(root)
    if part == "train" and split is None and task is not None:
        others = files.keys() - set(names) - set(video_names(task.file.test))
        waiting = only_suggested(root, sorted(others), own_labels or ())
        if waiting:
            notes.append(f"{count_of(waiting, 'video')} left out, with suggestions only: {ACCEPT}")
    harvested = read_harvested(root)
    in_mistakes = listed_videos(mistakes, files, "'mistakes'")
    notes += _without_effect(in_mistakes, names, harvested) if part == "train" else []
    names = [name for name in names if only is None or name in only]

    labelled = set(names if with_labels is True else with_labels or ())
    own = {name: found for name, found in (own_labels or {}).items() if name in labelled and name in names}
    missing = missing_files(root, kind, names, files, labelled, timestamps, own)
    if missing:
        raise missing_error(root, missing, len(names))
    check_one_list_each(root)
    if task is not None and split is None and part == "test" and not task.file.test:
        notes.append("task.yaml names no test videos: the model may have been trained on those that are scored")
    labels = read_mapping(root, notes) if task is None or task.file.steps is None else task.file.steps
    check_steps(labels, root)
    ids = {name: i for i, name in enumerate(labels)}
    if background is not None and background not in ids:
        raise EdgeHalError(f"background {background!r} is no step of {root}", nearest(background, labels))

    # Frame labels are read if they are asked for, or if there is no step list; the latter are not kept.
    transcripts: dict[str, tuple[int, ...]] = {}
    frame_labels: dict[str, IntArray] = {}
    lengths: dict[str, int] = {}
    disagree, twice = [], []
    for name in names:
        written, per_frame = label_paths(root, name)
        if written.is_file():
            steps = read_step_list(written, ids)
            # No boundary can be seen between two equal steps: they are one.
            transcripts[name] = transcript_of(np.array(steps, np.int64))
            if len(transcripts[name]) < len(steps):
                twice.append(name)
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
    if twice:
        notes.append(
            f"the step lists of {count_of(twice, 'video')} name a step twice in a row, which counts once: no boundary "
            "can be seen there; a file with a step for each frame belongs in labels/"
        )
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
    shows: dict[str, Shows] = {name: "mistakes" for name in in_mistakes}
    shows |= {name: "part" for name in harvested}
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
        if name in own and kept is not None and name not in transcripts and (kept < 0).any():
            transcripts[name] = _listed_by(own[name], name, kept, label_paths(root, name)[1], ids)
        if name in times:
            if kept is not None and (name not in own or own[name].counts_file_frames):
                kept = times[name].at_rate(kept, transcripts.get(name, ()))
            length = length if kept is None else min(length, len(kept))
        else:
            length = min(length, lengths.get(name, length))
            kept = None if kept is None else kept[:length]
        if name in own and kept is not None:
            transcripts.setdefault(name, transcript_of(kept))
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
                aspect=times[name].aspect if name in times else None,
                shows=shows.get(name, "procedure"),
            )
        )
    if cut:
        most = max(cut.values())
        notes.append(
            f"{count_of(list(cut), 'video')} and their labels differ by up to {most} frames: cut to the shorter"
        )
    notes += _learned_from_all(videos, labels) if part == "train" else []
    rates = {video.rate_hz for video in videos}
    return VideoSet(
        labels=labels,
        videos=tuple(videos),
        rate_hz=rates.pop() if len(rates) == 1 else None,
        background=None if background is None else ids[background],
        notes=tuple(notes),
    )


def _without_effect(mistakes: Sequence[str], training: Collection[str], harvested: Collection[str]) -> list[str]:
    """A note for the videos of `mistakes` that count as if they were not listed there."""
    untrained = [name for name in mistakes if name not in training]
    parts = [name for name in mistakes if name in training and name in harvested]
    notes = []
    if untrained:
        notes.append(f"'mistakes' lists {count_of(untrained, 'video')} without effect: not in the training part")
    if parts:
        why = "harvested videos count as parts of the procedure"
        notes.append(f"'mistakes' lists {count_of(parts, 'video')} without effect: {why}")
    return notes


def _learned_from_all(videos: Sequence[Video], labels: Sequence[str]) -> list[str]:
    """A note if the procedure cannot be learned from the videos that follow it: they lack a step."""
    shown = {step for video in videos if video.shows == "procedure" for step in video.transcript}
    others = [video for video in videos if set(video.transcript) - shown]
    if not others:
        return []
    kinds = {"part": "harvested videos", "mistakes": "videos of 'mistakes'"}
    which = " and ".join(text for kind, text in kinds.items() if any(video.shows == kind for video in others))
    steps = [labels[step] for step in sorted({step for video in others for step in video.transcript} - shown)]
    return [f"only {which} show {count_of(steps, 'step')}, so the procedure is learned from all videos"]


def _listed_by(
    found: FoundLabels, name: str, labels: IntArray, per_frame: Path, ids: dict[str, int]
) -> tuple[int, ...]:
    """The step list of a video that has none and whose labels do not cover all frames: from the frame labels in the
    file `per_frame`. Raises EdgeHalError if there are none."""
    if per_frame.is_file():
        return transcript_of(np.array(read_names(per_frame, ids), np.int64))
    why = f"{found.path} labels {(labels >= 0).mean():.0%} of its frames"
    raise EdgeHalError(f"video {name} has no step list", why, f"write transcripts/{name}.txt: one step a line")
