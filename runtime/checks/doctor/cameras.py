"""Which cameras are there, and whether this user may open them. Nothing is streamed: a run that goes on is not
disturbed."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_hal.runtime.checks import child
from edge_hal.runtime.checks.finding import Finding

from .access import denied

VIDIOC_QUERYCAP = 0x80685600
CAPTURES = 0x00000001 | 0x00001000
"""V4L2_CAP_VIDEO_CAPTURE and its multi-planar form."""
SILENCE_S = 10.0


def check_cameras(dev: Path = Path("/dev")) -> Iterator[Finding]:
    nodes = sorted(dev.glob("video[0-9]*"), key=lambda path: (len(path.name), path.name))
    if not nodes:
        todo = "plug in a USB camera, or see dmesg for a CSI one; rtsp: and http: cameras and videos need no device"
        yield Finding("cameras", "warn", f"there is no {dev}/video*", todo)
    for node in nodes:
        finding = _look_at(node)
        if finding is not None:
            yield finding


def _look_at(node: Path) -> Finding | None:
    """None for a node that is no camera: a USB camera brings one for metadata."""
    check = f"camera {node}"
    answer = child.call(query, str(node), silence_s=SILENCE_S)
    if answer.failure:
        todo = "unplug it and plug it in again; if that does not help: sudo dmesg | tail"
        return Finding(check, "fail", f"it does not answer: {answer.failure}", todo)
    number, name, captures = answer.value["errno"], answer.value["name"], answer.value["captures"]
    if number in (errno.EACCES, errno.EPERM):
        return Finding(check, "fail", *denied(node))
    if number == errno.EBUSY:
        return Finding(check, "warn", "another program uses it", f"see which: sudo fuser -v {node}")
    if number:
        todo = "plug it in again; in a container: pass the device in (--device)"
        return Finding(check, "fail", f"it cannot be opened: {os.strerror(number)}", todo)
    return Finding(check, "ok", f"{name}, may be opened") if captures else None


def query(node: str) -> dict[str, Any]:
    """In the other process: the error number of opening and asking the driver (0: none), the camera's name, whether
    it captures pictures."""
    import fcntl

    reply = bytearray(104)
    try:
        device = os.open(node, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(device, VIDIOC_QUERYCAP, reply)
        finally:
            os.close(device)
    except OSError as error:
        return {"errno": error.errno or errno.EIO, "name": "", "captures": False}
    _, card, _, _, of_all, of_node = struct.unpack_from("16s32s32sIII", reply)
    # If bit 31 (V4L2_CAP_DEVICE_CAPS) is set, the second number describes this node alone.
    capabilities = of_node if of_all & 0x80000000 else of_all
    name = card.split(b"\0")[0].decode(errors="replace")
    return {"errno": 0, "name": name or "a camera without a name", "captures": bool(capabilities & CAPTURES)}
