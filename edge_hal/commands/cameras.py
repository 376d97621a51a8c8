"""`edge-hal cameras`: the cameras of this machine and the modes they offer."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from edge_hal.commands.streams import require_written


def cameras(
    as_json: Annotated[bool, typer.Option("--json", help="Print the cameras as one JSON array.")] = False,
) -> None:
    """List the cameras of this machine with the frame sizes, rates and pixel formats that each one accepts."""
    from edge_hal.runtime.sources.devices import list_devices

    devices = list_devices()
    if as_json:
        print(json.dumps([dataclasses.asdict(device) for device in devices]))
        require_written()
        return
    for device in devices:
        print(f"--camera {device.index}  {device.name}" + (f"  ({device.why})" if device.why else ""))
        for mode in device.modes:
            size = f"{mode['width']}x{mode['height']}"
            print(f"    --size {size} --fps {mode['fps']:g} --fourcc {mode['fourcc']}")
    if not devices:
        print("no camera found: this machine has no /dev/video*")
        print("a network camera needs no device: edge-hal run --camera rtsp://HOST/PATH")
    require_written()
