"""Reports `now` and the events of the procedure, as subscribers of a run receive them over real sockets."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.events import (
    Cycle,
    Deviation,
    End,
    Event,
    Gap,
    Heartbeat,
    Moment,
    Now,
    Start,
    Transition,
    Unknown,
    encode,
)
from edge_hal.runtime.delivery import held_events, sender
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.held_events import HeldEvents
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.report import Report, Status
from edge_hal.runtime.runner import RunOptions
from tests.helpers.deliveries import kept
from tests.helpers.loops import features, received
from tests.helpers.sample_events import ANY_PORT, STREAM, start, transition
from tests.helpers.toy_procedure import HZ, SPEC, procedure_bundle, steps


def now(at: int, action: str = "a") -> Now:
    moment = Moment(at, at, at * 1000)
    shares = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
    return Now(STREAM, 0, at=moment, action=action, probability=0.5, since=moment, others=(), next=(),
               remaining_s=shares, progress=None, run={"session": "tests"})  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("procedure")
    procedure_bundle(folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def options(place: Path) -> RunOptions:
    return RunOptions(place / "bundle", features(place, steps(), HZ), pace="asap", endpoint=f"ipc://{place}/s")


@pytest.fixture(scope="module")
def heard(options: RunOptions, place: Path) -> list[Event]:
    return received(replace(options, journal=place / "journal"))


def test_reports_stand_among_the_events_in_the_order_of_the_stream(heard: list[Event], place: Path) -> None:
    durable = [event for event in heard if event.durable]
    reports = [event for event in heard if isinstance(event, Now)]
    assert len(reports) > 100 and {type(event) for event in durable} == {Start, Transition, Deviation, Cycle, End}
    assert [event.seq for event in durable] == list(range(len(durable)))
    assert kept(place / "journal") == [encode(event) for event in durable]  # no report is stored
    last_seq, t_ns = -1, 0
    for event in heard:
        if isinstance(event, Now):
            assert event.last_seq == last_seq
            assert event.at.t_ns > t_ns or t_ns == 0
            t_ns = event.at.t_ns
            assert event.since is None or event.since.t_ns <= event.at.t_ns
        else:
            last_seq = event.seq
            if isinstance(event, Transition):  # what was decided at a tick precedes the report of that tick
                assert t_ns < event.decision.t_ns or (t_ns, event.from_) == (0, None)
    assert {report.action for report in reports} == set(SPEC.labels)
    assert all(set(report.run) >= {"session", "utc_ns", "journal"} for report in reports)


def test_no_more_reports_than_asked_for(options: RunOptions, heard: list[Event]) -> None:
    slow = [event for event in received(replace(options, now_hz=0.5)) if isinstance(event, Now)]
    gaps = [later.at.t_ns - earlier.at.t_ns for earlier, later in itertools.pairwise(slow)]
    assert len(slow) > 20 and min(gaps) >= 2e9
    silent = received(replace(options, now_hz=0.0))
    assert not any(isinstance(event, Now) for event in silent)
    assert [type(event) for event in silent] == [type(event) for event in heard if event.durable]


def test_a_report_follows_the_end_of_a_cycle_at_once(options: RunOptions) -> None:
    """A step counts when it has lasted `shortest_s`, three ticks. If a cycle begins with it, the one before it ends."""
    begun: Transition | None = None
    ended, late = 0, []
    for event in received(replace(options, now_hz=1000.0)):
        if isinstance(event, Transition):
            begun, ended = event, 0
        elif isinstance(event, Cycle) and begun is not None and event.end == begun.boundary:
            ended = begun.decision.tick + 2
        elif isinstance(event, Now) and ended:
            late.append(event.at.tick - ended)
            ended = 0
    assert len(late) > 5 and set(late) == {0}


def test_core_publishes_the_types_of_before_numbered_without_holes(options: RunOptions, heard: list[Event]) -> None:
    core = received(replace(options, events="core"))
    assert {type(event) for event in core} == {Start, Transition, End}
    assert [event.seq for event in core] == list(range(len(core)))
    every = [event for event in heard if isinstance(event, Transition)]
    assert [replace(event, seq=0, run={}) for event in core if isinstance(event, Transition)] == [
        replace(event, seq=0, run={}) for event in every
    ]


def test_deviations_and_cycles_name_events_that_were_sent(heard: list[Event]) -> None:
    by_seq = {event.seq: event for event in heard if isinstance(event, Deviation)}
    corrected = [event for event in by_seq.values() if event.corrects is not None]
    assert corrected
    for event in corrected:
        before = by_seq[event.corrects or -1]
        assert before.kind == "skipped" and before.expected == (event.seen,) and before.seq < event.seq
    cycles = [event for event in heard if isinstance(event, Cycle)]
    named = [each for cycle in cycles for each in cycle.deviations]
    assert [by_seq[each["seq"]].kind for each in named] == [each["kind"] for each in named]
    assert sorted(each["seq"] for each in named) == sorted(by_seq)


# --- the publisher -------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.02)
    yield


def until(events: Iterator[Event], kind: type[Event], count: int = 1) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        event = next(events)
        if isinstance(event, kind):
            found.append(event)
    return found


def test_heartbeats_and_snapshots_carry_the_newest_report(quick: None) -> None:
    with Publisher(ANY_PORT, STREAM) as publisher, subscribe(publisher.endpoint, STREAM, timeout_s=20) as events:
        publisher.wait_subscribers(1)
        publisher.publish(start())
        publisher.publish(transition(1))
        publisher.publish(now(5, "b"))
        until(events, Now)
        [beat] = until(events, Heartbeat)
        assert beat.now is not None and beat.now == json.loads(encode(beat))["now"]
        assert (beat.now["action"], beat.now["at"]) == ("b", {"tick": 5, "frame": 5, "t_ns": 5000})
        assert not {"stream", "epoch", "last_seq", "run"} & beat.now.keys()


def test_a_report_does_not_outlive_its_epoch() -> None:
    report, moment = Report(STREAM, -1), Moment(0, 0, 0)
    span: dict[str, Any] = {"begin": moment, "end": moment, "lost_ticks": 1, "bundle": "b", "decoder": "d"}
    for event in (start(), now(3, "b")):
        report.follow(event)
    shown = report.snapshot(Status(), None).now
    assert shown is not None and shown["action"] == "b" and report.last_seq == 0
    assert report.snapshot(Status(blind=True), None).now is None
    report.follow(Gap(STREAM, 0, seq=1, reason="frames", reset=False, **span))
    assert report.snapshot(Status(), None).now is not None
    report.follow(Gap(STREAM, 0, seq=2, reason="frames", reset=True, **span))
    assert report.snapshot(Status(), None).now is None


def test_reports_are_left_out_while_the_set_journal_error_and_come_again(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, real = threading.Event(), Journal.append

    def append(self: Journal, rows: Any) -> None:
        if full.is_set():
            raise EdgeHalError("cannot write the journal", "no space")
        real(self, rows)

    monkeypatch.setattr(Journal, "append", append)
    monkeypatch.setattr(Journal, "check", lambda self: None)
    with (
        Journal(tmp_path / "j", STREAM) as journal,
        Publisher(ANY_PORT, STREAM, journal=journal) as publisher,
        subscribe(publisher.endpoint, STREAM, timeout_s=20) as events,
    ):
        publisher.wait_subscribers(1)
        publisher.publish(start())
        publisher.publish(now(1))
        assert [event.at.tick for event in until(events, Now)] == [1]
        full.set()
        publisher.publish(transition(1))
        while not any(trouble.startswith("journal") for trouble in publisher.vitals()[0].troubles):
            next(events)  # heartbeats go on
        for tick in range(2 * held_events.HELD_EVENTS):
            publisher.publish(now(100 + tick))
        publisher.publish(transition(2, "b", "a"))
        assert publisher.vitals()[0].held == 2  # the transitions alone
        full.clear()
        first, second = until(events, Transition, 2)
        assert (first.seq, second.seq) == (1, 2)
        publisher.publish(now(9000))
        [report] = until(events, Now)
        assert (report.at.tick, report.last_seq) == (9000, 2)


def test_reports_never_take_the_room_of_events() -> None:
    """A publisher that does not keep up ends a live run for events that wait, and never for reports."""
    held = HeldEvents()
    for tick in range(2 * held_events.HELD_EVENTS):
        held.put(now(tick), "e", wait=False)
    assert len(held) == held_events.HELD_FOR_REPORTS and held.durable() == 0
    for seq in range(held_events.HELD_EVENTS - held_events.HELD_FOR_REPORTS):
        held.put(transition(seq), "e", wait=False)
    held.put(now(0), "e", wait=False)
    assert held.durable() == held_events.HELD_EVENTS - held_events.HELD_FOR_REPORTS
    with pytest.raises(EdgeHalError, match="does not keep up"):
        held.put(transition(999), "e", wait=False)


def test_a_source_that_waits_loses_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_events, "HELD_EVENTS", 4)
    monkeypatch.setattr(held_events, "HELD_FOR_REPORTS", 2)
    with Publisher(ANY_PORT, STREAM) as publisher, subscribe(publisher.endpoint, STREAM, timeout_s=20) as events:
        publisher.wait_subscribers(1)
        publisher.publish(start(), wait=True)
        for tick in range(500):
            publisher.publish(now(tick), wait=True)
        assert [event.at.tick for event in until(events, Now, 500)] == list(range(500))


def test_a_subscriber_meets_types_of_a_newer_publisher() -> None:
    """A durable one counts in `seq` and is returned, so no event is missed; a report is passed over."""
    base = {"schema": 1, "stream": STREAM, "epoch": 0, "run": {"session": "tests"}}
    forecast = {**base, "type": "forecast", "seq": 2, "x": [1]}
    mood = {**base, "type": "mood", "last_seq": 1, "good": True}
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        with subscribe(f"tcp://127.0.0.1:{port}", STREAM, timeout_s=20) as events:
            socket.recv()
            for body in (encode(start()), encode(transition(1)), mood, mood, forecast, encode(transition(3, "b", "a"))):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                socket.send_multipart([f"{STREAM}/any".encode(), data])
            got = [next(events) for _ in range(4)]
    assert [type(event) for event in got] == [Start, Transition, Unknown, Transition]
    assert [event.seq for event in got] == [0, 1, 2, 3]
    assert isinstance(got[2], Unknown) and (got[2].type, got[2].body) == ("forecast", forecast)
    assert json.loads(encode(got[2])) == forecast
