"""Receives the events of one address, in a thread of its own, and hands each to the history and to all pages."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery.client import Since, Subscription, subscribe
from edge_hal.runtime.network.curve_keys import ClientKeys
from edge_hal.runtime.threads import Worker

from .history import History
from .troubles import Troubles

PAST_S = 12 * 3600.0
"""Length of the past that is requested from the publisher, if it keeps a journal."""
RETRY_S = 2.0


class Feed:
    """Args:
        tell: called in the feed's thread with the JSON of each event.
        troubles: is told why the publisher cannot be subscribed to, or its events cannot be shown. The feed goes on.

    Raises:
        EdgeHalError: the address is malformed.
    """

    def __init__(
        self,
        endpoint: str,
        stream: str | None,
        replay: str | None,
        keys: ClientKeys | None,
        history: History,
        tell: Callable[[bytes], None],
        troubles: Troubles,
    ) -> None:
        self.endpoint = endpoint
        self._stream, self._replay, self._keys = stream, replay, keys
        self._history, self._tell, self._troubles = history, tell, troubles
        self._begin_ns = time.time_ns() - round(PAST_S * 1e9)
        self._first: Subscription | None = self._subscribe()
        self._thread = Worker(self._run, "feed", restarts=1_000_000)

    def start(self) -> None:
        self._thread.start()

    def _subscribe(self) -> Subscription:
        begin = Since(self._begin_ns)
        return subscribe(self.endpoint, self._stream, replay=self._replay, begin=begin, keys=self._keys)

    def _run(self) -> None:
        subscription, self._first = self._first, None
        while True:
            try:
                subscription = subscription or self._subscribe()
                with subscription:
                    for event in subscription:
                        self._troubles.address(self.endpoint, None)
                        why = self._history.add(event, subscription.raw, self.endpoint)
                        if why is None:
                            self._tell(subscription.raw)
                        else:
                            self._troubles.message(why)
            except EdgeHalError as error:
                self._troubles.address(self.endpoint, f"{error.what}: {error.why}" if error.why else error.what)
            subscription = None
            self._begin_ns = time.time_ns()
            time.sleep(RETRY_S)
