"""Opens a source: a camera, a file at one of the two paces, or a recording."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.redaction import hide_arguments

from .recording.replay_source import ReplaySource
from .sources.base import Source
from .sources.camera_backends import CameraRequest, check_gstreamer
from .sources.camera_source import CameraSource
from .sources.devices import denied
from .sources.file_readers import open_file
from .sources.file_sources import AsapFileSource, RealtimeFileSource
from .sources.source_spec import SourceKind, SourceSpec
from .sources.watchdog import Limits

log = logging.getLogger("edge_hal.camera")


def open_source(
    spec: SourceSpec,
    pace: str = "realtime",
    *,
    vector_size: int | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    fourcc: str | None = None,
    auth: str | None = None,
    limits: Limits | None = None,
) -> Source:
    """Open a source. Nothing is captured before `start` (or `with`).

    Files are opened here, so a file that cannot be read is refused here. A camera is opened after `start`, and again
    whenever it fails.

    Args:
        pace: `realtime` plays files at their own times and drops the frames that the loop cannot take in time; `asap`
            waits for the loop.
        vector_size: the length of feature vectors, which distinguishes (T, D) from (D, T).
        fps: replaces the time stamps of a video; a folder needs it; a camera is asked for it.
        size: (width, height), asked of a camera, like `fourcc` (MJPG).
        auth: `user:password` of an address.

    Raises:
        EdgeHalError: it cannot be opened; then nothing stays open.
    """
    if pace not in ("asap", "realtime"):
        raise EdgeHalError(f"there is no pace '{pace}'", "", "use asap or realtime", exit_code=2)
    name, limits = spec.log_name, limits or Limits()
    if spec.kind is SourceKind.RECORDING:
        return ReplaySource(Path(spec.target))
    if spec.has_password:
        hide_arguments(sys.argv[1:])
        text = "%s: `ps` and the shell's history show the password in the address; use --camera-auth FILE"
        log.warning(text, name)
    width, height = size or (None, None)
    request = CameraRequest(spec, auth, width, height, fps, fourcc, vector_size)
    if spec.live:
        if pace == "asap":
            todo = "use --pace realtime, or a file"
            raise EdgeHalError(f"the camera {name} cannot wait", "--pace asap is for files", todo, exit_code=2)
        if spec.kind in (SourceKind.GSTREAMER, SourceKind.CSI):
            check_gstreamer()
        if spec.kind is SourceKind.DEVICE and (todo := denied(spec.target)):
            raise EdgeHalError(f"cannot open /dev/video{spec.target}", "permission denied", todo)
        return CameraSource(request, limits)
    reader = open_file(spec, vector_size, fps)
    for note in reader.notes:
        log.warning("%s: %s", name, note)
    if pace == "asap":
        return AsapFileSource(name, reader, spec.faults)
    if spec.faults is None:
        return RealtimeFileSource(name, reader)
    reader.close()
    return CameraSource(request, limits)
