"""A shift at a made-up bench: hours of events in a journal, and a publisher that goes on from them on command.

`python -m tests.helpers.made_up_shift ENDPOINT STREAM JOURNAL TRANSITIONS [PREVIEW]` publishes what its standard input
says, one command a line, and answers each with one line. Commands: `transition STEP`, `now STEP PROBABILITY`,
`skipped STEP`, `picture FILE.npy`, `burst COUNT`, `end`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.events import Cycle, Deviation, End, Event, Gap, Moment, Now, Start, Transition, encode
from edge_hal.runtime.delivery.journal import Journal
from tests.helpers.processes import REPOSITORY

STEPS = ("place_base", "insert_gear", "grease_gear", "fit_cover", "drive_screws", "inspect")
HZ, MEDIAN_S, DECIDED_S = 10, 9.0, 0.8
HEALTH = {
    "source": {
        "state": "running",
        "connections": 1,
        "lost": None,
        "clock_steps": 0,
        "mode": {"width": 1280, "height": 720, "fps": 30.0, "fourcc": "MJPG"},
    },
    "engine": {"kind": "onnxruntime", "why": "made up"},
}
COUNTERS: dict[str, Any] = {
    "captured": 863_994,
    "used": 287_998,
    "dropped": {"superseded": 3, "decimated": 575_990, "overload": 0, "undecodable": 2, "reset": 0},
    "in_flight": 1,
    "ticks": 288_000,
    "fresh": 287_998,
    "held": 2,
    "cut": 0,
}


def moment(t_s: float) -> Moment:
    tick = round(t_s * HZ)
    return Moment(tick, 3 * tick, round(t_s * 1e9))


class Shift:
    """Events of a stream, numbered. A deviation of kind `skipped` follows where a step is left out."""

    def __init__(self, stream: str, begin_ns: int, seed: int = 0, first_seq: int = 0) -> None:
        self.stream, self.begin_ns = stream, begin_ns
        self.session = secrets.token_hex(8)
        self.rng = np.random.default_rng(seed)
        self.numbers = itertools.count(first_seq)
        self.current: str | None = None
        self.steps: list[tuple[str, float]] = []
        self.found: list[Deviation] = []

    def run(self, t_s: float) -> dict[str, Any]:
        return {"session": self.session, "utc_ns": self.begin_ns + round(t_s * 1e9)}

    def start(self) -> Start:
        more = {"labels": STEPS, "model_hz": float(HZ), "bundle": "b", "decoder": "d"}
        return Start(self.stream, 0, next(self.numbers), "made up", **more, run=self.run(0.0))  # type: ignore[arg-type]

    def transition(self, step: str, t_s: float) -> Iterator[Event]:
        if step == STEPS[0] and self.steps:
            yield self.cycle(t_s)
        decided_s = t_s + DECIDED_S
        confidence = float(np.round(0.97 - 0.4 * self.rng.random() ** 4, 3))
        self.steps.append((step, t_s))
        yield Transition(
            *(self.stream, 0, next(self.numbers), self.current, step, moment(t_s), moment(decided_s)),
            *(confidence, True, "d"),
            run=self.run(decided_s),
        )
        self.current = step

    def skipped(self, step: str, t_s: float) -> Deviation:
        evidence = f"{self.current} began; {step} comes before it in 97 % of the passes of training"
        number, run = next(self.numbers), self.run(t_s + DECIDED_S)
        places = (moment(t_s), moment(t_s + DECIDED_S))
        self.found.append(
            Deviation(
                *(self.stream, 0, number, "skipped", (step,), self.current, evidence, *places, 0.97, None, "d"), run=run
            )
        )
        return self.found[-1]

    def cycle(self, t_s: float) -> Cycle:
        ends = [at for _, at in self.steps[1:]] + [t_s]
        steps = tuple(
            {"action": step, "begin_t_ns": round(at * 1e9), "end_t_ns": round(end * 1e9)}
            for (step, at), end in zip(self.steps, ends, strict=True)
        )
        missing = tuple(step for step in STEPS if step not in {name for name, _ in self.steps})
        deviations = tuple({"seq": each.seq, "kind": each.kind} for each in self.found)
        begin, number, run = moment(self.steps[0][1]), next(self.numbers), self.run(t_s + DECIDED_S)
        self.steps, self.found = [], []
        end = moment(t_s)
        return Cycle(self.stream, 0, number, begin, end, steps, deviations, missing, not missing, "d", run=run)

    def gap(self, done: list[str], t_s: float) -> Gap:
        """A pause, over which a pass goes on whose steps are `done`."""
        resumed = {"action": done[-1], "since_utc_ns": self.begin_ns, "age_s": 1.0, "done": done}
        begin, end, run = moment(t_s - 1), moment(t_s), self.run(t_s)
        return Gap(self.stream, 0, next(self.numbers), "source", begin, end, 0, True, "b", "d", resumed, run=run)

    def end(self, t_s: float) -> End:
        return End(self.stream, 0, next(self.numbers), "signal", moment(t_s), COUNTERS, run=self.run(t_s))

    def now(self, step: str, probability: float, t_s: float) -> Now:
        place = STEPS.index(step)
        following = [STEPS[(place + by) % len(STEPS)] for by in (1, 2)]
        since = moment(self.steps[-1][1]) if self.steps and self.current == step else moment(t_s)
        return Now(
            self.stream,
            0,
            moment(t_s),
            step,
            probability,
            since,
            others=({"action": following[0], "probability": round(1 - probability, 3)},),
            next=tuple(
                {"action": name, "probability": share} for name, share in zip(following, (0.9, 0.1), strict=True)
            ),
            remaining_s={"p10": 2.0, "p50": 5.0, "p90": 12.0},
            progress=None,
            run=self.run(t_s),
        )

    def hours(self, transitions: int) -> Iterator[Event]:
        """Passes with so many transitions in all, the first at time 0. One step in fifty is left out."""
        yield self.start()
        t_s, place = 0.0, 0
        for _ in range(transitions):
            left_out = STEPS[place] if 0 < place < len(STEPS) - 1 and self.rng.random() < 0.02 else None
            place += left_out is not None
            yield from self.transition(STEPS[place], t_s)
            if left_out is not None:
                yield self.skipped(left_out, t_s)
            t_s += MEDIAN_S * float(np.exp(0.35 * self.rng.standard_normal()))
            place = (place + 1) % len(STEPS)

    @staticmethod
    def duration_s(transitions: int, seed: int = 0) -> float:
        """How long `hours` lasts."""
        last = 0.0
        for event in Shift("", 0, seed).hours(transitions):
            if isinstance(event, Transition):
                last = event.boundary.t_ns / 1e9
        return last + 3.0


def store(path: Path, stream: str, transitions: int) -> None:
    """A journal of a shift that ends now."""
    shift = Shift(stream, time.time_ns() - round(Shift.duration_s(transitions) * 1e9))
    with Journal(path, stream) as journal:
        events = [
            dataclasses.replace(event, run={**event.run, "journal": journal.id}) for event in shift.hours(transitions)
        ]
        journal.append([(event.seq, encode(event)) for event in events])


def main(endpoint: str, stream: str, path: str, transitions: int, preview: str | None = None) -> None:
    from edge_hal.runtime.delivery.publisher import Publisher
    from edge_hal.runtime.delivery.report import Status

    if transitions:
        store(Path(path), stream, transitions)
    tap = None
    health = dict(HEALTH)
    if preview is not None:
        from edge_hal.runtime.preview import Preview
        from edge_hal.runtime.sources.frame import Frame

        tap = Preview(preview, stream)
        health |= tap.health()
    with Journal(Path(path), stream) as journal, Publisher(endpoint, stream, journal=journal) as publisher:
        shift = Shift(stream, time.time_ns(), first_seq=journal.next_seq)
        publisher.publish(shift.start())

        def report() -> None:
            while True:  # a run reports in each turn of its loop
                publisher.status(Status(COUNTERS, False, {"session": shift.session}, health))
                time.sleep(0.5)

        threading.Thread(target=report, daemon=True).start()
        print(publisher.endpoint, publisher.replay, flush=True)
        for line in sys.stdin:
            command, *words = line.split()
            t_s = (time.time_ns() - shift.begin_ns) / 1e9
            if command == "transition":
                for event in shift.transition(words[0], t_s - DECIDED_S):
                    publisher.publish(event)
            elif command == "skipped":
                publisher.publish(shift.skipped(words[0], t_s - DECIDED_S))
            elif command == "gap":
                publisher.publish(shift.gap(words, t_s))
            elif command == "now":
                publisher.publish(shift.now(words[0], float(words[1]), t_s))
            elif command == "burst":
                for number in range(int(words[0])):
                    for event in shift.transition(STEPS[number % len(STEPS)], t_s + number / 1000):
                        publisher.publish(event, wait=True)
            elif command == "picture" and tap is not None:
                picture = np.load(words[0])
                tap.frame_taken(Frame(0, round(t_s * 1e9), time.monotonic_ns(), picture), 0, None)
            elif command == "end":
                publisher.publish(shift.end(t_s))
            print(time.time_ns(), flush=True)
    if tap is not None:
        tap.close()


class Bench:
    """The publisher in a process of its own."""

    def __init__(
        self,
        path: Path,
        stream: str = "bench-1",
        transitions: int = 0,
        endpoint: str = "",
        preview: str = "",
    ) -> None:
        arguments = [
            endpoint or f"ipc://{path}.socket",
            stream,
            str(path),
            str(transitions),
            *([preview] if preview else []),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.made_up_shift", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            cwd=REPOSITORY,
        )
        self.endpoint, self.replay = self.answer().split()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def tell(self, command: str) -> int:
        """Returns when it was done, nanoseconds since 1970."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return int(self.answer())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:6])
