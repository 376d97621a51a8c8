"""The loop at its source's own pace: late loops, cameras that go away, faults."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_hal.events import Event, Gap, Transition
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.report import Status
from edge_hal.runtime.runner import RunOptions, run
from edge_hal.runtime.sources.watchdog import Limits
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.bundles import STRIDE, expected_transitions, vectors
from tests.helpers.camera_server import serving
from tests.helpers.loops import ANY_PORT, check_laws, check_stream, features, recorded, segments, transitions


def test_a_replay_at_its_own_pace_keeps_both_laws_and_sees_the_same(tmp_path: Path, bundle: Path) -> None:
    labels = [0] * 7 + [1] * 6 + [2] * 9
    rows = np.repeat(vectors(labels), 3, axis=0)
    summary, events = recorded(RunOptions(bundle, features(tmp_path, rows, 30), max_hold_ms=10_000))
    check_stream(events, summary)
    assert summary.counters["captured"] == len(rows)
    seen = [row[1] for row in transitions(events)]
    assert seen in (["blue", "green", "red"], ["blue", "red"])  # a busy machine may miss a second


def stalled(monkeypatch: pytest.MonkeyPatch, until: Callable[[], Any]) -> list[Any]:
    """The third step of the recogniser takes until `until` returns. The moments of all ticks, as stepped."""
    real, stepped, calls = Recognizer.step, [], []

    def stuck(self: Recognizer, batch: Any, moments: Any) -> Any:
        calls.append(len(moments))
        if len(calls) == 3:
            until()
        count = real(self, batch, moments)
        stepped.extend(moments[:count])
        return count

    monkeypatch.setattr(Recognizer, "step", stuck)
    return stepped


def source_is_over() -> None:
    [reader] = [thread for thread in threading.enumerate() if thread.name == "edge-hal-source"]
    reader.join()


@pytest.mark.parametrize("overload", ["cut", None])
def test_a_loop_that_cannot_keep_up_says_so_once_and_counts(
    tmp_path: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    overload: str | None,
) -> None:
    rows = vectors([0] * 100 + [1] * 200)
    stepped = stalled(monkeypatch, source_is_over)  # until the source has delivered everything else
    options = RunOptions(bundle, features(tmp_path, rows, 300), max_hold_ms=100, overload=overload)
    summary, events = recorded(options)
    check_stream(events, summary)
    gaps = [event for event in events if isinstance(event, Gap)]
    counters = summary.counters
    gap = gaps[-1]
    assert gap.reason == "overload" and gap.reset and gap.lost_ticks > 0
    assert (gap.end.tick, gap.end.frame) == (0, 299)
    assert counters["cut"] == sum(gap.lost_ticks for gap in gaps) and counters["captured"] == 300
    assert counters["ticks"] == len(stepped) + counters["cut"]
    assert counters["dropped"]["superseded"] > 150
    assert sum("too slow" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.slow
@pytest.mark.parametrize("overload", ["cut", "lag"])
def test_a_loop_that_is_late_within_the_hold_limit_cuts_or_lags(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, overload: str
) -> None:
    """Half a second late where 3 s may be held: late ticks are stepped together. 2.2 s late: all take
    place, or all but the last are cut, in the same epoch and with times that tell of it."""
    rows = vectors([0] * 20 + [1] * 100)
    for late_s, cut in ((0.5, False), (2.2, overload == "cut")):
        with monkeypatch.context() as patch:
            stepped = stalled(patch, partial(threading.Event().wait, late_s))  # a real stall
            options = RunOptions(bundle, features(tmp_path, rows, 20), max_hold_ms=3000, overload=overload, seconds=3.5)
            summary, events = recorded(options)
        check_stream(events, summary)
        gaps = [event for event in events if isinstance(event, Gap)]
        assert bool(gaps) == cut == (summary.counters["cut"] > 0)
        assert [moment.tick for moment in stepped] == list(range(len(stepped)))  # dense, one epoch
        times = [moment.t_ns for moment in stepped]
        holes = [(b - a) // 100_000_000 - 1 for a, b in pairwise(times) if b - a > 100_000_000]
        assert holes == [gap.lost_ticks for gap in gaps] and all(t % 100_000_000 == 0 for t in times)
        if cut:
            [gap] = gaps
            assert not gap.reset and gap.reason == "overload" and gap.begin.tick + 1 == gap.end.tick
            assert gap.end.t_ns - gap.begin.t_ns == (gap.lost_ticks + 1) * 100_000_000


def test_a_file_that_waits_is_stepped_in_whole_bins(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = Recognizer.step, []

    def step(self: Recognizer, batch: Any, moments: Any) -> Any:
        sizes.append(len(moments))
        return real(self, batch, moments)

    monkeypatch.setattr(Recognizer, "step", step)
    labels = segments(6, 20)
    summary, events = recorded(RunOptions(bundle, features(tmp_path, vectors(labels), 10), pace="asap"))
    check_stream(events, summary)
    assert transitions(events) == expected_transitions(labels)
    assert set(sizes[:-1]) == {STRIDE} and sum(sizes) == len(labels)


@pytest.mark.slow
def test_a_camera_that_is_gone_for_a_while_starts_a_new_epoch_and_its_end_is_told(picture_bundle: Path) -> None:
    """A camera on the network, killed in mid-stream, started again, and killed for good."""
    seen: list[Event] = []
    with serving("http", fps=25) as (first, port):
        again = serving("http", port, fps=25)
        started: list[Any] = []
        stages = iter((first.kill, lambda: started.append(again.__enter__())))

        def follow(event: Event) -> None:
            seen.append(event)
            if isinstance(event, Transition):
                next(stages, lambda: None)() if event.epoch == 0 else started[0][0].kill()

        def revive() -> None:
            first.wait()
            next(stages)()

        reviver = threading.Thread(target=revive)
        reviver.start()
        options = RunOptions(
            picture_bundle,
            f"http://127.0.0.1:{port}/cam",
            ANY_PORT,
            max_hold_ms=150,
            limits=Limits(give_up_s=6),
        )
        summary = run(options, on_event=follow)
        reviver.join()
        again.__exit__(None, None, None)
    check_stream(seen, summary)
    assert summary.reason == "source" and summary.health["source"]["connections"] == 2
    gaps = [event for event in seen if isinstance(event, Gap)]
    assert gaps and {gap.reason for gap in gaps} <= {"source", "overload"}
    after = [event for event in seen if isinstance(event, Transition) and event.epoch > 0]
    assert after[0].from_ is None and after[0].boundary.t_ns >= gaps[0].end.t_ns


@pytest.mark.parametrize("faults", ["drop=20%,dup=5%,jitter=40ms,seed=1", "unplug@2s+2s,hang@8s+1s,clockstep=-1s@6s"])
def test_faults_over_a_file_give_the_same_events_each_time_and_keep_both_laws(
    tmp_path: Path, bundle: Path, faults: str
) -> None:
    labels = segments(2, 12)
    source = f"fault:{faults}:{features(tmp_path, np.repeat(vectors(labels), 3, axis=0), 30)}"
    runs = [recorded(RunOptions(bundle, source, pace="asap", max_hold_ms=300)) for _ in range(2)]
    for summary, events in runs:
        check_stream(events, summary)
        assert any(isinstance(event, Gap) for event in events) == ("unplug" in faults)
    assert [replace(event, run={}) for event in runs[0][1]] == [replace(event, run={}) for event in runs[1][1]]
    assert runs[0][0].counters == runs[1][0].counters


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(0, 25), st.floats(0.05, 4)), max_size=6),
    st.sampled_from([5, 10, 30]),
    st.floats(0, 0.5),
    st.integers(0, 99),
)
def test_whatever_gaps_a_source_has_both_laws_hold_in_every_report(
    bundle: Path, holes: list[tuple[float, float]], hz: int, drop: float, seed: int
) -> None:
    """Reports are what heartbeats send: each is checked, not one a second."""
    windows = "".join(f",unplug@{begin:.3f}s+{length:.3f}s" for begin, length in holes)
    reports: list[dict[str, Any]] = []

    def status(publisher: Publisher, report: Status) -> None:
        reports.append(report.counters)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Publisher, "status", status)
        rows = np.repeat(vectors(segments(seed, 8)), 2, axis=0)
        uri = f"fault:drop={100 * drop:.1f}%{windows},seed={seed}:{features(Path(folder), rows, hz)}"
        summary, events = recorded(RunOptions(bundle, uri, pace="asap", max_hold_ms=200))
    check_stream(events, summary)
    for counters in reports:
        check_laws(counters)
    assert len(reports) > 1 and reports[-1]["captured"] == summary.counters["captured"]
