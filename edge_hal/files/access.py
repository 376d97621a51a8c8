"""What this process may read and write, and errors of files as the user reads them: denied, full, missing."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path

from edge_hal.errors import EdgeHalError

DENIED = (errno.EACCES, errno.EPERM)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_TEXT = "it is no text in UTF-8: saved in another encoding (UTF-16, Latin-1), or no text at all"


def check_readable(path: Path, what: str = "", todo: str = "") -> None:
    """Raises EdgeHalError if this process may not read the file, or list the folder. One that is missing passes."""
    culprit = _not_readable(path)
    if culprit is not None:
        raise _denied(what or f"cannot read {path}", culprit, todo)


def check_regular(path: Path, what: str = "") -> None:
    """Raises EdgeHalError for a pipe, a device or a socket, without opening it: reading one can wait for ever. One that
    is missing passes."""
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            why = "it is a pipe, a device or a socket"
            raise EdgeHalError(what or f"cannot read {path}", why, "copy what it gives into a file, and name that file")


def check_writable(path: Path, what: str = "", todo: str = "") -> None:
    """Raises EdgeHalError if this process may not write the file, or create it with the folders that are missing."""
    culprit = _not_writable(path)
    if culprit is not None:
        raise _denied(what or f"cannot write {path}", culprit, todo, writing=True)


def check_place(path: Path, what: str = "", todo: str = "", inputs: Iterable[Path] = ()) -> None:
    """Raises EdgeHalError if no file can be written at `path`: a folder is there, its own folder is missing, this
    process may not write it, or it is one of `inputs`, which would be lost."""
    what = what or f"cannot write {path}"
    check_writable(path, what, todo)
    if path.is_dir():
        raise EdgeHalError(what, "a folder is there", todo)
    if not path.parent.is_dir():
        raise EdgeHalError(what, f"there is no folder {path.parent}", todo)
    check_writable(path.parent, what, todo)
    for each in inputs:
        with contextlib.suppress(OSError):
            if path.samefile(each):
                raise EdgeHalError(what, f"it is {each}, which is read", todo, exit_code=2)


def what_it_is(path: Path) -> str:
    """What `path`, which cannot be used as it should be, is: "it is a link that leads nowhere", and the like."""
    if path.is_dir():
        return "it is a folder and no file"
    if path.exists():
        return "it is a file and no folder" if path.is_file() else "it is a pipe, a device or a socket"
    return "it is a link that leads nowhere"


def no_folder(path: Path) -> str:
    """Why `path`, which is no folder, cannot be used as one."""
    return what_it_is(path) if os.path.lexists(path) else "there is no such folder"


def file_error(
    what: str, error: Exception, todo: str = "", *, path: str | Path | None = None, exit_code: int = 1
) -> EdgeHalError:
    """The error that the user reads where a file could not be read or written.

    Args:
        what, todo: the first and last part of it.
        error: an OSError, or what a parser raised.
        path: the file, if the error does not name it.
    """
    if isinstance(error, UnicodeDecodeError):
        return EdgeHalError(what, NO_TEXT, todo or "open it in an editor and save it as UTF-8", exit_code=exit_code)
    if not isinstance(error, OSError):
        return EdgeHalError(what, str(error), todo, exit_code=exit_code)
    name = error.filename if isinstance(error.filename, (str, bytes)) else path
    path = None if name is None else Path(os.fsdecode(name))
    if error.errno in DENIED and path is not None:
        reading = _not_readable(path)
        return _denied(what, reading or _not_writable(path) or path, todo, writing=reading is None)
    if error.errno in FULL:
        limit = "the largest file size is reached" if error.errno == errno.EFBIG else "the disk is full"
        place = "" if path is None or str(path) in what else f" at {path}"
        return EdgeHalError(what, limit + place, "; ".join(filter(None, ("make room", todo))), exit_code=exit_code)
    if error.errno in (errno.EEXIST, errno.ENOTDIR) and path is not None:
        inside = next((each for each in (path, *path.parents) if os.path.isfile(each)), None)
        if inside is not None:
            return EdgeHalError(what, f"{inside} is a file and no folder", todo, exit_code=exit_code)
        if path.is_symlink() and not path.exists():
            return EdgeHalError(what, f"{path} is a link that leads nowhere", todo, exit_code=exit_code)
    return EdgeHalError(what, error.strerror or str(error), todo, exit_code=exit_code)


def _denied(what: str, culprit: Path, todo: str, *, writing: bool = False) -> EdgeHalError:
    user, why, allow = _user(os.geteuid()), f"permission denied for {culprit}", ""
    with contextlib.suppress(OSError):
        if writing and os.statvfs(culprit).f_flag & os.ST_RDONLY:
            return EdgeHalError(what, f"{culprit} is on a read-only file system", todo)
        found = culprit.stat()
        mode = stat.S_IMODE(found.st_mode)
        why += f" (owner {_user(found.st_uid)}, mode {mode:04o}, this is {user})"
        private = stat.S_ISREG(found.st_mode) and mode & 0o477 == 0o400
        right = ("rw" if writing else "r") + ("x" if stat.S_ISDIR(found.st_mode) else "")
        mine = found.st_uid == os.geteuid()
        owned = f"chown {user}" if (writing or private) and not mine else f"chmod {'u' if mine else 'o'}+{right}"
        allow = f"sudo {owned} {shlex.quote(str(culprit))}"
    return EdgeHalError(what, why, ", or ".join(filter(None, (allow, todo))))


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _closed_folder(path: Path) -> Path | None:
    """The first folder above `path` that this process may not enter. A file in its place is not denied."""
    above = reversed(Path(os.path.abspath(path)).parents)
    return next((folder for folder in above if os.path.isdir(folder) and not _may(folder, os.X_OK)), None)


def _not_readable(path: Path) -> Path | None:
    """What keeps this process from reading `path`: a folder above it, or `path`."""
    need = os.R_OK | (os.X_OK if os.path.isdir(path) else 0)
    return _closed_folder(path) or (None if _may(path, need) else path)


def _not_writable(path: Path) -> Path | None:
    """What keeps this process from writing or creating `path`."""
    closed = _closed_folder(path)
    if closed is not None:
        return closed
    place = next(each for each in (path, *Path(os.path.abspath(path)).parents) if os.path.exists(each))
    return None if _may(place, os.W_OK | (os.X_OK if os.path.isdir(place) else 0)) else place


def _may(path: Path, need: int) -> bool:
    """Whether this process has the rights, by its effective user. What does not exist is not denied, and a link to
    nothing neither."""
    try:
        return os.access(path, need, effective_ids=True) or not os.path.exists(path)
    except OSError:
        return False
