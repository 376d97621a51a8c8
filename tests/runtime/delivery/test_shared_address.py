"""Several streams at one address: events, snapshots, past events, one cursor for all, what one leaves to the others."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery import sender
from edge_hal.runtime.delivery.client import Begin, Subscription, subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.replay_server import Kept
from edge_hal.runtime.delivery.shared_address import SharedAddress
from tests.helpers.sample_events import ANY_PORT, start, transition

NAMES = ("left", "right")
TIMEOUT_S = 20.0


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s"


def publish(publisher: Publisher, *numbers: int) -> None:
    for seq in numbers:
        publisher.publish(dataclasses.replace(transition(seq) if seq else start(), stream=publisher.stream), wait=True)


class Bench:
    """An address with two streams that keep journals."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self._closing = ExitStack()
        self.address = SharedAddress(endpoint, NAMES, replay=f"{endpoint}.replay")
        self._closing.callback(self.address.close)
        self.journals = {name: self._closing.enter_context(Journal(folder / name, name)) for name in NAMES}
        self.streams = {
            name: self._closing.enter_context(Publisher(self.address, name, journal=self.journals[name]))
            for name in NAMES
        }

    def close(self) -> None:
        self._closing.close()


@pytest.fixture
def bench(endpoint: str, tmp_path: Path) -> Iterator[Bench]:
    with closing(Bench(endpoint, tmp_path)) as opened:
        yield opened


def durable(events: Subscription, count: int) -> dict[str, list[int]]:
    """The numbers of the next durable events, by stream."""
    found: dict[str, list[int]] = {}
    for event in events:
        if event.durable:
            found.setdefault(event.stream, []).append(event.seq)
            count -= 1
            if not count:
                return found
    raise AssertionError(f"only {found}")


def test_a_subscriber_of_all_gets_each_stream_in_order_and_one_of_a_stream_nothing_else(
    bench: Bench, endpoint: str
) -> None:
    with subscribe(endpoint, timeout_s=TIMEOUT_S) as both, subscribe(endpoint, "right", timeout_s=TIMEOUT_S) as right:
        for publisher in bench.streams.values():
            assert publisher.wait_subscribers(1)
        bench.streams["right"].wait_subscribers(2)
        for seq in range(20):
            publish(bench.streams["left"], 2 * seq, 2 * seq + 1)
            publish(bench.streams["right"], seq)
        assert durable(both, 60) == {"left": [*range(40)], "right": [*range(20)]}
        assert durable(right, 20) == {"right": [*range(20)]}


def test_whoever_comes_late_gets_what_each_stream_has_kept(bench: Bench, endpoint: str) -> None:
    publish(bench.streams["left"], *range(1500))
    publish(bench.streams["right"], *range(7))
    with subscribe(endpoint, begin="oldest", timeout_s=TIMEOUT_S) as events:
        assert durable(events, 1507) == {"left": [*range(1500)], "right": [*range(7)]}
    with subscribe(endpoint, begin=5, timeout_s=TIMEOUT_S) as events:
        assert durable(events, 1497) == {"left": [*range(5, 1500)], "right": [5, 6]}


def test_one_cursor_holds_the_position_in_every_stream(bench: Bench, endpoint: str, tmp_path: Path) -> None:
    cursor, seen = tmp_path / "cursor", dict[str, list[int]]()
    publish(bench.streams["left"], *range(9))
    with subscribe(endpoint, "left", begin="oldest", cursor=cursor, timeout_s=TIMEOUT_S) as events:
        durable(events, 4)
        events.ack()
    assert json.loads(cursor.read_text())["schema"] == 1  # as earlier versions write it
    publish(bench.streams["right"], *range(6))
    for count in (5, 4, 2):  # the cursor of one stream goes on with all of them
        with subscribe(endpoint, begin="oldest", cursor=cursor, timeout_s=TIMEOUT_S) as events:
            for name, numbers in durable(events, count).items():
                seen.setdefault(name, []).extend(numbers)
            events.ack()
    assert seen == {"left": [*range(4, 9)], "right": [*range(6)]}
    journals = {name: {"journal": journal.id, "seq": seen[name][-1]} for name, journal in bench.journals.items()}
    assert json.loads(cursor.read_text()) == {"schema": 2, "streams": journals}
    publish(bench.streams["left"], 9)
    with subscribe(endpoint, "left", cursor=cursor, timeout_s=TIMEOUT_S) as events:
        assert durable(events, 1) == {"left": [9]}
        events.ack()
    assert json.loads(cursor.read_text())["streams"]["right"]["seq"] == 5  # is not forgotten
    with pytest.raises(EdgeHalError, match="left, right"):
        subscribe(endpoint, "third", cursor=cursor)


