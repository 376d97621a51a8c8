"""Whatever the journal holds, replay answers, and a subscriber hears what is lost."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.events import Lost, encode
from edge_hal.runtime import threads
from edge_hal.runtime.delivery import held_events, sender
from edge_hal.runtime.delivery import journal as module
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.journal_reader import JournalReader
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.retention import Retention
from tests.helpers.sample_events import STREAM, start, transition

COUNT = 40
TIMEOUT_S = 30.0
DAMAGES: list[Any] = [None, 7, 1.5, b"", b"{", b"\xff\xfe", "text", b"[" * 3000, b"x" * 2_000_000, b'{"schema":1}']


def write(path: Path, damages: dict[int, Any], missing: set[int]) -> set[int]:
    """A journal of `COUNT` events. Returns the numbers that can be read."""
    with Journal(path, STREAM) as journal:
        journal.append([(seq, encode(transition(seq) if seq else start())) for seq in range(COUNT)])
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE copy (seq INTEGER PRIMARY KEY, kept_ns, body)")  # takes any value, NULL too
        db.execute("INSERT INTO copy SELECT * FROM event")
        db.execute("DROP TABLE event")
        db.execute("ALTER TABLE copy RENAME TO event")
        db.executemany("UPDATE event SET body = ? WHERE seq = ?", ((body, seq) for seq, body in damages.items()))
        db.executemany("DELETE FROM event WHERE seq = ?", ((seq,) for seq in missing))
    db.close()
    return set(range(COUNT)) - set(damages) - missing


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.integers(0, COUNT - 2), st.sampled_from(DAMAGES), max_size=12),
    st.sets(st.integers(1, COUNT - 2), max_size=8),
)
def test_every_event_arrives_or_is_reported_lost_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, damages: Any, missing: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    readable = write(folder / "j", damages, missing)
    endpoint = f"ipc://{folder}/s"
    with Journal(folder / "j", STREAM) as journal, Publisher(endpoint, STREAM, journal=journal) as publisher:
        publisher.publish(start(COUNT))
        seen, lost, next_seq = set[int](), set[int](), 0
        with subscribe(endpoint, begin=0, timeout_s=TIMEOUT_S) as events:
            for event in events:
                if isinstance(event, Lost):
                    assert event.from_ == next_seq <= event.to
                    lost |= set(range(event.from_, event.to + 1))
                    next_seq = event.to + 1
                elif event.durable:
                    assert event.seq == next_seq
                    seen.add(next_seq)
                    next_seq += 1
                if next_seq > COUNT:
                    break
        assert seen == readable | {COUNT} and lost == set(range(COUNT)) - readable
        assert not threads.troubles()


@pytest.mark.parametrize("damage", ["destroyed", "repeated"])
def test_a_page_of_the_file_that_is_damaged_costs_its_events_only(tmp_path: Path, damage: str) -> None:
    count = 3000
    with Journal(tmp_path / "j", STREAM) as journal:
        for first in range(0, count, 250):
            journal.append([(seq, encode(transition(seq))) for seq in range(first, first + 250)])
    data = bytearray((tmp_path / "j").read_bytes())
    leaves = [at for at in range(0, len(data), 4096) if data[at] == 0x0D and b"boundary" in data[at : at + 4096]]
    middle = leaves[len(leaves) // 2 :]
    if damage == "destroyed":
        data[middle[0] : middle[0] + 4096] = b"\xaa" * 4096
    else:  # the numbers of two pages come again in place of those of the next two
        for at, other in zip(middle[2:4], middle[:2], strict=True):
            data[at : at + 4096] = data[other : other + 4096]
    (tmp_path / "j").write_bytes(data)
    reader = JournalReader(tmp_path / "j")
    begin, read = 0, 0
    while begin < count:
        page = reader.page(begin, 1000, 10**9)
        assert page.begin + len(page.bodies) > begin
        assert all(json.loads(body)["seq"] == page.begin + index for index, body in enumerate(page.bodies))
        read += len(page.bodies)
        begin = page.begin + len(page.bodies)
    reader.close()
    assert count - 100 < read < count


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM journal",
        "UPDATE journal SET stream = NULL",
        "UPDATE journal SET id = 5, stream = 7",
        "UPDATE journal SET stream = CAST(x'ff' AS TEXT)",
        "INSERT INTO event VALUES (9223372036854775807, 1, x'00')",
        "DROP TABLE event",
        "DROP TABLE journal",
    ],
)
def test_a_journal_that_cannot_be_continued_is_refused(tmp_path: Path, statement: str) -> None:
    write(tmp_path / "j", {}, set())
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute(statement)
    db.close()
    with pytest.raises(EdgeHalError) as error:
        Journal(tmp_path / "j", STREAM)
    assert error.value.todo


@pytest.mark.parametrize("value", [None, "abc", 1e300, b"x", -(2**63)])
def test_times_of_another_type_harm_nothing(tmp_path: Path, value: Any) -> None:
    write(tmp_path / "j", {}, set())
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("UPDATE event SET kept_ns = ?", (value,))
    db.close()
    with Journal(tmp_path / "j", STREAM, Retention(size_bytes=10**6)) as journal:
        journal.append([(COUNT, encode(start(COUNT)))])
        journal.prune()
        reader = JournalReader(tmp_path / "j")
        assert 0 <= reader.since(5) <= COUNT + 1
        reader.close()


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_journal_is_locked_whatever_it_is_called(tmp_path: Path, link: Any) -> None:
    path, other = tmp_path / "j", tmp_path / "folder" / "other"
    other.parent.mkdir()
    with Journal(path, STREAM):
        link(path, other)
        with pytest.raises(EdgeHalError, match="in use"):
            Journal(other, STREAM)
    Journal(other, STREAM).close()


def test_another_hard_link_is_refused_while_the_newest_events_are_beside_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "j"
    killed = os.fork()
    if killed == 0:
        journal = Journal(path, STREAM)
        journal.append([(0, encode(start()))])
        os._exit(0)  # without closing: the event is in the write-ahead log
    os.waitpid(killed, 0)
    os.link(path, tmp_path / "other")
    with pytest.raises(EdgeHalError, match="newest events") as error:
        Journal(tmp_path / "other", STREAM)
    assert str(path) in error.value.todo
    with Journal(path, STREAM) as journal:
        assert journal.next_seq == 1


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_journal_that_is_taken_away_holds_events_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, replaced: bool
) -> None:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.05)
    file, away = Path(f"{tmp_path}/j{suffix}"), tmp_path / "away"
    endpoint = f"ipc://{tmp_path}/s"
    with (
        Journal(tmp_path / "j", STREAM) as journal,
        Publisher(endpoint, STREAM, journal=journal) as publisher,
        subscribe(endpoint, begin=0, timeout_s=TIMEOUT_S) as events,
    ):
        publisher.publish(start())
        while not getattr(next(events), "durable", False):
            pass
        file.rename(away)
        if replaced:
            file.write_bytes(b"")
        for event in events:  # within a heartbeat, though no event comes
            if event.type == "heartbeat" and event.delivery["journal"] != "ok":
                break
        assert any("removed or replaced" in text for text in publisher.vitals()[0].troubles)
        for seq in range(1, 5):
            publisher.publish(transition(seq))
        away.rename(file)
        got: list[int] = []
        while len(got) < 4:
            event = next(events)
            got += [event.seq] if event.durable else []
        assert got == [1, 2, 3, 4]
        assert journal.next_seq == 5


def test_a_journal_that_stays_away_stops_the_run_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_events, "HELD_EVENTS", 5)
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.02)
    with Journal(tmp_path / "j", STREAM) as journal:
        publisher = Publisher(f"ipc://{tmp_path}/s", STREAM, journal=journal)
        (tmp_path / "j").unlink()
        with pytest.raises(EdgeHalError, match="could not be stored"):
            for seq in range(10):
                publisher.publish(transition(seq) if seq else start(), wait=True)
        with pytest.raises(EdgeHalError, match="not stored"):
            publisher.close()
        assert publisher.sent == 0 or journal.next_seq == 0


def test_a_read_only_journal_is_refused_at_the_start(tmp_path: Path) -> None:
    Journal(tmp_path / "j", STREAM).close()
    (tmp_path / "j").chmod(0o444)
    with pytest.raises(EdgeHalError, match="cannot open the journal"):
        Journal(tmp_path / "j", STREAM)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EdgeHalError, match="no regular file"):
        Journal(tmp_path / "pipe", STREAM)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/none/there")])
def test_what_lies_in_place_of_a_file_of_sqlite_is_named(tmp_path: Path, suffix: str, make: Any) -> None:
    with Journal(tmp_path / "j", STREAM) as journal:
        journal.append([(0, encode(start()))])
    beside = tmp_path / f"j{suffix}"
    make(beside)
    with pytest.raises(EdgeHalError, match=f"{beside} is no regular file"):
        Journal(tmp_path / "j", STREAM)
    beside.rmdir() if beside.is_dir() else beside.unlink()
    with Journal(tmp_path / "j", STREAM) as journal:
        assert journal.next_seq == 1


# --- clocks --------------------------------------------------------------------------------------

DAY = 86400 * 10**9
T0 = 1_800_000_000 * 10**9


class Clock:
    """Wall clock and monotonic clock, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns, self.passed_ns = T0, 0
        monkeypatch.setattr(module.time, "time_ns", lambda: self.now_ns)
        monkeypatch.setattr(module.time, "monotonic_ns", lambda: self.passed_ns)

    def passes(self, ns: int) -> None:
        self.now_ns += ns
        self.passed_ns += ns


