"""A station: what its streams do is what they do alone, whatever happens to the others, and while some come and go."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Gap, Start, Transition, encode
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.reader import comparable
from edge_hal.runtime.runner import run
from edge_hal.runtime.station import stream_thread
from edge_hal.runtime.station.run import run_station
from edge_hal.runtime.stop import Stop
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.bundles import known_bundle
from tests.helpers.loops import ANY_PORT, check_laws
from tests.helpers.running_station import TIMEOUT_S, Heard, options_of, running
from tests.helpers.services import until
from tests.helpers.station_streams import endless, stream


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_thread, "FIRST_PAUSE_S", 0.01)


def alone(options: RunOptions) -> list[bytes]:
    events: list[Event] = []
    run(replace(options, endpoint=ANY_PORT, journal=None), on_event=events.append)
    return [comparable(encode(event)) for event in events]


def test_the_streams_of_a_station_give_the_events_that_each_gives_alone(tmp_path: Path, bundle: Path) -> None:
    slow = known_bundle(tmp_path / "slow", decoder=DecoderConfig(confirm_s=0.5))
    streams = [stream(tmp_path, bundle, f"s{n}", n) for n in range(3)] + [stream(tmp_path, slow.path, "slow", 0)]
    heard = Heard()
    summary = run_station(lambda: options_of(*streams), on_event=heard)
    for each in streams:
        assert [comparable(encode(event)) for event in heard.events[each.stream]] == alone(each)
        told = summary.streams[each.stream]
        assert told is not None and told.reason == "eof" and told.health["restarts"] == {"failures": 0, "why": None}
        check_laws(dict(told.counters))
    assert len(heard.events["s0"]) > len(heard.events["slow"]) > 2  # each has thresholds of its own


def test_a_stream_that_fails_begins_again_and_the_others_do_not_notice(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, failures = (
        Recognizer.step,
        [ValueError("a bug"), EdgeHalError("the engine is gone"), MemoryError("none left")],
    )

    def failing(self: Recognizer, batch: Any, moments: Any) -> Any:
        if self.stream == "bad" and failures and moments[0].tick >= 20:
            raise failures.pop()
        return real(self, batch, moments)

    monkeypatch.setattr(Recognizer, "step", failing)
    streams = [stream(tmp_path, bundle, name, n) for n, name in enumerate(("bad", "good", "fine"))]
    heard = Heard()
    summary = run_station(lambda: options_of(*streams), on_event=heard)
    for each in streams[1:]:
        assert [comparable(encode(event)) for event in heard.events[each.stream]] == alone(each)
    bad = heard.events["bad"]
    assert [event.seq for event in bad] == list(range(len(bad)))
    assert [event.reason for event in bad if isinstance(event, End)] == ["error"] * 3 + ["eof"]
    assert heard.count("bad", Start) == 4
    for end in (event for event in bad if isinstance(event, End)):
        check_laws(end.counters)
    told = summary.streams["bad"]
    assert told is not None and told.health["restarts"]["failures"] == 3 and "a bug" in told.health["restarts"]["why"]
    assert "a bug" in caplog.text and "begins again" in caplog.text


def test_cameras_that_fail_in_every_way_leave_the_others_their_frames(tmp_path: Path, bundle: Path) -> None:
    scripts = {
        "hangs": "hang@300ms",
        "unplugged": "unplug@200ms",
        "flaky": "drop=20%,dup=10%,jitter=20ms,freeze@1s+500ms,clockstep=-1s@700ms,seed=4",
    }
    calm = endless(tmp_path, bundle, "calm", seconds=2.5, overload="lag", max_hold_ms=60_000)
    streams = [calm]
    for name, script in scripts.items():
        each = endless(tmp_path, bundle, name, seconds=2.5)
        streams.append(replace(each, camera=f"fault:{script}:{each.camera}"))
    heard = Heard()
    summary = run_station(lambda: options_of(*streams), on_event=heard)
    assert heard.count("calm", Gap) == 0 and heard.count("calm", Transition) > 3
    for name in (each.stream for each in streams):
        told = summary.streams[name]
        assert told is not None and told.reason == "eof", name
        check_laws(dict(told.counters))


def test_a_loop_that_hangs_is_told_and_keeps_nobody_from_ending(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, go = Recognizer.step, threading.Event()

    def hanging(self: Recognizer, batch: Any, moments: Any) -> Any:
        if self.stream == "stuck":
            go.wait()
        return real(self, batch, moments)

    monkeypatch.setattr(Recognizer, "step", hanging)
    monkeypatch.setattr(stream_thread, "END_S", 0.2)
    heard, stop = Heard(), Stop()
    stuck, free = (endless(tmp_path, bundle, name) for name in ("stuck", "free"))
    options = [options_of(stuck, free)]
    with running(options, heard, stop):
        heard.until(lambda _: heard.count("stuck", Start) == 1 and heard.count("free", Transition) > 3)
        added = endless(tmp_path, bundle, "added")
        options.append(options_of(free, added))
        stop.ask_reload()
        heard.until(lambda _: heard.count("added", Transition) > 1)
    assert heard.count("free", Start) == heard.count("free", End) == 1
    assert "stream-stuck did not stop" in caplog.text
    go.set()
    heard.until(lambda _: heard.count("stuck", End) == 1)


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=TIMEOUT_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_one_address_tells_health_and_metrics_of_each_stream(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, picture_bundle: Path
) -> None:
    monkeypatch.setattr(stream_thread, "FIRST_PAUSE_S", 600.0)
    bad = replace(stream(tmp_path, picture_bundle, "bad"), camera=str(tmp_path / "none.mp4"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    heard, stop = Heard(), Stop()
    with socket.create_server(("127.0.0.1", 0)) as free:  # closed below: nothing answers there
        address = f"http://127.0.0.1:{free.getsockname()[1]}/cam"
    gone = replace(stream(tmp_path, picture_bundle, "gone"), camera=address, pace="realtime")
    with running([options_of(endless(tmp_path, bundle, "good"), bad, gone, metrics=metrics)], heard, stop):
        heard.until(lambda events: any(isinstance(event, Transition) for event in events.get("good", ())))
        code, text = get(metrics, "/health")
        while json.loads(text)["streams"]["bad"]["state"] != "waiting" or "source:" not in text:
            code, text = get(metrics, "/health")
        told = json.loads(text)["streams"]
        assert told["gone"]["state"] == "running" and "the camera" in told["gone"]["troubles"][0]
        assert code == 503 and told["bad"]["failures"] == 1 and "none.mp4" in told["bad"]["why"]
        assert told["good"]["state"] == "running" and told["good"]["troubles"] == []
        _, text = get(metrics, "/metrics")
        assert 'edge_hal_healthy{stream="good"} 1.0' in text and 'edge_hal_healthy{stream="bad"} 0.0' in text
        assert 'edge_hal_stream_failures_total{stream="bad"} 1.0' in text


def test_a_reload_adds_removes_and_changes_streams_and_touches_no_other(tmp_path: Path, bundle: Path) -> None:
    heard, stop = Heard(), Stop()
    steady, removed, changed = (endless(tmp_path, bundle, name) for name in ("steady", "removed", "changed"))
    options = [options_of(steady, removed, changed)]
    with running(options, heard, stop):
        heard.until(lambda events: len(events) == 3 and all(len(each) > 2 for each in events.values()))
        options.append(replace(options_of(steady, removed, changed), priority={"steady": 3}))
        stop.ask_reload()  # a priority touches no stream
        added = endless(tmp_path, bundle, "added")
        options.append(options_of(added, replace(changed, decoder={"confirm_s": 0.3}), steady))
        stop.ask_reload()
        heard.until(lambda events: len(events.get("added", ())) > 2 and heard.count("changed", Start) == 2)
        before = len(heard.events["steady"])
        options.append(options_of(replace(steady, threads=0)))  # wrong: nothing changes
        stop.ask_reload()
        heard.until(lambda events: len(events["steady"]) > before + 3)
    for name in ("steady", "added"):
        assert heard.count(name, Start) == heard.count(name, End) == 1 and heard.count(name, Gap) == 0
    [*_, last] = heard.events["removed"]
    assert isinstance(last, End) and last.reason == "signal" and heard.count("removed", Start) == 1
    starts = [event for event in heard.events["changed"] if isinstance(event, Start)]
    assert starts[0].decoder != starts[1].decoder
    for events in heard.events.values():
        assert [event.seq for event in events] == list(range(len(events)))


def test_a_reload_reads_the_bundle_of_a_stream_again_only_if_it_changed(tmp_path: Path) -> None:
    bundles = {name: known_bundle(tmp_path / f"{name}-bundle").path for name in ("same", "other")}
    heard, stop = Heard(), Stop()
    options = [options_of(*(endless(tmp_path, path, name) for name, path in bundles.items()))]
    with running(options, heard, stop):
        heard.until(lambda events: len(events) == 2 and all(len(each) > 2 for each in events.values()))
        decoder = json.loads((bundles["other"] / "decoder.json").read_text())
        (bundles["other"] / "decoder.json").write_text(json.dumps({**decoder, "confirm_s": 0.2}))
        stop.ask_reload()
        heard.until(lambda _: heard.count("other", Gap) == 1)
        before = len(heard.events["same"])
        heard.until(lambda events: len(events["same"]) > before + 2)
    assert heard.count("same", Gap) == 0
    [gap] = [event for event in heard.events["other"] if isinstance(event, Gap)]
    assert gap.reason == "reload"


def test_a_reload_that_is_refused_is_told_by_health_until_one_is_done(tmp_path: Path, bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    one = endless(tmp_path, bundle, "one")
    heard, stop, options = Heard(), Stop(), [options_of(one, metrics=metrics)]

    def told() -> Any:
        return json.loads(get(metrics, "/health")[1]).get("reload")

    with running(options, heard, stop):
        heard.until(lambda events: "one" in events)
        assert told() is None
        for name, why in (("none", "none is no bundle"), (300 * "9", "File name too long")):
            options.append(options_of(replace(one, bundle=tmp_path / name), metrics=metrics))
            stop.ask_reload()
            until(lambda why=why: why in str(told()))  # type: ignore[misc]
            assert told()["done"] == 0 and why in told()["refused"]
        options.append(options[0])
        stop.ask_reload()
        until(lambda: told() == {"done": 1, "refused": None})


def test_what_cannot_run_is_refused_before_anything_starts(tmp_path: Path, bundle: Path) -> None:
    one = stream(tmp_path, bundle, "one")
    two = replace(one, stream="two")
    cases = [
        (options_of(one, two), "same journal"),
        (options_of(one, replace(two, journal=tmp_path / "x" / ".." / Path(str(one.journal)).name)), "same journal"),
        (options_of(*(replace(each, journal=None, preview="ipc://p") for each in (one, two))), "same preview"),
        (options_of(replace(one, stream="a b")), "cannot name a stream"),
        (options_of(replace(one, bundle=tmp_path / "none")), "stream 'one'"),
        (options_of(replace(one, decoder={"margin": 7.0})), "stream 'one'"),
        (options_of(one, metrics="nowhere"), "--metrics nowhere: it is not an address"),
    ]
    threads = set(threading.enumerate())
    for options, expected in cases:
        with pytest.raises(EdgeHalError) as error:
            run_station(lambda options=options: options)  # type: ignore[misc]
        assert expected in str(error.value)
        assert set(threading.enumerate()) == threads


@pytest.mark.parametrize("around", [None, Retention(2.0)])
def test_each_run_records_into_a_folder_of_its_own_and_pieces_share_one(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, around: Retention | None
) -> None:
    real, failures = Recognizer.step, [ValueError("once")]

    def failing(self: Recognizer, batch: Any, moments: Any) -> Any:
        if failures and moments[0].tick >= 20:
            raise failures.pop()
        return real(self, batch, moments)

    monkeypatch.setattr(Recognizer, "step", failing)
    recording = stream(tmp_path, bundle, "one", record=tmp_path / "rec", record_around=around)
    summary = run_station(lambda: options_of(recording))
    told = summary.streams["one"]
    assert told is not None and told.reason == "eof"
    assert (tmp_path / "rec").is_dir() and (tmp_path / "rec-2").is_dir() == (around is None)
