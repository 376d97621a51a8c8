"""The index of the source's pictures in a recording, which anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_hal.runtime.recording.material_reader import PictureIndex

GOOD = {"frame": 0, "t_ns": 0, "bytes": 2, "size": [4, 3]}


def write(folder: Path, *rows: dict[str, Any]) -> tuple[Path, Path]:
    (folder / "pictures").write_bytes(b"x" * 100)
    (folder / "index").write_text("".join(json.dumps({**GOOD, **row}) + "\n" for row in rows))
    return folder / "pictures", folder / "index"


def test_pictures_that_are_complete_are_read_in_order(tmp_path: Path) -> None:
    found = PictureIndex(*write(tmp_path, {}, {"frame": 2, "t_ns": 7, "bytes": 98}, {"frame": 3, "t_ns": 9})).more()
    assert [(each.frame, each.t_ns, each.size) for each in found] == [(0, 0, (4, 3)), (2, 7, (4, 3))]


@pytest.mark.parametrize(
    "row",
    [
        {"frame": 0},
        {"t_ns": 0},
        *({"size": size} for size in ([0, 0], [0, 4], [65535, 65535], [4], [4, 3, 2], [-4, 3], [4.0, 3], "43", None)),
        *({"bytes": count} for count in (-1, 1 << 60, "2", None)),
    ],
)
def test_an_impossible_row_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    files = write(tmp_path, {}, {"frame": 1, "t_ns": 1, **row})
    with pytest.raises((ValueError, TypeError)):
        PictureIndex(*files).more()
