"""The webhook bridge against a real web server in a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.events import encode
from edge_hal.runtime.bridges import webhook as module
from edge_hal.runtime.bridges.bridge import Delivery, Unavailable
from edge_hal.runtime.bridges.webhook import Webhook
from tests.helpers.processes import REPOSITORY
from tests.helpers.sample_events import mixed
from tests.helpers.services import Receiver, self_signed

SECRET = "a long secret"


def batch(*seqs: int) -> list[Delivery]:
    events = [replace(mixed(seq), stream="bench ü", run={**mixed(seq).run, "journal": "j1"}) for seq in seqs]
    return [Delivery(event, encode(event)) for event in events]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    (tmp_path / "service").mkdir()
    made = Receiver(tmp_path / "service")
    yield made
    made.kill()


def test_each_event_is_posted_signed_as_the_document_says(receiver: Receiver) -> None:
    receiver.start()
    target = Webhook(receiver.url, SECRET)
    target.deliver(batch(1, 2, 10))
    target.deliver(batch(10))
    target.close()
    page = (REPOSITORY / "docs" / "bridges.md").read_text()
    [code] = [block.partition("```")[0] for block in page.split("```python\n")[1:] if "def is_ours" in block]
    names: dict[str, Any] = {}
    exec(code, names)
    received = receiver.received()
    assert [str(each["body"]).encode() for each in received] == [each.raw for each in batch(1, 2, 10, 10)]
    for each in received:
        headers, body = each["headers"], str(each["body"]).encode()
        assert isinstance(headers, dict) and each["path"] == "/events?to=us"
        assert names["is_ours"](SECRET.encode(), headers, body)
        assert not names["is_ours"](SECRET.encode(), headers, body + b" ")
        assert not names["is_ours"](b"another", headers, body)
        assert not names["is_ours"](SECRET.encode(), {**headers, "Edge-Hal-Timestamp": "1"}, body)
        assert abs(int(headers["Edge-Hal-Timestamp"]) - time.time()) < 600
    last = [each["headers"]["Edge-Hal-Event"] for each in received[-2:]]  # type: ignore[index]
    assert last == ["j1/bench%20%C3%BC/10"] * 2
    stamp = received[0]["headers"]["Edge-Hal-Timestamp"]  # type: ignore[index]
    expected = hmac.new(SECRET.encode(), f"{stamp}.{received[0]['body']}".encode(), hashlib.sha256).hexdigest()
    assert received[0]["headers"]["Edge-Hal-Signature"] == f"sha256={expected}"  # type: ignore[index]


@pytest.mark.parametrize("answer", [500, 503, 408, 425, 429])
def test_what_passes_is_tried_again(receiver: Receiver, answer: int) -> None:
    receiver.answers = [answer]
    receiver.start()
    target = Webhook(receiver.url, SECRET)
    with pytest.raises(Unavailable, match=str(answer)) as away:
        target.deliver(batch(1, 2))
    assert away.value.pause_s == (0.0 if answer == 429 else None)
    target.deliver(batch(1, 2))
    target.close()
    assert [each["answer"] for each in receiver.received()] == [answer, 200, 200]


@pytest.mark.parametrize("answer", [301, 400, 401, 404, 410, 413, 422])
def test_what_is_refused_ends_it_or_is_left_out(
    receiver: Receiver, answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [200, answer, 200, answer]
    receiver.start()
    target = Webhook(receiver.url, SECRET)
    with pytest.raises(EdgeHalError, match=f"answered {answer}.*event j1/bench%20%C3%BC/2, transition"):
        target.deliver(batch(1, 2, 3))
    target.close()
    assert len(receiver.received()) == 2
    target = Webhook(receiver.url, SECRET, skip_refused=True)
    target.deliver(batch(1, 2, 3))
    target.close()
    assert [each["answer"] for each in receiver.received()] == [200, answer, 200, answer, 200]
    assert sum("left out" in record.message for record in caplog.records) == 1


def test_only_the_types_asked_for_are_posted(receiver: Receiver) -> None:
    receiver.start()
    target = Webhook(receiver.url, SECRET, types=("deviation", "cycle"))
    target.deliver(batch(*range(26)))
    target.close()
    assert [each["headers"]["Edge-Hal-Event"][-2:] for each in receiver.received()] == ["10", "20", "25"]  # type: ignore[index]


def test_a_server_that_was_killed_is_found_again(receiver: Receiver) -> None:
    receiver.start()
    target = Webhook(receiver.url, SECRET)
    target.deliver(batch(1))
    receiver.kill()
    with pytest.raises(Unavailable, match="cannot post"):
        target.deliver(batch(2))
    receiver.start()
    target.deliver(batch(2))
    receiver.kill()
    receiver.start()
    target.deliver(batch(3))  # it has ended the connection that it kept
    target.close()
    assert len(receiver.received()) == 3


class Strange(BaseHTTPRequestHandler):
    """Answers with what the path says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/silent":
            self.server.released.wait(60)
        elif self.path == "/garbage":
            self.wfile.write(b"\x00\x01 garbage\r\n\r\n")
        elif self.path == "/endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * (1 << 17))
        elif self.path in ("/slow-answer", "/slow-head"):
            if self.path == "/slow-answer":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
            with contextlib.suppress(OSError):
                while not self.server.released.wait(0.05):
                    self.wfile.write(b"x")
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def strange() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Strange) as server:
        server.released = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["silent", "garbage", "nothing"])
