"""Takes the newest pictures of a stream from the address of `run --preview`, while somebody looks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import zmq
import zmq.asyncio

from edge_hal.runtime.network.curve_keys import ClientKeys
from edge_hal.runtime.network.endpoint import is_loopback, keep_alive

PICTURE_BYTES = 2_000_000


def address_of(events: str, announced: str) -> str | None:
    """Where to connect for pictures. A run announces the address that it is bound to, which may be that of any host. So
    only its port is used, with the host that events come from. A path is used if events come from this machine."""
    host = events.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    local = events.startswith("ipc://") or is_loopback(host)
    if announced.startswith("ipc://"):
        return announced if local else None
    port = announced.rpartition(":")[2]
    if not announced.startswith("tcp://") or not port.isdecimal():
        return None
    return announced if events.startswith("ipc://") else f"{events.rpartition(':')[0]}:{port}"


async def pictures(address: str, stream: str, keys: ClientKeys | None) -> AsyncIterator[bytes]:
    """The newest picture whenever one has come: one line of JSON, then a JPEG."""
    context = zmq.asyncio.Context.instance()
    socket = context.socket(zmq.SUB)
    try:
        for option, value in ((zmq.RCVHWM, 2), (zmq.LINGER, 0), (zmq.MAXMSGSIZE, PICTURE_BYTES)):
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        keep_alive(socket)  # type: ignore[arg-type]
        if keys is not None:
            keys.secure(socket)  # type: ignore[arg-type]
        socket.setsockopt(zmq.SUBSCRIBE, f"{stream}/picture".encode())
        socket.connect(address)
        while True:
            parts = await socket.recv_multipart()
            while await socket.poll(0):
                parts = await socket.recv_multipart()
            if len(parts) == 3:
                yield parts[1].replace(b"\n", b" ") + b"\n" + parts[2]
    finally:
        socket.close()
