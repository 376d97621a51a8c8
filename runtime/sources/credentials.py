"""User and password of a camera. They reach the reading process through a pipe. What may be shown of an address is
decided in `edge_hal/redaction.py`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from edge_hal.files.secret_file import read_secret_line
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
    if path is not None:
        return read_secret_line(path, "credentials", "user:password")
    auth = os.environ.get(VARIABLE) or None
    remember_secret((auth or "").partition(":")[2])
    return auth


def with_auth(address: str, auth: str | None) -> str:
    """The address with user and password in it, for FFmpeg only. An address that has its own keeps them."""
    scheme, _, rest = address.partition("://")
    if auth is None or "@" in re.split(r"[/?#]", rest)[0]:
        return address
    user, _, password = auth.partition(":")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"
