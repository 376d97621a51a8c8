"""A folder of labels in any of the formats that `edge-hal label` writes, mixed freely: what it holds for each video.

<video>.txt     one step for each frame, or lines `frame step` of time stamps
<video>.eaf     ELAN
*.csv, *.tsv    rows of segments and stamps of one or more videos
*.json          an export of Label Studio
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from edge_hal.errors import EdgeHalError
from edge_hal.files import no_folder, what_it_is
from edge_hal.learning.data.media_files import VideoTimes
from edge_hal.learning.data.mstcn_files import list_folder
from edge_hal.learning.data.step_texts import nearest, read_names, stamps_in
from edge_hal.media.names import composed, printable
from edge_hal.metrics import IntArray

from .csv_file import read_csv
from .eaf import read_eaf
from .label_studio import read_label_studio
from .order import check_order, order_differs
from .segments import FoundLabels, Mark, frame_labels_of, place_of

READERS = {".csv": read_csv, ".tsv": read_csv, ".eaf": read_eaf, ".json": read_label_studio}


def read_label_folder(folder: Path, named: str | None = None) -> dict[str, FoundLabels]:
    """What the folder holds, by the name of the video. Hidden files and files of other types are ignored.

    Args:
        named: read only the files that are called like this video.

    Raises:
        EdgeHalError: a file is broken, or two files hold labels of one video.
    """
    found: dict[str, FoundLabels] = {}
    for path in list_folder(folder):
        suffix = path.suffix.lower()
        if path.name.startswith(".") or suffix not in (".txt", *READERS):
            continue
        if named is not None and composed(path.stem) != named:
            continue
        if not path.is_file():
            why, todo = what_it_is(path), "take it out of the folder, or put the file there"
            raise EdgeHalError(f"cannot read the labels {path}", why, todo)
        if suffix == ".txt":
            each: Mapping[str, FoundLabels] = {composed(path.stem): FoundLabels(path, _stamps(path))}
        else:
            each = {name: FoundLabels(path, tuple(marks)) for name, marks in READERS[suffix](path).items() if marks}
        for name, labels in each.items():
            if name in found:
                files = f"{printable(found[name].path.name)} and {printable(path.name)}"
                what = f"{folder} has labels of video {printable(name)} twice"
                raise EdgeHalError(what, f"in {files}", "take one of them out of the folder")
            found[name] = labels
    return found


def read_own_labels(root: Path) -> dict[str, FoundLabels]:
    """The labels in `labels/` of a folder with videos, if there is one.

    Raises:
        EdgeHalError: as `read_label_folder`; or `labels` is no folder, for example a link to a disk that is not there.
    """
    folder = root / "labels"
    if folder.is_dir():
        return read_label_folder(folder)
    if os.path.lexists(folder):
        raise EdgeHalError(f"cannot read the labels {folder}", what_it_is(folder), "mount it, or remove the link")
    return {}


def without_video(found: Mapping[str, FoundLabels], videos: Collection[str]) -> list[str]:
    """A note for each video that has labels and is not there."""
    return [
        f"{labels.path} has labels of video {printable(name)}, which is not there; "
        f"{nearest(name, sorted(videos), 'video')}"
        for name, labels in found.items()
        if name not in videos
    ]


def read_given_labels(folder: Path, videos: Mapping[str, Path]) -> dict[str, FoundLabels]:
    """The labels of `train --labels`.

    Raises:
        EdgeHalError: as `read_label_folder`; or the folder is missing, has no labels, or has those of a video that is
            not among `videos`.
    """
    if not folder.is_dir():
        raise EdgeHalError(f"--labels {folder}", no_folder(folder), exit_code=2)
    found = read_label_folder(folder)
    if not found:
        todo = "it takes .txt, .eaf, .csv and .json files, such as edge-hal label writes"
        raise EdgeHalError(f"--labels {folder}", "it holds no labels", todo, exit_code=2)
    for name, labels in found.items():
        if name not in videos:
            what = f"{labels.path} has labels of video {printable(name)}, which is not there"
            todo = "correct the name, or take it out of the folder"
            raise EdgeHalError(what, nearest(name, sorted(videos), "video"), todo)
    return found


def _stamps(path: Path) -> tuple[Mark, ...] | None:
    stamps = stamps_in(path)
    if stamps is None:
        return None
    return tuple(Mark(frame, None, "frame", step, f"{path}, line {line}") for line, frame, step in stamps)


def labels_in(
    found: FoundLabels,
    name: str,
    ids: dict[str, int],
    length: int,
    rate_hz: float | None,
    times: VideoTimes | None,
) -> IntArray:
    """The labels of the frames of a video, -1 where there is none. A file with one line for each frame gives as many as
    it has, and stamps of a video file as many as that has frames (`VideoTimes.at_rate`). All others give `length`."""
    if found.marks is None:
        return np.array(read_names(found.path, ids), np.int64)
    if found.counts_file_frames and times is not None:
        length = times.numbered
    return frame_labels_of(found.marks, name, ids, length, rate_hz)


def check_list(
    found: FoundLabels,
    name: str,
    labels: IntArray,
    transcript: tuple[int, ...],
    steps: tuple[str, ...],
    rate_hz: float | None,
) -> str:
    """A note if the labels of all frames have other steps than the list; they replace it. Else an empty text.

    Args:
        labels: (T,) of the frames. transcript: the step list of the video.

    Raises:
        EdgeHalError: some frames are labelled, and the list cannot be passed through in order to give these labels.
    """

    def when(frame: int) -> str:
        return f"frame {frame}, {frame / rate_hz:.2f} s" if rate_hz else f"frame {frame}"

    if (labels >= 0).all():
        differs = order_differs(labels, transcript)
        if differs is None:
            return ""
        frame, at = differs
        has = f"'{steps[labels[frame]]}'" if frame < len(labels) else "no further step"
        listed = f"'{steps[transcript[at]]}'" if at < len(transcript) else "no further step"
        place = f"{when(frame)}, line {frame + 1} of {found.path.name}" if found.marks is None else when(frame)
        return (
            f"video {printable(name)}: its labels have {has} as step {at + 1} ({place}), its step list has {listed}; "
            f"the labels are used, correct transcripts/{printable(name)}.txt or the labels"
        )
    wrong = check_order(labels, transcript)
    if wrong is not None:
        place = place_of(wrong, found.marks or (), name, len(labels), rate_hz) or str(found.path)
        step, video = steps[labels[wrong]], printable(name)
        raise EdgeHalError(
            f"{place}: '{step}' at {when(wrong)} contradicts the step list of video {video}",
            f"the list reads {', '.join(steps[each] for each in transcript)}",
            f"correct the labels or transcripts/{video}.txt",
        )
    return ""