def check_nothing_comes(events: Subscription) -> None:
    """Although the publisher sends messages."""
    for _ in range(10):
        events._advance()
        assert not events._ready
    events.ack()


def ask(endpoint: str, **question: Any) -> tuple[dict[str, Any], list[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, round(TIMEOUT_S * 1000))
        socket.connect(f"{endpoint}.replay")
        socket.send(json.dumps(question).encode())
        header, *bodies = socket.recv_multipart()
        return json.loads(header), bodies


def test_a_request_names_one_of_several_streams(bench: Bench, endpoint: str) -> None:
    publish(bench.streams["right"], *range(3))
    bench.streams["right"].close()
    header, bodies = ask(endpoint, id=7, stream="right", **{"from": 1})
    assert (header["stream"], header["from"], header["next"], len(bodies)) == ("right", 1, 3, 2)
    for question in ({}, {"stream": "middle"}, {"stream": None}, {"stream": 3}):
        header, bodies = ask(endpoint, id=7, **{"from": 0}, **question)
        assert "left, right" in header["error"] and header["streams"] == [*NAMES] and not bodies and header["id"] == 7


def test_a_stream_that_the_replay_server_does_not_have_is_waited_for_and_not_told_as_lost(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.05)
    with closing(Bench(endpoint, tmp_path)) as bench:
        publish(bench.streams["left"], *range(4))
        publish(bench.streams["right"], *range(4))
        with subscribe(endpoint, begin="oldest", cursor=tmp_path / "c", timeout_s=TIMEOUT_S) as events:
            durable(events, 8)
            events.ack()
        publish(bench.streams["left"], *range(4, 8))
    with SharedAddress(endpoint, NAMES, replay=f"{endpoint}.replay"):
        assert "streams" not in ask(endpoint, stream="left", **{"from": 0})[0]  # for a subscriber: try again
    other = SharedAddress(endpoint, NAMES, replay=f"{endpoint}.replay")
    with other, Journal(tmp_path / "left", "left") as journal, Publisher(other, "left", journal=journal) as publisher:
        publisher.publish(dataclasses.replace(start(8), stream="left"))
        assert other._replay is not None
        left = other._replay.journals.pop("left")  # as that of another run, which `--replay` names by mistake
        with subscribe(endpoint, begin="oldest", cursor=tmp_path / "c", timeout_s=TIMEOUT_S) as events:
            check_nothing_comes(events)
        assert caplog.text.count("check --replay") == 1
        other._replay.journals["left"] = left
        with subscribe(endpoint, begin="oldest", cursor=tmp_path / "c", timeout_s=TIMEOUT_S) as events:
            assert durable(events, 5) == {"left": [4, 5, 6, 7, 8]}


@pytest.mark.parametrize("begin", ["oldest", 1])
def test_the_replay_server_of_another_run_begins_nothing_and_loses_nothing(
    endpoint: str, tmp_path: Path, begin: Begin, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.05)
    first = int(begin != "oldest")
    with ExitStack() as opened:
        for name in ("left", "wrong"):
            journal = opened.enter_context(Journal(tmp_path / f"{name}.journal", "left"))
            if name == "wrong":
                for seq in range(7):
                    journal.append([(seq, b"{}")])
                journal._db.execute("DELETE FROM event WHERE seq < 5")
            publisher = opened.enter_context(Publisher(f"ipc://{tmp_path}/{name}", "left", journal=journal))
            if name == "left":
                publish(publisher, *range(4))
        right, wrong = f"ipc://{tmp_path}/left", f"ipc://{tmp_path}/wrong.replay"
        with subscribe(right, "left", replay=wrong, begin=begin, cursor=tmp_path / "c", timeout_s=TIMEOUT_S) as events:
            check_nothing_comes(events)
        assert caplog.text.count("check --replay") == 1
        with subscribe(right, "left", begin=begin, cursor=tmp_path / "c", timeout_s=TIMEOUT_S) as events:
            assert durable(events, 4 - first) == {"left": [*range(first, 4)]}


@pytest.mark.slow
def test_a_journal_that_cannot_be_read_keeps_no_other_stream_back(
    bench: Bench, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.05)
    publish(bench.streams["left"], *range(5))
    publish(bench.streams["right"], *range(5))
    assert bench.address._replay is not None
    journals = bench.address._replay.journals
    left, journals["left"] = journals["left"], Kept(tmp_path, "a folder")
    with subscribe(endpoint, begin="oldest", timeout_s=TIMEOUT_S) as events:
        next(event for event in events if event.stream == "right" and event.durable)
        publish(bench.streams["left"], 5)
        publish(bench.streams["right"], *range(5, 40))
        assert durable(events, 39) == {"right": [*range(1, 40)]}
        journals["left"] = left
        assert durable(events, 6) == {"left": [*range(6)]}


def test_a_journal_that_cannot_be_written_holds_only_its_own_stream_back(
    bench: Bench, endpoint: str, tmp_path: Path
) -> None:
    with subscribe(endpoint, timeout_s=TIMEOUT_S) as events:
        for publisher in bench.streams.values():
            publisher.wait_subscribers(1)
        with closing(sqlite3.connect(tmp_path / "left", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            publish(bench.streams["left"], 0, 1)
            publish(bench.streams["right"], *range(10))
            assert durable(events, 10) == {"right": [*range(10)]}
            [left], [right] = (bench.streams[name].vitals() for name in NAMES)
            assert any("locked" in text for text in left.troubles)
            assert not any("locked" in text for text in right.troubles)
            holder.execute("ROLLBACK")
        assert durable(events, 2) == {"left": [0, 1]}


def test_a_stream_comes_and_goes_while_another_goes_on(bench: Bench, endpoint: str) -> None:
    with subscribe(endpoint, timeout_s=TIMEOUT_S) as events:
        for publisher in bench.streams.values():
            publisher.wait_subscribers(1)
        publish(bench.streams["left"], *range(500))
        bench.streams["left"].close()  # sends what is held
        assert durable(events, 500) == {"left": [*range(500)]}
        publish(bench.streams["right"], 0)
        with Publisher(bench.address, "left", journal=bench.journals["left"]) as again:
            publish(again, 500)
            assert durable(events, 2) == {"right": [0], "left": [500]}
        with Publisher(ANY_PORT, "alone") as alone:
            assert alone.endpoint != bench.address.endpoint


def test_an_event_after_a_missing_one_is_refused_and_no_event_is_lost(bench: Bench, endpoint: str) -> None:
    left, right = bench.streams.values()
    with subscribe(endpoint, timeout_s=TIMEOUT_S) as events:
        for publisher in (left, right):
            publisher.wait_subscribers(1)
        publish(left, 0)
        with pytest.raises(EdgeHalError, match="its number is 2, the next one is 1"):
            publish(left, 2)
        assert left.next_seq == 1  # the refused one does not use it
        publish(left, 1)
        publish(right, 0, 1)
        assert durable(events, 4) == {"left": [0, 1], "right": [0, 1]}
    assert bench.address.failure is None


def test_a_journal_that_others_wrote_to_ends_its_own_stream_only(bench: Bench, endpoint: str) -> None:
    left, right = bench.streams.values()
    with subscribe(endpoint, timeout_s=TIMEOUT_S) as events:
        for publisher in (left, right):
            publisher.wait_subscribers(1)
        bench.journals["left"].append([(0, b"{}")])
        publish(left, 0)
        with pytest.raises(EdgeHalError, match="'left' is not published any more"):
            left.wait_subscribers(9)  # until the stream fails
        publish(right, *range(3))
        assert durable(events, 3) == {"right": [0, 1, 2]}
        left.close()
        publish(right, 3)
        assert durable(events, 1) == {"right": [3]}
    assert bench.address.failure is None
