"""`edge-hal view` and `edge-hal correct` as their users start them, and clients that talk to them over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import socket as net
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import wsproto
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)

from tests.helpers.processes import REPOSITORY

TIMEOUT_S = 60.0
Server = TypeVar("Server", bound="PageServer")


class PageServer:
    """The server in a process of its own. `address` is what it printed first, `site` without the token."""

    def __init__(self, state: Path, name: str, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", "edge_hal", name, "--no-browser", *map(str, arguments)]
        if "--port" not in arguments:
            command += ["--port", "0"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(state), "OMP_NUM_THREADS": "1"},
            cwd=state,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            raise AssertionError(self.process.stderr.read())
        self.site, _, self.token = self.address.partition("#")
        self.port = int(self.site.rstrip("/").rpartition(":")[2])

    def get(self, path: str, token: str | None = None, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body. The path is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        headers = {"Host": host or f"127.0.0.1:{self.port}"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        found = (answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def post(self, path: str, body: bytes | dict[str, Any], token: str | None = None) -> tuple[int, Any]:
        """Status and the JSON of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {"Authorization": f"Bearer {token or self.token}"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text.startswith(b"{") else text

    def open(self, path: str = "/live", **how: Any) -> WebSocket:
        return WebSocket(self.port, path, **{"token": self.token, **how})

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(TIMEOUT_S)

    def __enter__(self: Server) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()


class Viewer(PageServer):
    """`edge-hal view`."""

    def __init__(self, state: Path, *arguments: str | Path) -> None:
        super().__init__(state, "view", *arguments)

    def history(self, stream: str, before: str, limit: int = 500) -> dict[str, Any]:
        status, _, body = self.get(f"/data/history?stream={stream}&before={before}&limit={limit}", self.token)
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def heard_of(self, *streams: str) -> None:
        """Wait until the server has received events of these streams."""
        page, missing = self.open(), set(streams)
        for event in page.events():
            missing -= {event.get("stream", ""), *event.get("streams", ())}
            if not missing:
                return page.close()
        raise AssertionError(f"closed with {page.closed} before {missing}")


class Corrector(PageServer):
    """`edge-hal correct TASK`."""

    def __init__(self, state: Path, task: Path, *arguments: str | Path) -> None:
        super().__init__(state, "correct", task, *arguments)

    def video(self, name: str) -> dict[str, Any]:
        status, _, body = self.get(f"/data/video?name={quote(name)}", self.token)
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def change(self, name: str, revision: str, do: str, **more: Any) -> tuple[int, Any]:
        return self.post("/data/video", {"name": name, "revision": revision, "do": do, **more})


class WebSocket:
    """A client. `refused`: the status of the answer, if it was not accepted; `closed`: the code, 1006 for a reset."""

    def __init__(
        self, port: int, path: str, token: str, origin: str | None = None, host: str | None = None, small: bool = False
    ) -> None:
        self.refused: int | None = None
        self.closed: int | None = None
        self._waiting: list[str | bytes] = []
        self._partial: list[Any] = []
        self.socket = net.socket()
        self.socket.settimeout(TIMEOUT_S)
        if small:
            self.socket.setsockopt(net.SOL_SOCKET, net.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        host = host or f"127.0.0.1:{port}"
        self._protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        headers = [(b"Origin", (origin or f"http://{host}").encode())]
        request = Request(host=host, target=path, subprotocols=["edge-hal", token], extra_headers=headers)
        self.socket.sendall(self._protocol.send(request))
        self._accepted = False
        while not self._accepted and self.refused is None:
            self._read()

    def receive(self) -> str | bytes | None:
        """The next message; None once the connection is closed."""
        while not self._waiting and self.closed is None:
            self._read()
        return self._waiting.pop(0) if self._waiting else None

    def events(self) -> Iterator[dict[str, Any]]:
        while (text := self.receive()) is not None:
            yield json.loads(text)

    def until(self, **wanted: Any) -> dict[str, Any]:
        """The next message with these fields."""
        for event in self.events():
            if all(event.get(name) == value for name, value in wanted.items()):
                return event
        raise AssertionError(f"closed with {self.closed} before {wanted}")

    def send(self, data: bytes) -> None:
        self.socket.sendall(self._protocol.send(Message(data=data)))

    def close(self) -> None:
        self.socket.close()

    def _read(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = self.closed or 1006
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            if isinstance(event, AcceptConnection):
                self._accepted = True
            elif isinstance(event, RejectConnection):
                self.refused = event.status_code
            elif isinstance(event, CloseConnection):
                self.closed = int(event.code)
            elif isinstance(event, Ping):
                self.socket.sendall(self._protocol.send(event.response()))
            elif isinstance(event, (TextMessage, BytesMessage)):
                self._partial.append(event.data)
                if event.message_finished:
                    empty: Any = "" if isinstance(event, TextMessage) else b""
                    self._waiting.append(empty.join(self._partial))
                    self._partial = []


def seqs(events: Sequence[dict[str, Any]]) -> list[int]:
    return [event["seq"] for event in events if "seq" in event]
