from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery import journal as module
from edge_hal.runtime.delivery.journal import Journal, default_path
from edge_hal.runtime.delivery.journal_reader import JournalReader, Page
from edge_hal.runtime.delivery.retention import Retention

FOREVER = Retention(float("inf"), 2**63)


def body(seq: int, size: int = 40) -> bytes:
    return f"event {seq} ".encode().ljust(size, b".")


def fill(journal: Journal, count: int, size: int = 40, batch: int = 100) -> None:
    until = journal.next_seq + count
    while journal.next_seq < until:
        first = journal.next_seq
        journal.append([(seq, body(seq, size)) for seq in range(first, min(first + batch, until))])


def everything(path: Path) -> Page:
    reader = JournalReader(path)
    try:
        return reader.page(0, 10**9, 10**12)
    finally:
        reader.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=30), max_size=12), st.data())
def test_what_was_appended_is_read_back_whatever_the_pages(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    written: list[bytes] = []
    identity = None
    for batch in batches:
        with Journal(path, "bench", FOREVER) as journal:  # opened anew for each: numbers go on
            assert identity in (None, journal.id) and journal.next_seq == len(written)
            identity = journal.id
            journal.append([(len(written) + i, content) for i, content in enumerate(batch)])
            written += batch
    with Journal(path, "bench", FOREVER):
        reader = JournalReader(path)
        begin, read = 0, list[bytes]()
        while begin < len(written):
            limit, limit_bytes = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 2000))
            page = reader.page(begin, limit, limit_bytes)
            assert (page.first, page.next, page.begin) == (0, len(written), begin)
            assert 1 <= len(page.bodies) <= limit
            assert len(page.bodies) == 1 or sum(map(len, page.bodies)) <= limit_bytes
            read += page.bodies
            begin += len(page.bodies)
        assert reader.page(begin, 5, 5).bodies == []
        reader.close()
    assert read == written


