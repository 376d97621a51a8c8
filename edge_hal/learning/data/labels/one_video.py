"""Write the labels of one video into a folder of labels, beside those of other videos, and take them out again.

A video that has labels keeps its file and its format, so at no moment two files hold labels of one video. Each change
is one renaming: a process that is killed leaves the file before or after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error, write_file

from .csv_file import FILE, with_rows_of, write_csv
from .eaf import write_eaf
from .frames import write_frames
from .label_studio import FILE as JSON_FILE
from .label_studio import write_label_studio
from .segments import FoundLabels, SegmentedVideo

SUFFIXES = {"csv": ".csv", "frames": ".txt", "eaf": ".eaf", "label-studio": ".json"}
"""Of the file of one video, by the format of `edge-hal label`."""
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
        text = with_rows_of(path, video.name, video)
    else:
        text = _contents(video, path)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise file_error(f"cannot write {folder}", error, path=folder) from error
    write_file(path, text)
    return path


def remove_labels_of(name: str, found: Mapping[str, FoundLabels]) -> None:
    """Take the labels of a video out of their folder. Raises EdgeHalError as `write_labels_of`."""
    path = found[name].path
    if _shared(path, found):
        _check_table(path, name)
        return write_file(path, with_rows_of(path, name, None))
    try:
        path.unlink()
    except OSError as error:
        raise file_error(f"cannot delete {path}", error, path=path) from error


def _contents(video: SegmentedVideo, path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return write_frames([video])[f"{video.name}.txt"]
    if suffix == ".eaf":
        return write_eaf([video])[f"{video.name}.eaf"]
    if suffix == ".json":
        return write_label_studio([video])[JSON_FILE]
    return write_csv([video], "\t" if suffix == ".tsv" else ",")[FILE]


def _shared(path: Path, found: Mapping[str, FoundLabels]) -> bool:
    return sum(each.path == path for each in found.values()) > 1


def _check_table(path: Path, name: str) -> None:
    if path.suffix.lower() not in (".csv", ".tsv"):
        raise EdgeHalError(f"cannot replace the labels of video {name}", f"{path} holds those of others too", TODO)
