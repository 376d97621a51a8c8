"""How a run begins and ends: it waits for subscribers, hears signals, and says why it failed."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Transition, decode
from edge_hal.runtime import threads
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.journal_reader import JournalReader
from edge_hal.runtime.delivery.replay_server import ReplayServer
from edge_hal.runtime.runner import RunOptions, Stop, run
from edge_hal.runtime.sources.watchdog import Limits
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.bundles import expected_transitions, known_bundle, vectors
from tests.helpers.loops import ANY_PORT, check_laws, check_stream, features, recorded, segments, transitions


def test_the_start_waits_for_its_subscribers_who_then_miss_nothing(tmp_path: Path, bundle: Path) -> None:
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
def test_a_signal_ends_the_stream_properly(tmp_path: Path, bundle: Path, number: Any) -> None:
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


def test_whoever_calls_can_stop_a_run_even_while_it_waits(tmp_path: Path, bundle: Path) -> None:
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


def test_a_failure_on_the_way_is_published_and_raised(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_what_cannot_run_is_refused_before_anything_starts(tmp_path: Path, bundle: Path, picture_bundle: Path) -> None:
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


def test_a_thread_that_cannot_be_restarted_ends_the_run_with_an_error_and_an_end(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay server is broken for good: the run says so, and its journal ends with `end`."""

    def broken(self: ReplayServer) -> None:
        raise RuntimeError("broken for good")

    monkeypatch.setattr(threads, "RETRY_S", 0.01)
    monkeypatch.setattr(ReplayServer, "_serve", broken)
    options = RunOptions(
        bundle,
        features(tmp_path, vectors([0] * 5000), 100),
        endpoint=f"ipc://{tmp_path}/s",
        journal=tmp_path / "j",
    )
    with pytest.raises(EdgeHalError, match="broken for good"):
        run(options)
    reader = JournalReader(tmp_path / "j")
    last = decode(reader.page(0, 1000, 10**9).bodies[-1])
    reader.close()
    assert isinstance(last, End) and last.reason == "error"
    assert not threads.troubles()
