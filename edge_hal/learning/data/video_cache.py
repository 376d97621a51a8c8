"""The cache of what a model sees of video files: pictures or vectors at its ticks, one file for each video.

A file is a header of `HEADER_BYTES` and then the rows, so that rows are mapped into memory and never read at once. It
appears whole or not at all. Its name is the hash of everything that decides its content; so a changed video, another
rate, size or encoder has another file, and so has another version of what made it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import cache
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal import __version__
from edge_hal.bundle import file_hash
from edge_hal.errors import EdgeHalError
from edge_hal.files import CONTINUE, check_writable, file_error, replacing
from edge_hal.files.user_folders import cache_folder
from edge_hal.media.stamps import Missing
from edge_hal.task_folder import is_task

SCHEMA = 1
HEADER_BYTES = 4096
TYPES = {np.dtype(kind).str: np.dtype(kind) for kind in (np.uint8, np.float32)}
SUFFIX = ".ticks"
KEPT_DAYS = 30
"""A file that no command has read for this long is deleted when another one is added."""
ABANDONED_DAYS = 1
"""An unfinished file that nobody has written to for this long is left from a process that was killed."""
FOLDER = ".cache"
ENCODERS = ".encoder."
"""How the names of folders begin in which workers find the graph of an encoder."""

log = logging.getLogger("edge_hal.data")


@dataclass(frozen=True)
class Sampled:
    """What a model sees of one video: `values` (T, H, W, 3) uint8 pictures or (T, D) float32 vectors, mapped
    from a file. `missing`: what the video lacks."""

    values: NDArray[Any]
    missing: Missing


class Rows:
    """The rows of a file that is being written, all of one shape and type."""

    def __init__(self, file: BufferedWriter) -> None:
        self._file = file
        self._first: NDArray[Any] | None = None
        self.count = 0
        self.missing: Missing | None = None

    def append(self, row: NDArray[Any]) -> None:
        self._first = row if self._first is None else self._first
        assert row.shape == self._first.shape and row.dtype == self._first.dtype
        self._file.write(np.ascontiguousarray(row).tobytes())
        self.count += 1

    def header(self, key: str) -> bytes:
        assert self._first is not None and self.missing is not None
        shape, missing = [self.count, *self._first.shape], list(astuple(self.missing))
        entry = {"schema": SCHEMA, "key": key, "dtype": self._first.dtype.str, "shape": shape, "missing": missing}
        return json.dumps(entry).encode().ljust(HEADER_BYTES)


class VideoCache:
    """Files in `folder`, by key. Several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Sampled | None:
        """None if there is no whole file of this key."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                entry = json.loads(file.read(HEADER_BYTES))
            shape, dtype = tuple(map(int, entry["shape"])), TYPES[entry["dtype"]]
            whole = path.stat().st_size == HEADER_BYTES + dtype.itemsize * math.prod(shape)
            if entry["schema"] != SCHEMA or entry["key"] != key or not whole or min(shape) < 1:
                return None
            mapped = np.memmap(path, dtype, "c", HEADER_BYTES, shape)  # "c": changes stay in memory
            missing = Missing(*map(int, entry["missing"]))
        except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return Sampled(np.asarray(mapped), missing)

    @contextlib.contextmanager
    def adding(self, key: str) -> Iterator[Rows]:
        """Rows of a new file. It appears at the end of the `with` block, which must set `missing`.

        Raises:
            EdgeHalError: it cannot be written.
        """
        what, todo = f"cannot write the cache {self.folder}", f"{CONTINUE}; edge-hal extract DATA --clear empties it"
        with replacing(self._path(key), what=what, todo=todo) as beside, beside.open("wb") as file:
            rows = Rows(file)
            file.write(bytes(HEADER_BYTES))
            yield rows
            file.seek(0)
            file.write(rows.header(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def sweep(self) -> None:
        """Delete what was not read for `KEPT_DAYS`, and what processes left that were killed. A folder of `ENCODERS` is
        kept as long, because workers may read it for days."""
        for path, days in [(p, KEPT_DAYS) for p in self._files()] + [(p, ABANDONED_DAYS) for p in self._unfinished()]:
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - days * 86_400:
                    path.unlink()
        for folder in self._encoders():
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime < time.time() - KEPT_DAYS * 86_400:
                    shutil.rmtree(folder)

    def clear(self) -> int:
        """Delete everything. Returns the number of bytes."""
        bytes_ = 0
        for path in (*self._files(), *self._unfinished(), *self._encoders()):
            try:
                if path.is_dir():
                    size = sum(file.stat().st_size for file in path.iterdir())
                    shutil.rmtree(path)
                else:
                    size = path.stat().st_size
                    path.unlink()
                bytes_ += size
            except FileNotFoundError:
                continue  # another process was faster
            except OSError as error:
                raise file_error(f"cannot clear {self.folder}", error, path=path) from error
        return bytes_

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self._files() if path.exists())

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))

    def _unfinished(self) -> list[Path]:
        return sorted(self.folder.glob(f".*.partial{SUFFIX}"))

    def _encoders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"{ENCODERS}*") if path.is_dir() and not path.is_symlink())


def cache_key(parts: Mapping[str, Any]) -> str:
    """The name of the file that `parts` decide. What makes the rows is among them, because another version of it may
    give other pictures or vectors: the decoder, the resize, edge-hal itself (which frame a tick shows, what is greyed,
    the augmentation), and with an `encoder` also what runs its graph."""
    import av
    import cv2

    made_by = {"schema": SCHEMA, "edge_hal": __version__, "av": av.__version__, "cv2": cv2.__version__}
    if parts.get("encoder") is not None:
        import onnxruntime

        made_by["onnxruntime"] = onnxruntime.__version__
    return hashlib.sha256(json.dumps({**made_by, **parts}, sort_keys=True).encode()).hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of a file. A file is read once in the life of a process, and again when it was written to.

    Raises:
        EdgeHalError: it cannot be read.
    """
    try:
        found = path.stat()
        return _hash_of(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    except OSError as error:
        raise file_error(f"cannot read {path}", error, path=path) from error


@cache
def _hash_of(path: Path, *written: int) -> str:
    return file_hash(path)


def cache_place(data: Path) -> Path:
    """Where the cache of a folder with videos lies: in a task folder `.cache/`, else one for all data sets in the
    user's cache folder."""
    return data / FOLDER if is_task(data) else cache_folder() / "videos"


def cache_of(data: Path) -> VideoCache | None:
    """The cache of a folder with videos, see `cache_place`. None, with a warning, if nothing can be written there."""
    folder = cache_place(data)
    try:
        check_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except (EdgeHalError, OSError) as error:
        why = error.why if isinstance(error, EdgeHalError) else error
        log.warning("decoded videos are not kept: cannot write %s: %s", folder, why)
        return None
    return VideoCache(folder)
