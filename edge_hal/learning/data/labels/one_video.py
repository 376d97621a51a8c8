"""Write the labels of one video into a folder of labels, beside those of other videos, and take them out again.

A video that has labels keeps its file and its format, so at no moment two files hold labels of one video. Each change
is one renaming: a process that is killed leaves the file before or after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error, write_file

from .csv_file import (
    Row,
    name_in_table,
    rows_of,
    table_of,
    with_row_more,
    with_rows_of,
    without_marks,
    without_rows_of,
)
from .eaf import write_eaf
from .frames import write_frames
from .label_studio import FILE as JSON_FILE
from .label_studio import holds_others, write_label_studio
from .segments import FoundLabels, Mark, SegmentedVideo

SUFFIXES = {"csv": ".csv", "frames": ".txt", "eaf": ".eaf", "label-studio": ".json"}
"""Suffix of the file of one video, by the format of `edge-hal label`."""
TABLES = (".csv", ".tsv")


def write_labels_of(folder: Path, video: SegmentedVideo, found: Mapping[str, FoundLabels], format: str) -> Path:
    """Write the labels of all frames of a video. The file is returned.

    Args:
        found: what the folder holds, as `read_label_folder` gives it.
        format: of a new file, a key of `SUFFIXES`.

    Raises:
        EdgeHalError: the file holds something else too, in a format whose parts cannot be replaced; or it cannot be
            written.
    """
    known = found.get(video.name)
    path = folder / f"{video.name}{SUFFIXES[format]}" if known is None else known.path
    if _is_table(path) and path.is_file():
        text = with_rows_of(path, video.name, video.path, rows_of(video))
    else:
        _check_alone(path, video.name, known)
        text = _contents(video, path)
    _write(path, text)
    return path


def add_stamp(folder: Path, name: str, file: Path, time_s: float, step: str, found: Mapping[str, FoundLabels]) -> None:
    """Label one frame of a video, as a row of a table.

    Args:
        file: of the video.
        found: as for `write_labels_of`.

    Raises:
        EdgeHalError: the video has labels in a file that is no table; or it cannot be written.
    """
    known = found.get(name)
    path = folder / f"{name}.csv" if known is None else known.path
    if not _is_table(path):
        todo = "add it in that file, or accept the whole video"
        raise EdgeHalError(f"cannot add a time stamp to video {name}", _no_table(path), todo)
    row: Row = (time_s, None, step, "")
    if path.is_file():
        _write(path, with_row_more(path, name, file, row))
    else:
        _write(path, table_of([(name_in_table(name, file), [row])], _separator(path)))


def remove_stamps(name: str, chosen: Callable[[Mark], bool], found: Mapping[str, FoundLabels]) -> bool:
    """Take the chosen stamps of a video out of its table. False if there are none. Raises EdgeHalError as
    `add_stamp`."""
    known = found.get(name)
    if known is None:
        return False
    if not _is_table(known.path):
        todo = "remove it in that file, or accept the whole video"
        raise EdgeHalError(f"cannot remove a time stamp of video {name}", _no_table(known.path), todo)
    places = {mark.place for mark in known.marks or () if mark.end is None and chosen(mark)}
    if places:
        _write_or_delete(known.path, without_marks(known.path, places))
    return bool(places)


def remove_labels_of(name: str, found: Mapping[str, FoundLabels]) -> None:
    """Take the labels of a video out of their folder. Raises EdgeHalError as `write_labels_of`."""
    path = found[name].path
    if _is_table(path):
        return _write_or_delete(path, without_rows_of(path, name))
    _check_alone(path, name, found[name])
    _write_or_delete(path, "")


def _write_or_delete(path: Path, text: str) -> None:
    """Delete a file that would hold nothing."""
    if text:
        return _write(path, text)
    try:
        path.unlink()
    except OSError as error:
        raise file_error(f"cannot delete {path}", error, path=path) from error


def _write(path: Path, text: str) -> None:
    """A file that is a link stays one: others may read what it leads to."""
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise file_error(f"cannot write {path.parent}", error, path=path.parent) from error
    write_file(path.resolve(), text)


def _contents(video: SegmentedVideo, path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return write_frames([video])[f"{video.name}.txt"]
    if suffix == ".eaf":
        return write_eaf([video])[f"{video.name}.eaf"]
    if suffix == ".json":
        return write_label_studio([video])[JSON_FILE]
    return table_of([(name_in_table(video.name, video.path), rows_of(video))], _separator(path))


def _separator(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES


def _no_table(path: Path) -> str:
    return f"its labels are in {path}, which is no table"


def _check_alone(path: Path, name: str, known: FoundLabels | None) -> None:
    """Raises EdgeHalError if a file that is no table holds more than the labels of this video. What it holds is seen
    in the file: labels that do not count yet would be lost too."""
    if not path.is_file():
        return
    shared = path.suffix.lower() == ".json" and holds_others(path, name)
    if known is None and (shared or path.suffix.lower() != ".json"):
        why = f"{path} is there and holds {'other videos' if shared else 'something else, such as unnamed annotations'}"
        raise EdgeHalError(f"cannot write the labels of video {name}", why, "take that file out of the folder")
    if shared:
        todo = "take the video out of that file, or correct it there"
        raise EdgeHalError(f"cannot replace the labels of video {name}", f"{path} holds others too", todo)
