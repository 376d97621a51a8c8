"""The journal: every durable event of one stream, on disk before anybody hears of it.

One SQLite file, write-ahead log, synchronous=FULL: what `append` returned from survives `kill -9` and a power cut.
The row's key is the event's `seq`, so a number can neither repeat nor be left out. One process writes; a reader
(`JournalReader`) never holds it up.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import math
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_hal import __version__
from edge_hal.errors import EdgeHalError

APPLICATION = 0x6564_4861  # what `file` shows; tells our files from other SQLite files
VERSION = 1
"""Of the tables, as PRAGMA user_version; 0.1.0 wrote 1. Who raises it migrates older files in place, in `_open`."""
BUSY_S = 1.0
PRUNE_EVERY, PRUNE_ROWS = 256, 1024
"""Old events go a thousand at a time, once for 256 new ones: faster than they come, never a long stall."""
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
UNITS_BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Retention:
    """How long events are kept: until they are `age_s` old, or the journal holds `size_bytes`. The newest always is."""

    age_s: float = 30 * 86400.0
    size_bytes: int = 10**9

    @classmethod
    def parse(cls, text: str, option: str = "--retention") -> Retention:
        """`30d`, `500MB` or `30d,500MB`. Raises EdgeHalError (exit code 2) for anything else."""
        found = cls(float("inf"), 2**63)
        for part in text.split(","):
            match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([a-zA-Z]{1,2})", part.strip())
            if match and float(match[1]) > 0 and match[2] in UNITS_S:
                found = cls(float(match[1]) * UNITS_S[match[2]], found.size_bytes)
            elif match and float(match[1]) > 0 and match[2] in UNITS_BYTES:
                found = cls(found.age_s, round(float(match[1]) * UNITS_BYTES[match[2]]))
            else:
                units = ", ".join([*UNITS_S, *UNITS_BYTES])
                why = f"'{part}' is neither an age nor a size (units: {units})"
                raise EdgeHalError(f"{option} {text}", why, f"write {option} 30d,1GB", exit_code=2)
        return found


def default_path(stream: str) -> Path:
    """Where the journal of a stream lies unless told: under XDG_STATE_HOME."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "edge-hal" / f"{stream}.journal"


