"""The client meets a publisher that means harm: one clear error or nothing, and a terminal that shows text only."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.commands.listen import describe, json_line
from edge_hal.errors import EdgeHalError
from edge_hal.events import TYPES, Start, decode, encode
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.network.endpoint import EVENT_BYTES
from tests.helpers.deliveries import edge_hal
from tests.helpers.sample_events import start, transition

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([2**63, -(2**63), 2**200, 1e308, "\x1b]0;x\x07", "\ud800", "\u202e", {}, []]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
)
samples = [json.loads(encode(event)) for event in (start(), transition(1))]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """An event with some fields of another kind."""
    body = {
        **draw(st.sampled_from(samples)),
        **draw(st.dictionaries(st.sampled_from(sorted(samples[1])), values, max_size=3)),
    }
    if draw(st.booleans()):
        body["type"] = draw(st.sampled_from(sorted(TYPES)))
        body.update({key: draw(values) for key in ("last_seq", "action", "since", "counters", "health", "delivery")})
    return json.dumps(body).encode()


@settings(max_examples=500, deadline=None)
@given(st.one_of(bodies(), st.binary(max_size=60), values.map(lambda value: json.dumps(value).encode())))
def test_a_message_is_an_event_that_can_be_shown_or_one_error(body: Any) -> None:
    try:
        event = decode(body)
    except EdgeHalError as error:
        assert error.what.isprintable() and error.why.isprintable() and len(str(error)) < 400
        return
    assert describe(event).isprintable() and json_line(body).isprintable()
    describe(event).encode()
    assert json.loads(json_line(body)) == json.loads(body) or "nan" in str(json.loads(body)).lower()
    assert decode(encode(event)) == event


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_deep_nesting_is_an_error(depth: int) -> None:
    for body in (b"[" * depth, b'{"a":' * depth):
        with pytest.raises(EdgeHalError):
            decode(body)
    body = encode(start())[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}"
    try:
        event = decode(body)
    except EdgeHalError:
        return
    assert depth == 1000 and event == start()  # Python 3.12 and later read so many levels
    assert describe(event).isprintable() and json_line(body).isprintable()


class Hostile:
    """An XPUB and a ROUTER that send what a test tells them to."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.live, self.past = context.socket(zmq.XPUB), context.socket(zmq.ROUTER)
        for socket in (self.live, self.past):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, 20_000)
        self.live.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.endpoint = f"tcp://127.0.0.1:{self.live.bind_to_random_port('tcp://127.0.0.1')}"
        self.replay = f"tcp://127.0.0.1:{self.past.bind_to_random_port('tcp://127.0.0.1')}"

    def subscribed(self) -> None:
        """Until a subscription arrives; those who leave unsubscribe."""
        while self.live.recv()[:1] != b"\x01":
            pass


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with zmq.Context() as context:
        opened = Hostile(context)
        yield opened
        opened.live.close()
        opened.past.close()


def test_a_body_of_a_hundred_megabytes_is_never_taken_in(hostile: Hostile) -> None:
    with subscribe(hostile.endpoint, timeout_s=20) as events:
        waiting = threading.Thread(target=lambda: found.append(next(events)))
        found: list[Any] = []
        waiting.start()
        hostile.subscribed()
        hostile.live.send_multipart([b"bench/start", b" " * 100_000_000])
        hostile.subscribed()  # the client has hung up, and is here again
        hostile.live.send_multipart([b"bench/start", encode(start())])
        waiting.join(timeout=20)
        assert isinstance(found[0], Start)
    assert EVENT_BYTES < 100_000_000


@pytest.mark.parametrize(
    "header",
    [
        {"first": 0, "from": 2**80, "journal": "j"},
        {"first": -1, "from": 0, "journal": "j"},
        {"first": 0, "from": 0, "journal": {}},
        {"first": 1e999, "from": 0, "journal": "j"},
        {"from": 0},
    ],
)
def test_an_answer_with_impossible_numbers_is_one_error(hostile: Hostile, header: Any) -> None:
    event = {**samples[1], "seq": 50, "run": {"journal": "j"}}
    failures: list[BaseException] = []

    def read() -> None:
        try:
            with subscribe(hostile.endpoint, replay=hostile.replay, begin=0, timeout_s=20) as events:
                next(events)
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    hostile.subscribed()
    hostile.live.send_multipart([b"bench/transition", json.dumps(event).encode()])
    peer, question = hostile.past.recv_multipart()
    hostile.past.send_multipart([peer, json.dumps({"id": json.loads(question)["id"], **header}).encode()])
    reader.join(timeout=20)
    assert len(failures) == 1 and isinstance(failures[0], EdgeHalError)


def test_listen_prints_no_escape_of_a_terminal(hostile: Hostile) -> None:
    """Names that would set the title of a terminal, clear it, or turn text around."""
    name = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"
    results: list[tuple[int, str, str]] = []
    for options in ((), ("--json",)):
        arguments = ("listen", "--connect", hostile.endpoint, "--count", "1", *options)
        thread = threading.Thread(target=lambda given=arguments: results.append(edge_hal(*given)))
        thread.start()
        hostile.subscribed()
        body = json.dumps({**samples[1], "to": name, "from": name}, ensure_ascii=False).encode()
        hostile.live.send_multipart([b"bench/transition", body.replace(b", ", b",\n")])
        thread.join(timeout=60)
    for code, out, err in results:
        assert code == 0, err
        assert out.rstrip("\n").isprintable() and "owned" in out
    assert json.loads(results[1][1])["to"] == name


def test_what_the_client_logs_has_no_escape_of_a_terminal_either(hostile: Hostile) -> None:
    """The journal seems to have gone back, so a warning names the stream."""
    name = "\x1b]0;owned\x07\x1b[2J"
    results: list[tuple[int, str, str]] = []
    arguments = ("listen", "--connect", hostile.endpoint, "--replay", hostile.replay, "--count", "2")
    thread = threading.Thread(target=lambda: results.append(edge_hal(*arguments)))
    thread.start()
    hostile.subscribed()
    for seq, utc_ns in ((9, 1), (3, 10**18)):
        body = {
            **samples[1],
            "stream": name,
            "seq": seq,
            "run": {"journal": "j", "session": str(seq), "utc_ns": utc_ns},
        }
        hostile.live.send_multipart([f"{name}/transition".encode(), json.dumps(body).encode()])
    peer, question = hostile.past.recv_multipart()
    header = {"id": json.loads(question)["id"], "first": 3, "from": 3, "journal": "j"}
    hostile.past.send_multipart([peer, json.dumps(header).encode()])
    thread.join(timeout=60)
    _, _, err = results[0]
    assert "owned" in err and err.replace("\n", "").isprintable()


def test_listen_ends_with_one_error_for_a_message_that_is_no_event(hostile: Hostile) -> None:
    results: list[tuple[int, str, str]] = []
    thread = threading.Thread(target=lambda: results.append(edge_hal("listen", "--connect", hostile.endpoint)))
    thread.start()
    hostile.subscribed()
    while thread.is_alive():  # a message is lost if the client connects again at that moment
        hostile.live.send_multipart([b"bench/start", b"\x1b[2J" + b"[" * 200_000])
        thread.join(timeout=0.5)
    code, _, err = results[0]
    assert code == 1 and "Traceback" not in err and err.replace("\n", "").isprintable()
