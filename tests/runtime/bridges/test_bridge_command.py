"""`edge-hal bridge`: wrong use is one error without a traceback, no password is shown, and events are carried."""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from tests.helpers.deliveries import kept
from tests.helpers.processes import call, called_here
from tests.helpers.sample_events import STREAM, mixed
from tests.helpers.services import position, start_bridge, until

WORD = "secret-word"


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def own_logs() -> Iterator[None]:
    """The command sets up the logs of this process."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_wrong_use_is_one_error_that_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_logs: None
) -> None:
    for module in ("sqlalchemy", "psycopg", "paho.mqtt.client"):
        pytest.importorskip(module)
    word, auth = private(tmp_path / "word", WORD), private(tmp_path / "auth", WORD)
    seen, empty = private(tmp_path / "seen", WORD, 0o644), private(tmp_path / "empty", "")
    common = ("--cursor", str(tmp_path / "cursor"))
    hook = ("webhook", "https://host/x", *common, "--secret-file")
    cases: dict[tuple[str, ...], tuple[int, str]] = {
        ("mqtt", "http://h", *common): (2, "must begin with mqtt://"),
        ("mqtt", f"mqtt://u:{WORD}@h", *common): (2, "--auth"),
        ("mqtt", "mqtt://h", "--auth", str(auth), *common): (1, "user:password"),
        ("mqtt", "mqtt://h", "--auth", str(tmp_path / "none"), *common): (1, "cannot read the credentials"),
        ("mqtt", "mqtts://h", "--ca", str(tmp_path / "none"), *common): (1, "No such file"),
        ("mqtt", "mqtts://h", "--ca", str(word), *common): (1, "TLS"),
        ("sql", "mysql://h/d", *common): (2, "not known"),
        ("sql", f"oracle://u:{WORD}@h/d", *common): (2, "not known"),
        ("sql", f"sqlite:///{tmp_path}/no/folder.db", *common): (1, "unable to open"),
        ("sql", f"sqlite:///{word}", *common): (1, "not a database"),
        (*hook, str(seen)): (1, "others on this machine can read it"),
        (*hook, str(empty)): (1, "holds no secret"),
        (*hook, str(word), "--types", "nonsense"): (2, "'nonsense' is none of start, transition"),
        (*hook, str(word), "--key", str(word)): (2, "one key is missing"),
        ("webhook", "host/x", *common, "--secret-file", str(word)): (2, "must begin with"),
        ("webhook", "https://h/", "--secret-file", str(word), "--cursor", str(word)): (1, "cannot read the cursor"),
        ("webhook", "https://h/", "--secret-file", str(word), "--connect", "nonsense", *common): (2, "cannot connect"),
    }
    for case, (expected, told) in cases.items():
        code, _, err = called_here(monkeypatch, capsys, "bridge", *case, "--log", "human")
        assert (code, err.count("error: "), "Traceback" in err) == (expected, 1, False), (case, err)
        assert told in " ".join(err.split()), (case, err)
        assert WORD not in err, (case, err)
    assert not (tmp_path / "cursor").exists()


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("paho", ("mqtt", "mqtt://h"), "mqtt"),
        ("sqlalchemy", ("sql", "sqlite:///e.db"), "sql"),
        ("psycopg", ("sql", "postgresql://u@h/d"), "sql"),
    ],
)
def test_a_missing_package_is_one_error(module: str, arguments: tuple[str, ...], extra: str, tmp_path: Path) -> None:
    if module == "psycopg":
        pytest.importorskip("sqlalchemy")
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = ['edge-hal', 'bridge', *sys.argv[1:]]\n"
        "from edge_hal.__main__ import main; main()"
    )
    status, _, err = call(*arguments, "--cursor", str(tmp_path / "c"), "--log", "human", code=code, cwd=tmp_path)
    assert status == 1 and "is not installed" in err and f"edge-hal[{extra}]" in err and "Traceback" not in err, err


def test_the_command_carries_events_and_hides_the_password_in_ps(endpoint: str, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    with Journal(tmp_path / "j", STREAM) as journal, Publisher(endpoint, STREAM, journal=journal) as publisher:
        for seq in range(300):
            publisher.publish(mixed(seq), wait=True)
        arguments = ("--connect", endpoint, "--cursor", tmp_path / "c", "--log", "json")
        with start_bridge("sql", f"sqlite:///{tmp_path}/e.db", *arguments) as process:
            until(lambda: position(tmp_path / "c") == 299)
            process.terminate()
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and all(json.loads(line)["level"] == "info" for line in err.splitlines())
        with sqlite3.connect(tmp_path / "e.db") as database:
            found = database.execute("SELECT body FROM edge_hal_events ORDER BY seq").fetchall()
        assert [body.encode() for (body,) in found] == kept(tmp_path / "j")
        if sys.platform == "linux":
            pytest.importorskip("psycopg")
            arguments = ("--connect", endpoint, "--cursor", tmp_path / "c2", "--log", "json")
            with start_bridge("sql", f"postgresql://u:{WORD}@127.0.0.1:1/d", *arguments) as process:
                assert process.stderr is not None
                told = next(line for line in process.stderr if "trying again" in line)
                shown = Path(f"/proc/{process.pid}/cmdline").read_text()
                process.terminate()
                told += process.stderr.read()
            assert WORD not in told and WORD not in shown and "127.0.0.1:1/d" in told
