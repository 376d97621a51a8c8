"""Attacks on the publisher: how long it is silent, and how much memory it takes.

    python benchmarks/attack.py [--undefended]

A publisher runs in a process of its own and sends an event every 50 ms. Each attack opens SUB sockets that subscribe to
random prefixes, waits, and closes them, or floods the socket by hand. The table shows the longest time between two
events at an innocent subscriber, and the largest growth of the publisher's memory, from the beginning of the attack to
ten seconds after its end. `--undefended` measures the same with libzmq's defaults: no limits, no connection cut.
"""

from __future__ import annotations

import argparse
import os
import socket as net
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import zmq

STREAM = "default"
SETTLE_S, AFTER_S, LONGEST_S = 2.0, 10.0, 120.0

PUBLISHER = """
import sys, time, zmq
from edge_hal.events import Moment, Start, Transition
from edge_hal.runtime.delivery import subscriptions
from edge_hal.runtime.network import admission, connections
from edge_hal.runtime.delivery.publisher import Publisher

if sys.argv[2] == "undefended":
    limits = {"SHORTEST_LIMIT": 2**20, "WAITING_MESSAGES": 1000, "RECEIVE_BYTES": 2**18, "USELESS_BYTES": 2**60}
    for name, value in {**limits, "USELESS_TOTAL_BYTES": 2**60, "CHANGES": 2**60}.items():
        setattr(subscriptions, name, value)
    admission.PAUSE_S = 0
    connections.CONNECTIONS = 2**20
with Publisher(sys.argv[1], "default") as publisher:
    print(publisher.endpoint, flush=True)
    publisher.publish(Start("default", 0, seq=0, source="s", labels=("a",), model_hz=10, bundle="b", decoder="d"))
    seq = 0
    while True:
        time.sleep(0.05)
        seq += 1
        moment = Moment(seq, seq, seq)
        publisher.publish(
            Transition("default", 0, seq=seq, from_="a", to="a", boundary=moment, decision=moment, confidence=0.9,
                       warm=True, decoder="d"),
            wait=True,
        )
"""


@dataclass(frozen=True)
class Attack:
    """`run` attacks an endpoint and returns when it has closed its sockets."""

    name: str
    run: Callable[[str], None]


def subscribe(sockets: int, prefixes: int, size: int, endpoint: str, start: bytes = b"", hold_s: float = 2.0) -> None:
    """`sockets` SUB sockets with `prefixes` random prefixes of `size` bytes each, closed after `hold_s`."""
    context = zmq.Context()
    context.max_sockets = 5000
    opened = []
    for _ in range(sockets):
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        for _ in range(prefixes):
            socket.setsockopt(zmq.SUBSCRIBE, start + os.urandom(size))
        opened.append(socket)
    time.sleep(hold_s)
    for socket in opened:
        socket.close()
    context.term()


def toggle(sockets: int, endpoint: str, seconds: float = 3.0) -> None:
    """Subscribe to the stream and unsubscribe again, as fast as possible."""
    context = zmq.Context()
    opened = [context.socket(zmq.SUB) for _ in range(sockets)]
    for socket in opened:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        for socket in opened:
            socket.setsockopt(zmq.SUBSCRIBE, b"default/")
            socket.setsockopt(zmq.UNSUBSCRIBE, b"default/")
    for socket in opened:
        socket.close()
    context.term()


def reconnect(rounds: int, endpoint: str) -> None:
    """New sockets again and again, each with a few prefixes: below the limits of one connection."""
    context = zmq.Context()
    for _ in range(rounds):
        with context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(endpoint)
            for _ in range(4):
                socket.setsockopt(zmq.SUBSCRIBE, os.urandom(50))
            time.sleep(0.005)
    context.term()


def by_hand(connections: int, endpoint: str, seconds: float = 3.0) -> None:
    """Raw ZMTP 3.0: each connection sends subscriptions in a stream without end, and connects again when it is cut."""
    port = int(endpoint.rpartition(":")[2])
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
    until_s = time.monotonic() + seconds

    def flood() -> None:
        while time.monotonic() < until_s:
            try:
                with net.create_connection(("127.0.0.1", port), timeout=2) as raw:
                    raw.sendall(greeting + b"\x04" + bytes([len(ready)]) + ready)
                    while time.monotonic() < until_s:
                        raw.sendall(b"".join(b"\x00\x29\x01" + os.urandom(40) for _ in range(200)))
            except OSError:
                continue

    threads = [threading.Thread(target=flood) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


ATTACKS = [
    Attack("50 sockets, 200 prefixes of 1 kB", partial(subscribe, 50, 200, 1000)),
    Attack("200 sockets, 200 prefixes of 1 kB", partial(subscribe, 200, 200, 1000)),
    Attack("50 sockets, 4000 prefixes of 50 B", partial(subscribe, 50, 4000, 50)),
    Attack("200 sockets, 200 prefixes of 50 B", partial(subscribe, 200, 200, 50)),
    Attack("200 sockets, 200 prefixes of 10 B", partial(subscribe, 200, 200, 10)),
    Attack("200 sockets, 200 of 'default/' + 12 B", partial(subscribe, 200, 200, 12, start=b"default/")),
    Attack("400 sockets, 8 prefixes of 50 B", partial(subscribe, 400, 8, 50)),
    Attack("20 sockets subscribe and unsubscribe", partial(toggle, 20)),
    Attack("1000 sockets one after another", partial(reconnect, 1000)),
    Attack("8 endless streams of subscriptions", partial(by_hand, 8)),
]


def resident_mb(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


def measure(attack: Attack, mode: str) -> tuple[float, float, float]:
    """(longest silence in s, memory before and at most in MB)."""
    command = [sys.executable, "-c", PUBLISHER, "tcp://127.0.0.1:*", mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        context = zmq.Context()
        innocent = context.socket(zmq.SUB)
        innocent.setsockopt(zmq.SUBSCRIBE, b"default/")
        innocent.connect(endpoint)
        innocent.recv_multipart()
        time.sleep(SETTLE_S)
        while innocent.poll(0):
            innocent.recv_multipart()
        before_mb = most_mb = resident_mb(process.pid)
        attacker = subprocess.Popen([sys.executable, __file__, "--attack", attack.name, endpoint])
        heard_s = time.monotonic()
        silence_s, ended_s = 0.0, float("inf")
        while time.monotonic() < ended_s + AFTER_S or time.monotonic() - heard_s > 1:
            if innocent.poll(20):
                innocent.recv_multipart()
                heard_s = time.monotonic()
            silence_s = max(silence_s, time.monotonic() - heard_s)
            most_mb = max(most_mb, resident_mb(process.pid))
            if ended_s == float("inf") and attacker.poll() is not None:
                ended_s = time.monotonic()
            if silence_s > LONGEST_S:
                break
        attacker.kill()
        process.kill()
        context.destroy(linger=0)
    return silence_s, before_mb, most_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--undefended", action="store_true")
    parser.add_argument("--only", default="", help="run the attacks whose name contains this")
    parser.add_argument("--attack", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack:
        name, endpoint = arguments.attack
        next(attack for attack in ATTACKS if attack.name == name).run(endpoint)
        return
    mode = "undefended" if arguments.undefended else "defended"
    print(f"{'attack (' + mode + ')':40} {'silence':>9} {'memory before':>14} {'at most':>9}")
    for attack in ATTACKS:
        if arguments.only in attack.name:
            silence_s, before_mb, most_mb = measure(attack, mode)
            print(f"{attack.name:40} {silence_s:7.2f} s {before_mb:11.0f} MB {most_mb:6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