def fill(journal: Journal, count: int) -> None:
    journal.append([(seq, b"x") for seq in range(journal.next_seq, journal.next_seq + count)])


def bounds(path: Path) -> tuple[int, int]:
    reader = JournalReader(path)
    page = reader.page(0, 1, 10)
    reader.close()
    return page.first, page.next


@pytest.mark.parametrize("restart", [False, True])
def test_a_clock_ten_years_ahead_for_a_day_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    clock, path = Clock(monkeypatch), tmp_path / "j"
    journal = Journal(path, STREAM, Retention(age_s=30 * 86400))

    def again() -> None:
        nonlocal journal
        if restart:
            journal.close()
            journal = Journal(path, STREAM, Retention(age_s=30 * 86400))
        while journal.prune():
            pass

    fill(journal, 10)
    clock.now_ns += 3650 * DAY
    again()
    for _ in range(24):
        clock.passes(DAY // 24)
        fill(journal, 10)
        again()
    clock.now_ns -= 3650 * DAY
    fill(journal, 10)
    again()
    assert bounds(path) == (0, 260)
    reader = JournalReader(path)
    assert reader.since(T0 + DAY - 1) <= 250  # the events of today can be found by their time again
    reader.close()
    clock.passes(29 * DAY + DAY // 2)
    fill(journal, 10)
    again()
    assert bounds(path)[0] == 10  # those of the first day are 30 days old, by any clock
    clock.passes(31 * DAY)
    fill(journal, 1)
    for _ in range(31):
        clock.passes(DAY)
        fill(journal, 1)
        again()
    assert bounds(path)[0] > 200
    journal.close()


@pytest.mark.parametrize("ahead_ns", [2 * module.STEP_NS, 200 * DAY])
def test_a_clock_that_was_ahead_neither_ends_retention_nor_spoils_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_ns: int
) -> None:
    clock, path = Clock(monkeypatch), tmp_path / "j"
    with Journal(path, STREAM, Retention(age_s=7 * 86400)) as journal:
        clock.now_ns += ahead_ns
        fill(journal, 1)
        clock.now_ns -= ahead_ns
        fill(journal, 1)
        reader = JournalReader(path)
        assert reader.since(clock.now_ns + 1) == 2
        for _ in range(20):
            clock.passes(DAY)
            fill(journal, 1)
        while journal.prune():
            pass
        assert reader.since(clock.now_ns) == 21
        assert bounds(path) == (14, 22)  # the newest, and seven days before
        clock.now_ns -= module.STEP_NS  # a small step leaves the times in order
        fill(journal, 1)
        assert reader.since(clock.now_ns + module.STEP_NS) == 21
        reader.close()
