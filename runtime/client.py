"""The other end: receive a publisher's events, raw or decoded."""

from __future__ import annotations

from collections.abc import Iterator

import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, decode

from .endpoint import DEFAULT_ENDPOINT


def receive(
    endpoint: str = DEFAULT_ENDPOINT, stream: str | None = None, *, timeout_s: float | None = None
) -> Iterator[bytes]:
    """The JSON of each event as it was sent, in order of arrival. Ends after `timeout_s` without
    one.

    The publisher need not be there yet. `stream` None takes every stream of the endpoint.

    Raises:
        EdgeHalError: the endpoint is malformed, or something that is no edge-hal publisher answers.
    """
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"" if stream is None else f"{stream}/".encode())
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise EdgeHalError(
                f"cannot connect to '{endpoint}'",
                str(error.strerror),
                f"use --connect {DEFAULT_ENDPOINT}",
            ) from error
        while socket.poll(None if timeout_s is None else round(timeout_s * 1000)):
            parts = socket.recv_multipart()
            if len(parts) != 2:
                why = f"its messages have {len(parts)} parts"
                raise EdgeHalError(f"{endpoint} is no edge-hal publisher", why, "check --connect")
            yield parts[1]


def subscribe(
    endpoint: str = DEFAULT_ENDPOINT, stream: str | None = None, *, timeout_s: float | None = None
) -> Iterator[Event]:
    """The events of `receive`, decoded.

    Raises:
        EdgeHalError: also where a message is no event of this schema.
    """
    for message in receive(endpoint, stream, timeout_s=timeout_s):
        yield decode(message)
