"""What several streams publish at: one address for events, one for past events, and the thread that sends."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack

import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.runtime import threads
from edge_hal.runtime.network.admission import Admission
from edge_hal.runtime.network.curve_keys import ServerKeys
from edge_hal.runtime.network.endpoint import check_endpoint, check_stream

from .journal import Journal
from .replay_server import Kept, ReplayServer
from .sender import Sender
from .stream_delivery import StreamDelivery
from .subscriptions import SubscriptionSocket, topics_of

RESTARTS = 3


class SharedAddress:
    """Publishes the events of any number of streams on an XPUB socket, each after it was stored in its journal.

    Args:
        endpoint: `tcp://HOST:PORT` (`*` for any free port) or `ipc://PATH`.
        streams: the names of the streams, in topics; they may be opened later.
        replay: where past events are requested; None: nowhere.
        keys: encrypt, and accept only subscribers that they allow.
        insecure: allow an unencrypted address that other machines can reach.

    Raises:
        EdgeHalError: an endpoint is malformed, in use, or open to others without `keys` or `insecure`.
    """

    def __init__(
        self,
        endpoint: str,
        streams: Collection[str],
        *,
        replay: str | None = None,
        keys: ServerKeys | None = None,
        insecure: bool = False,
    ) -> None:
        for stream in streams:
            check_stream(stream)
        for address in (endpoint, replay):
            if address is not None:
                check_endpoint(address, insecure=insecure, encrypted=keys is not None)
        self.failure: EdgeHalError | None = None
        self._closed = False
        self._replay: ReplayServer | None = None
        self._context = zmq.Context()
        with ExitStack() as undo:
            undo.callback(self._context.destroy, linger=0)
            self._admission = Admission(self._context, keys, self._gave_up)
            undo.callback(self._admission.close)
            self._socket = SubscriptionSocket(self._context, endpoint, streams, keys)
            self._address = self._socket.address
            undo.callback(self._address.release)
            undo.callback(self._socket.close)
            if replay is not None:
                self._replay = ReplayServer(self._context, replay, streams, keys, self._gave_up)
            undo.pop_all()
        self.sender = Sender(self._context, self._socket, self._replay)
        self._thread = threads.Worker(self.sender.serve, "publisher", restarts=RESTARTS, gave_up=self._gave_up)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """Where it publishes; a `*` has become a port."""
        return self._address.endpoint

    @property
    def replay(self) -> str | None:
        """Where past events are requested."""
        return None if self._replay is None else self._replay.endpoint

    def expect(self, streams: Collection[str]) -> None:
        """The names of all streams from now on. Past events of one that is no more can still be requested."""
        self._socket.topics = topics_of(streams)
        if self._replay is not None:
            for stream in streams:
                self._replay.journals.setdefault(stream, None)

    def add(self, delivery: StreamDelivery, journal: Journal | None) -> None:
        """Serve a stream. Its journal must stay open until `remove`, or `close`."""
        if self._replay is not None:
            self._replay.journals[delivery.stream] = None if journal is None else Kept(journal.path, journal.id)
        self.sender.add(delivery)
        if self.failure is not None:
            delivery.held.fail(self.failure)

    def remove(self, delivery: StreamDelivery) -> bool:
        """Store and send what is held, and serve the stream no more. Returns whether that was done: a thread that makes
        no progress for two seconds is not waited for."""
        delivery.leaving.set()
        self.sender.nudge()
        before = -1
        while not delivery.left.wait(threads.STOP_S) and self.failure is None:
            if before == (before := self.sender.sent):
                break
        return delivery.left.is_set()

    def close(self) -> None:
        """Store and send what is held, then close. Subscribers that read have received everything by then.

        A thread that makes no progress for two seconds is left behind, which is logged.
        """
        if self._closed:
            return
        self._closed = True
        self.sender.stop()
        ended = self._thread.finish(lambda: self.sender.sent)
        if self._replay is not None:
            ended &= self._replay.close(grace=any(map(self.sender.subscribers, self._replay.journals)))
        ended &= self._admission.close()
        if ended:
            self.sender.close()
            last = threads.Worker(self._context.term, "last-messages")
            last.start()
            last.finish()
        self._address.release()

    def __enter__(self) -> SharedAddress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _gave_up(self, why: str) -> None:
        """A thread has ended: every stream is told."""
        self.failure = EdgeHalError(f"publishing on {self._address.endpoint} failed", why)
        for delivery in self.sender.streams:
            delivery.held.fail(self.failure)
