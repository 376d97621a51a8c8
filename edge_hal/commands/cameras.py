"""`edge-hal cameras`: which cameras are there, and what they can deliver."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer


def cameras(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """List the cameras of this machine with the sizes, rates and pixel formats they confirm."""
    from edge_hal.runtime.sources.devices import list_devices

    devices = list_devices()
    if as_json:
        print(json.dumps([dataclasses.asdict(device) for device in devices]))
        return
    for device in devices:
        print(f"--camera {device.index}  {device.name}" + (f"  ({device.why})" if device.why else ""))
        for mode in device.modes:
            size = f"{mode['width']}x{mode['height']}"
            print(f"    --size {size} --fps {mode['fps']:g} --fourcc {mode['fourcc']}")
    if not devices:
        print("no camera found: this machine has no /dev/video*")
        print("addresses need no device: edge-hal run --camera rtsp://HOST/PATH")
