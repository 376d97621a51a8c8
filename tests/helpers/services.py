"""A broker, a database and a web server that tests and measurements start, kill and start again, on loopback."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.processes import REPOSITORY

START_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str, *places: str) -> str:
    """The path of a program. Skips the test if it is not installed."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *places]))
    if found is None:
        pytest.skip(f"{name} is not installed: make services")
    return found


class Service:
    """A program that listens on `port`. It keeps its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self._alive() and self.ready(), self.told)

    def _alive(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.told()
        return True

    def told(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Mosquitto(Service):
    """It writes its sessions and messages to the disk after every change. `lines` are added to its configuration."""

    def __init__(self, folder: Path, lines: str = "allow_anonymous true") -> None:
        super().__init__(folder)
        self._program = program("mosquitto")
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\npersistence true\npersistence_location {folder}/\n"
            "autosave_interval 1\nautosave_on_changes true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
            + ("user root\n" if os.geteuid() == 0 else "")
            + f"{lines}\n"
        )

    def command(self) -> list[str]:
        return [self._program, "-c", str(self.folder / "mosquitto.conf")]

    def save(self) -> None:
        """Write everything to the disk now."""
        file = self.folder / "mosquitto.db"
        before = file.stat().st_mtime_ns if file.exists() else 0
        self.signal(signal.SIGUSR1)
        until(lambda: file.exists() and file.stat().st_mtime_ns > before, self.told)


class Postgres(Service):
    """Its database `postgres` has a user `bridge` with the password `s3cret-word`. As root, it runs as another user."""

    PASSWORD = "s3cret-word"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        places = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        self._program, initdb = program("postgres", *places), program("initdb", *places)
        self._as: list[str] = []
        if os.geteuid() == 0:
            self._as = [program("setpriv"), "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"]
        # The folders of pytest are closed to other users.
        self._home = tempfile.TemporaryDirectory(dir="/var/tmp", prefix="edge-hal-postgres-")
        home = Path(self._home.name)
        if self._as:
            shutil.chown(home, "nobody", "nogroup")
        self._data, password = home / "data", home / "password"
        password.write_text(self.PASSWORD)
        password.chmod(0o644)
        subprocess.run(
            [
                *(*self._as, initdb, "-D", str(self._data), "-U", "bridge", "-A", "scram-sha-256"),
                *("--pwfile", str(password), "-E", "UTF8", "--no-locale", "--no-instructions"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )

    @property
    def url(self) -> str:
        return f"postgresql://bridge@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        # Shared memory in files of its own: in /dev/shm it would stay after a kill.
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*self._as, self._program, "-D", str(self._data), "-p", str(self.port), *options]

    def start(self) -> None:
        """After a kill its children need a moment to notice; until then the data are in use."""
        ended = time.monotonic() + START_S
        while True:
            try:
                return super().start()
            except AssertionError:
                if time.monotonic() > ended or "pre-existing shared memory" not in self.told():
                    raise

    def ready(self) -> bool:
        import psycopg

        try:
            self.ask("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def ask(self, query: str) -> list[tuple[object, ...]]:
        import psycopg

        with psycopg.connect(self.url, password=self.PASSWORD) as connection:
            found = connection.execute(query)  # type: ignore[call-overload, unused-ignore]
            return [] if found.description is None else found.fetchall()


RECEIVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the sender ended within it
            return
        answer = answers.pop(0) if answers else 200
        line = {"answer": answer, "headers": dict(self.headers), "body": body.decode(), "path": self.path}
        received.write(json.dumps(line).encode() + b"\\n")
        os.fsync(received.fileno())
        self.send_response(answer)
        self.send_header("Content-Length", "0")
        if answer == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

answers = json.loads(sys.argv[3])
with open(sys.argv[2], "ab", 0) as received:
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
"""


class Receiver(Service):
    """A web server that keeps each request on the disk before it answers. `answers` are its first status codes."""

    def __init__(self, folder: Path, answers: list[int] | None = None) -> None:
        super().__init__(folder)
        self.answers = answers or []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events?to=us"

    def command(self) -> list[str]:
        return [sys.executable, "-c", RECEIVER, str(self.port), str(self.folder / "received"), json.dumps(self.answers)]

    def received(self) -> list[dict[str, object]]:
        """Whole requests, in order."""
        path = self.folder / "received"
        whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        return [json.loads(line) for line in whole.splitlines()]


def self_signed(folder: Path, name: str, host: str) -> tuple[Path, Path]:
    """Files of a certificate for `host`, signed by itself, and of its key."""
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *(
                program("openssl"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-keyout", str(key), "-out", str(pem), "-days", "2"),
            *("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"),
        ],
        check=True,
        capture_output=True,
    )
    return pem, key


def start_bridge(*arguments: str | Path, log: Path | None = None) -> subprocess.Popen[str]:
    """`edge-hal bridge ARGUMENTS` in a process of its own. Its messages go to `log`, or to a pipe."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "edge_hal", "bridge", *map(str, arguments)]
    if log is None:
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    with log.open("a") as file:
        return subprocess.Popen(command, env=environment, stderr=file, text=True)


def position(cursor: Path) -> int:
    """The last event of the stream that the cursor file acknowledges; -1 without a file."""
    return int(json.loads(cursor.read_text())["seq"]) if cursor.exists() else -1


def until(holds: Callable[[], bool], told: Callable[[], str] = str, limit_s: float = START_S) -> None:
    """Wait until it holds. Fails with what `told` returns."""
    ends = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < ends, told()
        time.sleep(0.01)
