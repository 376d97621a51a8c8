"""The files of a data set in the layout of MS-TCN: how they are found and parsed. Every error names the fault."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.media.names import VIDEO_SUFFIXES, composed, printable, with_suffix
from edge_hal.spec_limits import LARGEST_LABELS, LONGEST_LABEL
from edge_hal.task_file import Task, read_task
from edge_hal.task_folder import SUGGESTIONS, TASK_FILE, is_task
from edge_hal.untrusted import MB, read_regular

ACCEPT = f"correct and move {SUGGESTIONS}/VIDEO.csv to labels/, or write transcripts/VIDEO.txt (docs/growing.md)"

ADD_STEP = "correct it, or add the step to mapping.txt, to `steps` of task.yaml, or to a step list"

CONTROL = re.compile(r"[\0-\x08\x0e-\x1b\x7f]")
"""Characters that separate neither words nor lines."""

Kind = Literal["features", "video"]
Layout = Literal["DT", "TD"]


LARGEST_TEXT = 256 * MB
"""Bytes of a file of lines. The frame labels of a day at 30 frames a second have 50."""


def read_lines(path: Path, errors: str = "strict") -> list[str]:
    """Stripped lines in the Unicode form NFC, without blank ones at the end. A byte order mark and CRLF are accepted.
    `errors`: see `bytes.decode`.

    Raises:
        EdgeHalError: the file cannot be read, or a line has a control character, which a terminal would obey.
    """
    try:
        text = read_regular(path, LARGEST_TEXT).decode("utf-8-sig", errors)
    except (OSError, ValueError) as error:
        raise file_error(f"cannot read {path}", error, path=path) from error
    lines = [composed(line.strip()) for line in text.splitlines()]
    if (odd := CONTROL.search(text)) is not None:
        number = text.count("\n", 0, odd.start()) + 1
        why = f"it has the control character {odd[0]!r}"
        raise EdgeHalError(f"cannot read line {number} of {path}", why, "is it a text file? write the line again")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def list_folder(folder: Path) -> list[Path]:
    """What is in it, sorted. Raises EdgeHalError if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise file_error(f"cannot read the folder {folder}", error, path=folder) from error


def find_kind(root: Path) -> Kind:
    found = {path.name for path in list_folder(root) if path.is_dir()}
    if "features" in found:
        return "features"
    if "videos" in found:
        return "video"
    raise EdgeHalError(
        f"{root} is no data set",
        "it has neither a folder features/ nor a folder videos/",
        "put features/<video>.npy or videos/<video>.mp4 there",
    )


def index_media(root: Path, kind: Kind, notes: list[str] | None = None) -> dict[str, Path]:
    """The feature or video files by the name of their video. Hidden files are ignored; other files that are ignored
    are named in `notes`."""
    folder, suffixes = ("features", (".npy",)) if kind == "features" else ("videos", VIDEO_SUFFIXES)
    if root.is_dir() and not (root / folder).is_dir():
        raise EdgeHalError(
            f"{root} has no folder {folder}/",
            f"the configuration reads {'feature files' if kind == 'features' else 'camera recordings'}",
            "presets: kinematics for features/, tiny or jetson for videos/",
        )
    files: dict[str, Path] = {}
    found, others = with_suffix(list_folder(root / folder), suffixes)
    for path in found:
        name = composed(path.stem)
        if name in files:
            raise EdgeHalError(
                f"two files are called {printable(name)}",
                f"{printable(files[name].name)} and {printable(path.name)} in {root / folder}",
                "rename or remove one of them",
            )
        files[name] = path
    ignored = count_of([printable(path.name) for path in others], "other file")
    wanted = suffixes[0] if len(suffixes) == 1 else f"a type of video ({', '.join(suffixes[:4])}, ...)"
    if not files:
        what, why = f"{root / folder} is empty", f"it has no file of {wanted}"
        if others:
            what = f"{root / folder} has no file of {wanted}"
            why = f"it has {ignored}"
        raise EdgeHalError(what, why, f"copy your recordings into {root / folder}")
    if others and notes is not None:
        notes.append(f"{root / folder}: {ignored} ignored, not of {wanted}")
    return files


LONGEST_NAME = 255 - len(".partial.npy")
"""Bytes of the name of a video, so that every file that is named after it can exist."""


