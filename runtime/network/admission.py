"""The thread that admits each subscriber that connects (ZAP, RFC 27): it looks up the key, and limits the rate.

The rate is limited because many connections at once fill libzmq's tree of subscriptions before the publisher has seen
the first (`subscriptions.py`). A connection waits until it is admitted; those who were admitted notice nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import zmq
import zmq.utils.z85

from edge_hal.errors import EdgeHalError
from edge_hal.runtime import threads

from .connections import KEY
from .curve_keys import ServerKeys

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
START_S = 10.0
PAUSE_S, BURST = 0.02, 5
"""One connection is admitted every 20 ms; after a quiet time, 5 at once."""
RESTARTS = 10


class Admission:
    """Must run before a socket is bound: without it CURVE encrypts, and accepts everybody. Without `keys` every
    connection is admitted.

    Raises:
        EdgeHalError: it does not start.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: ServerKeys | None,
        gave_up: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._context, self._keys = context, keys
        self._ready = threading.Event()
        self._stop: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._stopped: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._stop.bind("inproc://stop-admission")
        self._stopped.connect("inproc://stop-admission")
        self._thread = threads.Worker(self._serve, "admission", restarts=RESTARTS, gave_up=gave_up)
        self._thread.start()
        if not self._ready.wait(START_S):
            raise EdgeHalError("no subscriber can be admitted", self._thread.trouble or "", "try again")

    def close(self) -> bool:
        """Returns whether the thread ended."""
        if not self._stop.closed:
            self._stop.send(b"", zmq.DONTWAIT)
        ended = self._thread.finish()
        if ended:
            self._stop.close(linger=0)
            self._stopped.close(linger=0)
        return ended

    def _serve(self) -> None:
        requests: zmq.Socket[bytes] = self._context.socket(zmq.REP)
        requests.setsockopt(zmq.LINGER, 0)
        requests.bind(ZAP_ENDPOINT)
        poller = zmq.Poller()
        poller.register(requests, zmq.POLLIN)
        poller.register(self._stopped, zmq.POLLIN)
        self._ready.set()
        next_s = 0.0
        try:
            while self._stopped not in dict(poller.poll()):
                next_s = max(next_s, time.monotonic() - BURST * PAUSE_S) + PAUSE_S
                if self._stopped.poll(max(0, round(1000 * (next_s - time.monotonic())))):
                    return
                requests.send_multipart(self._reply(requests.recv_multipart()))
        finally:
            requests.close()

    def _reply(self, request: list[bytes]) -> list[bytes]:
        """The user is never named: libzmq would send the name to the publisher's socket as one more message, which
        fills a queue of one message (`subscriptions.py`). The key is a property of each message instead."""
        version, number, _domain, _address, _identity, mechanism, *credentials = request
        admitted, known = self._keys is None, b""
        if self._keys is not None and mechanism == b"CURVE" and len(credentials) == 1:
            key = zmq.utils.z85.encode(credentials[0])
            admitted, known = self._keys.allows(key), _property(KEY, key)
        status = (b"200", b"OK") if admitted else (b"400", b"the key is not allowed")
        return [version, number, *status, b"", known if admitted else b""]


def _property(name: str, value: bytes) -> bytes:
    """Of metadata, as in ZMTP (RFC 23)."""
    return bytes([len(name)]) + name.encode() + len(value).to_bytes(4, "big") + value
