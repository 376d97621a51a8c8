"""User and password of a camera. They reach the reading process through a pipe. What may be shown of an address is
decided in `edge_hal/redaction.py`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable
from edge_hal.redaction import remember_secret

VARIABLE = "EDGE_HAL_CAMERA_AUTH"
PASSWORD = re.compile(r"[^/?#@:]*:((?!\d{1,5}[/?#])[^@]*|[^/?#]*)@")


def has_password(address: str) -> bool:
    """Whether an address, or the first address in a pipeline, holds a password."""
    return PASSWORD.match(address.partition("://")[2]) is not None


def read_auth(path: Path | None) -> str | None:
    """`user:password` from a file of one line, else from the environment, else None.

    Raises:
        EdgeHalError: the file cannot be read, others can read it, or it holds no user and password.
    """
    if path is None:
        return _remembered(os.environ.get(VARIABLE) or None)
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
    return _remembered(text)


def _remembered(auth: str | None) -> str | None:
    remember_secret((auth or "").partition(":")[2])
    return auth


def with_auth(address: str, auth: str | None) -> str:
    """The address with user and password in it, for FFmpeg only. An address that has its own keeps them."""
    scheme, _, rest = address.partition("://")
    if auth is None or "@" in re.split(r"[/?#]", rest)[0]:
        return address
    user, _, password = auth.partition(":")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"
