"""Learn the steps of a procedure from videos and ordered step lists; recognise them live.

Recognise frames in your own program, and receive the events of a running `edge-hal run`:

    with edge_hal.open_stream("bundle/") as stream:
        for event in stream.push(frame, t_ns):
            ...

    with edge_hal.subscribe("tcp://127.0.0.1:5570") as events:
        for event in events:
            ...

Each name is imported when it is first used, so `import edge_hal` loads neither numpy nor ZeroMQ.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.events import (
        Cycle,
        Deviation,
        End,
        Event,
        Gap,
        Heartbeat,
        Lost,
        Moment,
        Now,
        Snapshot,
        Start,
        Transition,
        Unknown,
    )
    from edge_hal.runtime.api import open_model, open_stream
    from edge_hal.runtime.delivery.client import subscribe

__version__ = "0.5.0"
__all__ = [
    "Cycle",
    "Deviation",
    "EdgeHalError",
    "End",
    "Event",
    "Gap",
    "Heartbeat",
    "Lost",
    "Moment",
    "Now",
    "Snapshot",
    "Start",
    "Transition",
    "Unknown",
    "__version__",
    "open_model",
    "open_stream",
    "subscribe",
]

# ONNX Runtime 1.32 writes a telemetry database with an identifier of the machine under ~/.cache, unless this is set
# before it is imported. A user who wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "open_model": "edge_hal.runtime.api",
    "open_stream": "edge_hal.runtime.api",
    "subscribe": "edge_hal.runtime.delivery.client",
}


if not TYPE_CHECKING:  # for mypy, a name that is not imported above does not exist

    def __getattr__(name: str) -> object:
        """Import a name of `__all__` at its first use (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module 'edge_hal' has no attribute '{name}'")
        value = getattr(import_module(_MODULES.get(name, "edge_hal.events")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
