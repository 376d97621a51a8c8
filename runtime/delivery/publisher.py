"""The publisher as the loop sees it: events are handed over, a thread stores and sends them (`sender.py`).

The loop waits neither for the disk nor for a subscriber.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event
from edge_hal.runtime import threads
from edge_hal.runtime.stream.latency import Latency
from edge_hal.runtime.stream.resumed import Noted

from .admission import Admission
from .curve_keys import ServerKeys
from .endpoint import check_endpoint, check_stream, default_replay
from .held_events import HeldEvents
from .journal import Journal
from .prometheus import Vitals
from .replay_server import ReplayServer
from .report import Report, Status
from .sender import Sender
from .subscriptions import SubscriptionSocket

RESTARTS = 3


class Publisher:
    """Publishes the events of one stream on an XPUB socket, after they were stored in the journal.

    Args:
        endpoint: `tcp://HOST:PORT` (`*` for any free port) or `ipc://PATH`.
        stream: the name in every topic; without `/`.
        journal: stores events. It must stay open until the publisher is closed. None: nothing is stored.
        replay: where past events are requested; default the next port, or `.replay`.
        keys: encrypt, and accept only subscribers that they allow.
        insecure: allow an unencrypted address that other machines can reach.

    `kept_belief`: the row that an earlier run kept with the journal, if there is one.

    Raises:
        EdgeHalError: an endpoint is malformed, in use, or open to others without `keys` or `insecure`; `replay`
            without a journal.
    """

    def __init__(
        self,
        endpoint: str,
        stream: str,
        *,
        journal: Journal | None = None,
        replay: str | None = None,
        keys: ServerKeys | None = None,
        insecure: bool = False,
        latency: Latency | None = None,
    ) -> None:
        check_stream(stream)
        check_endpoint(endpoint, insecure=insecure, encrypted=keys is not None)
        if journal is None and replay is not None:
            todo = "add --journal FILE, or omit --replay"
            raise EdgeHalError("past events cannot be requested", "this run keeps no journal", todo, exit_code=2)
        if journal is not None:
            replay = replay or default_replay(endpoint)
            check_endpoint(replay, insecure=insecure, encrypted=keys is not None)
        self.stream = stream
        self.kept_belief = None if journal is None else journal.kept_belief()
        self._latency = latency or Latency()
        self._held, self._closed = HeldEvents(), False
        self._replay: ReplayServer | None = None
        self._context = zmq.Context()
        with ExitStack() as undo:
            undo.callback(self._context.destroy, linger=0)
            self._admission = Admission(self._context, keys, self._gave_up)
            undo.callback(self._admission.close)
            socket = SubscriptionSocket(self._context, endpoint, stream, keys)
            self._address = socket.address
            undo.callback(self._address.release)
            undo.callback(socket.close)
            if journal is not None and replay is not None:
                self._replay = ReplayServer(self._context, replay, journal, keys, self._gave_up)
            undo.pop_all()
        report = Report(stream, -1 if journal is None else journal.next_seq - 1)
        self._sender = Sender(self._context, socket, self._held, journal, self._replay, report, self._latency)
        self._thread = threads.Worker(self._sender.serve, "publisher", restarts=RESTARTS, gave_up=self._gave_up)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """Where it publishes; a `*` has become a port."""
        return self._address.endpoint

    @property
    def sent(self) -> int:
        """Messages sent."""
        return self._sender.sent

    @property
    def replay(self) -> str | None:
        """Where past events are requested."""
        return None if self._replay is None else self._replay.endpoint

    @property
    def failure(self) -> EdgeHalError | None:
        """Why the thread ended, if it did."""
        return self._held.failure

    def publish(self, event: Event, *, wait: bool = False) -> None:
        """Hand an event over.

        Args:
            wait: wait for room; only for a source that can wait.

        Raises:
            EdgeHalError: the thread ended, the journal cannot be written, or the thread fell too far behind.
        """
        self._held.put(event, self.endpoint, wait=wait)
        self._sender.nudge()

    def status(self, status: Status) -> None:
        """What the next heartbeat reports. A loop that no longer calls this is not reported alive to systemd.

        Raises:
            EdgeHalError: a thread of the publisher ended.
        """
        if self._held.failure is not None:
            raise self._held.failure
        self._sender.status = status
        self._sender.reported_s = time.monotonic()

    def note(self, noted: Noted) -> None:
        """The newest belief, which the journal keeps at most once a second."""
        self._sender.noted = noted

    def vitals(self) -> Vitals:
        """The state of the run; any thread may ask."""
        sender = self._sender
        counters, latency_ms = sender.status.counters, self._latency.summary()
        return Vitals(self.stream, counters, latency_ms, sender.events, len(self._held), sender.troubles())

    def connections(self) -> dict[str, dict[str, int]]:
        """How many connections are open and may be open, by address."""
        return self._sender.connections()

    def wait_subscribers(self, count: int, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Until `count` subscriptions to this stream have arrived. False if `cancelled` (see `wake`)."""
        self._held.wait_for(lambda: self._sender.subscriptions >= count or cancelled())
        return self._sender.subscriptions >= count

    def wake(self) -> None:
        """Let `wait_subscribers` look at `cancelled` again."""
        self._held.wake()

    def close(self) -> None:
        """Store and send what is held, then close. Subscribers that read have received everything by then.

        A thread that makes no progress for two seconds is left behind, which is logged.

        Raises:
            EdgeHalError: the journal could not be written; what was not stored was not published.
        """
        if self._closed:
            return
        self._closed = True
        self._sender.stop()
        ended = self._thread.finish(lambda: self.sent)
        if self._replay is not None:
            ended &= self._replay.close(grace=self._sender.subscriptions > 0)
        ended &= self._admission.close()
        if ended:
            self._sender.close()
            last = threads.Worker(self._context.term, "last-messages")
            last.start()
            last.finish()
        self._address.release()
        if self._held.ailing is not None:
            what = f"{self._held.durable()} events were not stored, and not published"
            raise EdgeHalError(what, self._held.ailing.why, self._held.ailing.todo)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            self.close()
        except EdgeHalError:
            if kind is None:  # else the same error is on its way already
                raise

    def _gave_up(self, why: str) -> None:
        self._held.fail(EdgeHalError(f"publishing on {self._address.endpoint} failed", why))
