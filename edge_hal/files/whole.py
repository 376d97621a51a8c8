"""Files that are whole or not there, also after a power cut, and folders that take the place of others at once."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from .access import file_error

LONGEST_NAME = 255
"""Bytes of a file name."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Arguments of `renameat2`, see the man page rename(2)."""
CONTINUE = "run the same command again: it continues where this one stopped"


def write_file(path: Path, data: str | bytes, *, what: str = "", todo: str = "") -> None:
    """Write `data` to `path`, whole or not at all. It is on the disk when this returns.

    Args:
        what, todo: the first and last part of the error; see `EdgeHalError`.

    Raises:
        EdgeHalError: the file cannot be written. One that was there before is unchanged.
    """
    with replacing(path, what=what, todo=todo) as beside, beside.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_files(folder: Path, files: Mapping[str, str], *, todo: str = "") -> None:
    """Write files into a folder, by name: all of them or none, unless the process is killed while it renames them.

    Raises:
        EdgeHalError: one of them cannot be written.
    """
    with contextlib.ExitStack() as written:
        for name, text in files.items():
            beside = written.enter_context(replacing(folder / name, todo=todo))
            beside.write_text(text, "utf-8")
            _sync(beside)  # a full disk is noticed before the first is renamed


@contextlib.contextmanager
def replacing(path: Path, *, folder: Path | None = None, what: str = "", todo: str = "") -> Iterator[Path]:
    """A temporary path to write to, with the suffix of `path`. It is renamed to `path` at the end of the `with` block,
    and removed if the block fails. It is in `folder`, on the same file system; by default in the folder of `path`. The
    file is on the disk when the `with` statement is over.

    Raises:
        EdgeHalError: for an OSError in the block or of the renaming.
    """
    end = f".{os.getpid()}.partial{path.suffix}"
    stem = os.fsencode(path.stem)
    short = path.stem if len(f".{end}") + len(stem) <= LONGEST_NAME else hashlib.sha256(stem).hexdigest()
    beside = (folder or path.parent) / f".{short}{end}"
    try:
        yield beside
        _sync(beside)
        os.replace(beside, path)
        _sync(path.parent)
    except OSError as error:
        raise file_error(what or f"cannot write {path}", error, todo, path=path) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def replace_folder(staging: Path, path: Path) -> None:
    """Put the folder `staging` in the place of `path`, and delete what was there. Both are on one file system.

    The two are exchanged, so `path` is there at each moment, after a kill or a power cut too. Some file systems (NFS)
    cannot exchange: there the old folder is `.NAME.old-PID` for a moment.

    Raises:
        OSError: the old folder is still in its place.
    """
    for each in [*staging.rglob("*"), staging]:
        _sync(each)
    if not path.exists():
        staging.rename(path)
    elif _exchange(staging, path):
        shutil.rmtree(staging, ignore_errors=True)
    else:
        old = path.with_name(f".{path.name}.old-{os.getpid()}")
        path.rename(old)
        try:
            staging.rename(path)
        except BaseException:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    _sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """False if the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written, and not listed
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system has nothing to wait for
            raise
    finally:
        os.close(number)


def private(path: str, flags: int) -> int:
    """An `opener` for `open`: a new file can be read by its owner only, whatever the umask."""
    return os.open(path, flags, 0o600)
