"""The warning that the machine is too slow for a stream."""

from __future__ import annotations

import logging
import time

AGAIN_S = 10.0
"""An overload later than this after the previous one is logged again."""

log = logging.getLogger("edge_hal.run")


class OverloadWarning:
    """Of one stream."""

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def tell(self, stream: str, model_hz: float, lost_ticks: int) -> None:
        """So many ticks were cut."""
        now_ns = time.monotonic_ns()
        if self._last_ns is None or now_ns - self._last_ns > AGAIN_S * 1e9:
            log.warning(
                "%s: too slow for %g ticks a second, %d were cut; a smaller model, a lower model_hz or "
                "fewer streams would help",
                stream,
                model_hz,
                lost_ticks,
            )
        self._last_ns = now_ns
