"""Receives the events of one address, in a thread of its own, and hands each to the history and to all pages."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery.client import Since, Subscription, subscribe
from edge_hal.runtime.network.curve_keys import ClientKeys
from edge_hal.runtime.threads import Worker

from .history import History

PAST_S = 12 * 3600.0
"""So much of the past is requested from the publisher, where it keeps a journal."""
RETRY_S = 2.0

log = logging.getLogger("edge_hal.view")


class Feed:
    """Args:
        tell: called in the feed's thread with the JSON of each event.
        fail: called with a sentence when the publisher cannot be subscribed to, or its events cannot be shown. The feed
            goes on.

    `trouble`: that sentence, None while all is well.

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
        fail: Callable[[str], None],
    ) -> None:
        self.endpoint = endpoint
        self.trouble: str | None = None
        self._stream, self._replay, self._keys = stream, replay, keys
        self._history, self._tell, self._fail = history, tell, fail
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
                        why = self._history.add(event, subscription.raw, self.endpoint)
                        if why is None:
                            self._tell(subscription.raw)
                        self._report(why)
            except EdgeHalError as error:
                why = f"{error.what}: {error.why}" if error.why else error.what
                self._report(why)
            subscription = None
            self._begin_ns = time.time_ns()
            time.sleep(RETRY_S)

    def _report(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self.trouble:
            log.warning(trouble)
            self._fail(trouble)
        self.trouble = trouble
