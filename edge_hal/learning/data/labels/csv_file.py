"""Segments as CSV: `video,begin_s,end_s,step,confidence`. A row without end is a time stamp."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import read_regular
from edge_hal.learning.data.mstcn_files import stem_of
from edge_hal.media.names import composed, printable

from .segments import Mark, SegmentedVideo

FILE = "segments.csv"
NEEDED = ("begin_s", "end_s", "step")
OF_BOUNDARIES = ("time_s", "from", "to")
DECIMALS = 6
"""Decimals of a time in seconds: exact for up to 500,000 frames a second."""


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
    (clip.mp4.mp4) that of the file, so that it is found again. Raises EdgeHalError if neither is."""
    found = next((text for text in (name, path.name) if _video_in(text) == name), None)
    if found is None:
        what = f"the name of video {printable(name)!r} cannot stand in a table of labels"
        why = f"it would be read as video {printable(_video_in(path.name))!r}"
        raise EdgeHalError(what, why, "rename the video file: no blank at its begin, and no backslash")
    return found


def _video_in(cell: str) -> str:
    """The video that a cell of the column `video` names."""
    return stem_of(composed(cell.strip()))


def with_rows_of(path: Path, name: str, file: Path, new: Sequence[Row]) -> str:
    """The contents of a table with other rows for a video. All else stays.

    Args:
        file: of the video.

    Raises:
        EdgeHalError: the table cannot be read, it has other columns, or it cannot name the video.
    """
    table = _table_of_labels(path)
    return table.with_rows(table.rows_of_others(name), name, file, new)


def with_row_more(path: Path, name: str, file: Path, row: Row) -> str:
    """The contents of a table with one row more, for a video. All else stays. Raises EdgeHalError as `with_rows_of`."""
    table = _table_of_labels(path)
    return table.with_rows([number for number, _ in table.numbered], name, file, [row])


def without_rows_of(path: Path, name: str) -> str:
    """The contents of a table without the rows of a video; empty if no row is left. All else stays. Raises EdgeHalError
    as `with_rows_of`."""
    table = _table_of_labels(path)
    kept = table.rows_of_others(name)
    return table.only(kept) if kept else ""


def without_marks(path: Path, places: Collection[str]) -> str:
    """As `without_rows_of`, without the marks at these places."""
    table = _table_of_labels(path)
    kept = [number for number, _ in table.numbered if _place(path, number) not in places]
    return table.only(kept) if kept else ""


def _table_of_labels(path: Path) -> _Table:
    table = _read(path)
    missing = next((column for column in NEEDED if column not in table.columns), None)
    if missing is not None:  # that of boundaries
        what, why = f"cannot write labels into {path}", f"it has no column '{missing}'"
        raise EdgeHalError(what, why, "take the file out of the folder, or give it another name")
    return table


def _place(path: Path, number: int) -> str:
    return f"{path}, line {number}"


@dataclass(frozen=True)
class _Table:
    """A table, and how it is written.

    Attributes:
        mark: the byte order mark, if there is one.
        rows: the cells. texts: the same rows as they stand in the file.
    """

    mark: str
    separator: str
    rows: list[list[str]]
    texts: list[str]

    @property
    def columns(self) -> list[str]:
        return [cell.strip() for cell in self.rows[0]] if self.rows else []

    @property
    def numbered(self) -> list[tuple[int, list[str]]]:
        """The rows below the columns that are not blank, with their numbers."""
        return [(number, row) for number, row in enumerate(self.rows[1:], 2) if any(cell.strip() for cell in row)]

    def rows_of_others(self, name: str) -> list[int]:
        """The numbers of the rows of other videos. Without a column `video` there are none."""
        if "video" not in self.columns:
            return []
        at = self.columns.index("video")
        return [number for number, row in self.numbered if _video_in(row[at]) != name]

    def only(self, kept: Collection[int]) -> str:
        """The table with the rows of these numbers, as they stand in the file."""
        dropped = {number for number, _ in self.numbered} - set(kept)
        return self.mark + "".join(text for number, text in enumerate(self.texts, 1) if number not in dropped)

    def with_rows(self, kept: Collection[int], name: str, file: Path, new: Sequence[Row]) -> str:
        """The same, and below it new rows of a video, with the separator, the columns, the decimal sign and the line
        ends of the table. Raises EdgeHalError if it cannot name the video."""
        columns = self.columns
        end = "\r\n" if self.texts[0].endswith("\r\n") else "\n"
        times = [row[columns.index(column)] for _, row in self.numbered for column in NEEDED[:2]]
        decimal = "," if self.separator != "," and any("," in cell for cell in times) else "."
        in_table = name_in_table(name, file) if "video" in columns else ""
        added = io.StringIO()
        table = csv.writer(added, lineterminator=end, delimiter=self.separator)
        for row in new:
            cells = _cells(in_table, row, decimal)
            table.writerow([cells.get(column, "") for column in columns])
        text = self.only(kept)
        return text + ("" if text.endswith("\n") else end) + added.getvalue()


def _cells(name: str, row: Row, decimal: str = ".") -> dict[str, str]:
    begin, end, step, confidence = row
    numbers = (f"{begin:.{DECIMALS}f}", "" if end is None else f"{end:.{DECIMALS}f}", confidence)
    times = [number.replace(".", decimal) for number in numbers]
    return dict(zip(("video", "begin_s", "end_s", "confidence", "step"), (name, *times, step), strict=True))


def read_csv(path: Path) -> dict[str, list[Mark]]:
    """Marks by video. Separated by commas, semicolons or tabs; with the last two, a decimal comma is accepted. Without
    a column `video` the file is of the video that it is named after. The table of boundaries that `edge-hal label`
    writes beside the segments holds no marks.

    Raises:
        EdgeHalError: the file cannot be read, it has other columns, or a row is malformed.
    """
    table = _read(path)
    columns = table.columns
    if set(OF_BOUNDARIES) <= set(columns):
        return {}
    missing = next((name for name in NEEDED if name not in columns), None)
    if missing is not None:
        what = f"cannot read the labels {path}: it has no column '{missing}'"
        why = f"its first line reads {', '.join(columns)[:80]}" if any(columns) else "it is empty"
        todo = f"call the columns video, {', '.join(NEEDED)}, or take the file out of the folder"
        raise EdgeHalError(what, why, todo)
    found: dict[str, list[Mark]] = {}
    for number, row in table.numbered:
        place = _place(path, number)
        if len(row) != len(columns):
            raise EdgeHalError(f"{place}: {len(row)} columns instead of {len(columns)}", "", "correct the line")
        cells = dict(zip(columns, (composed(cell.strip()) for cell in row), strict=True))
        video = _video_in(cells["video"]) if "video" in cells else composed(path.stem)
        begin, end = (_seconds(cells[key], key, place, table.separator) for key in ("begin_s", "end_s"))
        if begin is None or not video or not cells["step"]:
            raise EdgeHalError(f"{place}: the video, the begin or the step is missing", "", "correct the line")
        found.setdefault(video, []).append(Mark(begin, end, "s", cells["step"], place))
    return found


def _read(path: Path) -> _Table:
    try:
        text = read_regular(path).decode()
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        text = text.removeprefix(mark)
        head = text.partition("\n")[0]
        separator = max(",;\t", key=head.count)
        lines = list(io.StringIO(text))
        reader = csv.reader(lines, delimiter=separator, strict=True)
        rows, texts, begin = [], [], 0
        for row in reader:  # one may have several lines
            rows.append(row)
            texts.append("".join(lines[begin : reader.line_num]))
            begin = reader.line_num
        return _Table(mark, separator, rows, texts)
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
