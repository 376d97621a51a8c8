"""The files of a data set in the layout of MS-TCN, and of a task folder: where they are. `step_texts.py` reads them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.media.names import VIDEO_SUFFIXES, composed, printable, with_suffix
from edge_hal.task_file import read_task
from edge_hal.task_folder import SUGGESTIONS, TASK_FILE, is_task

from .step_texts import count_of, nearest, read_lines, stamps_in

ACCEPT = f"correct and move {SUGGESTIONS}/VIDEO.csv to labels/, or write transcripts/VIDEO.txt (docs/growing.md)"

Kind = Literal["features", "video"]
Layout = Literal["DT", "TD"]


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
        if printable(name) != name:
            what = f"the name of the file {printable(path.name)} in {root / folder} is not in UTF-8"
            raise EdgeHalError(what, "labels and alignments could not name it", "rename the file")
        if name in files:
            raise EdgeHalError(
                f"two files are called {printable(name)}",
                f"{printable(files[name].name)} and {printable(path.name)} in {root / folder}",
                "rename or remove one of them",
            )
        files[name] = path
    inside = [printable(path.name) for path in others if path.is_dir()]
    others = [path for path in others if not path.is_dir()]
    ignored = count_of([printable(path.name) for path in others], "other file")
    folders = f"{count_of(inside, 'folder')} ignored: subfolders are not read" if inside else ""
    wanted = suffixes[0] if len(suffixes) == 1 else f"a type of video ({', '.join(suffixes[:4])}, ...)"
    if not files:
        what, why = f"{root / folder} is empty", f"it has no file of {wanted}"
        if others:
            what = f"{root / folder} has no file of {wanted}"
            why = f"it has {ignored}"
        why += f"; {folders}" if folders else ""
        raise EdgeHalError(what, why, f"copy your recordings into {root / folder}")
    if others and notes is not None:
        notes.append(f"{root / folder}: {ignored} ignored, not of {wanted}")
    if folders and notes is not None:
        notes.append(f"{root / folder}: {folders}")
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
            "name one of those, or no split to take all videos" if found else "leave --split out to take all videos",
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
    path = root / TASK_FILE
    if part == "valid":
        raise EdgeHalError(f"{root} has no valid part", "a task folder has a train and a test part", exit_code=2)
    test = listed_videos(task.file.test, files, f"'test' of {path}")
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


def listed_videos(listed: Iterable[str], files: Collection[str], key: str) -> list[str]:
    """The videos that `key` of a task or a configuration lists; a suffix is accepted. Raises EdgeHalError if one is not
    among `files`."""
    names = video_names(listed)
    for name in names:
        if name not in files:
            todo = "correct the name, or take it out of the list"
            raise EdgeHalError(
                f"there is no video {name!r}, which {key} lists", nearest(name, sorted(files), "video"), todo
            )
    return names


def video_names(listed: Iterable[str]) -> list[str]:
    """The names of listed videos, which may have a suffix."""
    return [composed(stem_of(name)) for name in listed]


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


def check_one_list_each(root: Path) -> None:
    """Raises EdgeHalError if two step lists have the name of one video, in other Unicode forms or with another suffix:
    which of them counts would depend on how they are written."""
    lists: dict[str, Path] = {}
    for path in text_files(root / "transcripts")[0]:
        other = lists.setdefault(composed(path.stem), path)
        if other != path:
            what = f"two step lists are called {printable(composed(path.stem))}"
            why = f"{other.name!a} and {path.name!a} in {root / 'transcripts'}"
            raise EdgeHalError(what, why, "remove one of them")


def text_file(folder: Path, name: str) -> Path:
    """The file of a video, in whichever Unicode form its name is written; `.TXT` counts as well."""
    path = folder / f"{name}.txt"
    if path.is_file() or not folder.is_dir():
        return path
    if name.isascii():
        others = (folder / f"{name}{suffix}" for suffix in (".TXT", ".Txt"))
        return next((other for other in others if other.is_file()), path)
    return next((other for other in text_files(folder)[0] if composed(other.stem) == name), path)


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
        if not rest or not (head.isascii() and head.isdigit() and len(head) < 10):
            raise _bad_mapping(path, f"line {number} reads {line!r}")
        if int(head) in by_id or rest[0] in by_id.values():
            raise _bad_mapping(path, f"line {number} repeats an id or a name: {line!r}")
        by_id[int(head)] = rest[0]
    if sorted(by_id) != list(range(len(by_id))) or not by_id:
        raise _bad_mapping(path, f"its ids are {sorted(by_id)[:12]}, not 0 .. K-1")
    return tuple(by_id[i] for i in range(len(by_id)))


def _bad_mapping(path: Path, why: str) -> EdgeHalError:
    return EdgeHalError(f"{path} is malformed", why, "write one line `id name` for each step, ids from 0")
