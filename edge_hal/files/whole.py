"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .access import file_error

CONTINUE = "run the same command again: it continues where this one stopped"


def write_file(path: Path, data: str | bytes, *, what: str = "", todo: str = "") -> None:
    """Write `data` to `path`, whole or not at all; it is on the disk when this returns.

    Args:
        what, todo: the first and last part of the error; see `EdgeHalError`.

    Raises:
        EdgeHalError: the file cannot be written. One that was there before is unchanged.
    """
    with replacing(path, what=what, todo=todo) as beside, beside.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path, *, folder: Path | None = None, what: str = "", todo: str = "") -> Iterator[Path]:
    """A temporary path to write to, with the suffix of `path`. It is renamed to `path` at the end of the `with` block,
    and removed if the block fails. It is in `folder`, on the same file system; by default in the folder of `path`.

    Raises:
        EdgeHalError: for an OSError in the block or of the renaming.
    """
    beside = (folder or path.parent) / f".{path.stem}.{os.getpid()}.partial{path.suffix}"
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise file_error(what or f"cannot write {path}", error, todo, path=path) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def private(path: str, flags: int) -> int:
    """An `opener` for `open`: a new file can be read by its owner only, whatever the umask."""
    return os.open(path, flags, 0o600)
