"""What is wrong at present with what `edge-hal view` receives. Pages are told when a trouble begins and when it
ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from edge_hal.runtime.threads import Worker

QUIET_S = 10.0
"""Messages that cannot be shown are a trouble until none has come for this long."""
LOOK_S = 1.0
MOST_MESSAGES = 20
"""More of them at a time are left out: a publisher may send a different one with each message."""

log = logging.getLogger("edge_hal.view")


class Troubles:
    """For any thread.

    Args:
        tell: called with all that is wrong, as sentences, whenever that has changed.
    """

    def __init__(self, tell: Callable[[list[str]], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._addresses: dict[str, str] = {}
        self._messages: dict[str, float] = {}  # when each came last, on the monotonic clock
        self._worker = Worker(self._watch, "troubles", restarts=1_000_000)

    def start(self) -> None:
        self._worker.start()

    def now(self) -> list[str]:
        with self._lock:
            return self._all()

    def address(self, address: str, why: str | None) -> None:
        """Why nothing can be received from an address; None: something was."""
        with self._lock:
            if self._addresses.get(address) == why:
                return
            if why is None:
                del self._addresses[address]
            else:
                log.warning(why)
                self._addresses[address] = why
            self._tell(self._all())

    def message(self, why: str) -> None:
        """Why a message is not shown."""
        with self._lock:
            known = why in self._messages
            if not known and len(self._messages) >= MOST_MESSAGES:
                return
            self._messages[why] = time.monotonic()
            if not known:
                log.warning(why)
                self._tell(self._all())

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_S)
            self._forget(time.monotonic() - QUIET_S)

    def _forget(self, before_s: float) -> None:
        """Messages that did not come again since then are no trouble any more."""
        with self._lock:
            left = {why: at_s for why, at_s in self._messages.items() if at_s > before_s}
            if len(left) < len(self._messages):
                self._messages = left
                self._tell(self._all())

    def _all(self) -> list[str]:
        return [*self._addresses.values(), *self._messages]
