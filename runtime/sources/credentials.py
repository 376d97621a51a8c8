"""User and password of a camera: they reach the reading process, and never a log, an event or a process title."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from urllib.parse import quote

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable

VARIABLE = "EDGE_HAL_CAMERA_AUTH"
PASSWORD = re.compile(r"[^/?#@:]*:((?!\d{1,5}[/?#])[^@]*|[^/?#]*)@")
ARG_START, ARG_END = 48 - 3, 49 - 3
"""Positions of `arg_start` and `arg_end` in /proc/self/stat (see proc(5)), counted after the process name."""


def redact_address(address: str) -> str:
    """`scheme://user:password@host/path?query` -> `scheme://host/path`, fit for logs and events."""
    scheme, _, rest = address.partition("://")
    # A password may hold any character, '/' and '#' included: only what follows the last '@' is shown.
    return f"{scheme}://" + re.split(r"[?#]", rest.rpartition("@")[2])[0]


def redact_pipeline(pipeline: str) -> str:
    """A GStreamer pipeline with the names of its elements only, because passwords are properties of elements."""
    elements = (part.split() for part in pipeline.split("!"))
    return " ! ".join(words[0] for words in elements if words)


def has_password(address: str) -> bool:
    """Whether an address, or the first address in a pipeline, holds a password."""
    return PASSWORD.match(address.partition("://")[2]) is not None


def read_auth(path: Path | None) -> str | None:
    """`user:password` from a file of one line, else from the environment, else None.

    Raises:
        EdgeHalError: the file cannot be read, others can read it, or it holds no user and password.
    """
    if path is None:
        return os.environ.get(VARIABLE) or None
    todo = f"write user:password into it, then: chmod 600 {path}"
    check_readable(path, f"cannot read the credentials {path}")
    try:
        text = path.read_text().strip()
        readable = path.stat().st_mode & 0o077
    except (OSError, ValueError) as error:
        raise EdgeHalError(f"cannot read the credentials {path}", type(error).__name__, todo) from error
    if readable:
        raise EdgeHalError(f"will not use the credentials {path}", "others on this machine can read it", todo)
    if ":" not in text or "\n" in text:
        raise EdgeHalError(f"{path} holds no credentials", "it must be one line, user:password", todo)
    return text


def with_auth(address: str, auth: str | None) -> str:
    """The address with user and password in it, for FFmpeg only. An address that has its own keeps them."""
    scheme, _, rest = address.partition("://")
    if auth is None or "@" in re.split(r"[/?#]", rest)[0]:
        return address
    user, _, password = auth.partition(":")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def mask_arguments(address: str) -> None:
    """Overwrite user and password of `address` in the command line of this process, as `ps` shows it.

    They were visible until now, so the caller also logs a warning. Works on Linux only.
    """
    secret = address.partition("://")[2].rpartition("@")[0].encode()
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[ARG_START]), int(fields[ARG_END])
    except (OSError, IndexError, ValueError):
        return
    if not secret or not 0 < start < end:
        return
    line = ctypes.string_at(start, end - start)
    found = line.find(secret)
    while found >= 0:
        ctypes.memset(start + found, ord("*"), len(secret))
        found = line.find(secret, found + len(secret))
