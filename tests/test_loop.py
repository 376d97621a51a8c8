from __future__ import annotations

import json
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bundles import AT_ONCE, LABELS, STRIDE, expected_transitions, known_bundle, vectors
from camera_server import serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.decoder import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Gap, Start, Transition, encode
from edge_hal.procedure import Procedure, Step
from edge_hal.runtime.client import subscribe
from edge_hal.runtime.latency import STAGES
from edge_hal.runtime.publisher import Publisher, Status
from edge_hal.runtime.recognizer import Recognizer
from edge_hal.runtime.runner import RunOptions, Stop, Summary, run
from edge_hal.runtime.watchdog import Limits

ANY_PORT = "tcp://127.0.0.1:*"


def segments(seed: int, count: int, shortest: int = 6, longest: int = 60) -> list[int]:
    """One label per tick; neighbours differ."""
    rng, labels, last = np.random.default_rng(seed), [], -1
    for _ in range(count):
        last = int(rng.choice([label for label in range(len(LABELS)) if label != last]))
        labels += [last] * int(rng.integers(shortest, longest))
    return labels


def features(path: Path, rows: NDArray[Any], hz: float) -> str:
    np.save(path / "f.npy", rows)
    return f"features:{path}/f.npy@{hz}"


def recorded(options: RunOptions, **how: Any) -> tuple[Summary, list[Event]]:
    events: list[Event] = []
    options = replace(options, endpoint=ANY_PORT)
    return run(options, on_event=events.append, **how), events


def transitions(events: list[Event]) -> list[tuple[str | None, str, int, int]]:
    return [
        (event.from_, event.to, event.boundary.tick, event.decision.tick)
        for event in events
        if isinstance(event, Transition)
    ]


def check_laws(counters: dict[str, Any]) -> None:
    dropped = sum(counters["dropped"].values())
    assert counters["captured"] == counters["used"] + dropped + counters["in_flight"]
    assert counters["ticks"] == counters["fresh"] + counters["held"] + counters["cut"]
    assert counters["used"] == counters["fresh"]
    assert min(counters["captured"], counters["in_flight"], *counters["dropped"].values()) >= 0


def check_stream(events: list[Event], summary: Summary) -> None:
    """What holds for every run whatsoever."""
    assert [event.seq for event in events] == list(range(len(events)))  # type: ignore[attr-defined]
    assert isinstance(events[0], Start) and isinstance(events[-1], End)
    assert events[-1].counters == summary.counters and events[-1].reason == summary.reason
    assert summary.events == len(events)
    check_laws(dict(summary.counters))
    action, epoch = None, 0
    for event in events[1:]:
        assert event.epoch == epoch
        if isinstance(event, Transition):
            assert event.from_ == action != event.to
            assert event.boundary.t_ns <= event.decision.t_ns
            action = event.to
        elif isinstance(event, Gap) and event.reset:
            action, epoch = None, epoch + 1


