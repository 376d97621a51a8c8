"""A bundle read again while a run goes on: it takes over in a new epoch, or is refused and changes nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_hal.bundle import load_bundle
from edge_hal.bundle.certificate import certificate_text
from edge_hal.bundle.signature import new_signer, sign_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Gap, Start, Transition, encode
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime import threads
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.journal_reader import JournalReader
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.engines import choose
from edge_hal.runtime.engines.onnxruntime_engine import OnnxRuntimeModel
from edge_hal.runtime.model import open_model
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.reader import comparable, read_recording
from edge_hal.runtime.recording.state_file import load
from edge_hal.runtime.reload import Reloader, check_succession
from edge_hal.runtime.runner import RunOptions, Stop, Summary, run
from tests.helpers.bundles import AT_ONCE, LABELS, known_bundle, vectors
from tests.helpers.processes import REPOSITORY
from tests.helpers.sample_events import ANY_PORT

TIMEOUT_S = 60.0


class Run:
    """A run over a source that goes on for as long as it takes, in a thread, until the `with` block is left."""

    def __init__(self, options: RunOptions, caplog: pytest.LogCaptureFixture) -> None:
        self.events: list[Event] = []
        self.summary: Summary | None = None
        self._stop, self._caplog, self._changed = Stop(), caplog, threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(options,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.finish()

    def _run(self, options: RunOptions) -> None:
        self.summary = run(options, on_event=self._heard, stop=self._stop)

    def _heard(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def more(self, count: int) -> None:
        """Let so many more transitions come."""
        goal = len(self.transitions()) + count
        self.until(lambda: len(self.transitions()) >= goal)

    def until(self, ready: Any) -> None:
        with self._changed:
            assert self._changed.wait_for(ready, TIMEOUT_S), self.events[-3:]

    def transitions(self) -> list[Transition]:
        return [event for event in self.events if isinstance(event, Transition)]

    def reload(self, done: Any) -> None:
        """Ask, and go on until `done()`; the events of the run keep coming meanwhile."""
        self._stop.reload_asked = True
        self.until(done)

    def refused(self) -> str:
        """Ask, and return what the log says of it."""
        before = len(self._caplog.records)
        self._stop.reload_asked = True
        self.until(lambda: self._caplog.records[before:])
        return self._caplog.records[-1].getMessage()

    def finish(self) -> Summary:
        self._stop.ask()
        self._thread.join(TIMEOUT_S)
        assert self.summary is not None
        return self.summary


def endless(folder: Path) -> str:
    """Ten minutes of transitions at 20 Hz, five a second. A decoder that smooths over an odd number of ticks sees them
    in whichever phase an epoch begins; over two ticks, both labels could be equal at every decision."""
    np.save(folder / "f.npy", vectors([0, 0, 0, 0, 1, 1, 1, 1] * 1500))
    return f"features:{folder}/f.npy@20"


def check_whole(events: list[Event], summary: Summary) -> None:
    """One stream without a hole: numbers, epochs and both laws."""
    assert [event.seq for event in events] == list(range(len(events)))
    counters = summary.counters
    assert counters["captured"] == counters["used"] + sum(counters["dropped"].values()) + counters["in_flight"]
    assert counters["ticks"] == counters["fresh"] + counters["held"] + counters["cut"]
    epoch, action = 0, None
    for event in events[1:]:
        assert event.epoch == epoch
        if isinstance(event, Transition):
            assert event.from_ == action
            action = event.to
        elif isinstance(event, Gap) and event.reset:
            action, epoch = None, epoch + 1


def test_an_unsigned_edit_is_refused_and_the_old_bundle_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bundle = known_bundle(tmp_path / "bundle", 20.0).path
    _, secret = new_signer(tmp_path / "trusted", "maker")
    sign_bundle(bundle, secret)
    options = RunOptions(bundle, endless(tmp_path), ANY_PORT, trusted=tmp_path / "trusted")
    with Run(options, caplog) as going:
        going.more(2)
        (bundle / "decoder.json").write_text(replace(AT_ONCE, smooth_s=0.15).to_json())
        assert "not trusted" in going.refused() and "decoder.json" in going.refused()
        going.more(2)
        sign_bundle(bundle, secret)
        going.reload(lambda: going.transitions()[-1].epoch == 1)
    check_whole(going.events, going.finish())


def trained_again(bundle: Path, labels: tuple[str, ...] = LABELS) -> str:
    """Make another bundle of it, as its fingerprint sees it, and return that."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["spec"]["labels"] = labels
    raw = json.dumps({**manifest, "provenance": {"by": "another training"}}).encode()
    fingerprint = hashlib.sha256(raw).hexdigest()
    (bundle / "manifest.json").write_bytes(raw)
    (bundle / "certificate.json").write_text(certificate_text({"manifest": fingerprint, "passed": True, "checks": []}))
    return fingerprint