def test_numbers_neither_repeat_nor_skip(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", "bench") as journal:
        fill(journal, 10)
        for wrong in ([(9, b"")], [(11, b"")], [(10, b""), (10, b"")], [(10, b""), (12, b"")]):
            with pytest.raises(ValueError, match="follow 9"):
                journal.append(wrong)
        assert journal.next_seq == 10
    assert len(everything(tmp_path / "j").bodies) == 10


def test_the_disk_is_asked_for_full_safety(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", "bench") as journal:
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert journal._db.execute("PRAGMA journal_mode").fetchone() == (b"wal",)


def test_a_new_journal_is_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Journal(tmp_path / "j", "s") as journal:
            journal.append([(0, body(0))])
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"j": 0o600, "j-wal": 0o600, "j-shm": 0o600}


def test_an_append_that_fails_keeps_nothing_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.01)
    with Journal(tmp_path / "j", "bench") as journal:
        fill(journal, 3)
        other = sqlite3.connect(tmp_path / "j", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # what a person with the sqlite3 shell may do
        with pytest.raises(EdgeHalError, match="locked"):
            journal.append([(3, b"x"), (4, b"y")])
        other.execute("ROLLBACK")
        other.close()
        assert len(everything(tmp_path / "j").bodies) == 3
        journal.append([(3, b"x"), (4, b"y")])
    assert everything(tmp_path / "j").bodies[3:] == [b"x", b"y"]


@pytest.mark.parametrize("size", [50, 300])
def test_retention_by_size_drops_the_oldest_and_stays_dense(tmp_path: Path, size: int) -> None:
    with Journal(tmp_path / "j", "bench", Retention(size_bytes=400_000)) as journal:
        fill(journal, 12_000, size)
        page = everything(tmp_path / "j")
        assert page.next == 12_000 and page.first > 0
        assert page.bodies == [body(seq, size) for seq in range(page.first, 12_000)]
    # as much as is allowed, give or take what came since it was last looked at
    slack = (module.PRUNE_EVERY + 100) * (size + 30) + 30_000
    file_bytes = (tmp_path / "j").stat().st_size
    assert 400_000 - slack < file_bytes < 400_000 + 2 * slack
    assert sum(map(len, page.bodies)) > 0.6 * (400_000 - slack)


def test_retention_by_age_keeps_the_newest_and_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [10**18]
    monkeypatch.setattr(module.time, "time_ns", lambda: now_ns[0])
    with Journal(tmp_path / "j", "bench", Retention(age_s=100)) as journal:
        for second in range(300):
            now_ns[0] = 10**18 + second * 10**9
            fill(journal, 10)
        while journal.prune():
            pass
        page = everything(tmp_path / "j")
        assert (page.first, page.next) == (1990, 3000)  # 299 - 100 = 199 s, the instant itself included
        now_ns[0] += 10**15
        later_ns = time.monotonic_ns() + 10**15  # a clock that jumps makes nothing old, time that passes does
        monkeypatch.setattr(module.time, "monotonic_ns", lambda: later_ns)
        while journal.prune():
            pass
        assert everything(tmp_path / "j").first == 2999
    with Journal(tmp_path / "j", "bench", Retention(age_s=100)) as journal:
        assert journal.next_seq == 3000


def test_a_machine_that_is_off_every_night_keeps_no_more_than_the_day_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour_ns, now_ns = 3600 * 10**9, [2 * 10**18]
    monkeypatch.setattr(module.time, "time_ns", lambda: now_ns[0])
    for day in range(6):
        with Journal(tmp_path / "j", "bench", Retention(age_s=12 * 3600)) as journal:
            for _ in range(10):
                fill(journal, 1)
                now_ns[0] += hour_ns
            while journal.prune():
                pass
            assert everything(tmp_path / "j").first == max(0, 10 * (day - 1))
        now_ns[0] += 14 * hour_ns
    with Journal(tmp_path / "j", "bench", Retention(age_s=12 * 3600)) as journal:
        assert journal.next_seq - everything(tmp_path / "j").first == 10  # the newest day, before anything new


def test_a_clock_set_back_neither_drops_nor_disorders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [2 * 10**18]
    monkeypatch.setattr(module.time, "time_ns", lambda: now_ns[0])
    with Journal(tmp_path / "j", "bench", Retention(age_s=3600)) as journal:
        fill(journal, 5)
        now_ns[0] = 10**15  # a Jetson without a battery wakes up in 1970
        fill(journal, 500)
        assert everything(tmp_path / "j").first == 0
        reader = JournalReader(tmp_path / "j")
        assert reader.since(2 * 10**18) == 0 and reader.since(2 * 10**18 + 1) == 505
        reader.close()


def test_since_finds_the_first_at_or_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [0]
    monkeypatch.setattr(module.time, "time_ns", lambda: now_ns[0])
    with Journal(tmp_path / "j", "bench", FOREVER) as journal:
        reader = JournalReader(tmp_path / "j")
        assert reader.since(5) == 0
        for index in range(50):
            now_ns[0] = 1000 + index * 10
            fill(journal, 3)
        for asked in range(990, 1510, 7):
            expected = max(0, -(-(asked - 1000) // 10)) * 3
            assert reader.since(asked) == min(expected, 150)
        reader.close()


def test_one_process_writes_and_the_kernel_lets_go_of_the_dead(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from edge_hal.runtime.delivery.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]), 'bench')\n"
        "journal.append([(journal.next_seq, b'x')])\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "j")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        with pytest.raises(EdgeHalError, match="in use") as error:
            Journal(tmp_path / "j", "bench")
        assert "--stream" in error.value.todo
        process.send_signal(signal.SIGKILL)
    with Journal(tmp_path / "j", "bench") as journal:
        assert journal.next_seq == 1


def test_what_is_no_journal_is_refused_and_untouched(tmp_path: Path) -> None:
    with Journal(tmp_path / "other", "other"):
        pass
    with pytest.raises(EdgeHalError, match="keeps the stream 'other'") as error:
        Journal(tmp_path / "other", "bench")
    assert error.value.exit_code == 2 and "--stream other" in error.value.todo
    (tmp_path / "text").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    sqlite3.connect(tmp_path / "foreign").execute("CREATE TABLE t (a)").connection.close()
    with Journal(tmp_path / "newer", "bench") as journal:
        journal._db.execute("PRAGMA user_version=9")
    with Journal(tmp_path / "damaged", "bench") as journal:
        journal._db.execute("PRAGMA user_version=0")
    with pytest.raises(EdgeHalError, match=r"newer version .*its format is 9") as error:
        Journal(tmp_path / "newer", "bench")
    assert "use the newer edge-hal" in error.value.todo
    for name in ("text", "foreign", "newer", "damaged"):
        before = (tmp_path / name).read_bytes()
        descriptors = len(os.listdir("/proc/self/fd"))
        with pytest.raises(EdgeHalError, match=r"cannot open the journal|newer version") as error:
            Journal(tmp_path / name, "bench")
        assert error.value.todo and (tmp_path / name).read_bytes() == before
        assert len(os.listdir("/proc/self/fd")) == descriptors
    for missing in (tmp_path / "none" / "j", Path("/proc/no/j")):
        with pytest.raises(EdgeHalError, match="cannot open the journal"):
            Journal(missing, "bench")


def test_a_journal_cut_short_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "j").touch()
    with Journal(tmp_path / "j", "bench") as journal:
        fill(journal, 2)
        assert journal.id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", Retention(30 * 86400.0, 2**63)),
        ("500MB", Retention(float("inf"), 500_000_000)),
        ("1.5h, 2GB", Retention(5400.0, 2 * 10**9)),
        ("90s,10kB", Retention(90.0, 10_000)),
    ],
)
def test_retention_is_written_as_ages_and_sizes(text: str, expected: Any) -> None:
    assert Retention.parse(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1y", "5MB,x", "1e9d", "nanGB", ",", "1d;2d"])
def test_other_retentions_are_wrong_use(text: str) -> None:
    with pytest.raises(EdgeHalError) as error:
        Retention.parse(text)
    assert error.value.exit_code == 2 and "30d" in error.value.todo


def test_the_default_lies_under_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path("bench") == tmp_path / "edge-hal" / "bench.journal"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path("b") == tmp_path / ".local" / "state" / "edge-hal" / "b.journal"


def test_a_journal_that_finds_no_room_is_not_to_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, "s") as journal:
        journal.append([(0, b"{}")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        with pytest.raises(EdgeHalError) as error:
            Journal(path, "s")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.why == "disk I/O error" and error.value.todo.startswith("free or check the disk")
    with Journal(path, "s") as journal:
        assert journal.next_seq == 1
