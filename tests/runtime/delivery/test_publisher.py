from __future__ import annotations

import json
import socket as tcp
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Gap, Moment, Now, Start, Transition, decode
from edge_hal.runtime import threads
from edge_hal.runtime.delivery import held_events, sender
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.report import Status
from edge_hal.runtime.network.endpoint import check_endpoint, check_stream
from tests.helpers.sample_events import ANY_PORT, start, transition

TIMEOUT_S = 20.0


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher(ANY_PORT, "bench") as opened:
        yield opened


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as opened:
        yield opened


def subscriber(context: zmq.Context[Any], endpoint: str, prefix: bytes = b"bench/") -> zmq.Socket[bytes]:
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    socket.setsockopt(zmq.SUBSCRIBE, prefix)
    socket.connect(endpoint)
    return socket


def next_event(socket: zmq.Socket[bytes]) -> tuple[str, dict[str, Any]]:
    topic, body = socket.recv_multipart()
    return topic.decode(), json.loads(body)


def durable(socket: zmq.Socket[bytes]) -> dict[str, Any]:
    while True:
        _, body = next_event(socket)
        if "seq" in body:
            return body


def test_events_arrive_once_in_order_with_their_topics(publisher: Publisher, context: zmq.Context[Any]) -> None:
    with subscriber(context, publisher.endpoint) as socket:
        assert publisher.wait_subscribers(1)
        publisher.publish(start())
        for seq in range(1, 300):
            publisher.publish(transition(seq, "ab"[seq % 2]))
        topic, first = next_event(socket)
        assert (topic, first["type"], first["labels"]) == ("bench/start", "start", ["a", "b"])
        for seq in range(1, 300):
            event = durable(socket)
            assert (event["seq"], event["to"], event["schema"]) == (seq, "ab"[seq % 2], 1)
            assert event["run"]["latency_ms"]["publish"] >= 0


def test_whoever_subscribes_gets_a_snapshot_and_what_follows(publisher: Publisher, context: zmq.Context[Any]) -> None:
    with subscriber(context, publisher.endpoint) as early:
        publisher.wait_subscribers(1)
        publisher.publish(start())
        publisher.publish(transition(1, "a"))
        publisher.publish(transition(2, "b", "a"))
        assert [durable(early)["seq"] for _ in range(3)] == [0, 1, 2]  # so the thread has sent them
        with subscriber(context, publisher.endpoint) as late:
            topic, snapshot = next_event(late)
            assert topic == "bench/snapshot" and "seq" not in snapshot
            assert (snapshot["action"], snapshot["last_seq"]) == ("b", 2)
            assert snapshot["since"] == {"tick": 2, "frame": 2, "t_ns": 2000}
            assert snapshot["labels"] == ["a", "b"] and snapshot["bundle"] == "b1"
            publisher.publish(transition(3, "a", "b"))
            assert durable(late)["seq"] == durable(early)["seq"] == 3


def test_a_snapshot_forgets_the_action_after_a_reset_and_while_blind(
    publisher: Publisher, context: zmq.Context[Any]
) -> None:
    with subscriber(context, publisher.endpoint) as first:
        publisher.wait_subscribers(1)
        publisher.publish(start())
        publisher.publish(transition(1, "a"))
        assert [durable(first)["seq"] for _ in range(2)] == [0, 1]
        publisher.status(Status({"captured": 7}, blind=True))
        with subscriber(context, publisher.endpoint) as second:
            assert next_event(second)[1]["action"] is None
        publisher.status(Status({"captured": 9}))
        moment = Moment(0, 0, 0)
        span: dict[str, Any] = {"begin": moment, "end": moment, "lost_ticks": 1, "reset": True}
        publisher.publish(Gap("bench", 0, seq=2, reason="reload", bundle="b2", decoder="d2", **span))
        assert durable(first)["seq"] == 2
        with subscriber(context, publisher.endpoint) as third:
            _, snapshot = next_event(third)
            assert (snapshot["action"], snapshot["since"], snapshot["last_seq"]) == (None, None, 2)
            assert snapshot["epoch"] == 1
            assert (snapshot["bundle"], snapshot["decoder"]) == ("b2", "d2")


def test_the_heartbeat_tells_counters_and_the_last_seq(
    monkeypatch: pytest.MonkeyPatch, context: zmq.Context[Any]
) -> None:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.02)
    with (
        Publisher(ANY_PORT, "bench") as publisher,
        subscriber(context, publisher.endpoint, b"bench/heartbeat") as socket,
    ):
        publisher.publish(start())
        publisher.publish(transition(1, "a"))
        publisher.status(Status({"captured": 41}, run={"session": "x"}))
        for _ in range(100):
            topic, beat = next_event(socket)
            if (beat["last_seq"], beat["counters"]) == (1, {"captured": 41}):
                break
        assert topic == "bench/heartbeat" and beat["action"] == "a" and beat["run"]["session"] == "x"
        assert beat["run"]["latency_ms"]["publish"]["p99"] >= 0
        assert decode(json.dumps(beat)).type == "heartbeat"


