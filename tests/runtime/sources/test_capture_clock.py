"""The clock of a camera is stepped while it delivers, while it is silent, and before its first frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_hal.events import Gap
from edge_hal.runtime.runner import RunOptions
from edge_hal.runtime.sources.frame import Frame, Intake
from edge_hal.runtime.sources.watchdog import MIN_STEP_NS, CaptureClock
from edge_hal.runtime.stream.clock import Break, FrameClock, Tick
from tests.helpers.bundles import vectors
from tests.helpers.loops import check_laws, check_stream, features, recorded

S = 10**9
PERIOD_NS = S // 30
HOLD_NS = S // 2

causes = st.one_of(
    st.tuples(st.just("frames"), st.integers(1, 40)),
    st.tuples(st.just("silence"), st.integers(HOLD_NS // 4, 5 * S)),
    st.tuples(
        st.just("step"), st.sampled_from([-1, 1]).flatmap(lambda sign: st.integers(1, 200 * S).map(sign.__mul__))
    ),
)


class Simulated:
    """The loop of a run with simulated time: a frame is pushed when it comes, time passes when a tick is due."""

    def __init__(self, way_ns: int) -> None:
        self.capture, self.ticks = CaptureClock(), FrameClock(20.0, PERIOD_NS, HOLD_NS / 1e6, live=True, cut=True)
        self.now_ns, self.way_ns, self.shift_ns = 1000 * S, way_ns, 0
        self.breaks: list[Break] = []
        self.captured = 0
        self.last_ns = -1

    def frame(self) -> None:
        self.pass_until(self.now_ns + PERIOD_NS)
        t_ns, _ = self.capture.stream_ns(self.now_ns - self.way_ns + self.shift_ns, self.now_ns)
        assert self.last_ns <= t_ns <= self.stream_ns()
        assert self.stream_ns() - t_ns <= 2 * MIN_STEP_NS  # no frame is dated long before it came
        self.last_ns = t_ns
        frame = Frame(self.captured, t_ns, t_ns, np.zeros(1, np.float32))
        self.captured += 1
        self.keep(self.ticks.push(frame))

    def pass_until(self, now_ns: int) -> None:
        first_ns = self.capture.first_ns or 0  # None before the first frame; then nothing is due
        while (due := self.ticks.next_ns) is not None and first_ns + due <= now_ns:
            self.keep(self.ticks.advance(due))
        self.now_ns = now_ns

    def stream_ns(self) -> int:
        assert self.capture.first_ns is not None
        return self.now_ns - self.capture.first_ns

    def keep(self, done: list[Tick | Break]) -> None:
        self.breaks += [item for item in done if isinstance(item, Break)]
        check_laws(self.ticks.counters.tally(Intake(captured=self.captured)))


@settings(max_examples=300, deadline=None)
@given(st.lists(causes, min_size=1, max_size=12), st.integers(0, 30_000_000))
@example([("frames", 60), ("silence", 2 * S), ("step", -S), ("frames", 60)], 0)
@example([("step", -100 * S), ("frames", 60)], 0)
@example([("frames", 9), ("silence", S), ("step", -S + 1), ("frames", 60)], 0)
def test_one_silence_one_gap_and_one_step_one_count(events: list[Any], way_ns: int) -> None:
    run, silences, silent, seen_ns = Simulated(way_ns), 0, False, 0
    any_steps = large_steps = 0  # net steps between two frames
    for kind, amount in events:
        if kind == "silence":
            run.pass_until(run.now_ns + amount)
            silences += not silent
            silent = True
        elif kind == "step":
            run.shift_ns += amount
        else:
            any_steps += run.shift_ns != seen_ns
            large_steps += abs(run.shift_ns - seen_ns) > 2 * MIN_STEP_NS
            seen_ns, silent = run.shift_ns, False
            for _ in range(amount):
                run.frame()
    run.keep(run.ticks.finish(run.now_ns))
    assert len(run.breaks) <= silences
    assert large_steps <= run.capture.steps <= any_steps  # several small steps may count as one
    check_laws(run.ticks.counters.tally(Intake(captured=run.captured)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "gaps", "steps"),
    [
        ("unplug@1s+2s,clockstep=-1s@2s", 1, 1),
        ("hang@1s+2s,clockstep=-1s@2s", 1, 1),
        ("hang@1s+2s,clockstep=+1s@2s", 1, 1),
        ("hang@1s+1s,clockstep=-300ms@1500ms", 1, 1),
        ("clockstep=-100s@0s", 0, 1),
        ("clockstep=+100s@0s", 0, 1),
        ("clockstep=-1s@1s,clockstep=-1s@2s,clockstep=2s@3s", 0, 3),
    ],
)
def test_a_run_whose_camera_has_its_clock_stepped(
    tmp_path: Path, bundle: Path, script: str, gaps: int, steps: int
) -> None:
    source = f"fault:{script}:{features(tmp_path, np.repeat(vectors([0] * 300), 3, axis=0), 30)}"
    summary, events = recorded(RunOptions(bundle, source, seconds=12 if "unplug" in script else 6))
    check_stream(events, summary)
    told = [event for event in events if isinstance(event, Gap) and event.reason == "source"]
    assert len(told) == gaps and summary.health["source"]["clock_steps"] == steps