def test_another_bundle_takes_over_and_nothing_is_lost_or_counted_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bundle = known_bundle(tmp_path / "bundle", 20.0)
    options = RunOptions(bundle.path, endless(tmp_path), ANY_PORT, decoder={"confirm_s": 0.0})
    with_ring: dict[str, Any] = {"record": tmp_path / "rec", "record_around": Retention(60.0), "selfcheck_s": 0.5}
    journal = Journal(tmp_path / "j", "default")
    journal.close()
    with Run(replace(options, journal=tmp_path / "j", **with_ring), caplog) as going:
        going.more(3)
        fresh = known_bundle(tmp_path / "bundle", 20.0, decoder=replace(AT_ONCE, smooth_s=0.15))
        fingerprint = trained_again(fresh.path)
        going.reload(lambda: going.transitions()[-1].epoch == 1)
        going.more(3)
        summary, events = going.finish(), going.events
    check_whole(events, summary)
    [gap] = [event for event in events if isinstance(event, Gap)]
    [first] = [event for event in events if isinstance(event, Start)]
    assert (gap.reason, gap.reset, gap.lost_ticks) == ("reload", True, 0)
    assert first.bundle == bundle.fingerprint != gap.bundle == fingerprint
    assert first.decoder != gap.decoder == events[-2].decoder
    assert summary.counters["dropped"]["overload"] == summary.counters["dropped"]["reset"] == 0
    assert summary.health["selfcheck"]["failed"] == 0
    reader = JournalReader(tmp_path / "j")
    kept = [comparable(body) for body in reader.page(0, 10**6, 10**9).bodies]
    reader.close()
    assert kept == [comparable(encode(event)) for event in events]
    assert "takes over" in caplog.text
    # what was recorded lies in a piece for each bundle, and the second replays with the bundle of now
    old, new = (read_recording(path) for path in pieces(tmp_path / "rec"))
    assert (old.bundle, new.bundle) == (bundle.fingerprint, fingerprint)
    again: list[Event] = []
    run(replace(new.options(fresh.path), endpoint=ANY_PORT), on_event=again.append)
    assert new.difference([comparable(encode(event)) for event in again]) is None
    assert [event.type for event in again[:2]] == ["start", "gap"] and len(new.events()) >= 5