def read_split(root: Path, split: int, part: str) -> list[str]:
    path = root / "splits" / f"{part}.split{split}.bundle"
    if not path.is_file():
        found = sorted(p.name for p in (root / "splits").glob("*.bundle"))
        raise EdgeHalError(
            f"there is no {part} part of split {split}: {path} is missing",
            f"found {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}" if found else "found no splits at all",
            "name one of those, or no split to take all videos",
        )
    names = [stem_of(line) for line in read_lines(path, "surrogateescape") if line]
    odd = next((name for name in names if "\0" in name or len(os.fsencode(name)) > LONGEST_NAME), None)
    if odd is not None:
        raise EdgeHalError(f"{path} lists a video whose name no file can have", f"it begins with {printable(odd[:40])}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise EdgeHalError(f"{path} lists {count_of(repeated, 'video')} more than once")
    if not names:
        raise EdgeHalError(f"{path} lists no video")
    return names


def names_in(root: Path, files: Collection[str], split: int | None, part: str, own: Collection[str] = ()) -> list[str]:
    """The videos of `part`: of the split; without one of the task folder, which may name test videos; else all `files`.

    A task folder that names no test videos has those with frame labels instead. Videos that `only_suggested` finds are
    not trained on. `own`: those whose labels were found already.

    Raises:
        EdgeHalError: there is no such part, or task.yaml names a test video that is not there.
    """
    if split is not None:
        return read_split(root, split, part)
    task = read_task(root)
    if task is None:
        return sorted(files)
    path, test = root / TASK_FILE, test_videos(task)
    if part == "valid":
        raise EdgeHalError(f"{root} has no valid part", "a task folder has a train and a test part", exit_code=2)
    for name in test:
        if name not in files:
            raise EdgeHalError(
                f"{path}: there is no video of the test video {name!r}", nearest(name, sorted(files), "video")
            )
    if part == "train":
        names = [name for name in sorted(files) if name not in test]
        if not names:
            raise EdgeHalError(f"{path}: all videos are test videos", "", "leave some to train on")
        waiting = only_suggested(root, names, own)
        names = [name for name in names if name not in waiting]
        if not names:
            why = f"{count_of(waiting, 'video')} with suggestions only"
            raise EdgeHalError(f"{root} has no video to train on", why, ACCEPT)
        return names
    labelled = [name for name in sorted(files) if label_paths(root, name)[1].is_file()]
    if not test and not labelled:
        why = "task.yaml names no test videos, and no video has frame labels"
        raise EdgeHalError(f"{root} has nothing to score", why, "write labels/<video>.txt: one step for each frame")
    return test or labelled


def only_suggested(root: Path, names: Iterable[str], own: Collection[str] = ()) -> list[str]:
    """Those of `names` that have suggestions in a file of their own, and neither a step list nor labels."""
    folder = root / SUGGESTIONS
    suggested = {composed(path.stem) for path in list_folder(folder)} if folder.is_dir() else set()
    own_files = {composed(path.stem) for path in list_folder(root / "labels")} if (root / "labels").is_dir() else set()
    return [
        name
        for name in names
        if name in suggested - own_files
        and name not in own
        and not any(path.is_file() for path in label_paths(root, name))
    ]


def test_videos(task: Task) -> list[str]:
    """The videos that task.yaml keeps for a test; a suffix is accepted."""
    return [composed(stem_of(name)) for name in task.file.test]


def stem_of(line: str) -> str:
    """The name of a video, from that of a file of it, with or without folders."""
    name = line.replace("\\", "/").rsplit("/", 1)[-1]
    for suffix in (".txt", ".npy", *VIDEO_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def label_paths(root: Path, name: str) -> tuple[Path, Path]:
    """Paths of the transcript and of the frame labels of a video. Those in `labels/` come before `groundTruth/`."""
    own = text_file(root / "labels", name)
    per_frame = own if own.is_file() and stamps_in(own) is None else text_file(root / "groundTruth", name)
    return text_file(root / "transcripts", name), per_frame


def text_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The text files of a folder, and what else is there; nothing if it is missing. Hidden files are in neither."""
    return with_suffix(list_folder(folder), (".txt",)) if folder.is_dir() else ([], [])


def text_file(folder: Path, name: str) -> Path:
    """The file of a video, in whichever Unicode form its name is written; `.TXT` counts as well."""
    path = folder / f"{name}.txt"
    if path.is_file() or not folder.is_dir():
        return path
    if name.isascii():
        capital = path.with_suffix(".TXT")
        return capital if capital.is_file() else path
    return next((other for other in text_files(folder)[0] if composed(other.stem) == name), path)


def count_of(names: Sequence[str], noun: str) -> str:
    """'7 videos (a, b, c, d, e, ...)'."""
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({shown})"


def read_mapping(root: Path, notes: list[str]) -> tuple[str, ...]:
    path = root / "mapping.txt"
    if not path.is_file():
        written = text_files(root / "transcripts")[0]
        named = {composed(file.stem) for file in written}
        own = [file for file in text_files(root / "labels")[0] if composed(file.stem) not in named]
        written += [file for file in own if stamps_in(file) is None]
        if not written:
            raise EdgeHalError(
                f"{path} is missing",
                "there are no transcripts to take the steps from either",
                "write one line `id name` for each step, ids from 0",
            )
        found = sorted({line for file in written for line in read_lines(file) if line})
        if not is_task(root):  # the comments in task.yaml say so
            numbered = f"{len(found)} steps numbered in alphabetical order, found in {len(written)} transcripts"
            notes.append(f"no mapping.txt: {numbered}")
        return tuple(found)
    by_id: dict[int, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        head, *rest = line.split(maxsplit=1)
        if not rest or not (head.isascii() and head.isdigit()):
            raise _bad_mapping(path, f"line {number} reads {line!r}")
        if int(head) in by_id or rest[0] in by_id.values():
            raise _bad_mapping(path, f"line {number} repeats an id or a name: {line!r}")
        by_id[int(head)] = rest[0]
    if sorted(by_id) != list(range(len(by_id))) or not by_id:
        raise _bad_mapping(path, f"its ids are {sorted(by_id)[:12]}, not 0 .. K-1")
    return tuple(by_id[i] for i in range(len(by_id)))


def check_steps(steps: Sequence[str], root: Path) -> None:
    """Raises EdgeHalError if no model can have these steps."""
    if len(steps) > LARGEST_LABELS:
        todo = f"is each line of transcripts/ a step? the first are {', '.join(printable(s[:40]) for s in steps[:3])}"
        raise EdgeHalError(f"{root} has {len(steps)} different steps", f"a model has at most {LARGEST_LABELS}", todo)
    long = next((step for step in steps if len(step) > LONGEST_LABEL), None)
    if long is not None:
        what = f"{root} has a step whose name has {len(long)} characters: {printable(long[:40])}..."
        raise EdgeHalError(what, f"at most {LONGEST_LABEL} are possible", "write one step in each line")


def _bad_mapping(path: Path, why: str) -> EdgeHalError:
    return EdgeHalError(f"{path} is malformed", why, "write one line `id name` for each step, ids from 0")


def read_step_list(path: Path, ids: dict[str, int]) -> list[int]:
    """Ids of the actions of a step list, one a line. Blank lines are skipped."""
    return _ids_of({number: line for number, line in enumerate(read_lines(path), 1) if line}, path, ids)


def read_names(path: Path, ids: dict[str, int]) -> list[int]:
    """Ids of the action names in a file with one name per line, for each frame."""
    lines = read_lines(path)
    if "" in lines:
        why = "a file of frame labels has one step in each line"
        raise EdgeHalError(f"video {path.stem}: line {lines.index('') + 1} of {path} is empty", why, "correct the line")
    return _ids_of(dict(enumerate(lines, 1)), path, ids)


def _ids_of(lines: Mapping[int, str], path: Path, ids: dict[str, int]) -> list[int]:
    """`lines`: by their number."""
    if not lines:
        raise EdgeHalError(
            f"video {path.stem} has no step: {path} is empty",
            todo="write its steps there, one a line, or leave the video out",
        )
    try:
        return [ids[line] for line in lines.values()]
    except KeyError:
        number, name = next((i, x) for i, x in lines.items() if x not in ids)
        raise EdgeHalError(
            f"video {path.stem}: line {number} of {path} names the unknown step {name!r}",
            nearest(name, tuple(ids)),
            ADD_STEP,
        ) from None


STAMP = re.compile(r"([0-9]{1,12})\s+(\S.*)")


def stamps_in(path: Path) -> list[tuple[int, int, str]] | None:
    """The stamps of a file of lines `frame step`: line, frame and step of each. None for a file of frame labels, where
    the numbers that begin the lines, if there are any, do not increase."""
    lines = [(number, STAMP.fullmatch(line)) for number, line in enumerate(read_lines(path), 1) if line]
    stamps = [(number, int(match[1]), match[2]) for number, match in lines if match is not None]
    frames = [frame for _, frame, _ in stamps]
    if not stamps or len(stamps) < len(lines) or any(b <= a for a, b in pairwise(frames)):
        return None
    return stamps


def read_timestamps(root: Path, name: str, ids: dict[str, int], length: int) -> NDArray[np.int64]:
    """Labels (length,): those of the labelled frames, -1 elsewhere. If `length` is 0 (not known), up to the last label.

    Raises:
        EdgeHalError: a line is not `frame step`, the step is unknown, or the frame lies outside the video.
    """
    path = text_file(root / "timestamps", name)
    stamps = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        frame, _, step = line.strip().partition(" ")
        if not frame.isdigit() or step not in ids or (length and int(frame) >= length):
            raise EdgeHalError(
                f"{path}, line {number}: '{line.strip()[:80]}' is no stamp",
                f"it must read 'frame step', with a frame below {length or 'the length'} and a step of mapping.txt",
                nearest(step, list(ids)) if step not in ids else "",
            )
        stamps[int(frame)] = ids[step]
    labels = np.full(length or max(stamps, default=-1) + 1, -1, np.int64)
    labels[list(stamps)] = list(stamps.values())
    return labels


def nearest(name: str, known: Sequence[str], noun: str = "step") -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    if near:
        return f"the nearest known {noun} is {near[0]!r}"
    return f"known {noun}s are {', '.join(known[:8])}{' ...' if len(known) > 8 else ''}"
