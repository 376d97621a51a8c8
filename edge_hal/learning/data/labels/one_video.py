"""Write the labels of one video into a folder of labels, beside those of other videos, and take them out again.

A video that has labels keeps its file and its format, so at no moment two files hold labels of one video. Each change
is one renaming: a process that is killed leaves the file before or after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error, write_file

from .csv_file import Row, name_in_table, rows_of, table_of, with_rows_of
from .eaf import write_eaf
from .frames import write_frames
from .label_studio import FILE as JSON_FILE
from .label_studio import write_label_studio
from .segments import FoundLabels, Mark, SegmentedVideo

SUFFIXES = {"csv": ".csv", "frames": ".txt", "eaf": ".eaf", "label-studio": ".json"}
"""Of the file of one video, by the format of `edge-hal label`."""
TABLES = (".csv", ".tsv")
TODO = "take the video out of that file, or correct it there"


def write_labels_of(folder: Path, video: SegmentedVideo, found: Mapping[str, FoundLabels], format: str) -> Path:
    """Write the labels of all frames of a video. The file is returned.

    Args:
        found: what the folder holds, as `read_label_folder` gives it.
        format: of a new file, a key of `SUFFIXES`.

    Raises:
        EdgeHalError: the file holds other videos too, in a format whose parts cannot be replaced; or it cannot be
            written.
    """
    known = found.get(video.name)
    path = folder / f"{video.name}{SUFFIXES[format]}" if known is None else known.path
    if _shared(path, found) and known is not None:
        _check_table(path, video.name)
        text = with_rows_of(path, video.name, name_in_table(video.name, video.path), rows_of(video))
    else:
        text = _contents(video, path)
    _write(path, text)
    return path


def write_marks_of(
    folder: Path, name: str, file: Path, marks: Sequence[Mark], found: Mapping[str, FoundLabels]
) -> None:
    """Write labels of some frames of a video, as rows of a table. Without marks its labels are taken out.

    Args:
        file: of the video.
        marks: all that the video shall have; their times are seconds.
        found: as for `write_labels_of`.

    Raises:
        EdgeHalError: the video has labels in a file that is no table; or it cannot be written.
    """
    known = found.get(name)
    if known is not None and known.path.suffix.lower() not in TABLES:
        why, todo = (
            f"its labels are in {known.path}, which is no table",
            "add it in that file, or accept the whole video",
        )
        raise EdgeHalError(f"cannot add a time stamp to video {name}", why, todo)
    if not marks:
        return remove_labels_of(name, found) if known is not None else None
    path = folder / f"{name}.csv" if known is None else known.path
    rows: list[Row] = [(mark.begin, mark.end, mark.step, "") for mark in marks]
    named = name_in_table(name, file)
    if _shared(path, found) and known is not None:
        _write(path, with_rows_of(path, name, named, rows))
    else:
        _write(path, table_of([(named, rows)], _separator(path)))


def remove_labels_of(name: str, found: Mapping[str, FoundLabels]) -> None:
    """Take the labels of a video out of their folder. Raises EdgeHalError as `write_labels_of`."""
    path = found[name].path
    if _shared(path, found):
        _check_table(path, name)
        return _write(path, with_rows_of(path, name, name, []))
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


def _shared(path: Path, found: Mapping[str, FoundLabels]) -> bool:
    return sum(each.path == path for each in found.values()) > 1


def _check_table(path: Path, name: str) -> None:
    if path.suffix.lower() not in TABLES:
        raise EdgeHalError(f"cannot replace the labels of video {name}", f"{path} holds those of others too", TODO)
