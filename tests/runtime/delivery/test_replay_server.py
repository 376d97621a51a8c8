from __future__ import annotations

import json
import random
import socket as tcp
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.runtime import threads
from edge_hal.runtime.delivery import replay_server as module
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.replay_server import PAGE_BYTES, PAGE_EVENTS, REQUEST_BYTES, parse_request
from tests.helpers.sample_events import ANY_PORT, STREAM, Server, start, transition

COUNT = 3000
TIMEOUT_MS = 20_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    opened = Server(tmp_path, COUNT)
    yield opened
    assert opened.process.poll() is None, "the server did not survive"
    opened.process.communicate(timeout=20)
    assert opened.process.returncode == 0


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as opened:
        yield opened


def connect(context: zmq.Context[Any], kind: int, endpoint: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
    socket.setsockopt(zmq.SNDTIMEO, TIMEOUT_MS)
    socket.connect(endpoint)
    return socket


def ask(socket: zmq.Socket[bytes], **request: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    socket.send(json.dumps(request).encode())
    header, *bodies = socket.recv_multipart()
    return json.loads(header), [json.loads(body) for body in bodies]


def alive(context: zmq.Context[Any], server: Server) -> None:
    """It answers rightly, and still publishes."""
    with connect(context, zmq.REQ, server.replay) as socket, connect(context, zmq.SUB, server.endpoint) as live:
        header, events = {"next": 0}, list[dict[str, Any]]()
        while header["next"] < COUNT:  # the last thousand may still be on their way to the disk
            header, events = ask(socket, id=7, **{"from": COUNT - 5})
        assert header["id"] == 7
        assert [event["seq"] for event in events] == list(range(COUNT - 5, header["next"]))
        live.setsockopt(zmq.SUBSCRIBE, b"")
        while json.loads(live.recv_multipart()[1])["type"] != "snapshot":
            pass
        server.publish()
        while json.loads(live.recv_multipart()[1]).get("seq") is None:
            pass


# --- what is asked -------------------------------------------------------------------------------

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=80)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
keys = st.one_of(st.sampled_from(["from", "since", "limit", "id", "stream"]), st.text(max_size=5))


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(keys, values, max_size=6).map(lambda body: json.dumps(body).encode()),
        st.dictionaries(keys, st.integers(0, 2**64), max_size=4).map(lambda body: json.dumps(body).encode()),
    )
)
@example(b"[" * REQUEST_BYTES)
@example(b'{"from":' + b"9" * 4000 + b"}")
@example(b'{"from":1e999}')
@example(b'{"from":true}')
@example(b'{"from":NaN}')
@example(b'{"from":0,"id":"\\ud800"}')
def test_a_request_is_understood_or_refused_with_a_reason(body: Any) -> None:
    try:
        request = parse_request(body, [STREAM])
    except EdgeHalError as error:
        assert error.what
        return
    asked = request.begin if request.since_ns is None else request.since_ns
    assert isinstance(asked, int) and 0 <= asked < 2**63 and (request.begin is None) != (request.since_ns is None)
    assert 0 <= request.limit <= PAGE_EVENTS
    told = request.id
    assert told is None or (told >= 0 if isinstance(told, int) else len(told) <= 64)


def test_pages_from_any_number_reach_the_end(tmp_path: Path, context: zmq.Context[Any]) -> None:
    with Journal(tmp_path / "j", STREAM) as journal, Publisher(ANY_PORT, STREAM, journal=journal) as publisher:
        publisher.publish(start())
        for seq in range(1, COUNT):
            publisher.publish(transition(seq), wait=True)
        with connect(context, zmq.SUB, publisher.endpoint) as live:
            live.setsockopt(zmq.SUBSCRIBE, b"")
            while json.loads(live.recv_multipart()[1]).get("last_seq", 0) < COUNT - 1:
                pass  # so everything is kept
        assert publisher.replay is not None
        with connect(context, zmq.REQ, publisher.replay) as socket:
            begin, seen = 0, list[int]()
            while begin < COUNT:
                header, events = ask(socket, id="a", stream=STREAM, limit=777, **{"from": begin})
                assert header == {
                    **{"schema": 1, "id": "a", "stream": STREAM, "journal": journal.id, "from": begin},
                    **{"count": len(events), "first": 0, "next": COUNT},
                }
                assert 1 <= len(events) <= 777
                assert sum(len(json.dumps(event)) for event in events) < 2 * PAGE_BYTES
                seen += [event["seq"] for event in events]
                begin += len(events)
            assert seen == list(range(COUNT))
            for beyond in (COUNT, COUNT + 5, 2**60):  # asking from `from` + `count` ends at once
                header, events = ask(socket, **{"from": beyond})
                assert (header["from"], header["count"], header["next"], events) == (COUNT, 0, COUNT, [])
            assert ask(socket, since=0, limit=1)[1][0]["type"] == "start"
            assert ask(socket, since=2**62)[0]["from"] == COUNT
            for wrong in ({}, {"from": -1}, {"from": 1, "since": 1}, {"from": 0, "stream": "other"}, {"from": "0"}):
                header, events = ask(socket, **wrong)
                assert header["error"] and not events


