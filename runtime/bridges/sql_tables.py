"""The tables of the SQL bridge, and the rows of an event. `docs/bridges.md` lists the columns.

Each table begins with the identity of the event, which is its primary key. Lists are JSON in a text column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Double, MetaData, Table, Text

from edge_hal.events import Cycle, Deviation, Moment, Transition

from .bridge import Delivery

Row = dict[str, Any]

METADATA = MetaData()
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LARGEST = 2**63 - 1


def _table(name: str, *columns: Column[Any]) -> Table:
    return Table(
        f"edge_hal_{name}",
        METADATA,
        Column("journal", Text, primary_key=True),
        Column("stream", Text, primary_key=True),
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("session", Text, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("utc", DateTime(timezone=True), nullable=False),
        *columns,
    )


EVENTS = _table("events", Column("type", Text, nullable=False), Column("body", Text, nullable=False))
TRANSITIONS = _table(
    "transitions",
    Column("from_action", Text),
    Column("to_action", Text, nullable=False),
    Column("boundary_utc", DateTime(timezone=True), nullable=False),
    Column("boundary_t_ns", BigInteger, nullable=False),
    Column("decision_t_ns", BigInteger, nullable=False),
    Column("confidence", Double, nullable=False),
    Column("warm", Boolean, nullable=False),
)
DEVIATIONS = _table(
    "deviations",
    Column("kind", Text, nullable=False),
    Column("expected", Text, nullable=False),
    Column("seen", Text),
    Column("evidence", Text, nullable=False),
    Column("boundary_utc", DateTime(timezone=True), nullable=False),
    Column("boundary_t_ns", BigInteger, nullable=False),
    Column("decision_t_ns", BigInteger, nullable=False),
    Column("confidence", Double, nullable=False),
    Column("corrects", BigInteger),
)
CYCLES = _table(
    "cycles",
    Column("begin_t_ns", BigInteger, nullable=False),
    Column("end_t_ns", BigInteger, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("steps", Text, nullable=False),
    Column("deviations", Text, nullable=False),
    Column("missing", Text, nullable=False),
)


def rows_of(delivery: Delivery) -> Iterator[tuple[Table, Row]]:
    """One row of `edge_hal_events`, and one of the table of its type, if it has one."""
    event, identity = delivery.event, delivery.identity
    utc_ns = event.run.get("utc_ns")
    utc_ns = utc_ns if isinstance(utc_ns, int) and 0 <= utc_ns <= LARGEST else 0
    head: Row = {
        "journal": _text(identity.journal),
        "stream": _text(identity.stream),
        "seq": identity.seq,
        "session": _text(str(event.run.get("session") or "")),
        "epoch": event.epoch,
        "utc": _time(utc_ns),
    }
    yield EVENTS, {**head, "type": _text(event.type), "body": _text(delivery.raw.decode())}
    if isinstance(event, Transition):
        names = {"from_action": None if event.from_ is None else _text(event.from_), "to_action": _text(event.to)}
        yield TRANSITIONS, {**head, **names, **_decided(event, utc_ns), "warm": event.warm}
    elif isinstance(event, Deviation):
        told = {
            "kind": _text(event.kind),
            "expected": _json(event.expected),
            "seen": None if event.seen is None else _text(event.seen),
            "evidence": _text(event.evidence),
            "corrects": event.corrects,
        }
        yield DEVIATIONS, {**head, **told, **_decided(event, utc_ns)}
    elif isinstance(event, Cycle):
        begin_t_ns, end_t_ns = event.begin.t_ns, event.end.t_ns
        lists = {"steps": event.steps, "deviations": event.deviations, "missing": event.missing}
        yield (
            CYCLES,
            {
                **head,
                "begin_t_ns": begin_t_ns,
                "end_t_ns": end_t_ns,
                "duration_s": (end_t_ns - begin_t_ns) / 1e9,
                "complete": event.complete,
                **{name: _json(value) for name, value in lists.items()},
            },
        )


def _decided(event: Transition | Deviation, utc_ns: int) -> Row:
    """`boundary_utc` is the wall clock of the boundary if stream time runs as fast as the wall clock."""
    boundary: Moment = event.boundary
    late_ns = event.decision.t_ns - boundary.t_ns
    return {
        "boundary_utc": _time(min(LARGEST, max(0, utc_ns - late_ns))),
        "boundary_t_ns": boundary.t_ns,
        "decision_t_ns": event.decision.t_ns,
        "confidence": event.confidence,
    }


def _time(utc_ns: int) -> datetime:
    return EPOCH + timedelta(microseconds=utc_ns // 1000)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)


def _text(text: str) -> str:
    """PostgreSQL stores no NUL character."""
    return text.replace("\x00", "\ufffd")
