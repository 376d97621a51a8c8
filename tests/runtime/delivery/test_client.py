from __future__ import annotations

import contextlib
import json
import socket as tcp
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Lost, decode, encode
from edge_hal.runtime.delivery import connection as module
from edge_hal.runtime.delivery.client import Since, Subscription, _Followed, subscribe
from edge_hal.runtime.delivery.connection import Answer, LiveMessage
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.journal_reader import JournalReader
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.retention import Retention
from tests.helpers.sample_events import STREAM, start, transition

FOREVER = Retention(float("inf"), 2**63)
TIMEOUT_S = 90.0  # a handshake cut half-way is given up by ZeroMQ after 30 s


def durable(events: Iterator[Event], count: int) -> list[int]:
    """The numbers of the next `count` durable events."""
    seqs: list[int] = []
    while len(seqs) < count:
        event = next(events)
        assert not isinstance(event, Lost)
        if event.durable:
            seqs.append(event.seq)
    return seqs


def publish(publisher: Publisher, first: int, until: int) -> None:
    for seq in range(first, until):
        publisher.publish(transition(seq) if seq else start(), wait=True)


def settle(endpoint: str, last: int) -> None:
    """Until event `last` has been published, and so kept."""
    with subscribe(endpoint, timeout_s=TIMEOUT_S) as events:
        for event in events:
            if getattr(event, "seq", getattr(event, "last_seq", -1)) >= last:
                return


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal", STREAM, FOREVER) as opened:
        yield opened


def test_whoever_comes_late_gets_everything_in_order(endpoint: str, journal: Journal) -> None:
    with Publisher(endpoint, STREAM, journal=journal) as publisher:
        publish(publisher, 0, 2500)
        with subscribe(endpoint, begin="oldest", timeout_s=TIMEOUT_S) as events:
            assert durable(events, 2500) == list(range(2500))
            publish(publisher, 2500, 2600)
            assert durable(events, 100) == list(range(2500, 2600))
        with subscribe(endpoint, STREAM, begin=1990, timeout_s=TIMEOUT_S) as events:
            assert durable(events, 610) == list(range(1990, 2600))
        with subscribe(endpoint, timeout_s=TIMEOUT_S) as events:  # now
            snapshot = next(events)
            assert snapshot.type == "snapshot" and snapshot.last_seq == 2599 and snapshot.action == "a"
            publish(publisher, 2600, 2601)
            assert durable(events, 1) == [2600]
            assert decode(events.raw).seq == 2600
            events.close()  # as often as one likes


def test_since_begins_with_the_first_event_kept_then(endpoint: str, journal: Journal) -> None:
    with Publisher(endpoint, STREAM, journal=journal) as publisher:
        publish(publisher, 0, 50)
        with subscribe(endpoint, begin="oldest", timeout_s=TIMEOUT_S) as events:
            durable(events, 50)
        reader = JournalReader(journal.path)
        kept_ns = [row[0] for row in reader._db.execute("SELECT kept_ns FROM event ORDER BY seq")]
        reader.close()
        for asked in sorted(set(kept_ns)):
            with subscribe(endpoint, begin=Since(asked), timeout_s=TIMEOUT_S) as events:
                assert durable(events, 1) == [kept_ns.index(asked)]


