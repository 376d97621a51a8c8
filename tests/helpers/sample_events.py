"""Events of a made-up stream, for tests that publish without recognising."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edge_hal.events import Cycle, Deviation, Event, Moment, Start, Transition
from tests.helpers.processes import REPOSITORY

STREAM = "bench"
ANY_PORT = "tcp://127.0.0.1:*"


def start(seq: int = 0) -> Start:
    run = {"session": "tests"}
    return Start(STREAM, 0, seq=seq, source="s", labels=("a", "b"), model_hz=10, bundle="b1", decoder="d1", run=run)


def transition(seq: int, to: str = "a", from_: str | None = None) -> Transition:
    moment = Moment(seq, seq, seq * 1000)
    return Transition(
        *(STREAM, 0),
        seq=seq,
        from_=from_,
        to=to,
        boundary=moment,
        decision=moment,
        confidence=0.5,
        warm=True,
        decoder="d1",
        run={"session": "tests"},
    )


def mixed(seq: int) -> Event:
    """A `start`, then transitions, among them every tenth event a `deviation` and every 25th a `cycle`."""
    run = {"session": "tests", "utc_ns": 1_767_225_600_000_000_000 + seq * 10**9}
    moment = Moment(seq, seq, seq * 10**9)
    if seq == 0:
        return start()
    if seq % 25 == 0:
        steps = ({"action": "a", "begin_t_ns": 0, "end_t_ns": moment.t_ns},)
        told = ({"seq": seq - 5, "kind": "skipped"},)
        begin = Moment(0, 0, 0)
        return Cycle(STREAM, 0, seq, begin, moment, steps, told, ("b",), complete=False, decoder="d1", run=run)
    if seq % 10 == 0:
        return Deviation(
            *(STREAM, 0, seq, "skipped", ("b",), "a", "b was left out", moment, moment, 0.75),
            corrects=None,
            decoder="d1",
            run=run,
        )
    late = Moment(seq + 1, seq + 1, (seq + 1) * 10**9)
    return Transition(STREAM, 0, seq, "a", "b", moment, late, 0.5, True, "d1", run=run)


SERVER = """
import pathlib, sys
from tests.helpers.sample_events import start, transition
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher

with Journal(pathlib.Path(sys.argv[1]), "bench") as journal:
    with Publisher("tcp://127.0.0.1:*", "bench", journal=journal) as publisher:
        publisher.publish(start())
        for seq in range(1, int(sys.argv[2])):
            publisher.publish(transition(seq), wait=True)
        print(publisher.endpoint, publisher.replay, flush=True)
        seq = int(sys.argv[2])
        for line in sys.stdin:
            for _ in range(int(line)):
                publisher.publish(transition(seq), wait=True)
                seq += 1
"""


class Server:
    """A publisher in a process of its own: what it holds can be weighed."""

    def __init__(self, folder: Path, count: int) -> None:
        environment = {"PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(folder / "journal"), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        self.endpoint, self.replay = self.process.stdout.readline().split()

    def publish(self, count: int = 1) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()

    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the server is gone")
