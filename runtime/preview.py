"""The newest picture of the source, for people who watch a run: on an address of its own, small, and never of use to
the recognition.

The loop hands over a reference to each frame that it takes, nothing more. A thread scales, encodes and sends the newest
one, at most `PICTURE_HZ` times a second, and only while somebody subscribes.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from typing import Any

import zmq

from edge_hal.media.jpeg import jpeg, small

from .delivery.subscriptions import SubscriptionSocket
from .network.admission import Admission
from .network.connections import REVIEW_S
from .network.curve_keys import ServerKeys
from .network.endpoint import check_endpoint, check_stream
from .observer import Observer
from .sources.file_readers import opencv
from .sources.frame import Frame
from .threads import Worker

TYPE = "picture"
"""The topic is `<stream>/picture`."""
PICTURE_HZ = 10.0
QUEUE = 2
"""Pictures kept for a subscriber that does not read. It misses the others."""
IDLE_S = 0.5
RESTARTS = 3


class Preview(Observer):
    """Publishes pictures on an XPUB socket until it is closed. A message has three parts: the topic, a JSON object
    (`stream`, `frame`, `t_ns`, `width`, `height`; see docs/events.md) and a JPEG.

    Raises:
        EdgeHalError: the address cannot be used, or OpenCV is missing.
    """

    def __init__(self, endpoint: str, stream: str, *, keys: ServerKeys | None = None, insecure: bool = False) -> None:
        opencv()
        check_stream(stream)
        check_endpoint(endpoint, insecure=insecure, encrypted=keys is not None)
        self.sent = 0
        self._stream = stream
        self._newest: Frame | None = None
        self._stop = threading.Event()
        self._context = zmq.Context()
        with ExitStack() as undo:
            undo.callback(self._context.destroy, linger=0)
            self._admission = Admission(self._context, keys)
            undo.callback(self._admission.close)
            self._socket = SubscriptionSocket(
                self._context, endpoint, (stream,), keys, types=(TYPE,), queue=QUEUE, chosen_by="--preview"
            )
            undo.pop_all()
        self._thread = Worker(self._serve, "preview", restarts=RESTARTS)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """Where it publishes; a `*` has become a port."""
        return self._socket.address.endpoint

    def frame_taken(self, frame: Frame, missed: int, period_ns: int | None) -> None:
        self._newest = frame

    def health(self) -> dict[str, Any]:
        return {"preview": {"endpoint": self.endpoint, "sent": self.sent}}

    def close(self) -> None:
        self._stop.set()
        ended = self._thread.finish()
        if self._admission.close() and ended:
            self._socket.socket.close(linger=0)
            self._context.term()
        self._socket.address.release()

    def _serve(self) -> None:
        socket, topic = self._socket, f"{self._stream}/{TYPE}".encode()
        wanted = False
        poller = zmq.Poller()
        poller.register(socket.socket, zmq.POLLIN)
        poller.register(socket.connections.monitor, zmq.POLLIN)
        shown, due_s, review_s = None, 0.0, 0.0
        while not self._stop.is_set():
            wait_s = max(0.0, due_s - time.monotonic()) if wanted else IDLE_S
            if poller.poll(round(1000 * wait_s)):
                socket.read()
            if time.monotonic() >= review_s:
                review_s = time.monotonic() + REVIEW_S
                socket.review()
            wanted = socket.subscribers(self._stream) > 0
            frame = self._newest
            if not wanted or time.monotonic() < due_s:
                continue
            due_s = time.monotonic() + 1 / PICTURE_HZ
            if frame is None or frame is shown or frame.data.ndim != 3:  # a recording may hold vectors
                continue
            shown = frame
            parts = self._message(frame)
            self.sent += 1  # before it arrives
            socket.send(topic, *parts)

    def _message(self, frame: Frame) -> tuple[bytes, bytes]:
        picture = small(frame.data)
        height, width = picture.shape[:2]
        about = {"stream": self._stream, "frame": frame.index, "t_ns": frame.t_ns, "width": width, "height": height}
        return json.dumps(about).encode(), jpeg(picture)