def test_a_hole_is_filled_before_anything_later_is_told(
    endpoint: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live messages are taken away, as a full queue or a cut line takes them."""
    real, count = Subscription._receive, [0]

    def lossy(self: Subscription) -> Any:
        while True:
            live = real(self)
            count[0] += 1
            if count[0] % 7 == 0 or live.event.type == "snapshot":
                return live

    monkeypatch.setattr(Subscription, "_receive", lossy)
    with (
        Publisher(endpoint, STREAM, journal=journal) as publisher,
        subscribe(endpoint, begin="oldest", timeout_s=TIMEOUT_S) as events,
    ):
        publisher.wait_subscribers(1)
        publish(publisher, 0, 701)
        assert durable(events, 697) == list(range(697))


def test_without_a_journal_what_is_missed_is_told(endpoint: str) -> None:
    with Publisher(endpoint, STREAM) as publisher:
        publish(publisher, 0, 30)
        settle(endpoint, 29)
        with subscribe(endpoint, begin=4, timeout_s=TIMEOUT_S) as events:
            lost = next(events)
            assert isinstance(lost, Lost) and (lost.from_, lost.to) == (4, 29)
            assert json.loads(events.raw)["type"] == "lost" and decode(events.raw) == lost
            publish(publisher, 30, 31)
            assert durable(events, 1) == [30]


def test_past_retention_the_loss_is_told_once(endpoint: str, tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "small", STREAM, Retention(size_bytes=100_000)) as journal,
        Publisher(endpoint, STREAM, journal=journal) as publisher,
    ):
        publish(publisher, 0, 3000)
        settle(endpoint, 2999)
        with subscribe(endpoint, begin="oldest", timeout_s=TIMEOUT_S) as events:
            first = durable(events, 1)[0]
            assert 0 < first < 3000 and durable(events, 2999 - first) == list(range(first + 1, 3000))
        with subscribe(endpoint, begin=0, timeout_s=TIMEOUT_S) as events:
            lost = next(event for event in events if event.type != "heartbeat")
            # Retention may have deleted more meanwhile.
            assert isinstance(lost, Lost) and lost.from_ == 0 and first - 1 <= lost.to < 2999
            assert durable(events, 2999 - lost.to) == list(range(lost.to + 1, 3000))


def test_the_cursor_moves_with_ack_and_with_nothing_else(endpoint: str, journal: Journal, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    with Publisher(endpoint, STREAM, journal=journal) as publisher:
        publish(publisher, 0, 20)
        seen: list[int] = []
        for handled in (0, 3, 1, 0, 5):
            with subscribe(endpoint, begin="oldest", cursor=cursor, timeout_s=TIMEOUT_S) as events:
                for _ in range(handled):
                    seen += durable(events, 1)
                    events.ack()
                assert durable(events, 2) == [len(seen), len(seen) + 1]  # read, not acknowledged
        assert seen == list(range(9))
        assert json.loads(cursor.read_text()) == {"schema": 1, "journal": journal.id, "stream": STREAM, "seq": 8}
        with pytest.raises(EdgeHalError, match="belongs to the stream 'bench'"):
            subscribe(endpoint, "other", cursor=cursor)
    for broken in ("", "{", "[]", '{"journal":"x","stream":"bench","seq":"8"}', '{"seq":1}'):
        cursor.write_text(broken)
        with pytest.raises(EdgeHalError, match="cannot read the cursor") as error:
            subscribe(endpoint, cursor=cursor)
        assert "delete" in error.value.todo
    cursor.write_text('{"schema":3,"position":"of another kind"}')
    with pytest.raises(EdgeHalError, match=r"newer version .*its schema is 3") as error:
        subscribe(endpoint, cursor=cursor)
    assert "delete" not in error.value.todo  # it holds a position that the newer version can read


def test_a_cursor_that_cannot_be_written_is_an_error(endpoint: str, journal: Journal, tmp_path: Path) -> None:
    with Publisher(endpoint, STREAM, journal=journal) as publisher:
        publish(publisher, 0, 2)
        with subscribe(endpoint, begin=0, cursor=tmp_path / "none" / "c", timeout_s=TIMEOUT_S) as events:
            durable(events, 1)
            with pytest.raises(EdgeHalError, match="cannot write the cursor"):
                events.ack()


class Listener:
    """A subscriber in a thread of its own: a SUB socket subscribes anew only while somebody polls it."""

    def __init__(self, endpoint: str, **how: Any) -> None:
        self.events: list[Event] = []
        self._until = -1
        self._subscription = subscribe(endpoint, timeout_s=TIMEOUT_S, **how)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with self._subscription:
            for event in self._subscription:
                if event.durable or isinstance(event, Lost):
                    self.events.append(event)
                if len(self.events) == self._until:
                    return

    def finish(self, count: int) -> list[Event]:
        """Its durable events, once there are so many; the publisher must beat on until then."""
        self._until = count
        self._thread.join(timeout=2 * TIMEOUT_S)
        assert not self._thread.is_alive()
        return self.events


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=5))
def test_restarts_of_the_publisher_lose_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("restarts")
    endpoint, published = f"ipc://{folder}/s", 0
    listener = Listener(endpoint, begin="oldest")
    for count, wait in parts:  # some are over before the subscriber is back
        with Journal(folder / "j", STREAM) as journal, Publisher(endpoint, STREAM, journal=journal) as publisher:
            assert journal.next_seq == published
            if wait:
                publisher.wait_subscribers(1)
            publisher.publish(start(published))
            publish(publisher, published + 1, published + count)
            published += count
    with Journal(folder / "j", STREAM) as journal, Publisher(endpoint, STREAM, journal=journal) as publisher:
        listener._until = published + 1
        publisher.publish(start(published))
        assert [event.seq for event in listener.finish(published + 1)] == list(range(published + 1))


def test_a_new_journal_is_told_from_its_beginning(endpoint: str, tmp_path: Path) -> None:
    listener = Listener(endpoint, begin="oldest")
    for number in range(2):
        with (
            Journal(tmp_path / f"j{number}", STREAM) as journal,
            Publisher(endpoint, STREAM, journal=journal) as publisher,
        ):
            publisher.wait_subscribers(1)
            publish(publisher, 0, 10)
            if number:
                events = listener.finish(20)
    assert [event.seq for event in events] == [*range(10), *range(10)]
    assert len({event.run["journal"] for event in events}) == 2


def dated(seq: int, utc_ns: int) -> Event:
    event = transition(seq) if seq % 50 else start(seq)
    return replace(event, run={**event.run, "utc_ns": utc_ns})


@pytest.mark.parametrize("connected", [True, False])
def test_a_journal_that_has_gone_back_is_told_and_its_new_events_arrive(
    endpoint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, connected: bool
) -> None:
    """The subscriber keeps its connection, or comes with its cursor when some new events are published already."""
    path, cursor, later_ns = tmp_path / "j", tmp_path / "cursor", time.time_ns() + 3600 * 10**9
    with Journal(path, STREAM, FOREVER) as journal:
        journal.append([(seq, encode(dated(seq, seq))) for seq in range(50)])
        identity = journal.id
    backup = path.read_bytes()
    events = subscribe(endpoint, STREAM, begin="oldest", cursor=cursor, timeout_s=TIMEOUT_S)
    with Journal(path, STREAM, FOREVER) as journal, Publisher(endpoint, STREAM, journal=journal) as publisher:
        for seq in range(50, 100):
            publisher.publish(dated(seq, seq), wait=True)
        assert durable(events, 100) == list(range(100))
        events.ack()
    if not connected:
        events.close()
    path.write_bytes(backup)
    with Journal(path, STREAM, FOREVER) as journal, Publisher(endpoint, STREAM, journal=journal) as publisher:
        assert journal.id == identity
        if not connected:
            publisher.publish(dated(50, later_ns), wait=True)
            settle(endpoint, 50)
            events = subscribe(endpoint, STREAM, cursor=cursor, timeout_s=TIMEOUT_S)

        def publish_new() -> None:
            publisher.wait_subscribers(1)
            for seq in range(50 if connected else 51, 70):
                publisher.publish(dated(seq, later_ns), wait=True)

        publishing = threading.Thread(target=publish_new)
        publishing.start()
        assert durable(events, 70) == list(range(70))
        publishing.join()
    events.close()
    assert caplog.text.count("the journal of 'bench' has gone back: event 99 came already") == 1


def test_messages_that_come_late_over_an_ended_connection_are_not_new_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were made before those that came already, so the journal has not gone back."""
    monkeypatch.setattr(Subscription, "_ask", lambda *_, **__: Answer("j", 7, 7, []))
    followed, subscription = _Followed(100, "j", began=True), Subscription.__new__(Subscription)
    followed.newest_ns, followed.session = 50 * 10**9, "tests"

    def gone_back(utc_ns: int, session: str = "tests") -> bool:
        followed.next = 100
        event = dated(60, utc_ns)
        event = replace(event, run={**event.run, "session": session})
        found = subscription._gone_back(LiveMessage(event, b"", 60, "j", True), followed)
        assert followed.next == (7 if found else 100)  # 7: the first that the journal still holds
        return found

    assert not gone_back(40 * 10**9) and not gone_back(55 * 10**9) and not gone_back(49 * 10**9, "earlier")
    assert gone_back(61 * 10**9) and gone_back(51 * 10**9, "later")
    followed.began = False  # so far ahead was asked for with `begin`
    assert not gone_back(61 * 10**9)


class Cable:
    """A TCP proxy. Cut, it tells nobody: bytes vanish, connections stay. Healed, old connections turn out dead."""

    def __init__(self, target: str) -> None:
        self._target = int(target.rpartition(":")[2])
        self._server = tcp.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._whole = threading.Event()
        self._whole.set()
        self._ends: list[tcp.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = tcp.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pump, args=(source, sink), daemon=True))
                self._threads[-1].start()

    def _pump(self, source: tcp.socket, sink: tcp.socket) -> None:
        lost = False  # a connection that has lost bytes passes none on again: what follows would be garbled
        try:
            while data := source.recv(65536):
                lost = lost or not self._whole.is_set()
                if not lost:
                    sink.sendall(data)
        except OSError:
            return

    def cut(self) -> None:
        self._whole.clear()

    def heal(self) -> None:
        ends, self._ends = self._ends, []
        self._whole.set()
        for end in ends:
            with contextlib.suppress(OSError):  # it has gone already
                end.shutdown(tcp.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._server.shutdown(tcp.SHUT_RDWR)  # wakes `accept`, which `close` alone does not
        self._server.close()
        self._threads[0].join(timeout=20)
        self.heal()
        for thread in self._threads:
            thread.join(timeout=20)
            assert not thread.is_alive()


def test_a_cut_and_healed_line_loses_nothing(journal: Journal) -> None:
    with Publisher("tcp://127.0.0.1:*", STREAM, journal=journal) as publisher:
        assert publisher.replay is not None
        live, past = Cable(publisher.endpoint), Cable(publisher.replay)
        with subscribe(live.endpoint, replay=past.endpoint, timeout_s=TIMEOUT_S) as events:
            publisher.wait_subscribers(1)
            publish(publisher, 0, 100)
            assert durable(events, 100) == list(range(100))
            for until in (300, 500):
                live.cut()
                past.cut()
                publish(publisher, until - 200, until - 100)  # into the void
                settle(publisher.endpoint, until - 101)
                live.heal()
                past.heal()
                publish(publisher, until - 100, until)
                assert durable(events, 200) == list(range(until - 200, until))
        live.close()
        past.close()


@pytest.mark.parametrize("answer", [b"", b"no json", b"[]", b'{"id":1}', b'{"id":1,"journal":"x","from":"a"}'])
def test_a_stranger_at_the_replay_address_is_named(
    endpoint: str, journal: Journal, tmp_path: Path, answer: bytes
) -> None:
    import zmq

    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as stranger,
        Publisher(endpoint, STREAM, journal=journal) as publisher,
    ):
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.bind(f"ipc://{tmp_path}/stranger")
        publish(publisher, 0, 3)

        def reply() -> None:
            stranger.send_multipart([stranger.recv_multipart()[0], answer])

        thread = threading.Thread(target=reply)
        thread.start()
        with (
            subscribe(endpoint, begin="oldest", replay=f"ipc://{tmp_path}/stranger", timeout_s=TIMEOUT_S) as events,
            pytest.raises(EdgeHalError, match="no edge-hal publisher"),
        ):
            next(events)
        thread.join(timeout=20)