def test_no_answer_is_tried_again(strange: HTTPServer, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    target = Webhook(f"http://127.0.0.1:{strange.server_port}/{path}", SECRET)
    with pytest.raises(Unavailable):
        target.deliver(batch(1))
    target.close()


@pytest.mark.parametrize("path", ["endless", "slow-answer"])
def test_an_answer_without_end_is_not_read(strange: HTTPServer, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    target = Webhook(f"http://127.0.0.1:{strange.server_port}/{path}", SECRET)
    target.deliver(batch(1))
    target.close()


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(strange: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_S", 0.3)
    target = Webhook(f"http://127.0.0.1:{strange.server_port}/slow-head", SECRET)
    with pytest.raises(Unavailable):
        target.deliver(batch(1))
    target.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/x", "must begin with"),
        ("host/x", "must begin with"),
        ("http://", "name a host"),
        ("http://host:port/", "ort"),
        ("http://host/a b", "percent-encoded"),
        ("http://höst/", "percent-encoded"),
        ("http://host/\r\nX: y", "percent-encoded"),
        ("https://user:secret-word@host/", "has a user"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, why: str) -> None:
    with pytest.raises(EdgeHalError, match=why) as refused:
        Webhook(url, SECRET)
    assert refused.value.exit_code == 2 and "secret-word" not in str(refused.value)


def test_a_certificate_is_checked(tmp_path: Path) -> None:
    for name, host in (("good", "localhost"), ("other", "elsewhere")):
        self_signed(tmp_path, name, host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "good.pem", tmp_path / "good.key")
    with HTTPServer(("127.0.0.1", 0), Ok) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"https://localhost:{server.server_port}/"
            for ca in (tmp_path / "other.pem", None):
                with pytest.raises(EdgeHalError, match="no certificate to trust"):
                    Webhook(url, SECRET, ca).deliver(batch(1))
            trusting = Webhook(url, SECRET, tmp_path / "good.pem")
            trusting.deliver(batch(1, 2))
            trusting.close()
        finally:
            server.shutdown()
            thread.join()
    for path, why in ((tmp_path / "good.key", "TLS"), (tmp_path / "none.pem", "No such file")):
        with pytest.raises(EdgeHalError, match=why):
            Webhook(url, SECRET, path)
    with pytest.raises(EdgeHalError, match="https"):
        Webhook("http://localhost/", SECRET, tmp_path / "good.pem")


class Ok(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass
