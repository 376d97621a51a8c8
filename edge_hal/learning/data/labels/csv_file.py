"""Segments as CSV: `video,begin_s,end_s,step,confidence`. A row without end is a time stamp."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import read_regular
from edge_hal.learning.data.mstcn_files import stem_of
from edge_hal.media.names import composed

from .segments import Mark, SegmentedVideo

FILE = "segments.csv"
NEEDED = ("begin_s", "end_s", "step")
OF_BOUNDARIES = ("time_s", "from", "to")
DECIMALS = 6
"""Of a time: exact for up to 500,000 frames a second."""


Row = tuple[float, float | None, str, str]
"""Begin and end in seconds, the step, the confidence as text. Without an end it is a time stamp."""


def rows_of(video: SegmentedVideo) -> list[Row]:
    return [
        (each.first / video.rate_hz, each.stop / video.rate_hz, each.step, f"{confidence:.2f}")
        for each, confidence in video.with_confidences
    ]


def write_csv(videos: Sequence[SegmentedVideo], separator: str = ",") -> dict[str, str]:
    """Names and contents of the files."""
    return {FILE: table_of([(name_in_table(video.name, video.path), rows_of(video)) for video in videos], separator)}


def table_of(videos: Sequence[tuple[str, Sequence[Row]]], separator: str = ",") -> str:
    """A new table. `videos`: what stands in the column `video`, and the rows."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n", delimiter=separator)
    columns = ("video", *NEEDED, "confidence")
    table.writerow(columns)
    for name, rows in videos:
        for row in rows:
            cells = _cells(name, row)
            table.writerow([cells[column] for column in columns])
    return text.getvalue()


def name_in_table(name: str, path: Path) -> str:
    """What stands in the column `video` for a video with this name and file: the name, or where that ends like a file
    (clip.mp4.mp4) that of the file, so that `stem_of` finds it again."""
    return name if stem_of(name.strip()) == name else path.name


def with_rows_of(path: Path, name: str, in_table: str, new: Sequence[Row]) -> str:
    """The contents of a table of several videos, with other rows for the video `name`. All else stays.

    Raises:
        EdgeHalError: the file cannot be read.
    """
    rows, separator = _rows(path)
    columns = [cell.strip() for cell in rows[0]]
    at = columns.index("video")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n", delimiter=separator)
    table.writerows(row for row in rows if not row[at:] or stem_of(composed(row[at].strip())) != name)
    for row in new:
        cells = _cells(in_table, row)
        table.writerow([cells.get(column, "") for column in columns])
    return text.getvalue()


def _cells(name: str, row: Row) -> dict[str, str]:
    begin, end, step, confidence = row
    times = [f"{begin:.{DECIMALS}f}", "" if end is None else f"{end:.{DECIMALS}f}"]
    return dict(zip(("video", *NEEDED, "confidence"), (name, *times, step, confidence), strict=True))


def read_csv(path: Path) -> dict[str, list[Mark]]:
    """Marks by video. Separated by commas, semicolons or tabs; with the last two, a decimal comma is accepted. Without
    a column `video` the file is of the video that it is named after. The table of boundaries that `edge-hal label`
    writes beside the segments holds no marks.

    Raises:
        EdgeHalError: the file cannot be read, it has other columns, or a row is malformed.
    """
    rows, separator = _rows(path)
    columns = [name.strip() for name in rows[0]] if rows else []
    if set(OF_BOUNDARIES) <= set(columns):
        return {}
    missing = next((name for name in NEEDED if name not in columns), None)
    if missing is not None:
        what = f"cannot read the labels {path}: it has no column '{missing}'"
        why = f"its first line reads {', '.join(columns)[:80]}" if any(columns) else "it is empty"
        todo = f"call the columns video, {', '.join(NEEDED)}, or take the file out of the folder"
        raise EdgeHalError(what, why, todo)
    found: dict[str, list[Mark]] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        place = f"{path}, line {number}"
        if len(row) != len(columns):
            raise EdgeHalError(f"{place}: {len(row)} columns instead of {len(columns)}", "", "correct the line")
        cells = dict(zip(columns, (composed(cell.strip()) for cell in row), strict=True))
        video = stem_of(cells["video"]) if "video" in cells else composed(path.stem)
        begin, end = (_seconds(cells[key], key, place, separator) for key in ("begin_s", "end_s"))
        if begin is None or not video or not cells["step"]:
            raise EdgeHalError(f"{place}: the video, the begin or the step is missing", "", "correct the line")
        found.setdefault(video, []).append(Mark(begin, end, "s", cells["step"], place))
    return found


def _rows(path: Path) -> tuple[list[list[str]], str]:
    """The cells of the table, and what separates them."""
    try:
        text = read_regular(path).decode("utf-8-sig")
        head = text.partition("\n")[0]
        separator = max(",;\t", key=head.count)
        return list(csv.reader(io.StringIO(text), delimiter=separator, strict=True)), separator
    except (OSError, ValueError, csv.Error) as error:
        raise file_error(f"cannot read the labels {path}", error, "export it again", path=path) from error


def _seconds(text: str, key: str, place: str, separator: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text if separator == "," else text.replace(",", "."))
        if not 0 <= value < 1e9:  # NaN is in no range
            raise ValueError
    except ValueError:
        raise EdgeHalError(f"{place}: {key} is '{text[:40]}'", "", "write seconds, such as 12.5") from None
    return value
