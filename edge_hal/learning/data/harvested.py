"""Which stretches of recordings a task folder has taken: `harvested.json`, one entry for each video.

An entry is written before its files, as unfinished, and again after them. So an interruption leaves at most files of an
unfinished entry; they are removed the next time. An entry stays when the user deletes the video: it is not taken again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error, write_file
from edge_hal.files.untrusted import MB, read_json
from edge_hal.task_folder import HARVESTED, SUGGESTIONS

SCHEMA = 1
SUFFIX = ".mp4"
LARGEST = 64 * MB


@dataclass(frozen=True)
class Taken:
    """Stream time from `begin_ns` to `end_ns` (exclusive) of the run `session`, and why it was taken. `bundle`: the
    fingerprint of the model that ran. `finished`: all files of it are there."""

    session: str
    begin_ns: int
    end_ns: int
    why: tuple[str, ...]
    bundle: str
    finished: bool = True


def read_harvested(root: Path) -> dict[str, Taken]:
    """The entries by the name of the video. Raises EdgeHalError if the file is damaged."""
    path = root / HARVESTED
    if not path.exists():
        return {}
    try:
        found = read_json(path, LARGEST)
        if found.get("schema") != SCHEMA:
            raise ValueError(f"it has schema {found.get('schema')!r:.20}, this version reads {SCHEMA}")
        return {_name(name): _entry(**entry) for name, entry in found["videos"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        todo = "restore it; without it, what was taken before is taken again"
        raise file_error(f"cannot read {path}", error, todo, path=path) from error


def _entry(session: str, begin_ns: int, end_ns: int, why: list[str], bundle: str, finished: bool) -> Taken:
    if type(begin_ns) is not int or type(end_ns) is not int or not isinstance(session, str):
        raise ValueError("an entry is malformed")
    return Taken(session, begin_ns, end_ns, tuple(map(str, why)), str(bundle), bool(finished))


def _name(name: str) -> str:
    if "/" in name or name.startswith(".") or "\0" in name:
        raise ValueError(f"no video is called {name!r:.40}")
    return name


class Harvest:
    """The entries of a task folder, which only one process at a time changes.

    Raises:
        EdgeHalError: the folder cannot be written, or another harvest is at work.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            for folder in ("videos", SUGGESTIONS):
                (root / folder).mkdir(exist_ok=True)
            self._lock = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise EdgeHalError(f"another harvest writes into {root}", "", "wait until it is done") from error
        except OSError as error:
            raise file_error(f"cannot write into {root}", error, path=root) from error
        try:
            self.entries = read_harvested(root)
            self._remove_unfinished()
        except BaseException:
            self.close()
            raise

    def files(self, name: str) -> tuple[Path, Path]:
        """Where the video and its suggestions are."""
        return self._root / "videos" / f"{name}{SUFFIX}", self._root / SUGGESTIONS / f"{name}.csv"

    @contextlib.contextmanager
    def adding(self, name: str, taken: Taken) -> Iterator[tuple[Path, Path]]:
        """Write the two files within the `with` block. If it fails, neither they nor the entry stay."""
        unfinished = Taken(**{**asdict(taken), "finished": False})
        self._write({**self.entries, name: unfinished})
        try:
            yield self.files(name)
        except BaseException:
            self._remove_unfinished()
            raise
        self._write({**self.entries, name: taken})

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> Harvest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _remove_unfinished(self) -> None:
        """Remove the files of unfinished entries, and what `edge_hal.files` left beside them when it was killed."""
        unfinished = [name for name, taken in self.entries.items() if not taken.finished]
        left = list(self._root.glob(f".{Path(HARVESTED).stem}.*.partial.json"))
        for name in unfinished:
            for path in self.files(name):
                left += [path, *path.parent.glob(f".{name}.*.partial{path.suffix}")]
        for path in left:
            path.unlink(missing_ok=True)
        if unfinished:
            self._write({name: taken for name, taken in self.entries.items() if taken.finished})

    def _write(self, entries: dict[str, Taken]) -> None:
        videos = {name: asdict(taken) for name, taken in entries.items()}
        write_file(self._root / HARVESTED, json.dumps({"schema": SCHEMA, "videos": videos}, indent=1) + "\n")
        self.entries = entries
