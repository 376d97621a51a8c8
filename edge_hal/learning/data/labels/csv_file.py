"""Segments as CSV: `video,begin_s,end_s,step,confidence`. A row without end is a time stamp."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.learning.data.mstcn_files import stem_of
from edge_hal.media.names import composed
from edge_hal.untrusted import read_regular

from .segments import Mark, SegmentedVideo

FILE = "segments.csv"
NEEDED = ("begin_s", "end_s", "step")
DECIMALS = 6
"""Of a time: exact for up to 500,000 frames a second."""


def write_csv(videos: Sequence[SegmentedVideo]) -> dict[str, str]:
    """Names and contents of the files."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("video", *NEEDED, "confidence"))
    for video in videos:
        for each, confidence in video.with_confidences:
            begin, end = (f"{frame / video.rate_hz:.{DECIMALS}f}" for frame in (each.first, each.stop))
            table.writerow((video.name, begin, end, each.step, f"{confidence:.2f}"))
    return {FILE: text.getvalue()}


def read_csv(path: Path) -> dict[str, list[Mark]]:
    """Marks by video. Separated by commas, semicolons or tabs; with the last two, a decimal comma is accepted. Without
    a column `video` the file is of the video that it is named after. A table of other columns holds no marks.

    Raises:
        EdgeHalError: the file cannot be read, or a row is malformed.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
        head = text.partition("\n")[0]
        separator = max(",;\t", key=head.count)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator, strict=True)]
    except (OSError, ValueError, csv.Error) as error:
        raise file_error(f"cannot read the labels {path}", error, "export it again", path=path) from error
    columns = [name.strip() for name in rows[0]] if rows else []
    if not set(NEEDED) <= set(columns):
        return {}
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
