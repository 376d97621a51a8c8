"""The SQL bridge: rows, identities, layouts. SQLite in a file; PostgreSQL where it is installed (slow)."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from edge_hal.errors import EdgeHalError
from edge_hal.events import Deviation, Lost, Transition, Unknown, encode
from edge_hal.runtime.bridges.bridge import Delivery, Unavailable
from edge_hal.runtime.bridges.sql import SqlDatabase
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from tests.helpers.sample_events import STREAM, mixed
from tests.helpers.services import Postgres, position, start_bridge, until


def delivery(event: Any, journal: str | None = "j1") -> Delivery:
    event = replace(event, run={**event.run, "journal": journal})
    return Delivery(event, encode(event))


def opened(url: str, password: str | None = None) -> SqlDatabase:
    database = SqlDatabase(url, password)
    database.open()
    return database


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def ask(file: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(file) as database:
        return database.execute(query).fetchall()


def test_an_event_that_comes_again_changes_nothing(file: Path) -> None:
    database = opened(f"sqlite:///{file}")
    batch = [delivery(mixed(seq)) for seq in range(60)]
    database.deliver(batch[:40])
    database.deliver(batch[20:])
    database.close()
    again = opened(f"sqlite:///{file}")
    again.deliver(batch)
    again.deliver([delivery(mixed(1), "j2"), delivery(mixed(1), None)])  # another journal, and none
    again.close()
    rows = ask(file, "SELECT body FROM edge_hal_events WHERE journal = 'j1' ORDER BY seq")
    assert [body.encode() for (body,) in rows] == [each.raw for each in batch]
    assert ask(file, "SELECT journal FROM edge_hal_events WHERE journal != 'j1' ORDER BY 1") == [("j2",), ("tests",)]
    kinds = {"transitions": "transition", "deviations": "deviation", "cycles": "cycle"}
    for table, kind in kinds.items():
        count = sum(each.event.type == kind for each in batch)
        assert ask(file, f"SELECT count(*) FROM edge_hal_{table} WHERE journal = 'j1'") == [(count,)] != [(0,)]


def check_numbers_given_again(url: str, password: str | None = None) -> None:
    database = opened(url, password)
    database.deliver([delivery(mixed(seq), "back") for seq in range(10)])
    new = [delivery(replace(mixed(seq), epoch=1), "back") for seq in range(6, 20)]
    with pytest.raises(EdgeHalError, match=f"has another event 6 of the stream '{STREAM}', journal back"):
        database.deliver(new)
    # What is lost may be told anew, and may be there after all.
    database.deliver([delivery(Lost(STREAM, 0, from_=10, to=12, run={}), "back"), delivery(mixed(9), "back")])
    database.deliver([delivery(Lost(STREAM, 0, from_=10, to=20, run={}), "back"), delivery(mixed(10), "back")])
    database.deliver([delivery(Lost(STREAM, 0, from_=10, to=20, run={}), "back")])
    database.close()


def test_numbers_that_are_given_again_are_one_error_and_nothing_is_left_out(file: Path) -> None:
    check_numbers_given_again(f"sqlite:///{file}")
    # Events that were told as lost are there after all.
    told = [(seq, mixed(seq).type) for seq in range(11)]
    assert ask(file, "SELECT seq, type FROM edge_hal_events ORDER BY seq") == told
    [(body,)] = ask(file, "SELECT body FROM edge_hal_events WHERE seq = 10")
    assert body.encode() == delivery(mixed(10), "back").raw
    ask(file, "DELETE FROM edge_hal_events WHERE seq >= 6")
    database = opened(f"sqlite:///{file}")
    database.deliver([delivery(replace(mixed(seq), epoch=1), "back") for seq in range(6, 20)])
    database.close()
    assert ask(file, "SELECT count(*), sum(epoch) FROM edge_hal_events") == [(20, 14)]


def test_the_columns_are_the_fields_of_the_events(file: Path) -> None:
    database = opened(f"sqlite:///{file}")
    database.deliver([delivery(mixed(seq)) for seq in (3, 10, 25)])
    database.close()
    head = (STREAM, "tests", 0)
    assert ask(
        file,
        "SELECT seq, stream, session, epoch, from_action, to_action, boundary_t_ns, decision_t_ns, confidence, warm, "
        "utc, boundary_utc FROM edge_hal_transitions",
    ) == [
        (3, *head, "a", "b", 3 * 10**9, 4 * 10**9, 0.5, 1, "2026-01-01 00:00:03.000000", "2026-01-01 00:00:02.000000")
    ]
    assert ask(
        file, "SELECT seq, stream, session, epoch, kind, expected, seen, evidence, corrects FROM edge_hal_deviations"
    ) == [(10, *head, "skipped", '["b"]', "a", "b was left out", None)]
    [(seq, duration_s, complete, steps, missing)] = ask(
        file, "SELECT seq, duration_s, complete, steps, missing FROM edge_hal_cycles"
    )
    assert (seq, duration_s, complete, missing) == (25, 25.0, 0, '["b"]')
    assert json.loads(steps)[0]["action"] == "a"


HOSTILE = "a'); DROP TABLE edge_hal_events; --\x00\U0001f600\n%s :x"


def hostile() -> list[Delivery]:
    far = 2**62
    transition, deviation = mixed(1), mixed(10)
    assert isinstance(transition, Transition) and isinstance(deviation, Deviation)
    moved = replace(
        transition, to=HOSTILE, from_=None, confidence=1e308, epoch=far, run={"utc_ns": far, "session": None}
    )
    strange = Unknown(STREAM, 0, type="x\x00'", seq=9, body={"schema": 1, "type": "x\x00'", "stream": STREAM, "seq": 9})
    return [
        delivery(moved),
        delivery(replace(deviation, evidence=HOSTILE, expected=(HOSTILE,), run={"utc_ns": -(2**60)})),
        delivery(replace(mixed(25), run={"utc_ns": "soon"})),
        delivery(strange, "j\x00"),
        delivery(Lost(STREAM, 0, from_=11, to=20, run={"session": "s"})),
    ]


def test_hostile_events_are_stored(file: Path) -> None:
    database = opened(f"sqlite:///{file}")
    for _ in range(2):
        database.deliver(hostile())
    database.close()
    assert ask(file, "SELECT count(*) FROM edge_hal_events") == [(5,)]
    assert ask(file, "SELECT to_action FROM edge_hal_transitions") == [(HOSTILE.replace("\x00", "\ufffd"),)]
    assert ask(file, "SELECT type FROM edge_hal_events WHERE seq = 11") == [("lost",)]


def test_a_batch_is_written_whole_or_not_at_all(file: Path) -> None:
    """The second table refuses a row, and the rows of the first are gone too."""
    database = opened(f"sqlite:///{file}")
    ask(file, "CREATE TRIGGER full BEFORE INSERT ON edge_hal_cycles BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    with pytest.raises(Unavailable, match="disk is full"):
        database.deliver([delivery(mixed(seq)) for seq in range(26)])
    assert ask(file, "SELECT count(*) FROM edge_hal_events") == [(0,)]
    ask(file, "DROP TRIGGER full")
    database.deliver([delivery(mixed(seq)) for seq in range(26)])
    database.close()
    assert ask(file, "SELECT count(*) FROM edge_hal_events") == [(26,)]


def test_a_locked_database_is_asked_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_hal.runtime.bridges import sql

    monkeypatch.setitem(sql.ARGUMENTS["sqlite"], "timeout", 0.05)
    database = opened(f"sqlite:///{file}")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Unavailable, match="locked"):
        database.deliver([delivery(mixed(1))])
    other.close()
    database.deliver([delivery(mixed(1))])
    database.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "no URL"),
        ("mysql://h/d", "'mysql' is not known"),
        ("postgresql+asyncpg://h/d", "asyncpg"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql://user:secret-word@h:port/d", "URL"),
    ],
)
def test_an_address_of_nothing_known_is_refused(url: str, why: str) -> None:
    with pytest.raises(EdgeHalError) as refused:
        SqlDatabase(url)
    assert refused.value.exit_code == 2 and why in str(refused.value) and "secret-word" not in str(refused.value)


def foreign(file: Path) -> None:
    file.write_text("no database at all, but a text of some length" * 100)


def other_layout(file: Path) -> None:
    ask(file, "CREATE TABLE edge_hal_cycles (journal TEXT, stream TEXT, seq INTEGER, duration REAL)")


def other_key(file: Path) -> None:
    opened(f"sqlite:///{file}").close()
    [(text,)] = ask(file, "SELECT sql FROM sqlite_master WHERE name = 'edge_hal_cycles'")
    ask(file, "DROP TABLE edge_hal_cycles")
    ask(file, text.replace("PRIMARY KEY (journal, stream, seq)", "PRIMARY KEY (seq)"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (foreign, "not a database"),
        (other_layout, "has no session, epoch"),
        (other_key, r"primary key is \(seq\)"),
        (lambda file: file.mkdir(), "unable to open"),
    ],
)
def test_a_database_that_cannot_serve_is_one_error(file: Path, make: Any, why: str) -> None:
    make(file)
    with pytest.raises(EdgeHalError, match=why):
        opened(f"sqlite:///{file}")


# --- PostgreSQL ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    pytest.importorskip("psycopg")
    with Postgres(tmp_path_factory.mktemp("postgres")) as service:
        yield service  # type: ignore[misc]


@pytest.mark.slow
def test_postgresql_stores_the_same(postgres: Postgres) -> None:
    database = opened(postgres.url, postgres.PASSWORD)
    batch = [delivery(mixed(seq), "j3") for seq in range(60)]
    for part in (batch[:40], batch[20:], hostile(), hostile()):
        database.deliver(part)
    database.close()
    opened(postgres.url.replace("bridge@", f"bridge:{postgres.PASSWORD}@")).close()
    rows = postgres.ask("SELECT body FROM edge_hal_events WHERE journal = 'j3' ORDER BY seq")
    assert [str(body).encode() for (body,) in rows] == [each.raw for each in batch]
    assert postgres.ask("SELECT count(*) FROM edge_hal_events WHERE journal != 'j3'") == [(5,)]
    named = postgres.ask("SELECT to_action FROM edge_hal_transitions WHERE journal = 'j1'")
    assert named == [(HOSTILE.replace("\x00", "\ufffd"),)]
    [(utc,)] = postgres.ask("SELECT utc AT TIME ZONE 'UTC' FROM edge_hal_transitions WHERE journal='j3' AND seq = 3")
    assert str(utc) == "2026-01-01 00:00:03"


@pytest.mark.slow
def test_postgresql_leaves_out_no_event_whose_number_is_given_again(postgres: Postgres) -> None:
    check_numbers_given_again(postgres.url, postgres.PASSWORD)


@pytest.mark.slow
def test_what_postgresql_refuses_is_one_error_and_what_passes_is_not(postgres: Postgres) -> None:
    cases = {
        "password authentication failed": (postgres.url, "wrong-password"),
        "no password supplied": (postgres.url, None),
        'database "nowhere" does not exist': (postgres.url.replace("/postgres", "/nowhere"), postgres.PASSWORD),
    }
    for why, (url, password) in cases.items():
        with pytest.raises(EdgeHalError, match=why) as refused:
            opened(url, password)
        assert "wrong-password" not in str(refused.value)
    with pytest.raises(Unavailable, match="refused"):
        opened("postgresql://bridge@127.0.0.1:1/postgres")
    postgres.ask("CREATE ROLE reader LOGIN PASSWORD 'reader-word'")
    opened(postgres.url, postgres.PASSWORD).close()
    reader = SqlDatabase(postgres.url.replace("bridge@", "reader@"), "reader-word")
    reader.open()
    with pytest.raises(EdgeHalError, match="permission denied"):
        reader.deliver([delivery(mixed(1))])
    reader.close()


@pytest.mark.slow
def test_a_table_that_another_session_locks_is_not_waited_for_without_end(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else neither the log nor a stop would get its turn. A limit in the address counts instead."""
    import psycopg

    from edge_hal.runtime.bridges import sql

    monkeypatch.setattr(sql, "LOCK_S", 0.05)
    database = opened(postgres.url, postgres.PASSWORD)
    patient = opened(f"{postgres.url}?options=-c%20lock_timeout%3D60s", postgres.PASSWORD)
    with psycopg.connect(postgres.url, password=postgres.PASSWORD) as other:
        other.execute("LOCK TABLE edge_hal_events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="lock timeout"):
            database.deliver([delivery(mixed(1), "j5")])
        waiting = threading.Thread(target=patient.deliver, args=([delivery(mixed(2), "j5")],))
        waiting.start()
        until(lambda: bool(postgres.ask("SELECT 1 FROM pg_locks WHERE NOT granted")))
    waiting.join()
    database.deliver([delivery(mixed(1), "j5")])
    patient.close()
    database.close()
    assert postgres.ask("SELECT seq FROM edge_hal_events WHERE journal = 'j5' ORDER BY seq") == [(1,), (2,)]


@pytest.mark.slow
def test_a_signal_ends_the_wait_for_a_server_and_the_events_come_again(
    postgres: Postgres, endpoint: str, tmp_path: Path
) -> None:
    import psycopg

    cursor, secret = tmp_path / "cursor", tmp_path / "secret"
    secret.write_text(postgres.PASSWORD)
    secret.chmod(0o600)
    patient = f"{postgres.url}?options=-c%20lock_timeout%3D600s"
    arguments = ("sql", patient, "--password-file", secret, "--connect", endpoint, "--cursor", cursor)

    def stored() -> list[tuple[object, ...]]:
        return postgres.ask(f"SELECT seq FROM edge_hal_events WHERE journal = '{journal.id}' ORDER BY seq")

    opened(postgres.url, postgres.PASSWORD).close()
    with Journal(tmp_path / "j", STREAM) as journal, Publisher(endpoint, STREAM, journal=journal) as publisher:
        with psycopg.connect(postgres.url, password=postgres.PASSWORD) as other:
            other.execute("LOCK TABLE edge_hal_events IN ACCESS EXCLUSIVE MODE")
            for seq in range(5):
                publisher.publish(mixed(seq), wait=True)
            with start_bridge(*arguments, log=tmp_path / "log") as process:
                until(lambda: bool(postgres.ask("SELECT 1 FROM pg_locks WHERE NOT granted")))
                process.terminate()
                assert process.wait(60) == 0, (tmp_path / "log").read_text()
        assert stored() == [] and position(cursor) == -1
        with start_bridge(*arguments, log=tmp_path / "log") as process:
            until(lambda: position(cursor) == 4)
            process.terminate()
    assert stored() == [(seq,) for seq in range(5)]


@pytest.mark.slow
def test_a_table_that_is_dropped_and_a_text_that_does_not_fit_have_their_own_advice(postgres: Postgres) -> None:
    import psycopg

    with psycopg.connect(postgres.url, password=postgres.PASSWORD, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    url = postgres.url.replace("/postgres", "/latin")
    database = opened(url, postgres.PASSWORD)
    with pytest.raises(EdgeHalError, match="encoding UTF8"):
        database.deliver([delivery(replace(mixed(1), to="\u7814"))])  # type: ignore[call-arg]
    with psycopg.connect(url, password=postgres.PASSWORD) as other:
        other.execute("DROP TABLE edge_hal_cycles")
    with pytest.raises(EdgeHalError, match="start it again"):
        database.deliver([delivery(mixed(25))])
    database.open()
    database.deliver([delivery(mixed(25))])
    database.close()


@pytest.mark.slow
def test_a_database_that_was_killed_is_found_again(postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    database = opened(postgres.url, postgres.PASSWORD)
    database.deliver([delivery(mixed(1), "j4")])
    postgres.kill()
    with pytest.raises(Unavailable):
        database.deliver([delivery(mixed(2), "j4"), delivery(mixed(3), "j4")])
    assert not caplog.records  # who calls it tells it, and once
    postgres.start()
    while True:
        try:
            database.deliver([delivery(mixed(2), "j4")])
            break
        except Unavailable:
            pass
    database.close()
    assert postgres.ask("SELECT seq FROM edge_hal_events WHERE journal = 'j4' ORDER BY seq") == [(1,), (2,)]
