"""Learn the steps of a procedure from videos and ordered step lists; recognise them live.

with edge_hal.open_stream("bundle/") as stream:
    for event in stream.push(frame, t_ns):
        ...
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.runtime.api import EventStream

__version__ = "0.1.0"
__all__ = ["EdgeHalError", "__version__", "open_stream"]


def open_stream(
    bundle: str | Path,
    *,
    stream: str = "default",
    threads: int = 1,
    allow_uncertified: bool = False,
    max_hold_ms: float = 500.0,
    source_hz: float | None = None,
) -> EventStream:
    """Open a bundle for recognition in this process; see `edge_hal.runtime.api.EventStream`.

    Args:
        bundle: the directory that `edge-hal export` wrote.
        stream: the name that events carry.
        threads: threads of ONNX Runtime.
        max_hold_ms: how long one frame may be shown, never less than two periods of the source;
            then a `Gap` and a fresh start.
        source_hz: frames per second that will be pushed. Without it a source slower than
            `max_hold_ms` is recognised as such from its first frames.

    Raises:
        EdgeHalError: the bundle is damaged, uncertified or of another version.
    """
    from edge_hal.runtime import api  # here, so that `import edge_hal` costs nothing

    return api.open_stream(
        bundle,
        stream=stream,
        threads=threads,
        allow_uncertified=allow_uncertified,
        max_hold_ms=max_hold_ms,
        source_hz=source_hz,
    )
