"""How many subscribers a stream has: a connection counts once for each stream that it gets something of, while it is
there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from edge_hal.events import Start
from edge_hal.runtime.delivery import subscriptions
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.shared_address import SharedAddress
from edge_hal.runtime.station.options import AddressOptions, StationOptions
from edge_hal.runtime.stop import Stop
from tests.helpers.running_station import TIMEOUT_S, Heard, running
from tests.helpers.services import until
from tests.helpers.station_streams import endless


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as opened:
        yield opened


@pytest.fixture(params=["ipc", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedAddress]:
    endpoint = "tcp://127.0.0.1:*" if request.param == "tcp" else f"ipc://{tmp_path}/s"
    with SharedAddress(endpoint, ("left", "right")) as opened:
        yield opened


def subscriber(context: zmq.Context[Any], endpoint: str, *prefixes: bytes) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    for prefix in prefixes:
        socket.setsockopt(zmq.SUBSCRIBE, prefix)
    socket.connect(endpoint)
    return socket


def has(publisher: Publisher, count: int) -> bool:
    """Whether a run that waits for so many subscribers would begin now."""
    return publisher.wait_subscribers(count, lambda: True)


def test_a_subscriber_of_all_counts_for_each_stream_until_it_leaves(
    address: SharedAddress, context: zmq.Context[Any]
) -> None:
    with Publisher(address, "left") as left, Publisher(address, "right") as right:
        everything = subscriber(context, address.endpoint, b"")
        one = subscriber(context, address.endpoint, b"left/")
        other = subscriber(context, address.endpoint, b"else/")
        assert left.wait_subscribers(2) and right.wait_subscribers(1)
        assert not has(left, 3) and not has(right, 2)
        everything.close()
        until(lambda: not has(right, 1) and not has(left, 2))
        assert has(left, 1)
        one.close()
        until(lambda: not has(left, 1))
        again = subscriber(context, address.endpoint, b"")
        assert left.wait_subscribers(1) and right.wait_subscribers(1)
        for socket in (other, again):
            socket.close()


def test_a_subscriber_counts_once_however_it_subscribes(address: SharedAddress, context: zmq.Context[Any]) -> None:
    with (
        Publisher(address, "left") as left,
        subscriber(context, address.endpoint, b"left/transition", b"left/cycle", b"left/", b"left/") as many,
        subscriber(context, address.endpoint, b"left/") as one,
    ):
        assert left.wait_subscribers(2)
        last = subscriber(context, address.endpoint, b"left/end")
        assert left.wait_subscribers(3) and not has(left, 4)
        one.setsockopt(zmq.UNSUBSCRIBE, b"left/")  # others subscribe to the same
        until(lambda: not has(left, 3))
        for prefix in (b"left/transition", b"left/"):
            many.setsockopt(zmq.UNSUBSCRIBE, prefix)
        one.setsockopt(zmq.SUBSCRIBE, b"left/start")
        assert left.wait_subscribers(3)
        last.close()
        until(lambda: not has(left, 3))
        assert has(left, 2)


def test_whoever_subscribed_before_counts_for_a_stream_that_is_added(
    address: SharedAddress, context: zmq.Context[Any]
) -> None:
    with ExitStack() as opened:
        left = opened.enter_context(Publisher(address, "left"))
        opened.enter_context(subscriber(context, address.endpoint, b""))
        opened.enter_context(subscriber(context, address.endpoint, b"left/", b"added/"))
        assert left.wait_subscribers(2)
        address.expect(("left", "added"))
        added = opened.enter_context(Publisher(address, "added"))
        assert has(added, 2) and not has(added, 3)


def test_many_subscriptions_end_a_connection_however_slowly_they_come(
    address: SharedAddress, context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "CHANGES", 10)
    monkeypatch.setattr(subscriptions, "CHANGES_S", -1.0)  # each comes long after the one before it
    names = [f"s{number}" for number in range(11)]
    address.expect(names)
    with ExitStack() as opened:
        publishers = [opened.enter_context(Publisher(address, name)) for name in names]
        socket = opened.enter_context(subscriber(context, address.endpoint))
        for publisher in publishers[:-1]:
            socket.setsockopt(zmq.SUBSCRIBE, f"{publisher.stream}/".encode())
            assert publisher.wait_subscribers(1)
        monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.setsockopt(zmq.SUBSCRIBE, f"{names[-1]}/".encode())
        assert monitor.poll(round(1000 * TIMEOUT_S))
        socket.disable_monitor()


def test_a_stream_that_is_added_begins_with_the_subscribers_that_are_there(tmp_path: Path, bundle: Path) -> None:
    address = AddressOptions(f"ipc://{tmp_path}/s")
    first, added = endless(tmp_path, bundle, "first"), endless(tmp_path, bundle, "added", wait_subscribers=1)
    heard, stop, options = Heard(), Stop(), [StationOptions({"first": first}, address)]
    with running(options, heard, stop), subscribe(address.endpoint, timeout_s=TIMEOUT_S) as events:
        assert next(events).stream == "first"  # so its subscription has arrived
        options.append(StationOptions({"first": first, "added": added}, address))
        stop.ask_reload()
        heard.until(lambda _: heard.count("added", Start) == 1)
