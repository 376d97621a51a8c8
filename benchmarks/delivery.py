"""Delivery: events a second to 1, 10 and 100 subscribers, replay throughput, time of a journal append.

    python benchmarks/delivery.py [--events 5000] [--folder DIR]

Subscribers are SUB sockets in another process, which counts what arrives; a journal lies in --folder (default: the
temporary folder), so the figures are those of that disk. Events are transitions of about 400 bytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edge_hal.events import Moment, Start, Transition, encode
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher

COUNTER = """
import sys, time, zmq
endpoint, sockets, events = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context, poller, seen = zmq.Context(), zmq.Poller(), {}
context.max_sockets = 2000
for _ in range(sockets):
    socket = context.socket(zmq.SUB)
    socket.rcvhwm = 0
    socket.subscribe(b"")
    socket.connect(endpoint)
    poller.register(socket, zmq.POLLIN)
    seen[socket] = 0
while any(count < events for count in seen.values()):
    for socket, _ in poller.poll():
        try:
            while True:
                seen[socket] += b'"seq":' in socket.recv_multipart(zmq.DONTWAIT)[1]
        except zmq.Again:
            pass
print(time.monotonic(), flush=True)
"""


def start() -> Start:
    run = {"session": "benchmark", "utc_ns": time.time_ns()}
    return Start("bench", 0, seq=0, source="s", labels=("a", "b"), model_hz=10, bundle="b", decoder="d", run=run)


def transition(seq: int) -> Transition:
    moment = Moment(seq, seq, seq * 100_000_000)
    latency_ms = {"capture_to_tick": 0.21, "encode": 1.9, "step": 0.24}
    run = {"session": "benchmark", "utc_ns": time.time_ns(), "latency_ms": latency_ms}
    return Transition(
        "bench",
        0,
        seq=seq,
        from_="pick screw",
        to="drive screw",
        boundary=moment,
        decision=moment,
        confidence=0.93,
        warm=True,
        decoder="5f1c0a9be2d7",
        run=run,
    )


def fan_out(folder: Path, subscribers: int, events: int, *, kept: bool) -> float:
    """Events a second until the last subscriber has the last event."""
    journal = Journal(folder / f"fan-{subscribers}", "bench") if kept else None
    with Publisher(f"ipc://{folder}/s", "bench", journal=journal) as publisher:
        command = [sys.executable, "-c", COUNTER, publisher.endpoint, str(subscribers), str(events)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as counter:
            publisher.wait_subscribers(subscribers)
            began_s = time.monotonic()
            publisher.publish(start())
            for seq in range(1, events):
                publisher.publish(transition(seq), wait=True)
            assert counter.stdout is not None
            ended_s = float(counter.stdout.readline())
    if journal is not None:
        journal.close()
    return events / (ended_s - began_s)


def replay(folder: Path, events: int) -> float:
    """Events a second of a client that begins with the oldest, decoding included."""
    with Journal(folder / "replay", "bench") as journal:
        while journal.next_seq < events:
            first = journal.next_seq
            chunk = range(first, min(first + 256, events))
            journal.append([(seq, encode(transition(seq) if seq else start())) for seq in chunk])
        with (
            Publisher(f"ipc://{folder}/s", "bench", journal=journal) as publisher,
            subscribe(publisher.endpoint, begin="oldest") as subscription,
        ):
            publisher.wait_subscribers(1)
            publisher.publish(transition(events))
            began_s = time.monotonic()
            for event in subscription:
                if getattr(event, "seq", -1) == events - 1:
                    return events / (time.monotonic() - began_s)
    raise AssertionError("the replay ended early")


def append_ms(folder: Path, batch: int, appends: int) -> np.ndarray:
    """Milliseconds of each append of `batch` events."""
    spent = []
    with Journal(folder / f"append-{batch}", "bench") as journal:
        for _ in range(appends):
            first = journal.next_seq
            events = [(seq, encode(transition(seq))) for seq in range(first, first + batch)]
            began_ns = time.perf_counter_ns()
            journal.append(events)
            spent.append((time.perf_counter_ns() - began_ns) / 1e6)
    return np.array(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for batch in (1, 256):
            spent = append_ms(folder, batch, 500 if batch == 1 else 50)
            p50, p99 = np.percentile(spent, [50, 99])
            print(f"append of {batch:3d} events: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {spent.max():.2f} ms")
        for kept in (False, True):
            for subscribers in (1, 10, 100):
                rate = fan_out(folder, subscribers, arguments.events, kept=kept)
                name = "journal" if kept else "no journal"
                print(f"{name:>10}, {subscribers:3d} subscribers: {rate:8.0f} events/s")
        print(f"replay: {replay(folder, 4 * arguments.events):.0f} events/s")


if __name__ == "__main__":
    main()
