"""Journals, cursors and keys of version 0.1.0 work in place: numbers go on, and no client loses an event."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_hal import subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.network.curve_keys import allowed_keys, client_keys, server_keys
from tests.helpers.deliveries import kept, spawn

STREAM = "bench"
FOREVER = Retention(float("inf"), 2**63)  # by default a journal drops what is older than 30 days when it is opened
TIMEOUT_S = 120.0


@pytest.mark.parametrize("name", ["clean", "killed"])
def test_a_journal_opens_in_place_and_its_numbers_go_on(frozen: Path, expected: dict[str, Any], name: str) -> None:
    path, then = frozen / "journal" / f"{name}.journal", expected["journal"][name]
    with Journal(path, STREAM, FOREVER) as journal:
        assert (journal.id, journal.next_seq) == (then["id"], then["next_seq"])
        journal.append([(then["next_seq"], b"new")])
        assert journal.kept_belief() is None
        journal.keep_belief(b"belief")
    with Journal(path, STREAM, FOREVER) as journal:
        assert (journal.id, journal.next_seq) == (then["id"], then["next_seq"] + 1)
        assert journal.kept_belief() == b"belief"
    assert kept(path) == [*(body.encode() for body in then["bodies"]), b"new"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


def test_keys_are_read_as_they_were(frozen: Path, expected: dict[str, Any]) -> None:
    keys = frozen / "keys"
    pair = client_keys(keys / "listener" / "listener.key_secret", keys / "publisher" / "publisher.key")
    assert pair.public.decode() == expected["keys"]["listener"]
    assert pair.server.decode() == expected["keys"]["publisher"]
    allowed = allowed_keys(keys / "publisher" / "allowed")
    assert {name: key.decode() for name, key in allowed.items()} == expected["keys"]["allowed"]
    server_keys(keys / "publisher" / "publisher.key_secret")


@pytest.mark.parametrize("name", ["clean", "killed"])
def test_a_client_with_an_old_cursor_gets_every_old_and_new_event_once(
    frozen: Path, expected: dict[str, Any], tmp_path: Path, name: str
) -> None:
    """The old bundle, journal, cursor and keys together, encrypted."""
    then, endpoint, cursor = expected["journal"][name], f"ipc://{tmp_path}/s", frozen / "cursor"
    first = expected["cursor"]["seq"] + 1
    keys = frozen / "keys"
    pair = client_keys(keys / "listener" / "listener.key_secret", keys / "publisher" / "publisher.key")
    arguments = (
        *("run", "--bundle", "bundle", "--stream", STREAM, "--camera", "features:stream.npy@20", "--pace", "asap"),
        *("--pub", endpoint, "--journal", f"journal/{name}.journal", "--retention", "1GB"),
        *("--key", "keys/publisher/publisher.key_secret", "--wait-subscribers", "1"),
    )
    bodies: list[bytes] = []
    with spawn("-m", "edge_hal", *arguments, cwd=frozen) as process:
        with subscribe(endpoint, STREAM, cursor=cursor, keys=pair, timeout_s=TIMEOUT_S) as events:
            for event in events:
                if not event.durable:
                    continue
                bodies.append(events.raw)
                events.ack()
                body = json.loads(events.raw)
                if body["type"] == "end" and body["seq"] >= then["next_seq"]:
                    break
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    old = [body.encode() for body in then["bodies"]]
    assert bodies[: len(old) - first] == old[first:]
    found = [json.loads(body) for body in bodies]
    assert [body["seq"] for body in found] == list(range(first, first + len(bodies)))
    new = found[len(old) - first :]
    assert new[0]["type"] == "start" and len(new) > 10
    assert new[0]["run"]["journal"] == then["id"]
    assert json.loads(cursor.read_text()) == {"schema": 1, **expected["cursor"], "seq": found[-1]["seq"]}
