"""Runtimes and subscribers killed for real: nothing is lost, and nothing told twice that was acknowledged."""

from __future__ import annotations

import json
import os
import random
import signal
import socket as tcp
import subprocess
import threading
from pathlib import Path

import pytest
import zmq

from edge_hal.events import End, Lost
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.retention import Retention
from tests.helpers.deliveries import TIMEOUT_S, edge_hal, kept, run_arguments, spawn
from tests.helpers.sample_events import STREAM, start, transition


def free_ports() -> int:
    """A port that is free, and so is the next."""
    for port in range(20_000 + os.getpid() % 1000 * 10, 30_000):
        with tcp.socket() as first, tcp.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
                return port
            except OSError:
                continue
    raise AssertionError("every port is taken")


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_twice_twenty_five_kills_of_the_runtime_lose_and_repeat_nothing(
    place: Path, endpoint: str, tmp_path: Path, transport: str
) -> None:
    rng = random.Random(transport)
    if transport == "tcp":
        endpoint = f"tcp://127.0.0.1:{free_ports()}"
    received: list[bytes] = []
    sent: dict[int, bytes] = {}
    finished = threading.Event()

    def count() -> None:
        with subscribe(endpoint, begin="oldest", timeout_s=120) as events:
            for event in events:
                assert not isinstance(event, Lost)
                if event.durable:
                    received.append(events.raw)
                if isinstance(event, End):
                    finished.set()
                    return

    def overhear() -> None:
        """What left the socket, holes and all."""
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(endpoint)
            while not finished.is_set():
                if socket.poll(100):
                    body = socket.recv_multipart()[1]
                    seq = json.loads(body).get("seq")
                    if seq is not None:
                        assert sent.setdefault(seq, body) == body

    threads = [threading.Thread(target=count), threading.Thread(target=overhear)]
    for thread in threads:
        thread.start()
    arguments = run_arguments(place, endpoint, tmp_path / "j")
    lengths = []
    for _ in range(25):
        with spawn("-m", "edge_hal", *arguments, stdout=subprocess.DEVNULL) as process:
            assert process.stderr is not None and any("publishing" in line for line in process.stderr)
            threads[0].join(timeout=rng.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
        lengths.append(len(kept(tmp_path / "j")))
    code, _, err = edge_hal(*arguments, "--seconds", "20", "--wait-subscribers", "2")
    assert code == 0, err
    for thread in threads:
        thread.join(timeout=TIMEOUT_S)
    everything = kept(tmp_path / "j")
    assert received == everything
    assert [json.loads(body)["seq"] for body in everything] == list(range(len(everything)))
    assert len(sent) > 100 and all(everything[seq] == body for seq, body in sent.items())
    assert len(set(lengths)) > 12  # the kills came in the midst of it
    starts = [body for body in map(json.loads, everything) if body["type"] == "start"]
    assert len({body["run"]["session"] for body in starts}) == len(starts) > 12


WORKER = """
import sys
from pathlib import Path
from edge_hal import subscribe

with subscribe(sys.argv[1], begin="oldest", cursor=Path(sys.argv[2])) as events, open(sys.argv[3], "ab", 0) as done:
    for event in events:
        if event.durable:
            done.write(events.raw + b"\\n")
            events.ack()
"""


@pytest.mark.slow
def test_twenty_kills_of_the_subscriber_repeat_at_most_what_was_not_acknowledged(endpoint: str, tmp_path: Path) -> None:
    rng = random.Random(10)
    with (
        Journal(tmp_path / "j", STREAM, Retention()) as journal,
        Publisher(endpoint, STREAM, journal=journal) as publisher,
    ):
        publisher.publish(start())
        seq, handled = 0, tmp_path / "handled"
        handled.touch()
        for kill in range(21):
            goal = handled.read_bytes().count(b"\n") + rng.randrange(1, 60)
            with spawn("-c", WORKER, endpoint, tmp_path / "cursor", handled) as worker:
                while (done := handled.read_bytes()).count(b"\n") < goal:
                    assert worker.poll() is None, worker.communicate()
                    if seq < done.count(b"\n") + 100:  # it is always a little behind
                        seq += 1
                        publisher.publish(transition(seq), wait=True)
                while kill == 20 and f'"seq":{seq},'.encode() not in handled.read_bytes():  # the last one may finish
                    assert worker.poll() is None, worker.communicate()
                worker.send_signal(signal.SIGKILL)
        everything, lines = kept(tmp_path / "j"), handled.read_bytes().splitlines()
    repeated, position = 0, 0
    for line in lines:
        if position and line == everything[position - 1]:
            repeated += 1
            assert repeated <= 20
        else:
            assert line == everything[position]
            position += 1
    assert position == len(everything) == seq + 1
