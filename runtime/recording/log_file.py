"""The log of a recording, read as something that anybody may have sent.

A log says what happened and what changes the recognition. Where a replay writes, where it listens and how many threads
it uses is the choice of whoever replays it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_hal import __version__
from edge_hal.decoding.decoder_config import PATIENCE, THRESHOLDS
from edge_hal.errors import EdgeHalError
from edge_hal.files.untrusted import MB, parse_json
from edge_hal.runtime.stream.clock import LONGEST_NS
from edge_hal.runtime.stream.resumed import Resumed
from edge_hal.runtime.stream.source_period import LONGEST_PERIOD_NS

from .writer import REPEATED, WITH_PICTURES

LARGEST_COUNT = 1 << 50
LARGEST_ROW = 1 << 28
"""Numbers in one frame."""

LONGEST_LINE = 16 * MB
"""Bytes of one line. The file has no limit: that of a run of a week has more than a gigabyte."""

SESSION = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")

Entry = dict[str, Any]
Check = Callable[[Any], bool]


def not_readable(folder: Path, error: Exception) -> EdgeHalError:
    """The error that the user reads where a file of a recording could not be read or parsed."""
    if isinstance(error, FileNotFoundError):
        why = f"it has no {Path(os.fsdecode(error.filename)).name}" if error.filename else "a file is missing"
    elif isinstance(error, OSError):
        why = error.strerror or str(error)
    else:
        why = "one of its files is damaged" + ("" if isinstance(error, UnicodeDecodeError) else f" ({error})")
    todo = "give a folder that edge-hal run --record wrote"
    return EdgeHalError(f"{folder} is no recording that can be read", why, todo)


def complete_lines(path: Path, begin: int = 0) -> Iterator[tuple[str, int]]:
    """Each complete line from the byte `begin` on, and where it ends. One line at a time is in memory.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is a link or no regular file, or a line is too long or no text.
    """
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path.name} is no regular file")
        file.seek(begin)
        while (line := file.readline(LONGEST_LINE + 1)).endswith(b"\n"):
            begin += len(line)
            yield line.decode(), begin
        if len(line) > LONGEST_LINE:
            raise ValueError(f"a line of {path.name} has more than {LONGEST_LINE} bytes")


def _whole(most: int) -> Check:
    return lambda value: type(value) is int and 0 <= value <= most


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 1000 and value.isprintable()


def _session(value: Any) -> bool:
    """It becomes part of file names."""
    return isinstance(value, str) and SESSION.fullmatch(value) is not None


def _none_or(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _period(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value <= LONGEST_PERIOD_NS)


def _decoder(value: Any) -> bool:
    return isinstance(value, dict) and all(name in THRESHOLDS and _number(value[name]) for name in value)


def _shape(value: Any) -> bool:
    if not isinstance(value, list) or not all(type(size) is int and 0 < size <= 1 << 16 for size in value):
        return False
    return len(value) == 1 or (len(value) == 3 and value[2] == 3 and value[0] * value[1] * 3 <= LARGEST_ROW)


OPTIONS: dict[str, Check] = {
    "pace": lambda value: value in ("realtime", "asap"),
    "decoder": _decoder,
    "decide": lambda value: value is None or value in PATIENCE,
    "decide_every": _none_or(_whole(LARGEST_COUNT)),
    "max_hold_ms": _number,
    "overload": lambda value: value in (None, "cut", "lag"),
    "events": lambda value: value in ("all", "core"),
    "stream": lambda value: isinstance(value, str),
    "threads": _whole(1 << 16),
}
HEAD: dict[str, Check] = {
    "bundle": _text,
    "source": _text,
    "live": lambda value: type(value) is bool,
    "period_ns": _period,
    "shape": _shape,
    "options": lambda value: isinstance(value, dict),
}
_TIME, _COUNT = _whole(LONGEST_NS), _whole(LARGEST_COUNT)
ENTRIES: dict[str, dict[str, Check]] = {
    "frame": {"frame": _COUNT, "t_ns": _TIME, "missed": _COUNT, "period_ns": _period},
    "passed": {"passed": _TIME},
    "shown": {"shown": _COUNT, "at": _COUNT},
    "resumed": {"resumed": lambda value: isinstance(value, dict), "pause_ns": _TIME},
    "ended": {"ended": _text, "t_ns": _TIME, "intake": lambda value: isinstance(value, dict)},
}
"""Each kind of entry by its first key, with all of its keys."""
INTAKE = ("captured", "superseded", "undecodable", "waiting")


def parse_head(line: str) -> dict[str, Any]:
    """The first line of a log. Raises ValueError if it is none, has another schema, a strange option or a bad value."""
    head = parse_json(line)
    if not isinstance(head, dict) or type(head.get("schema")) is not int:
        raise ValueError("its log has no schema")
    if head["schema"] not in range(1, WITH_PICTURES + 1):
        why = f"edge-hal {head.get('version', '0.1')} wrote schema {head['schema']}"
        raise ValueError(f"{why}, {__version__} reads schemas up to {WITH_PICTURES}")
    expected = HEAD if head["schema"] < WITH_PICTURES else {**HEAD, "session": _session}
    _check("the log", {name: head[name] for name in expected if name in head}, expected)
    _check(
        "the options of the log", head["options"], {name: OPTIONS[name] for name in head["options"] if name in OPTIONS}
    )
    return head


def repeated_options(head: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded options that a replay repeats."""
    return {name: value for name, value in head["options"].items() if name in REPEATED}


class EntryParser:
    """Checks the entries of a log one after the other, from the second line on."""

    def __init__(self) -> None:
        self._number = 1
        self._newest = {"frame": -1, "t_ns": 0, "passed": 0}
        self._ended = False

    def parse(self, line: str) -> Entry:
        """The entry of the next line.

        Raises:
            ValueError: it is of no known kind or has a bad value, a time or a number runs backwards, or it follows the
                end.
        """
        self._number += 1
        entry, newest = parse_json(line), self._newest
        kind = next((kind for kind in ENTRIES if isinstance(entry, dict) and kind in entry), None)
        where = f"line {self._number} of the log"
        if kind is None:
            raise ValueError(f"{where} is no entry")
        _check(where, entry, ENTRIES[kind])
        if self._ended:
            raise ValueError(f"{where} follows the end")
        if kind == "ended":
            self._ended = True
            _check(where, entry["intake"], dict.fromkeys(INTAKE, _COUNT))
        elif kind == "resumed":
            Resumed.from_entry(entry)  # raises
        elif kind == "frame" and (entry["frame"] <= newest["frame"] or entry["t_ns"] < newest["t_ns"]):
            raise ValueError(f"{where}: a frame is older than the one before it")
        elif kind == "passed" and entry["passed"] < newest["passed"]:
            raise ValueError(f"{where}: time runs backwards")
        newest |= {name: entry[name] for name in newest if name in entry}
        return dict(entry)


def _check(where: str, found: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    odd = sorted(found.keys() ^ checks.keys())
    if odd:
        raise ValueError(f"{where} {'has an unknown key' if odd[0] in found else 'lacks'} {odd[0]!r:.50}")
    for name, check in checks.items():
        if not check(found[name]):
            raise ValueError(f"{where}: {name} = {found[name]!r:.50}")
