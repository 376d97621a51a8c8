"""The journal keeps every durable event of one stream. An event is on the disk before it is sent.

It is one SQLite file with a write-ahead log and synchronous=FULL. Once `append` has returned, its events survive
`kill -9` and a power cut. The key of a row is the event's `seq`, so no number repeats or is left out. One process
writes. Readers (`journal_reader.py`) do not block it. Another table has one row, the newest belief.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge_hal import __version__
from edge_hal.errors import EdgeHalError
from edge_hal.files.user_folders import state_folder

from .journal_reader import first_kept, kept_ns, whole
from .locked_file import LockedFile
from .retention import Retention

APPLICATION = 0x6564_4861  # SQLite's application_id: tells our files from those of other programs
VERSION = 1
"""Version of the tables, as PRAGMA user_version; 0.1.0 wrote 1. Who raises it migrates older files in place, in
`_open`."""
BUSY_S = 1.0
PRUNE_EVERY, PRUNE_ROWS = 256, 1024
"""A thousand old events are deleted for 256 new ones: faster than they come, and never a long stall."""
STEP_NS = 3600 * 10**9
"""A clock that is set back by more was ahead: the times of events are corrected. After less, events get the time of the
newest one until the clock has caught up."""
OLDEST_NS = 1_735_689_600 * 10**9  # 2025: a clock that shows less was never set
LARGEST_SEQ = 2**62
BELIEF_BYTES = 1 << 20
OF_DISK = ("database or disk is full", "disk I/O error")
"""What SQLite says where there is no room: the journal itself is whole, and its events would be lost with it."""

log = logging.getLogger("edge_hal.run")


def default_path(stream: str) -> Path:
    """The default journal file of a stream, under XDG_STATE_HOME."""
    return state_folder() / f"{stream}.journal"


class Journal:
    """Writes a journal. For one thread at a time.

    `id` is drawn when the file is created: (`id`, `seq`) identifies an event. `next_seq` is the number of the next
    event.

    Raises:
        EdgeHalError: the file cannot be opened or written, is no journal, belongs to another stream, or is in use.
    """

    def __init__(self, path: Path, stream: str, retention: Retention | None = None) -> None:
        self.path, self.stream, self.retention = path, stream, retention or Retention()
        self._appended = 0
        self._lock = LockedFile(path)
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._db.text_factory = bytes  # a damaged text must not fail where nobody reads it
                self.id = self._open()
                row = self._db.execute("SELECT seq, kept_ns FROM event ORDER BY seq DESC LIMIT 1").fetchone()
                self._last_seq: int
                self._last_ns: int
                self._last_seq, self._last_ns = (-1, 0) if row is None else (int(row[0]), whole(row[1]))
                if self._last_seq > LARGEST_SEQ:
                    raise sqlite3.DatabaseError(f"its last event has the number {self._last_seq}")
                self._counted_ns = time.monotonic_ns()  # when `_last_ns` was known to be the present
                while self.prune():
                    pass
                real = os.path.realpath(path)
                self._lock.watch(path, Path(real), Path(f"{real}-wal"))
            except BaseException:
                self._db.close()
                raise
        except BaseException as error:
            self._lock.close()
            if isinstance(error, (sqlite3.Error, OSError, TypeError, ValueError)):
                moved = "move it away to begin a new one, or choose another --journal"
                disk = "free or check the disk, or choose another --journal"
                todo = disk if str(error) in OF_DISK else moved
                raise EdgeHalError(f"cannot open the journal {path}", str(error), todo) from error
            raise

    @property
    def next_seq(self) -> int:
        return self._last_seq + 1

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        """Keep events (seq, body), all or none. They are on the disk when this returns.

        Raises:
            EdgeHalError: the disk is full, gone or locked, or the file was replaced. Nothing was kept; the same call
                may be tried again.
            ValueError: the numbers do not continue those of the journal.
        """
        if [seq for seq, _ in events] != list(range(self.next_seq, self.next_seq + len(events))):
            raise ValueError(f"events {events[0][0]}..{events[-1][0]} do not follow {self._last_seq}")
        self.check()
        clock_ns = time.time_ns()
        now_ns = max(clock_ns, self._last_ns)  # a clock that is set back must not make new events old
        with self._transaction():
            if self._last_ns - clock_ns > STEP_NS and clock_ns > OLDEST_NS:
                now_ns = clock_ns  # the clock was ahead: no event can have been kept later than now
                ahead = first_kept(self._db, 0, self.next_seq, now_ns)
                self._db.execute("UPDATE event SET kept_ns = ? WHERE seq >= ?", (now_ns, ahead))
            self._db.executemany("INSERT INTO event VALUES (?, ?, ?)", ((seq, now_ns, body) for seq, body in events))
        self._last_seq, self._last_ns, self._counted_ns = events[-1][0], now_ns, time.monotonic_ns()
        self._appended += len(events)
        if self._appended >= PRUNE_EVERY:
            self._appended = 0
            with contextlib.suppress(EdgeHalError):  # kept is kept; the next append will tell
                self.prune()

    def keep_belief(self, row: bytes) -> None:
        """Replace the belief. It survives `kill -9`; after a power cut an older one may be found, or none, because the
        disk does not have to write it at once: there is one each second, and a pause with a power cut is rarely short.

        Raises:
            EdgeHalError: as `append`, or the row is too large to be read again.
        """
        if len(row) > BELIEF_BYTES:
            why = f"it has {len(row)} bytes, the limit is {BELIEF_BYTES}"
            raise EdgeHalError(
                f"cannot keep the belief in {self.path}", why, "fewer labels or shorter names would help"
            )
        self.check()
        with self._errors():
            self._db.execute("PRAGMA synchronous=NORMAL")
            try:
                with self._transaction():
                    # Not among the tables of a new journal: earlier versions open and write this one too.
                    self._db.execute(
                        "CREATE TABLE IF NOT EXISTS belief (id INTEGER PRIMARY KEY CHECK (id = 0), body BLOB NOT NULL)"
                    )
                    self._db.execute("INSERT OR REPLACE INTO belief VALUES (0, ?)", (row,))
            finally:
                self._db.execute("PRAGMA synchronous=FULL")

    def kept_belief(self) -> bytes | None:
        """What `keep_belief` kept last; None if nothing. It is logged if there is something that cannot be read."""
        fits = f"CASE WHEN length(body) <= {BELIEF_BYTES} THEN CAST(body AS BLOB) END"
        try:
            if not self._db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'belief'").fetchone()[0]:
                return None
            found = self._db.execute(f"SELECT {fits} FROM belief WHERE id = 0").fetchone()
            if found is None or isinstance(found[0], bytes):
                return None if found is None else found[0]
            why = f"it is larger than {BELIEF_BYTES} bytes"
        except sqlite3.Error as error:  # a damaged page, or a table of another program
            why = str(error)
        log.warning("the belief in the journal is not resumed: %s", why)
        return None

    def check(self) -> None:
        """Raises EdgeHalError if the files of the journal no longer have their names. What was written then would be
        lost."""
        gone = self._lock.changed()
        if gone is not None:
            why = f"{gone} was removed or replaced while the run writes it"
            todo = "move it back, or restart the run to begin a new journal"
            raise EdgeHalError(f"cannot write the journal {self.path}", why, todo)

    def prune(self) -> int:
        """Delete events that are beyond the retention, at most `PRUNE_ROWS`. Returns how many were deleted. Raises
        EdgeHalError."""
        with self._errors():
            first = self._db.execute("SELECT min(seq) FROM event").fetchone()[0]
            if first is None:
                return 0
            until = min(self._last_seq, first + PRUNE_ROWS)
            excess = math.ceil(self._excess() * (self._last_seq + 1 - first))
            until = min(until, max(self._first_young(first), first + excess))
        if until <= first:
            return 0
        with self._transaction():
            return self._db.execute("DELETE FROM event WHERE seq < ?", (until,)).rowcount

    def _first_young(self, first: int) -> int:
        """The first event that is not too old.

        A clock may be years ahead for a day. So the newest jump of the clock by more than the retention makes nothing
        old, be it between two events or since the last one: then only the time counts that passed after the jump. An
        earlier jump does, because a machine that is off every night has one each day.
        """
        age_ns, until = self.retention.age_s * 1e9, self._last_seq + 1
        now_ns: float = time.time_ns()
        if now_ns - self._last_ns > age_ns:
            now_ns = self._last_ns + (time.monotonic_ns() - self._counted_ns)
            return first_kept(self._db, first, until, now_ns - age_ns)
        young = first_kept(self._db, first, until, now_ns - age_ns)
        if young == first:
            return first
        before_ns = kept_ns(self._db, young - 1)
        if kept_ns(self._db, young) - before_ns <= age_ns:
            return young
        return first_kept(self._db, first, young, before_ns - age_ns)

    def close(self) -> None:
        self._db.close()
        self._lock.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> str:
        db = self._db
        (application,), (version,), (tables,) = (
            db.execute("PRAGMA application_id").fetchone(),
            db.execute("PRAGMA user_version").fetchone(),
            db.execute("SELECT count(*) FROM sqlite_master").fetchone(),
        )
        if application != APPLICATION and (application or tables):
            raise sqlite3.DatabaseError("it is another program's database")
        if version > VERSION:
            raise EdgeHalError(
                f"the journal {self.path} was written by a newer version of edge-hal",
                f"its format is {version}, edge-hal {__version__} reads formats up to {VERSION}",
                "use the newer edge-hal, or choose another --journal to begin a new one",
            )
        if tables and version < VERSION:
            raise sqlite3.DatabaseError(f"its format {version} is unknown")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        if not tables:
            with self._transaction():
                db.execute("CREATE TABLE journal (id TEXT, stream TEXT)")
                db.execute("CREATE TABLE event (seq INTEGER PRIMARY KEY, kept_ns INTEGER NOT NULL, body BLOB NOT NULL)")
                db.execute("INSERT INTO journal VALUES (?, ?)", (secrets.token_hex(8), self.stream))
                db.execute(f"PRAGMA application_id={APPLICATION}")
                db.execute(f"PRAGMA user_version={VERSION}")
        with self._transaction():
            db.execute(f"PRAGMA user_version={VERSION}")  # fails now, not at the first event, if it cannot be written
        identity, stream = (bytes(value).decode() for value in db.execute("SELECT id, stream FROM journal").fetchone())
        if stream != self.stream:
            raise EdgeHalError(
                f"the journal {self.path} keeps the stream '{stream}'",
                f"this run publishes '{self.stream}'",
                f"use --stream {stream}, or another --journal",
                exit_code=2,
            )
        return identity

    def _excess(self) -> float:
        """The part of the journal, 0 to 1, that is beyond its size limit."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        used = (pages - free) * size
        return float(max(0.0, 1 - self.retention.size_bytes / used))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            todo = "free the disk, or choose another --journal"
            raise EdgeHalError(f"cannot write the journal {self.path}", str(error), todo) from error
