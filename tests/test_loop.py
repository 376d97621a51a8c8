from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bundles import AT_ONCE, LABELS, expected_transitions, known_bundle, vectors
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Gap, Start, Transition, encode
from edge_hal.runtime import source as source_module
from edge_hal.runtime.client import subscribe
from edge_hal.runtime.loop import RunOptions, Stop, Summary, run
from edge_hal.runtime.rate import exact_rate
from edge_hal.runtime.readers import Undecodable
from edge_hal.runtime.recognizer import Recognizer

ANY_PORT = "tcp://127.0.0.1:*"


def segments(seed: int, count: int, shortest: int = 6, longest: int = 60) -> list[int]:
    """One label per tick; neighbours differ."""
    rng, labels, last = np.random.default_rng(seed), [], -1
    for _ in range(count):
        last = int(rng.choice([label for label in range(len(LABELS)) if label != last]))
        labels += [last] * int(rng.integers(shortest, longest))
    return labels


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return known_bundle(tmp_path_factory.mktemp("known") / "bundle").path


@pytest.fixture(scope="module")
def picture_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return known_bundle(tmp_path_factory.mktemp("known") / "pictures", pictures=True).path


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
        elif isinstance(event, Gap):
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
            assert set(event.run["latency_ms"]) == {"capture_to_tick", "encode", "step"}
    counters = summary.counters
    assert counters["captured"] == counters["used"] == counters["ticks"] == len(labels)
    assert counters["in_flight"] == 0 and not any(counters["dropped"].values())
    assert summary.reason == "eof" and summary.fps > 0
    assert set(summary.latency_ms) == {"capture_to_tick", "encode", "step", "settle", "publish"}


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
def test_a_faster_source_is_decimated_and_only_shown_frames_are_encoded(
    tmp_path, bundle, hz, per_tick, encoded
):
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


def test_a_loop_that_cannot_keep_up_says_so_and_counts(tmp_path, bundle, monkeypatch):
    rows = vectors([0] * 100 + [1] * 200)
    real, asked = Recognizer.tick, []

    def stuck(self: Recognizer, vector: Any, moment: Any) -> Any:
        asked.append(moment)
        if len(asked) == 3:  # until the source has delivered everything else
            [reader] = [t for t in threading.enumerate() if t.name == "edge-hal-source"]
            reader.join()
        return real(self, vector, moment)

    monkeypatch.setattr(Recognizer, "tick", stuck)
    summary, events = recorded(RunOptions(bundle, features(tmp_path, rows, 300), max_hold_ms=100))
    check_stream(events, summary)
    gaps = [event for event in events if isinstance(event, Gap)]
    counters = summary.counters
    [gap] = [gap for gap in gaps if gap.begin == asked[2]]
    assert gap.reason == "overload" and gap.reset and gap.lost_ticks > 0
    assert (gap.end.tick, gap.end.frame) == (0, 299)
    assert counters["cut"] == sum(gap.lost_ticks for gap in gaps) and counters["captured"] == 300
    assert counters["ticks"] == len(asked) + counters["cut"]
    assert counters["dropped"]["superseded"] > 150


class Camera:
    """A camera that shows one colour, falls silent, shows another, and is unplugged."""

    rate = exact_rate(50.0)

    def __init__(self, uri: str) -> None:
        self.grabbed, self.wait = 0, threading.Event().wait

    def grab(self) -> bool:
        self.grabbed += 1
        self.wait(0.6 if self.grabbed == 41 else 0.02)
        return self.grabbed <= 80

    def read(self) -> NDArray[Any]:
        if self.grabbed % 10 == 0:
            raise Undecodable
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:, :, 0 if self.grabbed <= 40 else 2] = 250
        return picture

    def close(self) -> None: ...


def test_a_camera_that_falls_silent_starts_a_new_epoch_and_its_loss_ends_the_stream(
    picture_bundle, monkeypatch
):
    monkeypatch.setattr(source_module, "DeviceReader", Camera)
    summary, events = recorded(RunOptions(picture_bundle, "0", max_hold_ms=150))
    check_stream(events, summary)
    assert summary.reason == "source" and summary.counters["captured"] == 80
    assert summary.counters["dropped"]["undecodable"] == 8
    gaps = [event for event in events if isinstance(event, Gap)]
    silence = max(gaps, key=lambda gap: gap.end.t_ns - gap.begin.t_ns)
    assert silence.reason == "source" and silence.reset and silence.end.tick == 0
    assert silence.end.t_ns - silence.begin.t_ns >= 400_000_000
    after = [e for e in events if isinstance(e, Transition) and e.epoch > silence.epoch]
    assert after[0].from_ is None and after[0].to == "red"
    assert after[0].boundary.frame >= 40 and after[0].boundary.t_ns >= silence.end.t_ns


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
    real = Recognizer.tick

    def failing(self: Recognizer, vector: Any, moment: Any) -> Any:
        if moment.tick == 20:
            raise EdgeHalError("the engine is gone")
        return real(self, vector, moment)

    monkeypatch.setattr(Recognizer, "tick", failing)
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
