"""Standard output and standard error that cannot stop a command: a write that fails or would block is left out.

Recognition must not depend on who reads its messages. A stream may be closed, full, without a reader, or have a reader
that does not read.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import select
import sys
from collections.abc import Iterator

from edge_hal.errors import EdgeHalError

PIPE_BYTES = 4096
"""PIPE_BUF of Linux: if `poll` reports room in a pipe, a write of this size does not block."""

log = logging.getLogger("edge_hal")


class Output(io.RawIOBase):
    """The bytes of standard output (1) or standard error (2). `write` never raises.

    Attributes:
        failure: the first error, None if there was none.
        waits: whether a write waits for a reader that does not read. If False, the write is left out.
    """

    def __init__(self, descriptor: int) -> None:
        self.failure: OSError | None = None
        self.waits = True
        self._descriptor = descriptor
        self._begun = b""  # the rest of a text that was written in part
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file that is opened would get this number, and the messages of libraries.
            self._fail(OSError(errno.EBADF, "it is closed"))
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)

    def write(self, data: object) -> int:
        text = bytes(data)  # type: ignore[call-overload]
        if self.failure is not None and self.failure.errno in (errno.EBADF, errno.EPIPE):
            return len(text)
        try:
            if self._begun and not self._finish():
                return len(text)
            self._begun = text
            if not self._finish() and len(self._begun) == len(text):
                self._begun = b""  # nothing of it was written
        except OSError as error:
            self._begun = b""
            self._fail(error)
        return len(text)

    def _finish(self) -> bool:
        """Write what has begun. False if that would block."""
        while self._begun:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            if poll.poll(None if self.waits else 0):
                try:
                    written = os.write(self._descriptor, self._begun[:PIPE_BYTES])
                    self._begun = self._begun[written:]
                    continue
                except BlockingIOError:  # the descriptor does not block, and has less room than that
                    pass
            if not self.waits:
                self._fail(BlockingIOError(errno.EAGAIN, "its reader does not read"))
                return False
        return True

    def _fail(self, error: OSError) -> None:
        first, self.failure = self.failure is None, self.failure or error
        if first and self._descriptor == 1 and not self.waits and error.errno != errno.EBADF:
            log.warning("standard output cannot be written: %s; recognition goes on", error.strerror)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


def protect() -> None:
    """Replace `sys.stdout` and `sys.stderr` of this process. A character that the encoding does not have is escaped. A
    stream that the caller has redirected is left as it is."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if _redirected(before, descriptor):
            continue
        output = Output(descriptor)
        stream = io.TextIOWrapper(
            io.BufferedWriter(output),
            encoding=getattr(before, "encoding", None) or "utf-8",
            errors="backslashreplace",
            line_buffering=descriptor == 2 or output.isatty(),
        )
        setattr(sys, name, stream)


def _redirected(stream: object, descriptor: int) -> bool:
    """Whether the stream writes to another place than the descriptor. A stream that is None or closed does not."""
    if stream is None or getattr(stream, "closed", False):
        return False
    try:
        return stream.fileno() != descriptor  # type: ignore[attr-defined, no-any-return]
    except (OSError, ValueError, AttributeError):  # io.StringIO has no descriptor
        return True


@contextlib.contextmanager
def never_waiting() -> Iterator[None]:
    """Within the block, text for a reader that does not read is left out."""
    outputs = [output for output in map(_output, (sys.stdout, sys.stderr)) if output is not None]
    for output in outputs:
        output.waits = False
    try:
        yield
    finally:
        for output in outputs:
            output.waits = True


def require_written() -> None:
    """Call it after printing what the user asked for.

    Raises:
        EdgeHalError: some of standard output could not be written. A reader that has left is no error.
    """
    sys.stdout.flush()
    failure = failed()
    if failure is not None and failure.errno != errno.EPIPE:
        why, todo = failure.strerror or str(failure), "give standard output a place that can be written"
        raise EdgeHalError("the result could not be printed to standard output", why, todo)


def failed() -> OSError | None:
    """The first error of standard output."""
    output = _output(sys.stdout)
    return None if output is None else output.failure


def _output(stream: object) -> Output | None:
    """The `Output` below a stream; None if `protect` was not called."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, Output) else None
