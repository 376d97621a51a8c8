"""Writes events into a database: SQLite or PostgreSQL.

A batch is one transaction. A row is written if there is none with the identity of the event, so an event that comes
again changes nothing. An event that was told as lost replaces the row that says so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, Table, create_engine, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Lost
from edge_hal.redaction import redact, remember_secret

from .bridge import Delivery, Unavailable
from .sql_tables import EVENTS, METADATA, Row, rows_of

INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 5.0},
    # A server that vanishes is noticed after half a minute. What the URL says takes precedence.
    "postgresql": {
        "connect_timeout": 10,
        "tcp_user_timeout": 30_000,
        "application_name": "edge-hal",
        "client_encoding": "utf8",  # the server says what its own cannot hold
    },
}
LOCK_S = 10.0
"""Longest single wait for a lock that another session holds. A wait in the server cannot be stopped."""
WAIT_FOR_LOCKS = text("SELECT set_config('lock_timeout', :limit, true) WHERE current_setting('lock_timeout') = '0'")
"""Sets the limit for one transaction of PostgreSQL, unless the address or the role sets one."""
TEMPORARY = re.compile(r"locked|busy|disk is full|disk I/O error", re.IGNORECASE)
"""Messages of SQLite after which trying again helps."""
REFUSED = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry|does not exist|certificate|"
    r"authentication failed|invalid (?:connection option|value)|not permitted to log in|requires? SSL|"
    r"does not support SSL|could not (?:read|load|open) .*file",
    re.IGNORECASE,
)
"""Messages of a PostgreSQL server, or of its client, after which trying again does not help."""
PASSING = re.compile(r"08|40|53|57|58|25006|55P03|23505|42P07")
"""Begin of the error codes of PostgreSQL that pass: connection, rollback, resources, shutdown, system, read-only, lock;
and the two that tell that another bridge creates the tables at the same moment."""


@dataclass
class SqlDatabase:
    """A target that writes into the tables of `sql_tables.py`, and creates those that are missing.

    Attributes:
        url: of SQLAlchemy: `sqlite:///file.db` or `postgresql://user@host/database`.
        password: instead of one in the URL.

    Raises:
        EdgeHalError: the URL is malformed or names another kind of database; the driver is not installed.
    """

    interruptible: ClassVar[bool] = True  # a transaction is committed or not
    url: str
    password: str | None = None
    _engine: Engine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        url = self._parsed()
        self._kind = url.get_backend_name()
        logging.getLogger("psycopg").setLevel(logging.ERROR)  # what goes wrong is told here, and once
        if self.password is not None:
            url = url.set(password=self.password)
        if url.password is not None:
            remember_secret(str(url.password))
        arguments = {name: value for name, value in ARGUMENTS[self._kind].items() if name not in url.query}
        try:
            self._engine = create_engine(url.set(drivername=DRIVERS[self._kind]), connect_args=arguments)
        except ImportError as error:
            why, todo = "the database needs it", "pip install 'edge-hal[sql]'"
            raise EdgeHalError(f"{error.name or 'a driver'} is not installed", why, todo) from error
        except (SQLAlchemyError, ValueError) as error:
            raise self._malformed(str(error)) from error

    def open(self) -> None:
        """Create the tables that are missing, and check those that are there."""
        try:
            with self._transaction() as connection:
                METADATA.create_all(connection)
                inspector = inspect(connection)
                for table in METADATA.sorted_tables:
                    self._check(table, inspector)
        except DBAPIError as error:
            raise self._failure(error, "cannot create the tables in") from error

    def deliver(self, batch: Sequence[Delivery]) -> None:
        rows: dict[Table, list[Row]] = {}
        for delivery in batch:
            for table, row in rows_of(delivery):
                rows.setdefault(table, []).append(row)
        try:
            with self._transaction() as connection:
                for table, values in rows.items():
                    if table is EVENTS:
                        self._write_events(connection, values)
                    else:
                        connection.execute(INSERT[self._kind](table).on_conflict_do_nothing(), values)
        except DBAPIError as error:
            raise self._failure(error, "cannot write to") from error

    def report(self, event: Event, raw: bytes) -> None:
        """Nothing: reports are not stored."""

    def close(self) -> None:
        self._engine.dispose()

    def _write_events(self, connection: Connection, values: list[Row]) -> None:
        """What is lost, and how much, may be told anew; the first row stays. Raises EdgeHalError if the identity of an
        event belongs to another event."""
        insert = INSERT[self._kind](EVENTS)
        lost = [row for row in values if row["type"] == Lost.type]
        events = [row for row in values if row["type"] != Lost.type]
        if lost:
            connection.execute(insert.on_conflict_do_nothing(), lost)
        if events:
            key = [column.name for column in EVENTS.primary_key]
            new = {column.name: insert.excluded[column.name] for column in EVENTS.columns if column.name not in key}
            replacing = insert.on_conflict_do_update(index_elements=key, set_=new, where=EVENTS.c.type == Lost.type)
            if connection.execute(replacing, events).rowcount != len(events):
                self._check_known(connection, events)

    def _check_known(self, connection: Connection, events: list[Row]) -> None:
        """Raises EdgeHalError if the identity of one of these events belongs to another event."""
        names = EVENTS.c.journal, EVENTS.c.stream, EVENTS.c.seq
        given = {tuple(row[name.name] for name in names): row for row in events}
        for journal, stream in {(row["journal"], row["stream"]) for row in given.values()}:
            seqs = [seq for of, name, seq in given if (of, name) == (journal, stream)]
            query = select(EVENTS.c.seq, EVENTS.c.body).where(
                *(EVENTS.c.journal == journal, EVENTS.c.stream == stream, EVENTS.c.type != Lost.type),
                EVENTS.c.seq.between(min(seqs), max(seqs)),
            )
            known = {seq: body for seq, body in connection.execute(query)}
            other = [seq for seq in sorted(seqs) if known.get(seq) not in (None, given[journal, stream, seq]["body"])]
            if other:
                what = f"{self.shown} has another event {other[0]} of the stream '{stream}', journal {journal}"
                why = "numbers are given again: the journal was restored from a backup, or its -wal file was lost"
                todo = f"delete the rows of that journal and stream with seq >= {other[0]}, and start it again"
                raise EdgeHalError(what, why, todo)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if self._kind == "postgresql":
                connection.execute(WAIT_FOR_LOCKS, {"limit": f"{LOCK_S * 1000:.0f}ms"})
            yield connection

    def _check(self, table: Table, inspector: Any) -> None:
        found = {column["name"] for column in inspector.get_columns(table.name)}
        missing = [column.name for column in table.columns if column.name not in found]
        key = inspector.get_pk_constraint(table.name)["constrained_columns"]
        if missing or set(key) != {column.name for column in table.primary_key}:
            why = f"it has no {', '.join(missing)}" if missing else f"its primary key is ({', '.join(key)})"
            todo = "rename that table, or use another database or schema"
            raise EdgeHalError(f"the table {table.name} in {self.shown} has another layout", why, todo)

    def _failure(self, error: DBAPIError, what: str) -> Exception:
        why = " ".join(str(error.orig).split())
        failed, code = f"{what} {self.shown}", getattr(error.orig, "sqlstate", None)
        if self._kind == "sqlite":
            passes = TEMPORARY.search(why) is not None
        elif code is None:
            passes = REFUSED.search(why) is None and (error.connection_invalidated or _operational(error))
        else:
            passes = PASSING.match(code) is not None
        return Unavailable(f"{failed}: {why}") if passes else EdgeHalError(failed, why, _todo(code))

    def _parsed(self) -> URL:
        try:
            url = make_url(self.url)
            kind = url.get_backend_name()
        except (ArgumentError, ValueError) as error:
            raise self._malformed("it is no URL of a database") from error
        if kind not in DRIVERS or url.drivername not in (kind, DRIVERS[kind]):
            raise self._malformed(f"'{url.drivername}' is not known; known: {', '.join(DRIVERS)}")
        if kind == "sqlite" and url.database in (None, "", ":memory:"):
            raise self._malformed("it names no file")
        self.shown = str(url.database) if kind == "sqlite" else redact(self.url)
        return url

    def _malformed(self, why: str) -> EdgeHalError:
        todo = "write sqlite:///events.db or postgresql://user@host/database"
        return EdgeHalError(f"cannot use the database '{redact(self.url)}'", why, todo, exit_code=2)


def _todo(code: str | None) -> str:
    """What helps, by the code of PostgreSQL."""
    if code in ("42P01", "42703"):
        return "the tables were changed while it ran: start it again, which creates or checks them"
    if code in ("22P05", "22021"):
        return "the database cannot hold this text: use one with the encoding UTF8"
    return "check the address and the rights"


def _operational(error: DBAPIError) -> bool:
    return type(error).__name__ in ("OperationalError", "InterfaceError")