def test_a_reload_before_the_first_frame_waits_for_it_and_is_told(tmp_path: Path) -> None:
    bundle, camera = known_bundle(tmp_path / "bundle", 20.0), endless(tmp_path)
    stop, events = Stop(), list[Event]()

    class Tries(logging.Handler):
        """The camera is back when it could not be opened three times."""

        count = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.count += "opening it again" in record.getMessage()
            if self.count == 3:
                (tmp_path / "away.npy").rename(tmp_path / "f.npy")

    def away(endpoint: str) -> None:
        (tmp_path / "f.npy").rename(tmp_path / "away.npy")
        known_bundle(tmp_path / "bundle", 20.0, decoder=replace(AT_ONCE, smooth_s=0.15))
        stop.ask_reload()

    def heard(event: Event) -> None:
        events.append(event)
        if isinstance(event, Transition) and event.from_ is not None:
            stop.ask()

    tries = Tries()
    logging.getLogger("edge_hal.camera").addHandler(tries)
    try:
        summary = run(
            RunOptions(bundle.path, f"fault:seed=1:{camera}", ANY_PORT), on_ready=away, on_event=heard, stop=stop
        )
    finally:
        logging.getLogger("edge_hal.camera").removeHandler(tries)
    check_whole(events, summary)
    start, gap = events[0], events[1]
    assert isinstance(start, Start) and isinstance(gap, Gap) and (gap.reason, gap.reset) == ("reload", True)
    [decoder] = {event.decoder for event in events if isinstance(event, Transition)}
    assert start.decoder != gap.decoder == decoder
    assert summary.health["reload"]["done"] == 1


def test_a_recording_of_everything_ends_where_another_bundle_takes_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, then = known_bundle(tmp_path / "bundle", 20.0).path, tmp_path / "then"
    shutil.copytree(path, then)
    with Run(RunOptions(path, endless(tmp_path), ANY_PORT, record=tmp_path / "rec"), caplog) as going:
        going.more(3)
        trained_again(path)
        going.reload(lambda: going.transitions()[-1].epoch == 1)
        going.more(2)
    assert "the recording ends here" in caplog.text
    recording, again = read_recording(tmp_path / "rec"), list[Event]()
    assert recording.ended == "cut" and len(recording.events()) >= 4
    run(replace(recording.options(then), endpoint=ANY_PORT), on_event=again.append)
    found = [comparable(encode(event)) for event in again]
    assert recording.difference(found) is None and recording.difference(found[:2]) is not None
    assert recording.events() == [comparable(encode(event)) for event in going.events[: len(recording.events())]]


def test_what_cannot_take_over_is_refused_and_the_old_one_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = known_bundle(tmp_path / "bundle", 20.0).path
    good = tmp_path / "good"
    shutil.copytree(path, good)
    with Run(RunOptions(path, endless(tmp_path), ANY_PORT), caplog) as going:
        going.more(2)

        def replaced(change: Any) -> str:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(good, path)
            change()
            return going.refused()

        assert "model_hz" in replaced(lambda: known_bundle(path, 10.0))
        assert "SHA-256" in replaced(lambda: (path / "level0.c1.fp32.onnx").write_bytes(b"broken"))
        assert "lacks level0.c1.fp32.onnx; export" in replaced(lambda: (path / "level0.c1.fp32.onnx").unlink())
        assert "no bundle" in replaced(lambda: shutil.rmtree(path))
        assert "decoder.json" in replaced(lambda: (path / "decoder.json").write_text("{"))
        assert "line 2" in replaced(lambda: (path / "decoder.json").write_text('{\n"margin": 7}'))
        assert "not certified" in replaced(lambda: (path / "certificate.json").unlink())
        assert "cannot read" in replaced(lambda: (path / "manifest.json").write_text("[1]" * 9))
        going.more(2)
        summary = going.finish()
    check_whole(going.events, summary)
    assert not any(isinstance(event, Gap) for event in going.events) and summary.reason == "signal"


def test_a_mistake_of_ours_while_it_is_opened_stops_nothing(
    tmp_path: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_bundle: Any) -> Any:
        raise ZeroDivisionError("a bug")

    stop = Stop()
    reloader = Reloader(RunOptions(bundle, endless(tmp_path)), stop, make=fail, keep=fail)
    current = open_model(bundle, engine="onnxruntime").stream()
    assert reloader.health() == {}
    stop.reload_asked = True
    assert reloader.poll(current) is None
    reloader.close()
    assert reloader.poll(current) is None and "ZeroDivisionError: a bug" in caplog.text
    assert reloader.health()["reload"]["refused"] == "ZeroDivisionError: a bug"