def test_systemd_hears_of_a_loop_that_goes_round_and_of_no_other(
    monkeypatch: pytest.MonkeyPatch, context: zmq.Context[Any], tmp_path: Path
) -> None:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.02)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with tcp.socket(tcp.AF_UNIX, tcp.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        with (
            Publisher(ANY_PORT, "bench") as publisher,
            subscriber(context, publisher.endpoint, b"bench/heartbeat") as socket,
        ):
            publisher.publish(start())
            for _ in range(5):  # the publisher beats, the loop has not begun
                next_event(socket)
            systemd.setblocking(False)
            with pytest.raises(BlockingIOError):
                systemd.recv(100)
            systemd.settimeout(20)
            publisher.status(Status({"captured": 1}))
            assert systemd.recv(100) == b"READY=1\nWATCHDOG=1"
            for _ in range(5):  # the publisher beats on, the loop hangs
                next_event(socket)
            systemd.setblocking(False)
            with pytest.raises(BlockingIOError):
                systemd.recv(100)
            systemd.settimeout(20)
            publisher.status(Status({"captured": 2}))
            assert systemd.recv(100) == b"WATCHDOG=1"
        assert systemd.recv(100) == b"STOPPING=1"
    Publisher(ANY_PORT, "bench").close()  # nobody listens there any more: no matter


def test_systemd_hears_of_a_run_that_waits_for_subscribers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(held_events, "PROGRESS_S", 0.01)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with tcp.socket(tcp.AF_UNIX, tcp.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        cancelled = threading.Event()
        with Publisher(ANY_PORT, "bench") as publisher:
            waiter = threading.Thread(target=publisher.wait_subscribers, args=(1, cancelled.is_set))
            waiter.start()
            assert systemd.recv(100) == b"READY=1\nWATCHDOG=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            cancelled.set()
            publisher.wake()
            waiter.join(timeout=20)
            assert not waiter.is_alive()


def waiting_sender(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """The publisher's thread waits before each event that it sends: set once it does, and what it waits for."""
    entered, go_on = threading.Event(), threading.Event()
    real = sender.Sender._send

    def waiting(self: sender.Sender, event: Event, body: bytes | None = None) -> None:
        entered.set()
        go_on.wait()
        real(self, event, body)

    monkeypatch.setattr(sender.Sender, "_send", waiting)
    return entered, go_on


def test_only_durable_events_are_told_as_held(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = waiting_sender(monkeypatch)
    moment = Moment(0, 0, 0)
    publisher.publish(start())
    entered.wait()
    publisher.publish(Now("bench", 0, moment, "b", 0.8, moment, (), (), {"p50": 2.0}, None, last_seq=0))
    publisher.publish(transition(1))
    [vitals] = publisher.vitals()
    beat = publisher._delivery.heartbeat({})
    go_on.set()
    assert vitals.held == beat.delivery["held"] == 2


def test_only_subscriptions_to_this_stream_count(publisher: Publisher, context: zmq.Context[Any]) -> None:
    with (
        subscriber(context, publisher.endpoint, b"other/"),
        subscriber(context, publisher.endpoint, b"bench/transition"),
        subscriber(context, publisher.endpoint, b""),
    ):
        assert publisher.wait_subscribers(2)
        cancelled = threading.Event()
        waiter = threading.Thread(target=publisher.wait_subscribers, args=(3, cancelled.is_set))
        waiter.start()
        cancelled.set()
        publisher.wake()
        waiter.join(timeout=20)
        assert not waiter.is_alive()


def test_a_subscriber_that_never_reads_holds_nobody_up(publisher: Publisher, context: zmq.Context[Any]) -> None:
    stuck = context.socket(zmq.SUB)
    stuck.setsockopt(zmq.RCVHWM, 1)
    stuck.setsockopt(zmq.LINGER, 0)
    stuck.setsockopt(zmq.SUBSCRIBE, b"")
    stuck.connect(publisher.endpoint)
    with subscriber(context, publisher.endpoint) as reading:
        publisher.wait_subscribers(2)
        publisher.publish(start())
        for seq in range(1, 20_000):  # twice what ZeroMQ keeps for one subscriber
            publisher.publish(transition(seq), wait=True)
            if seq % 500 == 0:  # the reader keeps up, in step
                while durable(reading)["seq"] < seq:
                    pass
    stuck.close()


def test_closing_sends_what_is_queued(context: zmq.Context[Any]) -> None:
    publisher = Publisher(ANY_PORT, "bench")
    with subscriber(context, publisher.endpoint) as socket:
        publisher.wait_subscribers(1)
        for seq in range(500):
            publisher.publish(start(seq))
        publisher.close()
        assert [durable(socket)["seq"] for _ in range(500)] == list(range(500))
    publisher.close()


def test_a_full_queue_is_an_error_unless_the_source_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_events, "HELD_EVENTS", 5)
    entered, go_on = waiting_sender(monkeypatch)
    with Publisher(ANY_PORT, "bench") as publisher:
        publisher.publish(start(0))
        entered.wait()
        for seq in range(1, 5):
            publisher.publish(transition(seq))
        with pytest.raises(EdgeHalError, match="wait to be published"):
            publisher.publish(transition(5))
        waiting = threading.Thread(target=publisher.publish, args=(transition(5),), kwargs={"wait": True})
        waiting.start()
        go_on.set()
        waiting.join(timeout=20)
        assert not waiting.is_alive()
    assert publisher.sent == 6


def test_a_publisher_that_fails_tells_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: sender.Sender, event: Event, body: bytes | None = None) -> None:
        raise zmq.ZMQError(zmq.ETERM)

    monkeypatch.setattr(threads, "RETRY_S", 0.01)
    monkeypatch.setattr(sender.Sender, "_send", broken)
    publisher = Publisher(ANY_PORT, "bench")
    publisher.publish(start())
    assert publisher._own is not None
    publisher._own._thread.join(timeout=20)
    with pytest.raises(EdgeHalError, match="publishing on"):
        publisher.publish(transition(1))
    with pytest.raises(EdgeHalError, match="publishing on"):
        publisher.wait_subscribers(1)
    publisher.close()


# --- endpoints -----------------------------------------------------------------------------------


def test_an_address_in_use_is_named_and_nothing_is_left(publisher: Publisher) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(EdgeHalError) as error:
        Publisher(publisher.endpoint, "bench")
    assert publisher.endpoint in str(error.value) and "another process" in str(error.value)
    assert "--pub" in error.value.todo and error.value.exit_code == 1
    assert set(threading.enumerate()) == threads


def test_an_ipc_address_replaces_no_file_and_belongs_to_one_run(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for make in (lambda: path.write_text("precious"), lambda: path.symlink_to(tmp_path / "none"), path.mkdir):
        make()
        with pytest.raises(EdgeHalError, match="no socket has this name"):
            Publisher(f"ipc://{path}", "bench")
        if path.is_symlink() or path.is_file():
            path.unlink()
    path.rmdir()
    with Publisher(f"ipc://{path}", "bench"), pytest.raises(EdgeHalError, match="another process uses this address"):
        Publisher(f"ipc://{path}", "bench")
    path.unlink(missing_ok=True)
    with tcp.socket(tcp.AF_UNIX) as left:  # a run that was killed leaves its socket behind
        left.bind(str(path))
    Publisher(f"ipc://{path}", "bench").close()
    path.unlink(missing_ok=True)
    with tcp.socket(tcp.AF_UNIX) as foreign:  # another program listens there
        foreign.bind(str(path))
        foreign.listen()
        with pytest.raises(EdgeHalError, match="another process uses this address"):
            Publisher(f"ipc://{path}", "bench")


def test_a_place_that_cannot_be_bound_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeHalError, match="cannot publish on ipc"):
        Publisher(f"ipc://{tmp_path}/no/such/folder/socket", "bench")
    with pytest.raises(EdgeHalError, match="cannot publish on tcp"):
        Publisher("tcp://192.0.2.1:5570", "bench", insecure=True)  # no address of this machine


def test_a_path_that_is_too_long_for_a_socket_leaves_nothing(tmp_path: Path) -> None:
    longest = f"{tmp_path}/{'x' * (107 - len(str(tmp_path)) - 1)}"
    Publisher(f"ipc://{longest}", "bench").close()
    before = set(tmp_path.iterdir())
    with pytest.raises(EdgeHalError, match="at most 107 bytes, this one has 108"):
        Publisher(f"ipc://{longest}x", "bench")
    with Journal(tmp_path / "j", "bench") as journal, pytest.raises(EdgeHalError, match=r"--replay ipc://PATH"):
        Publisher(f"ipc://{longest}", "bench", journal=journal)
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"j"}


NO_ADDRESSES = ["", "5570", "tcp://", "udp://x:1", "inproc://x", "ipc://", "ipc://\udcff"]


@pytest.mark.parametrize(
    "endpoint", [*NO_ADDRESSES, "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:\u0665", "ipc://*"]
)
def test_malformed_endpoints_are_wrong_use(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Journal(tmp_path / "j", "bench") as journal:
        for kept in (None, journal):
            with pytest.raises(EdgeHalError, match="it is not an address") as error:
                Publisher(endpoint, "bench", journal=kept)
            assert error.value.exit_code == 2 and error.value.todo
        assert {path.name for path in tmp_path.iterdir()} == {"j", "j-wal", "j-shm"}  # no lock of a path


@pytest.mark.parametrize("endpoint", NO_ADDRESSES)
def test_a_subscriber_is_told_that_an_address_is_malformed(endpoint: str) -> None:
    with pytest.raises(EdgeHalError, match="it is not an address"):
        subscribe(endpoint, timeout_s=TIMEOUT_S)


def test_an_ipv6_address_serves_events_past_and_new(tmp_path: Path) -> None:
    try:
        tcp.create_server(("::1", 0), family=tcp.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with (
        Journal(tmp_path / "j", "bench") as journal,
        Publisher("tcp://[::1]:*", "bench", journal=journal) as publisher,
    ):
        publisher.publish(start())
        with subscribe(publisher.endpoint, replay=publisher.replay, begin="oldest", timeout_s=TIMEOUT_S) as events:
            assert next(event for event in events if event.durable).type == "start"


def test_port_0_is_any_free_port_for_both_addresses(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "j", "bench") as journal,
        Publisher("tcp://127.0.0.1:0", "bench", journal=journal) as publisher,
    ):
        assert publisher.replay is not None
        ports = [int(address.rpartition(":")[2]) for address in (publisher.endpoint, publisher.replay)]
        assert min(ports) > 1 and ports[0] != ports[1]


def test_a_name_that_no_address_has_is_told() -> None:
    with pytest.raises(EdgeHalError, match=r"no address no-host\.invalid"):
        Publisher("tcp://no-host.invalid:5570", "bench", insecure=True)


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "192.168.1.7", "[::]", "example.org", "eth0"])
def test_other_machines_are_let_in_only_on_request(host: str) -> None:
    with pytest.raises(EdgeHalError) as error:
        check_endpoint(f"tcp://{host}:5570", insecure=False)
    assert "--insecure" in error.value.todo and error.value.exit_code == 2
    check_endpoint(f"tcp://{host}:5570", insecure=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]"])