@pytest.mark.parametrize("identity", ["\ud800", "\udfff\ud800", "\x00", "\u202e", "é" * 64, 0, 2**63 - 1, None])
def test_every_valid_id_comes_back(tmp_path: Path, context: zmq.Context[Any], identity: str | int | None) -> None:
    with Journal(tmp_path / "j", STREAM) as journal, Publisher(ANY_PORT, STREAM, journal=journal) as publisher:
        assert publisher.replay is not None
        with connect(context, zmq.REQ, publisher.replay) as socket:
            for _ in range(3):
                assert ask(socket, id=identity, **{"from": 0})[0]["id"] == identity
        assert not threads.troubles()


def test_whatever_fails_in_an_answer_the_next_one_comes(
    tmp_path: Path, context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = module.JournalReader.page, [RuntimeError("x"), MemoryError(), OverflowError(), OSError("gone")]

    def page(self: Any, *how: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(self, *how)

    monkeypatch.setattr(module.JournalReader, "page", page)
    with Journal(tmp_path / "j", STREAM) as journal, Publisher(ANY_PORT, STREAM, journal=journal) as publisher:
        assert publisher.replay is not None
        with connect(context, zmq.REQ, publisher.replay) as socket:
            for _ in range(4):
                assert "cannot be read" in ask(socket, **{"from": 0})[0]["error"]
            assert ask(socket, **{"from": 0})[0]["next"] == 0


def test_what_is_replayed_is_what_was_published(tmp_path: Path, context: zmq.Context[Any]) -> None:
    with Journal(tmp_path / "j", STREAM) as journal, Publisher(ANY_PORT, STREAM, journal=journal) as publisher:
        with connect(context, zmq.SUB, publisher.endpoint) as live:
            live.setsockopt(zmq.SUBSCRIBE, b"")
            publisher.wait_subscribers(1)
            publisher.publish(start())
            for seq in range(1, 200):
                publisher.publish(transition(seq))
            published = [live.recv_multipart()[1] for _ in range(200)]
        assert publisher.replay is not None
        with connect(context, zmq.REQ, publisher.replay) as socket:
            socket.send(b'{"from":0}')
            assert socket.recv_multipart()[1:] == published


# --- attacks -------------------------------------------------------------------------------------


def random_parts(rng: random.Random) -> list[bytes]:
    return [rng.randbytes(rng.choice([0, 1, 10, 300, REQUEST_BYTES])) for _ in range(rng.randrange(1, 9))]


def truncated_json(rng: random.Random) -> list[bytes]:
    whole = json.dumps({"id": rng.randrange(10**9), "stream": STREAM, "from": rng.randrange(COUNT), "limit": 1})
    return [whole[: rng.randrange(len(whole))].encode()]


def huge(rng: random.Random) -> list[bytes]:
    return [b'{"from":0,"x":"' + b"x" * rng.choice([REQUEST_BYTES, 10**6, 3 * 10**7]) + b'"}']


@pytest.mark.parametrize(("attack", "count"), [(random_parts, 3000), (truncated_json, 3000), (huge, 60)])
def test_nonsense_neither_kills_nor_grows(
    server: Server, context: zmq.Context[Any], attack: Callable[[random.Random], list[bytes]], count: int
) -> None:
    alive(context, server)
    before = server.resident_bytes()
    rng = random.Random(5)
    with connect(context, zmq.DEALER, server.replay) as replay, connect(context, zmq.DEALER, server.replay) as other:
        for index in range(count):
            (replay if index % 3 else other).send_multipart(attack(rng))
        alive(context, server)
    assert server.resident_bytes() - before < 12e6


def test_subscriptions_too_large_or_too_many_kill_nothing(server: Server, context: zmq.Context[Any]) -> None:
    alive(context, server)
    with connect(context, zmq.SUB, server.endpoint) as large, connect(context, zmq.SUB, server.endpoint) as many:
        large.setsockopt(zmq.SUBSCRIBE, b"x" * 100_000)
        for index in range(5000):
            many.setsockopt(zmq.SUBSCRIBE, f"{STREAM}/{index}".encode())
        alive(context, server)
        for index in range(5000):
            many.setsockopt(zmq.UNSUBSCRIBE, f"{STREAM}/{index}".encode())
        alive(context, server)


def test_bytes_that_are_no_zeromq_are_ignored(server: Server, context: zmq.Context[Any]) -> None:
    alive(context, server)
    before = server.resident_bytes()
    rng = random.Random(6)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
    slow = []  # these stay in the middle of their greeting
    for index in range(120):
        port = int((server.replay, server.endpoint)[index % 2].rpartition(":")[2])
        raw = tcp.create_connection(("127.0.0.1", port), timeout=20)
        content = rng.randbytes(rng.randrange(1, 5000))
        try:
            raw.sendall(greeting[: rng.randrange(65)] + content * (index % 4 > 1) if index % 3 else content)
        except OSError:
            continue  # it has hung up already
        slow.append(raw)
    alive(context, server)
    assert server.resident_bytes() - before < 12e6
    for raw in slow:
        raw.close()


def endless(endpoint: str, kind: bytes, parts: int, size: int) -> tcp.socket:
    """One message that never ends, by hand (ZMTP 3.0, RFC 23): every part says that more will follow."""
    raw = tcp.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])), timeout=20)
    raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31))
    heard = b""
    while len(heard) < 64:
        heard += raw.recv(64 - len(heard))
    ready = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    raw.sendall(b"\x04" + bytes([len(ready)]) + ready)
    while b"READY" not in heard:
        heard += raw.recv(1024)
    part = b"\x03" + size.to_bytes(8, "big") + bytes(size)
    for _ in range(parts // 100):
        raw.sendall(part * 100)
    return raw


@pytest.mark.parametrize(("kind", "size"), [(b"DEALER", 1000), (b"SUB", 60)])
def test_a_message_without_end_costs_its_size_while_it_lasts_and_stops_nobody(
    server: Server, context: zmq.Context[Any], kind: bytes, size: int
) -> None:
    """A limit of libzmq, see `docs/events.md`: no option bounds this. What it costs is used again afterwards."""
    alive(context, server)
    weights = [server.resident_bytes()]
    for _ in range(3):
        with endless(server.replay if kind == b"DEALER" else server.endpoint, kind, 50_000, size):
            alive(context, server)  # others are answered, and hear
        alive(context, server)
        weights.append(server.resident_bytes())
    assert weights[3] - weights[2] < 60e6, weights  # not another 50 MB and more for each


def test_those_who_ask_and_never_read_cost_a_bounded_sum(server: Server, context: zmq.Context[Any]) -> None:
    alive(context, server)
    before = server.resident_bytes()
    greedy = []
    for _ in range(8):
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.setsockopt(zmq.RCVBUF, 4096)
        socket.connect(server.replay)
        greedy.append(socket)
    request = b'{"from":0}'
    for _ in range(400):
        for socket in greedy:
            try:
                socket.send(request, zmq.DONTWAIT)
            except zmq.Again:
                continue
    alive(context, server)  # those who read get their turn among those who do not
    grown = server.resident_bytes() - before
    assert grown < len(greedy) * (module.WAITING_PAGES + 2) * (PAGE_BYTES + 200 * 1024) + 12e6
    for socket in greedy:
        socket.close()


def test_many_who_ask_at_once_all_get_their_page(server: Server) -> None:
    failures: list[BaseException] = []

    def reader(number: int) -> None:
        try:
            with zmq.Context() as own, connect(own, zmq.REQ, server.replay) as socket:
                begin, seen = 0, list[int]()
                while begin < COUNT:
                    header, events = ask(socket, id=number, **{"from": begin})
                    assert header["id"] == number
                    seen += [event["seq"] for event in events]
                    begin += len(events)
                assert seen[:COUNT] == list(range(COUNT))
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=reader, args=(number,)) for number in range(12)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join(timeout=120)
    assert not failures
