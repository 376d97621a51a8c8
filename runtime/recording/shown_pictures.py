"""The pictures of a recording by stream time, for people who look at a run: those of the source where they were kept
(`--record-pictures source`), else those that the model saw, which are small.

The state of the run is not needed, so pieces of a ring that another version wrote are shown as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.files import check_readable
from edge_hal.files.untrusted import parse_json, read_regular
from edge_hal.media.jpeg import jpeg

from .log_file import not_readable, parse_entries, parse_head
from .material import INDEX, PICTURES
from .material_reader import read_pictures
from .reader import LARGEST_LOG, frame_rows
from .writer import EVENTS, FRAMES, LOG


@dataclass(frozen=True)
class ShownPicture:
    """`t_ns`: stream time. `read` gives the JPEG; it raises OSError and ValueError."""

    t_ns: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ShownPictures:
    """Of one folder. `session`: that of the run's events, None if the folder holds no event. `recording`: what all
    pieces of a ring have in common, None in a recording of an earlier version. `of_source`: they are the source's own.
    """

    session: str | None
    recording: str | None
    of_source: bool
    pictures: Sequence[ShownPicture]


def read_shown(folder: Path) -> ShownPictures:
    """The pictures in order of time; none if the run had vectors.

    Raises:
        EdgeHalError: the folder is no recording, or it is damaged.
    """
    check_readable(folder)
    try:
        lines = read_regular(folder / LOG, LARGEST_LOG, links=False).decode().splitlines(keepends=True)
        head = parse_head(lines[0] if lines else "")
        of_source = (folder / PICTURES).is_file()
        if of_source:
            stored = read_pictures(folder / PICTURES, folder / INDEX)
            pictures = [ShownPicture(each.t_ns, each.read) for each in stored]
        else:
            entries = parse_entries([line for line in lines[1:] if line.endswith("\n")])
            pictures = _small(folder, tuple(head["shape"]), entries)
        return ShownPictures(_session(folder / EVENTS), head.get("session"), of_source, pictures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_readable(folder, error) from error


def _small(folder: Path, shape: tuple[int, ...], entries: Sequence[dict[str, Any]]) -> list[ShownPicture]:
    if len(shape) != 3:
        return []
    rows = frame_rows(folder / FRAMES, shape)
    times = {entry["frame"]: entry["t_ns"] for entry in entries if "frame" in entry}

    def reading(at: int) -> Callable[[], bytes]:
        return lambda: jpeg(np.array(rows[at]))

    shown = [(times[e["shown"]], e["at"]) for e in entries if "shown" in e and e["shown"] in times]
    return [ShownPicture(t_ns, reading(at)) for t_ns, at in sorted(shown) if at < len(rows)]


def _session(events: Path) -> str | None:
    """Of the first event."""
    line = read_regular(events, LARGEST_LOG, links=False).partition(b"\n")
    if not line[1]:
        return None
    run = parse_json(line[0])["run"]
    return str(run["session"]) if isinstance(run, dict) and "session" in run else None
