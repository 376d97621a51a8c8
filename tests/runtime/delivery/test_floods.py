"""Floods of subscriptions and connections: no event is lost, and the publisher answers newcomers afterwards."""

from __future__ import annotations

import random
import socket as net
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import zmq

from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.network.endpoint import BoundAddress
from tests.helpers.sample_events import ANY_PORT, STREAM, start, transition

EVENTS = 400


def prefixes(sockets: int, count: int, size: int, start_with: bytes, endpoint: str) -> None:
    rng = random.Random(size)
    context = zmq.Context()
    context.max_sockets = 5000
    opened = [context.socket(zmq.SUB) for _ in range(sockets)]
    for socket in opened:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        for _ in range(count):
            socket.setsockopt(zmq.SUBSCRIBE, start_with + rng.randbytes(size))
    opened[0].poll(2000)
    for socket in opened:
        socket.close()
    context.term()


def connections(count: int, endpoint: str) -> None:
    """They greet and leave: each is an event at the monitor of the publisher's socket."""
    port = int(endpoint.rpartition(":")[2])
    for _ in range(count):
        with net.create_connection(("127.0.0.1", port), timeout=20) as raw:
            raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48))


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        partial(prefixes, 50, 200, 1000, b""),
        partial(prefixes, 200, 200, 50, b""),
        partial(prefixes, 200, 100, 8, b"bench/"),
        partial(prefixes, 300, 6, 50, b""),
        partial(connections, 1500),
    ],
)
def test_a_flood_costs_nobody_an_event(tmp_path: Path, attack: Callable[[str], None]) -> None:
    with Journal(tmp_path / "j", STREAM) as journal, Publisher(ANY_PORT, STREAM, journal=journal) as publisher:
        with subscribe(publisher.endpoint, begin=0, timeout_s=90) as events:
            publisher.wait_subscribers(1)
            publisher.publish(start())
            attacker = threading.Thread(target=attack, args=(publisher.endpoint,))
            attacker.start()
            seqs: list[int] = []
            for seq in range(1, EVENTS):
                publisher.publish(transition(seq), wait=True)
                attacker.join(0.01)
            while len(seqs) < EVENTS:
                event = next(events)
                seqs += [event.seq] if event.durable else []
            assert seqs == list(range(EVENTS))
            attacker.join(timeout=90)
            assert not attacker.is_alive()
        with subscribe(publisher.endpoint, timeout_s=90) as newcomer:
            assert next(newcomer).type in ("snapshot", "heartbeat")
        assert not [text for text in publisher.vitals()[0].troubles if "thread" in text or "sent nothing" in text]


def test_a_connection_of_somebody_else_is_never_shut_down(tmp_path: Path) -> None:
    """A descriptor may be closed and used again before its number is used."""
    with net.create_server(("127.0.0.1", 0)) as server, net.create_server(("127.0.0.1", 0)) as other:
        address = BoundAddress(f"tcp://127.0.0.1:{server.getsockname()[1]}", None)
        client = net.create_connection(server.getsockname())
        accepted, _ = server.accept()
        stranger = net.create_connection(other.getsockname())
        foreign, _ = other.accept()
        assert address.accepted(accepted)
        assert not any(map(address.accepted, (server, client, stranger, foreign)))
        for socket in (client, accepted, stranger, foreign):
            socket.close()
    near, far = net.socketpair()
    assert not BoundAddress(f"ipc://{tmp_path}/s", None).accepted(near)
    near.close()
    far.close()