def test_loopback_needs_no_permission(host: str) -> None:
    check_endpoint(f"tcp://{host}:5570", insecure=False)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=20))
@example("\udcff")
def test_stream_names_never_break_topics(name: str) -> None:
    try:
        check_stream(name)
    except EdgeHalError as error:
        assert error.exit_code == 2
    else:
        assert name and "/" not in name and not name[0].isspace() and len(name.split()) == 1 and name.encode()


# --- the client ----------------------------------------------------------------------------------


def test_the_client_decodes_what_was_published(publisher: Publisher) -> None:
    events = subscribe(publisher.endpoint, "bench")
    got: list[Any] = []

    def collect() -> None:
        for event in events:
            if event.durable:
                got.append(event)
            if len(got) == 2:
                return

    reader = threading.Thread(target=collect)
    reader.start()
    publisher.wait_subscribers(1)
    publisher.publish(start())
    publisher.publish(transition(1, "b", "a"))
    reader.join(timeout=20)
    assert [type(event) for event in got] == [Start, Transition]
    assert got[0].labels == ("a", "b") and got[1].from_ == "a" and got[1].boundary == Moment(1, 1, 1000)
    events.close()


def test_the_client_waits_no_longer_than_told_and_refuses_strangers(context: zmq.Context[Any]) -> None:
    with subscribe("tcp://127.0.0.1:9", timeout_s=0.05) as nobody:
        assert list(nobody) == []
    with pytest.raises(EdgeHalError, match="cannot connect"):
        subscribe("nonsense")
    stranger = context.socket(zmq.XPUB)
    stranger.setsockopt(zmq.LINGER, 0)
    port = stranger.bind_to_random_port("tcp://127.0.0.1")
    failures: list[EdgeHalError] = []

    def read() -> None:
        try:
            with subscribe(f"tcp://127.0.0.1:{port}", timeout_s=20) as events:
                next(events)
        except EdgeHalError as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    stranger.recv()  # the subscription
    stranger.send_multipart([b"default/start", b"{}", b"more"])
    reader.join(timeout=20)
    stranger.close()
    assert "no edge-hal publisher" in str(failures[0])
