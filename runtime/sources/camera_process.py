"""The process that reads a camera. A `read()` that hangs cannot be ended in a thread, but a process can be killed.

The child writes each picture into one of a few buffers in shared memory and sends a message about it through a pipe.
The parent copies the picture and sends the number of the buffer back. While no buffer is free, the child drops and
counts the frames it grabs, so a buffer is never written while it is read. The memory has no name, so nothing is left
behind whichever process is killed. User and password go through the pipe, never on a command line.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
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
from edge_hal.runtime.threads import Worker

from .camera_backends import Camera, CameraRequest, FaultyCamera, open_camera
from .file_readers import Undecodable

BUFFERS = 3
"""Picture buffers: one that is written, one that is read, and one that is ready."""
COMPARE_STRIDE = 4097
"""Two pictures are compared in full only if every 4097th byte is the same."""
FFMPEG_OPTIONS = "rtsp_transport;tcp|flags;low_delay"
"""RTSP over TCP, because over UDP a lost packet damages the picture. The decoder holds no frame back."""

Message = dict[str, Any]
"""What the child sends. One of:

- `memory_bytes`, `rate`, `mode`: the camera delivers; sent once, before the first picture,
- `buffer`, `t_ns`, `grabbed_ns`, `shape`, `dtype`, `lost`, `unchanged_ns`: a picture, its timestamp, and the monotonic
  clock when it was grabbed; `lost` frames were dropped before it,
- `undecodable`: the number of frames that could not be decoded,
- `finished`, `lost`: no more frames will come,
- `failed`: an EdgeHalError.
"""


class ReadingProcess:
    """One child, as the parent sees it. `close` kills it and releases everything."""

    def __init__(self, request: CameraRequest) -> None:
        self._memory: mmap.mmap | None = None
        self._file = _anonymous_memory()
        try:
            self._pipe, child_pipe = Pipe()
        except OSError:  # too many open files
            os.close(self._file)
            raise
        try:
            # Not `multiprocessing`: its resource tracker would outlive us, and its shared memory has names.
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(child_pipe.fileno()), str(self._file)],
                pass_fds=(child_pipe.fileno(), self._file),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # FFmpeg may print an address with its password
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            )
        except BaseException:
            self._pipe.close()
            os.close(self._file)
            raise
        finally:
            child_pipe.close()
        self._send(pickle.dumps(request))

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
        if "memory_bytes" in message:
            self._memory = mmap.mmap(self._file, message["memory_bytes"], prot=mmap.PROT_READ)
        return message

    def picture(self, message: Message) -> NDArray[Any]:
        """A copy of the picture that a message announces. Its buffer is free again."""
        assert self._memory is not None
        shape, dtype = tuple(message["shape"]), np.dtype(message["dtype"])
        count = int(np.prod(shape))
        offset = message["buffer"] * (len(self._memory) // BUFFERS)
        picture: NDArray[Any] = np.frombuffer(self._memory, dtype, count, offset).reshape(shape).copy()
        self._send(bytes([message["buffer"]]))
        return picture

    def close(self) -> None:
        self.process.kill()
        try:
            self.process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:  # it waits in the kernel for its device, and ends after that
            Worker(self.process.wait, "camera-process").start()
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
            return  # the child is dead: the next `receive` raises EOFError


def _anonymous_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("edge-hal-camera")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# --- the child -----------------------------------------------------------------------------------


def main(pipe_handle: int, memory_handle: int) -> None:
    """Open the camera that the first message asks for, and read it until it or the parent ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they go to the whole process group: the parent decides
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
    pipe = Connection(pipe_handle)
    request: CameraRequest = pipe.recv()
    free_buffers = deque(range(BUFFERS))
    threading.Thread(target=_collect_free_buffers, args=(pipe, free_buffers), daemon=True).start()
    try:
        camera = open_camera(request)
        _read(camera, pipe, memory_handle, free_buffers)
    except EdgeHalError as error:
        _send(pipe, failed={"what": error.what, "why": error.why, "todo": error.todo})
    except Exception as error:  # whatever a driver raises, the parent must report it
        may_show_password = request.auth is not None or request.source.has_password
        why = type(error).__name__ + ("" if may_show_password else f": {error}")
        _send(pipe, failed={"what": f"reading {request.source.log_name} failed", "why": why, "todo": ""})


def _collect_free_buffers(pipe: Connection, free_buffers: deque[int]) -> None:
    try:
        while True:
            free_buffers.append(pipe.recv_bytes()[0])
    finally:
        os._exit(0)  # the parent is dead or closed the pipe; this ends the process even while a read hangs


def _read(camera: Camera, pipe: Connection, memory_handle: int, free_buffers: deque[int]) -> None:
    memory, buffer_bytes, lost, unchanged = None, 0, 0, UnchangedTime()
    while camera.grab():
        grabbed_ns = time.monotonic_ns()
        if not free_buffers:
            lost += 1
            continue
        try:
            picture = np.ascontiguousarray(camera.read())
        except Undecodable:
            _send(pipe, undecodable=1)
            continue
        if memory is None:
            buffer_bytes = picture.nbytes
            os.ftruncate(memory_handle, BUFFERS * buffer_bytes)
            memory = mmap.mmap(memory_handle, BUFFERS * buffer_bytes)
            rate = None if camera.rate is None else float(camera.rate)
            _send(pipe, memory_bytes=BUFFERS * buffer_bytes, rate=rate, mode=camera.mode)
        if picture.nbytes > buffer_bytes:
            raise EdgeHalError("the camera changed the size of its pictures", "", "it is opened again")
        buffer = free_buffers.popleft()
        np.frombuffer(memory, picture.dtype, picture.size, buffer * buffer_bytes)[:] = picture.reshape(-1)
        shift_ns = camera.shift_ns() if isinstance(camera, FaultyCamera) else 0
        _send(
            pipe,
            buffer=buffer,
            t_ns=grabbed_ns + shift_ns,
            grabbed_ns=grabbed_ns,
            shape=picture.shape,
            dtype=picture.dtype.str,
            lost=lost,
            unchanged_ns=unchanged.update(picture, grabbed_ns),
        )
        lost = 0
    _send(pipe, finished=camera.finished, lost=lost)


class UnchangedTime:
    """Measures for how long the picture has been the same, bit by bit. Two pictures of a working sensor always differ,
    because each has new noise."""

    def __init__(self) -> None:
        self._last: NDArray[Any] | None = None
        self._since_ns = 0

    def update(self, picture: NDArray[Any], now_ns: int) -> int:
        """Nanoseconds; 0 for a new picture, and always 0 for vectors, which may repeat."""
        last, self._last = self._last, picture
        same = (
            last is not None
            and picture.ndim == 3
            and picture.shape == last.shape
            and np.array_equal(picture.reshape(-1)[::COMPARE_STRIDE], last.reshape(-1)[::COMPARE_STRIDE])
            and np.array_equal(picture, last)
        )
        if not same:
            self._since_ns = now_ns
        return now_ns - self._since_ns


def _send(pipe: Connection, **message: Any) -> None:
    try:
        pipe.send_bytes(json.dumps(message).encode())
    except OSError:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
