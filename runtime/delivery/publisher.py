"""The publisher as the loop of a stream sees it: events are handed over, a thread stores and sends them (`sender.py`).

The loop waits neither for the disk nor for a subscriber. Several streams may share an address (`shared_address.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event
from edge_hal.runtime.network.curve_keys import ServerKeys
from edge_hal.runtime.network.endpoint import check_stream, replay_address
from edge_hal.runtime.stream.latency import Latency
from edge_hal.runtime.stream.resumed import Noted

from .journal import Journal
from .prometheus import Vitals
from .report import Status
from .shared_address import SharedAddress
from .stream_delivery import StreamDelivery


class Publisher:
    """Publishes the events of one stream, after they were stored in the journal.

    Args:
        address: an address that streams share, or the endpoint of one for this stream alone: `tcp://HOST:PORT` (`*` for
            any free port) or `ipc://PATH`.
        stream: the name in every topic; without `/`.
        journal: stores events. It must stay open until the publisher is closed. None: nothing is stored.
        replay, keys, insecure: of an address of its own, see `SharedAddress`; `replay` is by default the next port, or
            `.replay`.

    `kept_belief`: the row that an earlier run kept with the journal, if there is one.

    Raises:
        EdgeHalError: an endpoint is malformed, in use, or open to others without `keys` or `insecure`; `replay`
            without a journal.
    """

    def __init__(
        self,
        address: SharedAddress | str,
        stream: str,
        *,
        journal: Journal | None = None,
        replay: str | None = None,
        keys: ServerKeys | None = None,
        insecure: bool = False,
        latency: Latency | None = None,
    ) -> None:
        check_stream(stream)
        self._own: SharedAddress | None = None
        if isinstance(address, str):
            replay = replay_address(address, replay, kept=journal is not None)
            self._own = address = SharedAddress(address, (stream,), replay=replay, keys=keys, insecure=insecure)
        self.stream = stream
        self.kept_belief = None if journal is None else journal.kept_belief()
        self._address, self._closed = address, False
        self._delivery = StreamDelivery(stream, journal, latency or Latency())
        self._held = self._delivery.held
        address.add(self._delivery, journal)

    @property
    def endpoint(self) -> str:
        """Where it publishes; a `*` has become a port."""
        return self._address.endpoint

    @property
    def sent(self) -> int:
        """Messages sent at its address."""
        return self._address.sender.sent

    @property
    def replay(self) -> str | None:
        """Where past events are requested."""
        return self._address.replay

    @property
    def next_seq(self) -> int:
        """The number that the next durable event must have. An event that `publish` refused does not use its number."""
        return self._held.next_seq

    @property
    def failure(self) -> EdgeHalError | None:
        """Why nothing is published any more, if that is so."""
        return self._held.failure

    def publish(self, event: Event, *, wait: bool = False) -> None:
        """Hand an event over.

        Args:
            wait: wait for room; only for a source that can wait.

        Raises:
            EdgeHalError: the thread ended, the journal cannot be written, a number is missing, or the thread fell too
                far behind.
        """
        self._held.put(event, self.endpoint, wait=wait)
        self._address.sender.nudge()

    def status(self, status: Status) -> None:
        """What the next heartbeat reports. A loop that no longer calls this is not reported alive to systemd.

        Raises:
            EdgeHalError: a thread of the publisher ended.
        """
        if self._held.failure is not None:
            raise self._held.failure
        self._delivery.status = status
        self._delivery.goes_on()

    def note(self, noted: Noted) -> None:
        """The newest belief, which the journal keeps at most once a second."""
        self._delivery.noted = noted

    def vitals(self) -> tuple[Vitals, ...]:
        """The state of the run; any thread may ask."""
        delivery, troubles = self._delivery, self._address.sender.troubles(self._delivery)
        counters, latency_ms = delivery.status.counters, delivery.latency.summary()
        return (Vitals(self.stream, counters, latency_ms, delivery.events, self._held.durable(), troubles),)

    def connections(self) -> dict[str, dict[str, int]]:
        """How many connections are open and may be open, by address."""
        return self._address.sender.connections()

    def wait_subscribers(self, count: int, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Until `count` subscribers of this stream are connected. False if `cancelled` (see `wake`)."""
        enough = False

        def look() -> bool:
            nonlocal enough
            enough = self._address.sender.subscribers(self.stream) >= count
            return enough or cancelled()

        self._held.wait_for(look, self._delivery.goes_on)
        return enough

    def wake(self) -> None:
        """Let `wait_subscribers` look at `cancelled` again."""
        self._held.wake()

    def close(self) -> None:
        """Store and send what is held, then close, as `SharedAddress.close` does.

        Raises:
            EdgeHalError: the journal could not be written; what was not stored was not published.
        """
        if self._closed:
            return
        self._closed = True
        if self._own is not None:
            self._own.close()
        else:
            self._address.remove(self._delivery)
        if self._held.journal_error is not None:
            what = f"{self._held.durable()} events were not stored, and not published"
            raise EdgeHalError(what, self._held.journal_error.why, self._held.journal_error.todo)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            self.close()
        except EdgeHalError:
            if kind is None:  # else the same error is on its way already
                raise
