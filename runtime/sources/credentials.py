"""Who may see the camera: user and password reach the reading process, and nothing else."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from urllib.parse import quote

from edge_hal.errors import EdgeHalError

VARIABLE = "EDGE_HAL_CAMERA_AUTH"
PASSWORD = re.compile(r"[^/?#@:]*:((?!\d{1,5}[/?#])[^@]*|[^/?#]*)@")
ARG_START, ARG_END = 48 - 3, 49 - 3
"""Where proc(5) has the command line's address in /proc/self/stat, counted after the name."""


def redact(uri: str) -> str:
    """The same address without user, password, query and properties, fit for logs and events."""
    if uri.startswith("fault:"):
        _, script, rest = (*uri.split(":", 2), "")[:3]
        return f"fault:{script}:{redact(rest)}"
    if uri.startswith("gst:"):  # passwords are properties of elements: only the elements are shown
        elements = (part.split() for part in uri.removeprefix("gst:").split("!"))
        return "gst:" + " ! ".join(words[0] for words in elements if words)
    scheme, found, rest = uri.partition("://")
    if not found:
        return uri
    # Passwords hold anything, '/' and '#' included: what follows the last '@' is all that is shown.
    return f"{scheme}://" + re.split(r"[?#]", rest.rpartition("@")[2])[0]


def has_password(uri: str) -> bool:
    return PASSWORD.match(uri.partition("://")[2]) is not None


def read_auth(path: Path | None) -> str | None:
    """`user:password` from a file of one line, else from the environment, else None.

    Raises:
        EdgeHalError: the file cannot be read, others can read it, or it holds no user and password.
    """
    if path is None:
        return os.environ.get(VARIABLE) or None
    todo = f"write user:password into it, then: chmod 600 {path}"
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


def with_auth(uri: str, auth: str | None) -> str:
    """The address with user and password in it, for FFmpeg alone. An address that has its own keeps it."""
    scheme, found, rest = uri.partition("://")
    if auth is None or not found or "@" in re.split(r"[/?#]", rest)[0]:
        return uri
    user, _, password = auth.partition(":")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def mask_arguments(uri: str) -> None:
    """Overwrite user and password of `uri` in this process's own command line, as `ps` shows it.

    They were there until now: that is why a warning goes with it. Only Linux can do it.
    """
    secret = uri.partition("://")[2].rpartition("@")[0].encode()
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