class Journal:
    """The writing end. Used by one thread at a time.

    `id` is drawn once, when the file is made: (`id`, `seq`) names an event for ever. `next_seq` is the number the
    next event must carry.

    Raises:
        EdgeHalError: the file cannot be opened, is no journal, belongs to another stream or to a running process.
    """

    def __init__(self, path: Path, stream: str, retention: Retention | None = None) -> None:
        self.path, self.stream, self.retention = path, stream, retention or Retention()
        self._appended = 0
        self._lock = _lock(path)
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self.id = self._open()
                row = self._db.execute("SELECT seq, kept_ns FROM event ORDER BY seq DESC LIMIT 1").fetchone()
                self._last_seq: int
                self._last_ns: int
                self._last_seq, self._last_ns = (-1, 0) if row is None else (int(row[0]), int(row[1]))
                while self.prune():
                    pass
            except BaseException:
                self._db.close()
                raise
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, (sqlite3.Error, OSError, TypeError, ValueError)):
                todo = "move it away to begin a new one, or choose another --journal"
                raise EdgeHalError(f"cannot open the journal {path}", str(error), todo) from error
            raise

    @property
    def next_seq(self) -> int:
        return self._last_seq + 1

    def append(self, events: Sequence[tuple[int, bytes]]) -> None:
        """Keep events (seq, body), all or none. They are on the disk when this returns.

        Raises:
            EdgeHalError: the disk is full, gone or locked; nothing was kept, and the same call may be tried again.
            ValueError: the numbers do not go on where the last ended.
        """
        if [seq for seq, _ in events] != list(range(self.next_seq, self.next_seq + len(events))):
            raise ValueError(f"events {events[0][0]}..{events[-1][0]} do not follow {self._last_seq}")
        now_ns = max(time.time_ns(), self._last_ns)  # a clock that is set back must not make new events old
        with self._transaction():
            self._db.executemany("INSERT INTO event VALUES (?, ?, ?)", ((seq, now_ns, body) for seq, body in events))
        self._last_seq, self._last_ns = events[-1][0], now_ns
        self._appended += len(events)
        if self._appended >= PRUNE_EVERY:
            self._appended = 0
            with contextlib.suppress(EdgeHalError):  # kept is kept; the next append will tell
                self.prune()

    def prune(self) -> int:
        """Delete what retention no longer covers, a bounded piece of it. Returns how many events went."""
        first = self._db.execute("SELECT min(seq) FROM event").fetchone()[0]
        if first is None:
            return 0
        until = min(self._last_seq, first + PRUNE_ROWS)
        oldest_ns = max(time.time_ns(), self._last_ns) - self.retention.age_s * 1e9
        aged = first + bisect.bisect_left(range(first, until), oldest_ns, key=lambda seq: _kept_ns(self._db, seq))
        excess = math.ceil(self._excess() * (self._last_seq + 1 - first))
        until = min(until, max(aged, first + excess))
        if until <= first:
            return 0
        with self._transaction():
            return self._db.execute("DELETE FROM event WHERE seq < ?", (until,)).rowcount

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)

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
        identity, stream = db.execute("SELECT id, stream FROM journal").fetchone()
        if stream != self.stream:
            raise EdgeHalError(
                f"the journal {self.path} keeps the stream '{stream}'",
                f"this run publishes '{self.stream}'",
                f"use --stream {stream}, or another --journal",
                exit_code=2,
            )
        return str(identity)

    def _excess(self) -> float:
        """The part of the journal that is more than its size allows, at most 1."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        used = (pages - free) * size
        return float(max(0.0, 1 - self.retention.size_bytes / used))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            todo = "free the disk, or choose another --journal"
            raise EdgeHalError(f"cannot write the journal {self.path}", str(error), todo) from error


@dataclass(frozen=True)
class Page:
    """Events `begin`, `begin` + 1, ... as they were published. The journal holds `first` to `next` - 1."""

    first: int
    next: int
    begin: int
    bodies: list[bytes]


class JournalReader:
    """Reads what is committed, from a thread of its own. Raises sqlite3.Error where the file cannot be read."""

    def __init__(self, path: Path) -> None:
        address = f"{path.absolute().as_uri()}?mode=ro"
        self._db = sqlite3.connect(address, timeout=BUSY_S, isolation_level=None, uri=True)

    def page(self, begin: int, limit: int, limit_bytes: int) -> Page:
        """At most `limit` events from `begin` on (or from the oldest, if that is later), of at most `limit_bytes`
        together, but one at least."""
        with self._snapshot() as (first, after):
            begin, size = max(begin, first), 0
            bodies: list[bytes] = []
            rows = self._db.execute("SELECT body FROM event WHERE seq >= ? ORDER BY seq LIMIT ?", (begin, limit))
            for (body,) in rows:
                size += len(body)
                if bodies and size > limit_bytes:
                    break
                bodies.append(body)
            rows.close()
        return Page(first, after, begin, bodies)

    def since(self, utc_ns: int) -> int:
        """The first event kept at `utc_ns` or later, or the next to come."""
        with self._snapshot() as (first, after):
            return first + bisect.bisect_left(range(first, after), utc_ns, key=lambda seq: _kept_ns(self._db, seq))

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[int, int]]:
        """(oldest seq, next seq), and nothing changes while it lasts: numbers between them have no holes."""
        self._db.execute("BEGIN")
        try:
            query = "SELECT (SELECT min(seq) FROM event), (SELECT max(seq) FROM event)"
            first, last = self._db.execute(query).fetchone()
            yield (0, 0) if first is None else (first, last + 1)
        finally:
            self._db.execute("COMMIT")


def _kept_ns(db: sqlite3.Connection, seq: int) -> int:
    return int(db.execute("SELECT kept_ns FROM event WHERE seq = ?", (seq,)).fetchone()[0])


def _lock(path: Path) -> int:
    """Held by the one process that writes; the kernel lets go of it when that dies, however it dies."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        todo = "choose a folder that exists and can be written: --journal FILE"
        raise EdgeHalError(f"cannot open the journal {path}", str(error.strerror), todo) from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: a forked child would keep that one alive
    except OSError as error:
        os.close(descriptor)
        todo = "stop it, or choose another --stream or --journal"
        raise EdgeHalError(f"the journal {path} is in use", "another run writes it", todo) from error
    return descriptor
