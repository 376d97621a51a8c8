"""The texts of a data set: step lists, frame labels, stamps. Every error names the file, the line and the fault."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import MB, read_regular
from edge_hal.media.names import composed, printable
from edge_hal.spec_limits import CONTROL, LARGEST_LABELS, LONGEST_LABEL

ADD_STEP = "correct it, or add the step to mapping.txt, to `steps` of task.yaml, or to a step list"

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


def check_steps(steps: Sequence[str], root: Path) -> None:
    """Raises EdgeHalError if no model can have these steps."""
    if len(steps) > LARGEST_LABELS:
        todo = f"is each line of transcripts/ a step? the first are {', '.join(printable(s[:40]) for s in steps[:3])}"
        raise EdgeHalError(f"{root} has {len(steps)} different steps", f"a model has at most {LARGEST_LABELS}", todo)
    long = next((step for step in steps if len(step) > LONGEST_LABEL), None)
    if long is not None:
        what = f"{root} has a step whose name has {len(long)} characters: {printable(long[:40])}..."
        raise EdgeHalError(what, f"at most {LONGEST_LABEL} are possible", "write one step in each line")


def read_step_list(path: Path, ids: dict[str, int]) -> list[int]:
    """Ids of the steps of a step list, one a line. Blank lines are skipped."""
    return _ids_of({number: line for number, line in enumerate(read_lines(path), 1) if line}, path, ids)


def read_names(path: Path, ids: dict[str, int]) -> list[int]:
    """Ids of the steps in a file of frame labels, one a line."""
    lines = read_lines(path)
    _check_no_stamps(lines, path, ids)
    if "" in lines:
        why = "a file of frame labels has one step in each line"
        raise EdgeHalError(f"video {path.stem}: line {lines.index('') + 1} of {path} is empty", why, "correct the line")
    return _ids_of(dict(enumerate(lines, 1)), path, ids)


def _check_no_stamps(lines: Sequence[str], path: Path, ids: Mapping[str, int]) -> None:
    """Raises EdgeHalError for lines `frame step` whose numbers do not rise: `stamps_in` takes them for steps."""
    before = -1
    for number, line in enumerate(lines, 1):
        stamp = STAMP.fullmatch(line)
        if not line or line in ids:
            continue
        if stamp is None or stamp[2] not in ids:
            return
        if int(stamp[1]) <= before:
            what = f"video {path.stem}: line {number} of {path} has frame {stamp[1]} after frame {before}"
            raise EdgeHalError(what, "the frames of time stamps must rise", "sort the lines, with one for each frame")
        before = int(stamp[1])


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


def read_timestamps(path: Path, ids: dict[str, int], length: int) -> NDArray[np.int64]:
    """Labels (length,): those of the labelled frames, -1 elsewhere. If `length` is 0 (not known), up to the last label.

    Raises:
        EdgeHalError: a line is not `frame step`, the step is unknown, the frame lies outside the video or has a stamp
            already; or there is no stamp.
    """
    stamps: dict[int, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        stamp = STAMP.fullmatch(line)
        frame, step = (-1, line) if stamp is None else (int(stamp[1]), stamp[2])
        if stamp is None or step not in ids or (length and frame >= length):
            raise EdgeHalError(
                f"{path}, line {number}: '{line[:80]}' is no stamp",
                f"it must read 'frame step', with a frame below {length or 'the length'} and a step of mapping.txt",
                nearest(step[:80], list(ids)) if step not in ids else "",
            )
        if frame in stamps:
            why = f"frame {frame} has a stamp in a line before it"
            raise EdgeHalError(f"{path}, line {number}: '{line[:80]}' is a second stamp", why, "remove one of them")
        stamps[frame] = ids[step]
    if not stamps:
        todo = "write lines 'frame step' there, or leave the video out"
        raise EdgeHalError(f"video {path.stem} has no stamp: {path} is empty", todo=todo)
    labels = np.full(length or max(stamps) + 1, -1, np.int64)
    labels[list(stamps)] = list(stamps.values())
    return labels


def count_of(names: Sequence[str], noun: str) -> str:
    """'7 videos (a, b, c, d, e, ...)'."""
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({shown})"


def nearest(name: str, known: Sequence[str], noun: str = "step") -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    if near:
        return f"the nearest known {noun} is {near[0]!r}"
    return f"known {noun}s are {', '.join(known[:8])}{' ...' if len(known) > 8 else ''}"
