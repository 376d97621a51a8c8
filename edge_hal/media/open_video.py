"""Opens a video file with PyAV: its container and its video stream, or one clear error."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_regular, file_error

from .names import printable

ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC


def open_pyav() -> ModuleType:
    """The av module, without its own messages. Raises EdgeHalError where it is not installed."""
    try:
        import av
        import av.logging
        import av.video.reformatter
    except ImportError as error:
        raise EdgeHalError(
            "video files need PyAV, which is not installed", str(error), "pip install 'edge-hal[video]'"
        ) from error
    av.logging.set_level(av.logging.PANIC)
    return av


def _any_metadata(av: ModuleType) -> dict[str, str]:
    """Arguments of `av.open` for a file whose metadata are not UTF-8. PyAV 19 opens it without any."""
    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def open_video(path: Path) -> tuple[BinaryIO, Any, Any]:
    """The file, its container and its video stream. Raises EdgeHalError: it cannot be opened, or holds no video."""
    av, shown = open_pyav(), printable(path)
    check_regular(path, f"cannot open the video {shown}")
    try:
        # Opened here, so that any name works: the library takes some names for addresses, patterns or options.
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            why = "it is a link to a file that is missing" if path.is_symlink() else "there is no such file"
            raise EdgeHalError(f"cannot open the video {shown}", why, "check the path") from error
        raise file_error(f"cannot open the video {shown}", error, path=path) from error
    try:
        container = av.open(file, **_any_metadata(av))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        empty = not path.stat().st_size
        file.close()
        why = "the file is empty" if empty else "it is of another kind, or it was cut off and its index is missing"
        raise EdgeHalError(f"{shown} is not a video that can be opened", why, f"try: ffprobe {shown}") from error
    stream = container.streams.best("video")
    cover = stream is not None and bool(stream.disposition & ATTACHED_PICTURE)
    if stream is None or cover or stream.codec_context is None:
        why = "it holds no video" if stream is None else "its codec is not known"
        why = "it holds sound with a cover picture, no video" if cover else why
        container.close()
        file.close()
        raise EdgeHalError(f"{shown} is not a video that can be decoded", why, f"try: ffprobe {shown}")
    stream.thread_type = "SLICE"  # threads for whole frames return damaged frames without an error
    return file, container, stream