def test_a_past_that_nobody_answers_for_is_said_once(
    endpoint: str, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    with Publisher(endpoint, STREAM, journal=journal) as publisher:
        publish(publisher, 0, 3)
        settle(endpoint, 2)
        with subscribe(endpoint, begin=0, replay=f"ipc://{tmp_path}/nobody", timeout_s=2) as events:
            assert list(events) == []
    told = [record.getMessage() for record in caplog.records if "no answer" in record.getMessage()]
    assert len(told) == 1 and f"{tmp_path}/nobody" in told[0] and "--replay" in told[0]


def test_a_subscription_begins_though_a_dropped_one_still_holds_its_descriptor(endpoint: str, journal: Journal) -> None:
    """pyzmq names a monitor by the file descriptor, and a socket that was dropped lets go of its name later."""
    import zmq

    dropped: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    with Publisher(endpoint, STREAM, journal=journal) as publisher, dropped:
        for descriptor in range(1000):
            dropped.bind(f"inproc://monitor.s-{descriptor}")
        publish(publisher, 0, 3)
        with subscribe(endpoint, begin="oldest", timeout_s=TIMEOUT_S) as events:
            assert durable(events, 3) == [0, 1, 2]


def test_subscriptions_left_open_hold_nothing_up(endpoint: str, journal: Journal) -> None:
    """Many people write `for event in subscribe(...)` and break."""
    with Publisher(endpoint, STREAM, journal=journal) as publisher:
        publish(publisher, 0, 5)
        for _ in range(20):
            for _event in subscribe(endpoint, timeout_s=TIMEOUT_S):
                break
        for _ in range(20):
            subscribe(endpoint, timeout_s=TIMEOUT_S)  # dropped while it connects
        with subscribe(endpoint, begin="oldest", timeout_s=TIMEOUT_S) as events:
            assert durable(events, 5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stream", [None, "elsewhere"])
def test_an_address_that_gives_nothing_is_told_once(
    endpoint: str, stream: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.05)
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    with Publisher(endpoint, STREAM) as publisher:
        publisher.publish(start(), wait=True)
        with subscribe(f"{endpoint}.none" if stream is None else endpoint, stream, timeout_s=0.3) as events:
            assert list(events) == []
    assert caplog.text.count("so far: does a run publish there?") == 1
    assert ("of the stream 'elsewhere'" in caplog.text) == (stream is not None)
