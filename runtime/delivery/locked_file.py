"""A file that one process writes, whatever names the file has."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error


class LockedFile:
    """Creates the file of a journal if it is absent, and locks it.

    The lock is on the file itself, so it holds for links and bind mounts too. The kernel releases it when the process
    ends, however it ends.

    Raises:
        EdgeHalError: the file cannot be created or written, or another run has locked it.
    """

    def __init__(self, path: Path) -> None:
        self._watched: dict[Path, tuple[int, int] | None] = {}
        what = f"cannot open the journal {path}"
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        except OSError as error:
            todo = "choose a folder and a file that can be written: --journal FILE"
            raise EdgeHalError(what, str(error.strerror), todo) from error
        try:
            mode = os.fstat(self._descriptor).st_mode
            if not stat.S_ISREG(mode) or not mode & 0o222:
                why = (
                    "it is no regular file" if not stat.S_ISREG(mode) else f"it is read-only (mode {mode & 0o777:04o})"
                )
                raise EdgeHalError(what, why, "choose another --journal, or chmod u+w")
            self._lock(path)
            for beside in (Path(f"{os.path.realpath(path)}{suffix}") for suffix in ("-wal", "-shm")):
                if os.path.lexists(beside) and not beside.is_file():  # SQLite would not say which file it cannot use
                    raise EdgeHalError(what, f"{beside} is no regular file", "remove it: its place belongs to SQLite")
            self._check_other_names(path)
        except OSError as error:
            os.close(self._descriptor)
            raise file_error(what, error, "choose another --journal", path=path) from error
        except EdgeHalError:
            os.close(self._descriptor)
            raise

    def watch(self, *paths: Path) -> None:
        """From now on `changed` compares what has these names with what has them now."""
        self._watched = {path: _identity(path) for path in paths}

    def changed(self) -> Path | None:
        """The first watched name that is gone or belongs to another file."""
        return next((path for path, identity in self._watched.items() if _identity(path) != identity), None)

    def close(self) -> None:
        os.close(self._descriptor)

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            todo = "stop it, or choose another --stream or --journal"
            raise EdgeHalError(f"the journal {path} is in use", "another run writes it", todo) from error

    def _check_other_names(self, path: Path) -> None:
        """SQLite keeps the newest events beside the name that it opened. Under another hard link they are missing."""
        own, real = os.fstat(self._descriptor), Path(os.path.realpath(path))
        for entry in os.scandir(real.parent) if own.st_nlink > 1 else ():
            log = real.with_name(f"{entry.name}-wal")
            if entry.inode() == own.st_ino and entry.name != real.name and log.exists() and log.stat().st_size:
                todo = f"use --journal {entry.path}"
                raise EdgeHalError(f"cannot open the journal {path}", f"its newest events are in {log}", todo)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