def test_a_bundle_that_is_open_only_after_the_end_of_the_run_is_closed(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "STOP_S", 0.05)
    trained_again(Path(shutil.copytree(bundle, tmp_path / "other")))
    go_on, closed = threading.Event(), list[str]()

    def slow(bundle: Any) -> Any:
        assert go_on.wait(60)
        return SimpleNamespace(engines=SimpleNamespace(close=lambda: closed.append(str(bundle.path))))

    stop = Stop()
    reloader = Reloader(
        RunOptions(tmp_path / "other", endless(tmp_path)), stop, make=slow, keep=lambda bundle, _: slow(bundle)
    )
    stop.reload_asked = True
    assert reloader.poll(open_model(bundle, engine="onnxruntime").stream()) is None
    opening = reloader._thread
    assert opening is not None
    reloader.close()
    assert closed == []
    go_on.set()
    opening.join(60)
    assert closed == [str(tmp_path / "other")]


def test_thresholds_and_procedure_change_without_opening_an_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with TensorRT, whose engines cannot be opened while others run."""
    monkeypatch.setattr(OnnxRuntimeModel, "opens_in_background", False)
    path = known_bundle(tmp_path / "bundle", 20.0).path
    opened: list[object] = []
    monkeypatch.setattr(choose, "open_model", lambda *how, real=choose.open_model: (opened.append(1), real(*how))[1])
    with Run(RunOptions(path, endless(tmp_path), ANY_PORT), caplog) as going:
        going.more(2)
        (path / "decoder.json").write_text(replace(AT_ONCE, smooth_s=0.15).to_json())
        going.reload(lambda: going.transitions()[-1].epoch == 1)
        procedure = Procedure({name: Step(0.5, 0.3, 2.0, 1.5, {}) for name in LABELS})
        (path / "procedure.json").write_text(procedure.to_json())
        (path / "decoder.json").write_text(replace(AT_ONCE, evidence_hz=5.0).to_json())
        going.reload(lambda: isinstance(going.events[-1], Gap) and going.events[-1].epoch == 1)
        trained_again(path)
        assert "restart the run" in going.refused()
        (path / "procedure.json").write_text("{")
        refused = going.refused()
        summary = going.finish()
    check_whole(going.events, summary)
    gaps = [event for event in going.events if isinstance(event, Gap)]
    assert len({gap.decoder for gap in gaps}) == 2 and len({gap.bundle for gap in gaps}) == 1
    assert opened == [1]
    report = summary.health["reload"]
    assert report["asked"] == 4 and report["done"] == 2 and report["kept_engines"] is True
    assert "procedure.json" in report["refused"] and report["refused"] in refused


@pytest.mark.slow
def test_engines_that_are_kept_begin_the_new_epoch_with_no_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(REPOSITORY / "tests/data/0.1.0/bundle", path)
    spec = load_bundle(path).spec
    rng = np.random.default_rng(0)
    np.save(tmp_path / "f.npy", rng.normal(size=(12000, spec.front_end.size)).astype(np.float32))
    source = f"features:{tmp_path}/f.npy@{spec.model_hz:g}"
    ring: dict[str, Any] = {"record": tmp_path / "rec", "record_around": Retention(600.0)}
    with Run(RunOptions(path, source, ANY_PORT, selfcheck_s=0.5, **ring), caplog) as going:
        going.until(lambda: going.events)
        for _ in range(2):
            before = len(going.events)
            decoder = json.loads((path / "decoder.json").read_text())
            (path / "decoder.json").write_text(json.dumps({**decoder, "lead_s": decoder["lead_s"] + 0.1}))
            going.reload(lambda count=before: any(isinstance(event, Gap) for event in going.events[count:]))
        going.more(2)
        summary = going.finish()
    assert summary.health["selfcheck"]["checks"] > 0 and summary.health["selfcheck"]["failed"] == 0
    fresh = open_model(path, engine="onnxruntime").stream().state()["pyramid"]
    for piece in pieces(tmp_path / "rec")[1:]:
        recorded = load(piece / "state.npz")["recognizer"]["pyramid"]
        fresh["epoch"] = recorded["epoch"]
        np.testing.assert_equal(recorded, fresh)


def test_the_same_labels_in_another_order_take_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = known_bundle(tmp_path / "bundle", 20.0).path
    with Run(RunOptions(path, endless(tmp_path), ANY_PORT), caplog) as going:
        going.more(2)
        trained_again(path, ("green", "red", "blue"))
        going.reload(lambda: going.transitions()[-1].epoch == 1)
        going.more(2)
    check_whole(going.events, going.finish())
    names = [{event.to for event in going.transitions() if event.epoch == epoch} for epoch in (0, 1)]
    assert names == [{"blue", "green"}, {"green", "red"}]  # the first and the second label of each


def test_what_must_stay_is_named(tmp_path: Path) -> None:
    spec = known_bundle(tmp_path / "b").spec
    check_succession(spec, spec, vectors=True)
    check_succession(spec, replace(spec, labels=spec.labels[::-1]), vectors=True)
    wider = replace(spec.front_end, size=5)
    check_succession(spec, replace(spec, front_end=wider), vectors=False)
    for other, text in (
        (replace(spec, labels=("blue", "green", "pink")), "pink"),
        (replace(spec, model_hz=12.0), "12"),
        (replace(spec, front_end=wider), "size of a vector"),
    ):
        with pytest.raises(EdgeHalError, match=text):
            check_succession(spec, other, vectors=True)


def spawn(tmp_path: Path, bundle: Path, **how: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    arguments = ["run", "--bundle", str(bundle), "--camera", endless(tmp_path), "--pub", ANY_PORT]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
    return subprocess.Popen([sys.executable, "-m", "edge_hal", *arguments], env=environment, **pipes)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"no '{text}': {process.stderr and process.stderr.read()}")


def test_a_hangup_reloads_a_service_and_ends_a_run_whose_terminal_is_gone(tmp_path: Path) -> None:
    bundle = known_bundle(tmp_path / "bundle", 20.0).path
    with spawn(tmp_path, bundle, stdin=subprocess.DEVNULL) as service:
        read_until(service, "->")
        service.send_signal(signal.SIGHUP)
        read_until(service, "(reload)")
        read_until(service, "(start) ->")
        service.send_signal(signal.SIGTERM)
        _, err = service.communicate(timeout=TIMEOUT_S)
        assert service.returncode == 0 and "takes over" in err and "Traceback" not in err, err
    ours, theirs = pty.openpty()
    with spawn(tmp_path, bundle, stdin=theirs, start_new_session=True) as attended:
        os.close(theirs)
        read_until(attended, "->")
        attended.send_signal(signal.SIGHUP)  # by hand: the terminal is there
        read_until(attended, "(reload)")
        os.close(ours)  # now it is gone
        attended.send_signal(signal.SIGHUP)  # as the kernel does where it is the controlling one
        out, err = attended.communicate(timeout=TIMEOUT_S)
        assert attended.returncode == 0 and "end (signal)" in out, err


def test_an_end_is_whole_where_a_reload_was_under_way(tmp_path: Path, bundle: Path) -> None:
    """The source ends while the other bundle is being opened."""
    np.save(tmp_path / "f.npy", vectors([0, 1] * 60))
    stop, events = Stop(), list[Event]()

    def follow(event: Event) -> None:
        events.append(event)
        stop.reload_asked = True

    options = RunOptions(bundle, f"features:{tmp_path}/f.npy@10", ANY_PORT, "asap")
    summary = run(options, on_event=follow, stop=stop)
    check_whole(events, summary)
    assert isinstance(events[-1], End) and not any(t.name == "edge-hal-reload" for t in threading.enumerate())
