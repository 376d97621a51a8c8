"""Names of files: which are videos or pictures, in which order, and in which Unicode form."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv", ".f4v"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".m2ts", ".mts", ".ogv", ".mxf", ".dv", ".mjpeg", ".mjpg"),
    *(".h264", ".264", ".h265", ".hevc"),
)
"""What counts as a video in a folder. A file that is named is opened whatever its name."""

PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".jp2", ".avif", ".gif"),
    *(".pbm", ".pgm", ".ppm", ".pxm", ".pnm", ".pam", ".pfm", ".sr", ".ras", ".exr", ".hdr", ".pic"),
)
"""What OpenCV reads, if it was built with all formats."""


def natural_key(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sorts f_2 before f_10. Equal numbers with other zeros (f_01, f_1) are sorted by their text."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((1, int(part), "") if index % 2 else (0, 0, part) for index, part in enumerate(parts)), name


def with_suffix(paths: Iterable[Path], suffixes: Collection[str]) -> tuple[list[Path], list[Path]]:
    """The files with one of the lower-case `suffixes`, and the others, both in natural order. Hidden files, such as
    the `._*` of macOS, are in neither."""
    visible = sorted((path for path in paths if not path.name.startswith(".")), key=lambda path: natural_key(path.name))
    chosen = [path for path in visible if path.suffix.lower() in suffixes]
    return chosen, [path for path in visible if path.suffix.lower() not in suffixes]


def composed(name: str) -> str:
    """The name in the Unicode form NFC. File systems and editors write either form of `é`; both mean the same name."""
    return unicodedata.normalize("NFC", name)


def printable(name: str | Path) -> str:
    """The name as text that any stream takes: bytes that are not UTF-8 become U+FFFD, and halves of surrogate pairs,
    which no file name holds, become `?`."""
    try:
        return os.fsencode(name).decode("utf-8", "replace")
    except UnicodeEncodeError:
        return str(name).encode("utf-8", "replace").decode()
