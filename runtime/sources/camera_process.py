"""The reading process. A `read()` that hangs cannot be ended in a thread; a process can be killed.

The child reads one camera into a few places of shared memory and tells of each picture over a pipe; the
parent copies it out and gives the place back. Without a free place the child drops what it grabs, and
counts it: a place is never written while it is read. The memory is anonymous, so whoever is killed, and
however, nothing stays behind. User and password travel through the pipe, never on a command line.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .camera_backends import Camera, CameraRequest, FaultyCamera, open_camera
from .credentials import has_password, redact
from .file_readers import Undecodable

PLACES = 3
"""One being written, one being read, one on its way."""
SAMPLE = 4097
"""Two pictures are compared byte by byte only if every so-many-th byte is the same."""
FFMPEG = "rtsp_transport;tcp|flags;low_delay"
"""RTSP over TCP: over UDP a lost packet is a smeared picture. The decoder keeps no frame back."""

Message = dict[str, Any]


class ReadingProcess:
    """The parent's side: one child, from its start to its end. `close` leaves nothing behind."""

    def __init__(self, request: CameraRequest) -> None:
        self._memory: mmap.mmap | None = None
        self._file = _anonymous_memory()
        self._pipe, theirs = Pipe()
        try:
            # Not `multiprocessing`: its resource tracker outlives us, its shared memory has names.
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(self._file)],
                pass_fds=(theirs.fileno(), self._file),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # FFmpeg may name an address with its password there
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            )
        except BaseException:
            self._pipe.close()
            os.close(self._file)
            raise
        finally:
            theirs.close()
        self._send(json.dumps(dataclasses.asdict(request)).encode())

    def receive(self, timeout_s: float, wake: Connection) -> Message | None:
        """The child's next message, None after `timeout_s` or when `wake` can be read.

        Raises:
            EOFError: the child is dead.
        """
        if self._pipe not in wait([self._pipe, wake], timeout_s):
            return None
        try:
            message: Message = json.loads(self._pipe.recv_bytes())
        except OSError as error:
            raise EOFError from error
        if "places" in message:
            self._memory = mmap.mmap(self._file, message["places"], prot=mmap.PROT_READ)
        return message

    def picture(self, message: Message) -> NDArray[Any]:
        """A copy of the picture a message tells of; its place is free again."""
        assert self._memory is not None
        shape, dtype = tuple(message["shape"]), np.dtype(message["dtype"])
        count = int(np.prod(shape))
        offset = message["place"] * (len(self._memory) // PLACES)
        picture = np.frombuffer(self._memory, dtype, count, offset).reshape(shape).copy()
        self._send(bytes([message["place"]]))
        return picture

    def close(self) -> None:
        self.process.kill()
        try:
            self.process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:  # stuck in the kernel with its device: it ends when that lets go
            threading.Thread(target=self.process.wait, daemon=True).start()
        self._pipe.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> ReadingProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _send(self, data: bytes) -> None:
        try:
            self._pipe.send_bytes(data)
        except OSError:
            return  # the child is dead: the next `receive` says so


def _anonymous_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("edge-hal-camera")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# --- the child -----------------------------------------------------------------------------------


def main(pipe_handle: int, memory_handle: int) -> None:
    """Open what the first message asks for and read it until it ends, or until the parent does."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: the parent decides
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG)
    pipe = Connection(pipe_handle)
    request = CameraRequest(**json.loads(pipe.recv_bytes()))
    free = deque(range(PLACES))
    threading.Thread(target=_refill, args=(pipe, free), daemon=True).start()
    try:
        camera = open_camera(request)
        _read(camera, pipe, memory_handle, free)
    except EdgeHalError as error:
        _tell(pipe, failed={"what": error.what, "why": error.why, "todo": error.todo})
    except Exception as error:  # whatever a driver raises, the parent must hear of it
        secret = request.auth is not None or has_password(request.uri)
        why = type(error).__name__ + ("" if secret else f": {error}")
        _tell(pipe, failed={"what": f"reading {redact(request.uri)} failed", "why": why, "todo": ""})


def _refill(pipe: Connection, free: deque[int]) -> None:
    try:
        while True:
            free.append(pipe.recv_bytes()[0])
    except (EOFError, OSError):
        os._exit(0)  # the parent is gone, or has had enough; a hung read does not keep us


def _read(camera: Camera, pipe: Connection, memory: int, free: deque[int]) -> None:
    places, room, lost, stillness = None, 0, 0, Stillness()
    while camera.grab():
        captured_ns = time.monotonic_ns()
        if not free:
            lost += 1
            continue
        try:
            picture = np.ascontiguousarray(camera.read())
        except Undecodable:
            _tell(pipe, undecodable=1)
            continue
        if places is None:
            room = picture.nbytes
            os.ftruncate(memory, PLACES * room)
            places = mmap.mmap(memory, PLACES * room)
            rate = None if camera.rate is None else float(camera.rate)
            _tell(pipe, places=PLACES * room, rate=rate, mode=camera.mode)
        if picture.nbytes > room:
            raise EdgeHalError("the camera changed the size of its pictures", "", "it is opened again")
        place = free.popleft()
        np.frombuffer(places, picture.dtype, picture.size, place * room)[:] = picture.reshape(-1)
        shift_ns = camera.shift_ns() if isinstance(camera, FaultyCamera) else 0
        _tell(
            pipe,
            place=place,
            t_ns=captured_ns + shift_ns,
            shape=picture.shape,
            dtype=picture.dtype.str,
            lost=lost,
            still_ns=stillness.of(picture, captured_ns),
        )
        lost = 0
    _tell(pipe, over=camera.over, lost=lost)


class Stillness:
    """How long the picture has been the same, bit by bit. A real sensor is never still: its noise is new
    in each frame."""

    def __init__(self) -> None:
        self._last: NDArray[Any] | None = None
        self._since_ns = 0

    def of(self, picture: NDArray[Any], now_ns: int) -> int:
        """Nanoseconds; 0 for a new picture, and always 0 for vectors."""
        last, self._last = self._last, picture
        same = (
            last is not None
            and picture.ndim == 3
            and picture.shape == last.shape
            and np.array_equal(picture.reshape(-1)[::SAMPLE], last.reshape(-1)[::SAMPLE])
            and np.array_equal(picture, last)
        )
        if not same:
            self._since_ns = now_ns
        return now_ns - self._since_ns


def _tell(pipe: Connection, **message: Any) -> None:
    try:
        pipe.send_bytes(json.dumps(message).encode())
    except OSError:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