# --- asap ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_known_input_gives_exactly_the_known_events(tmp_path, bundle, seed):
    labels = segments(seed, 25)
    summary, events = recorded(RunOptions(bundle, features(tmp_path, vectors(labels), 10), pace="asap"))
    check_stream(events, summary)
    assert transitions(events) == expected_transitions(labels)
    for event in events:
        if isinstance(event, Transition):
            for moment in (event.boundary, event.decision):
                assert (moment.frame, moment.t_ns) == (moment.tick, moment.tick * 100_000_000)
            assert set(event.run["latency_ms"]) == {"capture_to_tick", "encode", "step", "decide"}
    counters = summary.counters
    assert counters["captured"] == counters["used"] == counters["ticks"] == len(labels)
    assert counters["in_flight"] == 0 and not any(counters["dropped"].values())
    assert summary.reason == "eof" and summary.fps > 0
    assert set(summary.latency_ms) == set(STAGES) - {"journal"}


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the recogniser encoded."""
    real, seen = Recognizer.encode, []

    def encode(self: Recognizer, data: Any) -> Any:
        seen.append(data)
        return real(self, data)

    monkeypatch.setattr(Recognizer, "encode", encode)
    return seen


@pytest.mark.parametrize(("hz", "per_tick"), [(30, 3), (20, 2)])
def test_a_faster_source_is_decimated_and_only_shown_frames_are_encoded(tmp_path, bundle, hz, per_tick, encoded):
    labels = segments(7, 12)
    rows = np.repeat(vectors(labels), per_tick, axis=0)
    summary, events = recorded(RunOptions(bundle, features(tmp_path, rows, hz), pace="asap"))
    check_stream(events, summary)
    assert transitions(events) == expected_transitions(labels)
    assert summary.counters["dropped"]["decimated"] == len(rows) - len(labels)
    assert len(encoded) == summary.counters["used"] == len(labels)
    for event in events:
        if isinstance(event, Transition):
            assert event.boundary.frame == per_tick * event.boundary.tick


def test_a_slower_source_is_held_and_encoded_once(tmp_path, bundle, encoded):
    labels = segments(8, 10)
    summary, events = recorded(RunOptions(bundle, features(tmp_path, vectors(labels), 2), pace="asap"))
    check_stream(events, summary)
    shown = np.repeat(labels, 5)[: 5 * (len(labels) - 1) + 1].tolist()
    assert transitions(events) == expected_transitions(shown)
    assert summary.counters["held"] == 4 * (len(labels) - 1)
    assert len(encoded) == summary.counters["fresh"] == len(labels)


def test_two_runs_differ_in_run_alone(tmp_path, bundle):
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(900, len(LABELS))).astype(np.float32)  # many close decisions
    options = RunOptions(bundle, features(tmp_path, rows, 25), pace="asap")

    def bare(events: list[Event]) -> list[bytes]:
        return [encode(replace(event, run={})) for event in events]

    (_, first), (_, second) = recorded(options), recorded(options)
    assert len(first) > 50 and bare(first) == bare(second)
    assert first[0].run["session"] != second[0].run["session"]


def test_thresholds_and_decision_times_can_be_set(tmp_path, bundle):
    labels = [0] * 40 + [1] * 6 + [0] * 40 + [2] * 40
    source = features(tmp_path, vectors(labels), 10)
    _, plain = recorded(RunOptions(bundle, source, pace="asap"))
    _, calm = recorded(RunOptions(bundle, source, pace="asap", decoder={"confirm_s": 1.0}))
    _, eager = recorded(RunOptions(bundle, source, pace="asap", decide_every=1))
    assert [row[1] for row in transitions(plain)] == ["blue", "green", "blue", "red"]
    assert [row[1] for row in transitions(calm)] == ["blue", "red"]
    assert [row[2:] for row in transitions(eager)] == [(0, 0), (40, 40), (46, 46), (86, 86)]
    hashes = {events[0].decoder for events in (plain, calm)}  # type: ignore[attr-defined]
    assert len(hashes) == 2 and replace(AT_ONCE, confirm_s=1.0).fingerprint() in hashes


def test_a_run_follows_the_procedure_of_its_bundle(tmp_path):
    """Its posteriors are the same throughout: between `blue` and `red` a little more red than green."""
    after = {"blue": {"green": 1.0}, "green": {"red": 1.0}, "red": {"blue": 1.0}}
    procedure = Procedure({name: Step(1 / 3, 1 / 3, 4.0, 1.5, after[name]) for name in LABELS})
    decoder = DecoderConfig(0.3, 0.3, 0.0, 0.5, evidence_hz=4.0, procedure=procedure)
    bundle = known_bundle(tmp_path / "bundle", decoder=decoder).path
    unsure = np.array([[0.0, 0.3, 0.32]], np.float32)
    x = np.concatenate([vectors([0] * 40), np.repeat(unsure, 40, 0), vectors([0] * 40)])
    options = RunOptions(bundle, features(tmp_path, x, 10), pace="asap")

    def ran(**how):
        summary, events = recorded(replace(options, **how))
        check_stream(events, summary)
        (told,) = {event.decoder for event in events if isinstance(event, (Start, Transition))}
        return told, transitions(events)

    as_written, followed = ran()
    assert as_written == decoder.fingerprint()
    assert [row[:3] for row in followed] == [(None, "blue", 0), ("blue", "green", 40), ("green", "blue", 80)]
    # The same by hand: another order, and the other label.
    file = bundle / "procedure.json"
    data = json.loads(file.read_text())
    data["blue"]["then"] = {"red": 1.0}
    file.write_text(json.dumps(data))
    as_edited, edited = ran()
    assert [row[:3] for row in edited] == [(None, "blue", 0), ("blue", "red", 40), ("red", "blue", 80)]
    # `--set decoder.evidence_hz=0`, or no such file: hysteresis.
    without, hysteresis = ran(decoder={"evidence_hz": 0.0})
    file.unlink()
    deleted, same = ran()
    assert hysteresis == same and [row[1] for row in same] == ["blue", "red", "blue"]
    assert len({as_written, as_edited, without, deleted}) == 4


def test_seconds_end_a_run_at_that_stream_time(tmp_path, bundle):
    labels = segments(5, 30)
    source = features(tmp_path, vectors(labels), 10)
    summary, events = recorded(RunOptions(bundle, source, pace="asap", seconds=12.0))
    check_stream(events, summary)
    assert summary.counters["ticks"] == 121 and summary.reason == "eof"
    assert transitions(events) == expected_transitions(labels[:121])


def test_pictures_are_resized_encoded_and_recognised(tmp_path, picture_bundle):
    labels = [0] * 16 + [2] * 24 + [1] * 20
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (80, 60))
    for label in labels:
        picture = np.zeros((60, 80, 3), np.uint8)
        picture[:, :, label] = 220
        writer.write(picture)
    writer.release()
    summary, events = recorded(RunOptions(picture_bundle, str(path), pace="asap"))
    check_stream(events, summary)
    assert transitions(events) == expected_transitions(labels)
    rows = features(tmp_path, vectors(labels), 10)  # its encoder's vectors, straight from a file
    _, straight = recorded(RunOptions(picture_bundle, rows, pace="asap"))
    assert transitions(straight) == transitions(events)


# --- realtime ------------------------------------------------------------------------------------


def test_a_replay_at_its_own_pace_keeps_both_laws_and_sees_the_same(tmp_path, bundle):
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
def test_a_loop_that_cannot_keep_up_says_so_once_and_counts(tmp_path, bundle, monkeypatch, caplog, overload):
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


@pytest.mark.parametrize("overload", ["cut", "lag"])
def test_a_loop_that_is_late_within_the_hold_limit_cuts_or_lags(tmp_path, bundle, monkeypatch, caplog, overload):
    """Half a second late where 3 s may be held: late ticks are stepped together. 2.2 s late: all take
    place, or all but the last are cut, in the same epoch and with times that tell of it."""
    rows = vectors([0] * 20 + [1] * 100)
    for late_s, cut in ((0.5, False), (2.2, overload == "cut")):
        with monkeypatch.context() as patch:
            stepped = stalled(patch, lambda late_s=late_s: threading.Event().wait(late_s))  # a real stall
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


def test_a_file_that_waits_is_stepped_in_whole_bins(tmp_path, bundle, monkeypatch):
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


def test_a_camera_that_is_gone_for_a_while_starts_a_new_epoch_and_its_end_is_told(picture_bundle):
    """A camera on the network, killed in mid-stream, started again, and killed for good."""
    seen: list[Event] = []
    with serving("http", fps=25) as (first, port):
        stages = iter((first.kill, lambda: started.append(again.__enter__())))
        again, started = serving("http", port, fps=25), []  # type: ignore[var-annotated]

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
def test_faults_over_a_file_give_the_same_events_each_time_and_keep_both_laws(tmp_path, bundle, faults):
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
def test_whatever_gaps_a_source_has_both_laws_hold_in_every_report(bundle, holes, hz, drop, seed):
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


# --- stopping, waiting, failing ------------------------------------------------------------------


def test_the_start_waits_for_its_subscribers_who_then_miss_nothing(tmp_path, bundle):
    labels = segments(11, 12)
    options = RunOptions(
        bundle,
        features(tmp_path, vectors(labels), 10),
        endpoint=f"ipc://{tmp_path}/s",
        pace="asap",
        stream="bench-1",
        wait_subscribers=2,
    )
    received: dict[int, list[Event]] = {0: [], 1: []}

    def listen(number: int) -> None:
        for event in subscribe(options.endpoint, "bench-1"):
            if event.durable:
                received[number].append(event)
            if isinstance(event, End):
                return

    listeners = [threading.Thread(target=listen, args=(number,)) for number in (0, 1)]
    for listener in listeners:
        listener.start()
    summary = run(options)
    for listener in listeners:
        listener.join(timeout=20)
    assert received[0] == received[1]
    check_stream(received[0], summary)
    assert transitions(received[0]) == expected_transitions(labels)
    assert all(event.run["latency_ms"]["publish"] >= 0 for event in received[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stream_properly(tmp_path, bundle, number):
    rows = vectors([0] * 5000)
    before = signal.getsignal(number)

    def interrupt(event: Event) -> None:
        events.append(event)
        if isinstance(event, Transition):
            signal.raise_signal(number)

    events: list[Event] = []
    options = RunOptions(bundle, features(tmp_path, rows, 100), endpoint=ANY_PORT)
    summary = run(options, on_event=interrupt)
    check_stream(events, summary)
    assert summary.reason == "signal" and summary.counters["captured"] < 5000
    assert signal.getsignal(number) == before


def test_whoever_calls_can_stop_a_run_even_while_it_waits(tmp_path, bundle):
    rows = vectors([0] * 100)
    stop = Stop()
    options = RunOptions(bundle, features(tmp_path, rows, 0.1), wait_subscribers=3)
    summary, events = recorded(options, stop=stop, on_ready=lambda _endpoint: stop.ask())
    assert summary.reason == "signal" and summary.counters["captured"] == 0
    check_stream(events, summary)
    # and while the next frame is ten seconds away
    stop, results = Stop(), []
    options = replace(options, wait_subscribers=0)
    runner = threading.Thread(target=lambda: results.append(recorded(options, stop=stop)))
    runner.start()
    stop.ask()
    runner.join(timeout=8)
    assert not runner.is_alive() and results[0][0].reason == "signal"


def test_a_failure_on_the_way_is_published_and_raised(tmp_path, bundle, monkeypatch):
    labels = segments(4, 4)
    real = Recognizer.step

    def failing(self: Recognizer, batch: Any, moments: Any) -> Any:
        if moments[0].tick == 20:
            raise EdgeHalError("the engine is gone")
        return real(self, batch, moments)

    monkeypatch.setattr(Recognizer, "step", failing)
    events: list[Event] = []
    threads = set(threading.enumerate())
    options = RunOptions(bundle, features(tmp_path, vectors(labels), 10), ANY_PORT, pace="asap")
    with pytest.raises(EdgeHalError, match="the engine is gone"):
        run(options, on_event=events.append)
    assert isinstance(events[-1], End) and events[-1].reason == "error"
    check_laws(events[-1].counters)
    assert set(threading.enumerate()) == threads


def test_what_cannot_run_is_refused_before_anything_starts(tmp_path, bundle, picture_bundle):
    source = features(tmp_path, vectors([0] * 10), 10)
    uncertified = known_bundle(tmp_path / "certified").path
    (uncertified / "certificate.json").unlink()
    changed = known_bundle(tmp_path / "changed").path
    graph = changed / "level0.c1.fp32.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(bytes(content))
    cases: list[tuple[RunOptions, str, int]] = [
        (RunOptions(tmp_path / "none", source), "no bundle", 1),
        (RunOptions(bundle, "0"), "feature vectors", 1),
        (RunOptions(picture_bundle, str(tmp_path / "gone.mp4")), "no such file", 1),
        (RunOptions(bundle, source, overload="fast"), "cut or lag", 2),
        (RunOptions(bundle, source, overload="cut", pace="asap"), "waits", 2),
        (RunOptions(bundle, source, limits=Limits(stall_s=0)), "--stall", 2),
        (RunOptions(bundle, source, stream="a/b"), "stream", 2),
        (RunOptions(bundle, source, endpoint="tcp://0.0.0.0:5599"), "other machines", 2),
        (RunOptions(bundle, source, max_hold_ms=0), "max_hold_ms", 2),
        (RunOptions(bundle, source, seconds=-1), "seconds", 2),
        (RunOptions(bundle, source, decoder={"margin": 7.0}), "margin", 2),
        (RunOptions(uncertified, source), "certif", 1),
        (RunOptions(changed, source), "SHA-256", 1),
    ]
    threads = set(threading.enumerate())
    for options, expected, code in cases:
        with pytest.raises(EdgeHalError) as error:
            run(options)
        assert expected in str(error.value) and error.value.exit_code == code, str(error.value)
        assert set(threading.enumerate()) == threads
    allowed = RunOptions(uncertified, source, pace="asap", allow_uncertified=True)
    assert recorded(allowed)[0].counters["ticks"] == 10
