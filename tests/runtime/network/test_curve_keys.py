from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.files import key_files
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.network import curve_keys as module
from edge_hal.runtime.network.curve_keys import allow, allowed_keys, client_keys, new_pair, revoke, server_keys
from tests.helpers.processes import REPOSITORY
from tests.helpers.sample_events import ANY_PORT, STREAM, start, transition


def edge_hal(*arguments: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "edge_hal", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    return done.returncode, done.stdout, done.stderr


def test_a_pair_is_made_once_and_its_secret_is_its_owners(tmp_path: Path) -> None:
    before = os.umask(0)  # even then
    try:
        public, secret = new_pair(tmp_path / "keys", "station-1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert sorted(path.name for path in secret.parent.iterdir()) == ["station-1.key", "station-1.key_secret"]
    assert b"secret-key" not in public.read_bytes() and b"secret-key" in secret.read_bytes()
    content = secret.read_bytes()
    with pytest.raises(EdgeHalError, match="there is a key 'station-1'"):
        new_pair(tmp_path / "keys", "station-1")
    assert secret.read_bytes() == content
    assert len(server_keys(secret).secret) == 40
    for name in ("", "../x", "a/b", ".hidden", "x" * 65, "a b"):
        with pytest.raises(EdgeHalError, match="cannot name a key"):
            new_pair(tmp_path / "keys", name)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    public, secret = new_pair(tmp_path, "a")
    secret.chmod(mode)
    for use in (lambda: server_keys(secret), lambda: client_keys(secret, public)):
        with pytest.raises(EdgeHalError, match="others can read it") as error:
            use()
        assert f"chmod 600 {secret}" in error.value.todo


def test_a_failed_pair_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_files.os, "link", failing_at(2, os.link))
    with pytest.raises(EdgeHalError, match="cannot write keys"):
        new_pair(tmp_path / "new" / "keys", "a")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "a.key").write_text("mine")
    with pytest.raises(EdgeHalError, match="there is a key 'a'"):
        new_pair(tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.key"]


def failing_at(call: Any, plain: Any) -> Any:
    """`plain`, but the call of this number fails as if the disk were full."""
    calls = []

    def fail(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        return plain(*given)

    return fail


def test_a_secret_of_another_owner_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    _, secret = new_pair(tmp_path, "a")
    os.chown(secret, 4711, -1)
    with pytest.raises(EdgeHalError, match="another user owns it"):
        server_keys(secret)


def test_a_secret_that_does_not_fit_its_public_key_is_refused(tmp_path: Path) -> None:
    _, secret = new_pair(tmp_path, "a")
    other, _ = new_pair(tmp_path, "b")
    line = next(line for line in other.read_text().splitlines() if "public-key" in line)
    mine = next(line for line in secret.read_text().splitlines() if "public-key" in line)
    secret.write_text(secret.read_text().replace(mine, line))
    with pytest.raises(EdgeHalError, match="does not fit its public key"):
        server_keys(secret)


def test_what_every_user_can_write_allows_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    public, secret = new_pair(tmp_path / "keys", "a")
    other, _ = new_pair(tmp_path / "keys", "b")
    for key in (public, other):
        allow(tmp_path / "keys", key)
    folder = tmp_path / "keys" / "allowed"
    assert set(allowed_keys(folder)) == {"a", "b"}
    (folder / "a.key").chmod(0o666)
    for _ in range(3):
        assert set(allowed_keys(folder)) == {"b"}
    assert len([record for record in caplog.records if "a.key" in record.getMessage()]) == 1
    folder.chmod(0o777)
    assert allowed_keys(folder) == {} and "every user of the machine can add keys" in caplog.text
    with pytest.raises(EdgeHalError, match="every user of the machine"):
        server_keys(secret)
    with pytest.raises(EdgeHalError, match="every user of the machine"):
        allow(tmp_path / "keys", public, "c")
    folder.chmod(0o755)
    (tmp_path / "keys").chmod(0o777)
    with pytest.raises(EdgeHalError, match="every user of the machine"):
        server_keys(secret)


def test_pipes_and_devices_among_the_allowed_keys_are_skipped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    public, _ = new_pair(tmp_path / "keys", "a")
    folder = allow(tmp_path / "keys", public).parent
    os.mkfifo(folder / "pipe.key")
    (folder / "zero.key").symlink_to("/dev/zero")
    (folder / "folder.key").mkdir()
    (folder / "large.key").write_bytes(bytes(1 << 20))
    (folder / "gone.key").symlink_to("nowhere")
    assert set(allowed_keys(folder)) == {"a"}
    for name in ("pipe", "zero", "folder", "large", "gone"):
        assert f"{name}.key" in caplog.text


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    public, secret = new_pair(tmp_path, "a")
    with pytest.raises(EdgeHalError, match="holds no secret key"):
        server_keys(public)
    lines = secret.read_text()
    for number, content in enumerate(
        [
            b"",
            b"\x00" * 99,
            b"public-key",
            b"public-key = x",
            b'public-key = "\xff\xfe"',
            lines[:-3].encode(),
            b'public-key = "' + b"#" * 40 + b'"\n',
        ]
    ):
        broken = tmp_path / f"broken{number}.key"
        broken.write_bytes(content)
        broken.chmod(0o600)
        with pytest.raises(EdgeHalError):
            server_keys(broken)
    for path in (tmp_path / "none.key", tmp_path):
        with pytest.raises(EdgeHalError, match="cannot read the key"):
            client_keys(secret, path)


def test_allow_and_revoke_keep_a_folder_of_public_keys(tmp_path: Path) -> None:
    station = tmp_path / "station"
    mine, secret = new_pair(tmp_path / "me", "anna")
    yours, _ = new_pair(tmp_path / "you", "anna")
    allow(station, mine)
    allow(station, mine)  # again does no harm
    with pytest.raises(EdgeHalError, match="another key is allowed as 'anna'"):
        allow(station, yours)
    allow(station, yours, "berta")
    assert set(allowed_keys(station / "allowed")) == {"anna", "berta"}
    with pytest.raises(EdgeHalError, match="secret"):
        allow(station, secret, "carl")
    revoke(station, "anna")
    assert set(allowed_keys(station / "allowed")) == {"berta"}
    with pytest.raises(EdgeHalError, match="no key 'anna' is allowed: allowed: berta"):
        revoke(station, "anna")


@pytest.fixture
def station(tmp_path: Path) -> tuple[Path, ...]:
    """(folder, the publisher's public and secret file)."""
    return (tmp_path / "station", *new_pair(tmp_path / "station", "station"))


def test_only_whom_the_publisher_allows_hears_and_asks(tmp_path: Path, station: Any) -> None:
    folder, public, secret = station
    anna, mallory = new_pair(tmp_path / "a", "anna"), new_pair(tmp_path / "m", "mallory")
    allow(folder, anna[0])
    endpoint = f"ipc://{tmp_path}/s"
    with (
        Journal(tmp_path / "journal", STREAM) as journal,
        Publisher(endpoint, STREAM, journal=journal, keys=server_keys(secret)) as publisher,
    ):
        publisher.publish(start())
        for seq in range(1, 50):
            publisher.publish(transition(seq))
        with subscribe(endpoint, begin="oldest", keys=client_keys(anna[1], public), timeout_s=20) as events:
            assert [next(e for e in events if e.durable).seq for _ in range(50)] == list(range(50))
        strangers = [
            (client_keys(mallory[1], public), "not allowed there"),
            (client_keys(anna[1], mallory[0]), None),  # takes somebody else for the publisher: no answer
            (None, "one side encrypts"),
        ]
        for keys, refusal in strangers:
            with subscribe(endpoint, keys=keys, timeout_s=0.7 if refusal is None else 20) as events:
                if refusal is None:
                    assert list(events) == []
                else:
                    with pytest.raises(EdgeHalError, match=refusal):
                        next(events)
            with zmq.Context() as context, context.socket(zmq.REQ) as socket:
                socket.setsockopt(zmq.LINGER, 0)
                if keys is not None:
                    keys.secure(socket)
                socket.connect(f"{endpoint}.replay")
                socket.setsockopt(zmq.SNDTIMEO, 300)
                with suppress(zmq.Again):  # a connection that was refused before this has no queue any more
                    socket.send(b'{"from":0}')
                    assert not socket.poll(300)
        # both lists are read at every knock
        allow(folder, mallory[0])
        with subscribe(endpoint, begin="oldest", keys=client_keys(mallory[1], public), timeout_s=20) as events:
            assert next(e for e in events if e.durable).seq == 0
        revoke(folder, "mallory")
        with (
            subscribe(endpoint, keys=client_keys(mallory[1], public), timeout_s=20) as events,
            pytest.raises(EdgeHalError, match="not allowed there"),
        ):
            next(events)
        with subscribe(endpoint, begin="oldest", keys=client_keys(anna[1], public), timeout_s=20) as events:
            assert next(e for e in events if e.durable).seq == 0


def test_a_damaged_allow_list_lets_nobody_in_and_kills_nothing(tmp_path: Path, station: Any) -> None:
    folder, public, secret = station
    anna = new_pair(tmp_path / "a", "anna")
    endpoint = f"ipc://{tmp_path}/s"
    with Publisher(endpoint, STREAM, keys=server_keys(secret)) as publisher:
        publisher.publish(start())
        with (
            subscribe(endpoint, keys=client_keys(anna[1], public), timeout_s=20) as events,
            pytest.raises(EdgeHalError, match="not allowed there"),  # there is no folder yet
        ):
            next(events)
        (folder / "allowed").mkdir()
        (folder / "allowed" / "broken.key").write_bytes(b"\x00public-key")
        (folder / "allowed" / "folder.key").mkdir()
        allow(folder, anna[0])
        with subscribe(endpoint, keys=client_keys(anna[1], public), timeout_s=20) as events:
            assert next(events).type == "snapshot"


def test_an_encrypted_address_may_be_open_to_others(station: Any) -> None:
    _, _, secret = station
    with pytest.raises(EdgeHalError, match="unencrypted") as error:
        Publisher("tcp://0.0.0.0:*", STREAM)
    assert "--key" in error.value.todo and "--insecure" in error.value.todo and error.value.exit_code == 2
    with Publisher("tcp://0.0.0.0:*", STREAM, keys=server_keys(secret)) as publisher:
        assert publisher.endpoint.startswith("tcp://0.0.0.0:")
    with Publisher("tcp://0.0.0.0:*", STREAM, insecure=True):
        pass


def test_replay_is_refused_where_publishing_would_be(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", STREAM) as journal, pytest.raises(EdgeHalError, match="unencrypted"):
        Publisher(ANY_PORT, STREAM, journal=journal, replay="tcp://0.0.0.0:*")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "keys"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    code, out, _ = edge_hal("keys", "new", "station")
    assert code == 0 and out.split() == [
        str(tmp_path / "config" / "edge-hal" / "keys" / f"station.{end}") for end in ("key", "key_secret")
    ]
    assert module.default_folder() == tmp_path / "config" / "edge-hal" / "keys"
    assert edge_hal("keys", "new", "anna", "--dir", folder)[0] == 0
    assert edge_hal("keys", "allow", folder / "anna.key", "--dir", folder)[0] == 0
    assert (folder / "allowed" / "anna.key").is_file()
    code, _, err = edge_hal("keys", "new", "anna", "--dir", folder)
    assert code == 1 and "there is a key" in err and "Traceback" not in err
    assert edge_hal("keys", "revoke", "anna", "--dir", folder)[0] == 0
    code, _, err = edge_hal("keys", "revoke", "anna", "--dir", folder)
    assert code == 2 and "no key 'anna'" in err and "Traceback" not in err
    code, _, err = edge_hal("listen", "--key", folder / "anna.key_secret")
    assert code == 2 and "--server-key" in err
