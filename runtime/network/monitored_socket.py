"""A ZeroMQ socket that tells what becomes of its connections, and ends that safely."""

from __future__ import annotations

import itertools
import weakref

import zmq

_names = itertools.count()


class MonitoredSocket(zmq.Socket[bytes]):
    """Call `watch` once, before it is bound or connected.

    libzmq's I/O thread sends the events to a PAIR socket. While nobody receives there, it waits without end, and no
    connection of the context gets any further. So the events end first, then this socket, then their receiver: also
    where this socket is collected as garbage.
    """

    _receiver: zmq.Socket[bytes] | None = None

    def watch(self, events: int) -> zmq.Socket[bytes]:
        """A PAIR socket that receives these events (`zmq.EVENT_...`). It is closed with this socket.

        pyzmq's `get_monitor_socket` keeps 1000 events. When 1000 are unread, libzmq's I/O thread waits too. It also
        names the address by the file descriptor, which a socket just dropped may still use.
        """
        address = f"inproc://edge-hal-monitor-{next(_names)}"
        self.monitor(address, events)
        receiver: zmq.Socket[bytes] = self.context.socket(zmq.PAIR)
        receiver.setsockopt(zmq.RCVHWM, 0)
        receiver.setsockopt(zmq.LINGER, 0)
        receiver.connect(address)
        self._receiver = receiver
        weakref.finalize(self, receiver.close).atexit = False  # keeps the receiver out of the garbage until then
        return receiver

    def close(self, linger: int | None = None) -> None:
        if self._receiver is not None and not self.closed:
            self.disable_monitor()
        super().close(linger)
        if self._receiver is not None:
            self._receiver.close()
