"""Reads the journal of a running publisher, whatever state the file is in.

A number may be missing, a body may be damaged or of another type. Such an event is left out, and subscribers are told
that it is lost. What can be read is read.
"""

from __future__ import annotations

import bisect
import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_hal.runtime.network.endpoint import EVENT_BYTES

BUSY_S = 1.0
TRIES = 10_000
"""Damaged events that one request steps over."""
BODY = f"""CASE WHEN typeof(body) IN ('blob', 'text') AND length(body) <= {EVENT_BYTES}
    THEN CAST(body AS BLOB) END"""


@dataclass(frozen=True)
class Page:
    """Events `begin`, `begin` + 1, ... as they were published. The journal holds `first` to `next` - 1. If `begin` is
    later than was asked, those in between cannot be read. It is `next` where more was asked."""

    first: int
    next: int
    begin: int
    bodies: list[bytes]


class JournalReader:
    """Reads what is committed. For one thread.

    Raises:
        sqlite3.Error: the file cannot be read at all.
    """

    def __init__(self, path: Path) -> None:
        address = f"{path.absolute().as_uri()}?mode=ro"
        self._db = sqlite3.connect(address, timeout=BUSY_S, isolation_level=None, uri=True)
        self._db.text_factory = bytes

    def page(self, begin: int, limit: int, limit_bytes: int) -> Page:
        """At most `limit` events from the first that can be read, at `begin` or later. They have at most `limit_bytes`
        together, or there is one."""
        with self._snapshot() as (first, after):
            begin, size = min(max(begin, first), after), 0
            bodies: list[bytes] = []
            for seq, body in self._read(begin, after, limit):
                if seq < begin + len(bodies):
                    continue  # a damaged tree of the file gives a number again, or one that is before `begin`
                if body is None or seq != begin + len(bodies):
                    if bodies:
                        break  # the next page begins after the hole
                    begin = seq
                if body is None:
                    begin += 1
                    continue
                size += len(body)
                if bodies and size > limit_bytes:
                    break
                bodies.append(body)
                if len(bodies) == limit:
                    break
        return Page(first, after, begin, bodies)

    def since(self, utc_ns: int) -> int:
        """The first event kept at `utc_ns` or later, or the next to come."""
        with self._snapshot() as (first, after):
            return first_kept(self._db, first, after, utc_ns)

    def close(self) -> None:
        self._db.close()

    def _read(self, begin: int, after: int, limit: int) -> Iterator[tuple[int, bytes | None]]:
        """(seq, body) of at most `limit` events; None for a body that cannot be used."""
        if limit == 0:
            return
        query = f"SELECT seq, {BODY} FROM event WHERE seq >= ? ORDER BY seq LIMIT ?"
        seq = begin - 1
        try:
            with contextlib.closing(self._db.execute(query, (begin, limit + TRIES))) as rows:
                for seq, body in rows:
                    yield seq, body
            return
        except sqlite3.DatabaseError:
            if seq + 1 >= after:
                raise
        for number in range(seq + 1, min(after, seq + 1 + TRIES)):  # a page of the file is damaged: step over it
            try:
                row = self._db.execute(f"SELECT {BODY} FROM event WHERE seq = ?", (number,)).fetchone()
            except sqlite3.DatabaseError:
                row = None
            yield number, None if row is None else row[0]

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[int, int]]:
        """(oldest seq, next seq); nothing changes while it lasts."""
        self._db.execute("BEGIN")
        try:
            query = "SELECT (SELECT min(seq) FROM event WHERE seq >= 0), (SELECT max(seq) FROM event WHERE seq >= 0)"
            first, last = self._db.execute(query).fetchone()
            yield (0, 0) if first is None else (first, last + 1)
        finally:
            with contextlib.suppress(sqlite3.Error):  # after a damaged page there is nothing left to end
                self._db.execute("ROLLBACK")


def first_kept(db: sqlite3.Connection, first: int, until: int, utc_ns: float) -> int:
    """The first of the events `first` to `until` - 1 that was kept at `utc_ns` or later; else `until`."""
    return first + bisect.bisect_left(range(first, until), utc_ns, key=lambda seq: kept_ns(db, seq))


def kept_ns(db: sqlite3.Connection, seq: int) -> int:
    """When an event was kept, nanoseconds since 1970. For a missing event, that of the next."""
    row = db.execute("SELECT kept_ns FROM event WHERE seq >= ? ORDER BY seq LIMIT 1", (seq,)).fetchone()
    return 0 if row is None else whole(row[0])


def whole(value: Any) -> int:
    """An integer that was read from a file; 0 for anything else."""
    return value if isinstance(value, int) else 0
