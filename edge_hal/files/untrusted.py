"""Read files that anybody may have written: only regular files, of limited size, and JSON without surprises."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

MB = 1 << 20
LARGEST_INT = 1 << 63
LONGEST_INT = len(str(-LARGEST_INT))
"""Characters. Python refuses to read a number of thousands of digits, with an error of its own."""
DEEPEST = 64
"""Levels of nesting in JSON. What edge-hal writes has fewer than ten."""


def read_regular(path: Path, limit: int = 16 * MB, *, links: bool = True) -> bytes:
    """The content of a regular file. A pipe or a device is refused before it is read, so it can neither block nor
    have no end.

    Args:
        limit: the most bytes it may have.
        links: whether `path` may be a symbolic link.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no regular file, or too large.
    """
    if not links and path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path.name} is no regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path.name} has more than {limit} bytes")
    return data


def parse_json(text: str | bytes) -> Any:
    """A JSON text as Python values.

    Raises:
        ValueError: it is no JSON, it is nested more than `DEEPEST` levels, a number is not finite or does not fit 64
            bits, or a text has half of a surrogate pair, which cannot be written as UTF-8.
    """
    text = text if isinstance(text, str) else text.decode("utf-8-sig")  # some editors write a byte order mark
    if not text.strip():
        raise ValueError("it is empty")
    try:
        value = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_constant)
        _check_depth(value, 0)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return value


def read_json(path: Path, limit: int = 16 * MB, *, links: bool = True) -> dict[str, Any]:
    """A file that holds one JSON object. Raises OSError and ValueError as `read_regular` and `parse_json` do."""
    value = parse_json(read_regular(path, limit, links=links))
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _int(text: str) -> int:
    value = int(text) if len(text) <= LONGEST_INT else LARGEST_INT
    if not -LARGEST_INT <= value < LARGEST_INT:
        raise ValueError(f"the number {text[:20]}... does not fit 64 bits")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"the number {text} is not finite")


def _check_depth(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)
