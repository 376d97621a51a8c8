"""What the name of a source means: cameras, addresses, files, and each of them with faults."""

from __future__ import annotations

import logging
from pathlib import Path

from edge_hal.errors import EdgeHalError

from .recording.reader import ReplaySource
from .sources.base import PacedSource, Source, WaitingSource
from .sources.camera_backends import CameraRequest, check_gstreamer, is_live
from .sources.camera_source import CameraSource
from .sources.credentials import has_password, mask_arguments, redact
from .sources.faults import EXAMPLE, FaultScript
from .sources.file_readers import open_file
from .sources.watchdog import Limits

log = logging.getLogger("edge_hal.camera")


def open_source(
    uri: str,
    pace: str = "realtime",
    *,
    vector_size: int | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    fourcc: str | None = None,
    auth: str | None = None,
    limits: Limits | None = None,
) -> Source:
    """Open `0` (a camera), `rtsp://`, `http://`, `gst:PIPELINE`, `csi:N`, a video file, a folder of
    pictures, `features:FILE.npy@HZ` or `replay:FOLDER` (a recording); any but the last as
    `fault:SCRIPT:SOURCE`.

    Nothing is captured before `start` (or `with`). Files are opened here, and refused here; cameras are
    opened then, and again for as long as it takes.

    Args:
        pace: `realtime` plays files at their own rate and drops what the loop cannot take; `asap`
            waits.
        vector_size: the length of feature vectors, which tells (T, D) from (D, T).
        fps: overrides what a video file claims; a camera is asked for it.
        size: (width, height), and `fourcc` (MJPG), are asked of a camera.
        auth: `user:password` of an address.

    Raises:
        EdgeHalError: it cannot be opened, ever; nothing is left behind.
    """
    name, limits = redact(uri), limits or Limits()
    if pace not in ("asap", "realtime"):
        raise EdgeHalError(f"there is no pace '{pace}'", "", "use asap or realtime", exit_code=2)
    if uri.startswith("replay:"):
        return ReplaySource(Path(uri.removeprefix("replay:")))
    script = None
    if uri.startswith("fault:"):
        _, script, uri = (*uri.split(":", 2), "")[:3]
        if not uri:
            raise EdgeHalError(f"'{name}' names no source", "", f"for example {EXAMPLE}", exit_code=2)
    faults = None if script is None else FaultScript.parse(script)
    if has_password(uri):
        mask_arguments(uri)
        log.warning("%s: the address held a password, which `ps` and histories show; use --camera-auth FILE", name)
    width, height = size or (None, None)
    request = CameraRequest(uri, auth, width, height, fps, fourcc, vector_size, script)
    if is_live(uri):
        if pace == "asap":
            todo = "use --pace realtime, or a file"
            raise EdgeHalError(f"the camera {name} cannot wait", "--pace asap is for files", todo, exit_code=2)
        if uri.startswith(("gst:", "csi:")):
            check_gstreamer()
        return CameraSource(name, request, limits)
    if "://" in uri:
        known = "a camera index, rtsp://, http://, gst:, csi:, a video file, a folder or features:FILE.npy@HZ"
        raise EdgeHalError(f"cannot open the source {name}", "unknown scheme", f"use {known}", exit_code=2)
    reader = open_file(uri, vector_size, fps)
    if pace == "asap":
        return WaitingSource(name, reader, faults)
    if faults is None:
        return PacedSource(name, reader)
    reader.close()
    return CameraSource(name, request, limits)
