"""Whose connections are ended: those of revoked keys, and those beyond the limit that ask for nothing. Real runs."""

from __future__ import annotations

import json
import resource
import socket as net
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from edge_hal.bundle import Bundle
from edge_hal.events import Event, Heartbeat
from edge_hal.runtime.delivery.client import Subscription, subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.network.connections import CONNECTIONS
from edge_hal.runtime.network.curve_keys import ClientKeys, allow, client_keys, new_pair, server_keys
from edge_hal.runtime.network.descriptors import LEAST, RESERVED
from edge_hal.runtime.network.monitored_socket import MonitoredSocket
from tests.helpers.bundles import vectors
from tests.helpers.processes import completed
from tests.helpers.processes import start as start_run
from tests.helpers.sample_events import ANY_PORT, STREAM, start, transition

PATIENCE_S, HEARTBEATS = 60.0, 30
FEW = 256
"""Descriptors of a run that is not allowed more."""
IDLE = 400
"""Connections to each of its three addresses."""


def eventful(folder: Path) -> str:
    """A source with a transition every 0.4 s, for 120 s."""
    np.save(folder / "f.npy", vectors(([0] * 4 + [1] * 4) * 150))
    return f"features:{folder}/f.npy@10"


def heartbeats(events: Subscription) -> Iterator[Heartbeat]:
    return (event for event in events if isinstance(event, Heartbeat))


class Stranger:
    """The sockets of a subscriber in libzmq's own words: nothing connects again behind the test's back."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, replay: str, keys: ClientKeys) -> None:
        self.live, self.past = MonitoredSocket(context, zmq.SUB), MonitoredSocket(context, zmq.DEALER)
        self.live.subscribe(b"")
        self.monitors = []
        for socket, address in ((self.live, endpoint), (self.past, replay)):
            socket.setsockopt(zmq.LINGER, 0)
            keys.secure(socket)
            events = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            self.monitors.append(socket.watch(events))
            socket.connect(address)

    def asks(self) -> bool:
        """Whether a request for past events is answered."""
        with suppress(zmq.Again):  # there is no connection
            self.past.send(b'{"from":0}', zmq.DONTWAIT)
        answered = bool(self.past.poll(1000))
        if answered:
            self.past.recv_multipart()
        return answered

    def received(self) -> list[dict[str, Any]]:
        """What has come so far."""
        found = []
        while self.live.poll(0):
            found.append(json.loads(self.live.recv_multipart()[1]))
        return found

    def was_told(self, event: int) -> bool:
        """Both connections ended in this way."""
        return all(self._tells(each, event) for each in self.monitors)

    def _tells(self, told: zmq.Socket[bytes], event: int) -> bool:
        while told.poll(int(1000 * PATIENCE_S)):
            if recv_monitor_message(told)["event"] == event:
                return True
        return False

    def close(self) -> None:
        self.live.close()
        self.past.close()


def test_a_revoked_key_is_cut_and_nobody_else_misses_anything(tmp_path: Path, bundle: Bundle) -> None:
    for name in ("station", "anna", "bob"):
        new_pair(tmp_path, name)
    for name in ("anna", "bob"):
        allow(tmp_path, tmp_path / f"{name}.key")
    anna_keys, bob_keys = (
        client_keys(tmp_path / f"{name}.key_secret", tmp_path / "station.key") for name in ("anna", "bob")
    )
    address = f"ipc://{tmp_path}/s"
    run = start_run(
        *(
            "run",
            "--bundle",
            str(bundle),
            "--camera",
            eventful(tmp_path),
            "--journal",
            f"{tmp_path}/j",
            "--log",
            "json",
        ),
        *("--pub", address, "--key", f"{tmp_path}/station.key_secret"),
    )
    with ExitStack() as stack:
        stack.callback(run.kill)
        bob = stack.enter_context(subscribe(address, begin="oldest", timeout_s=PATIENCE_S, keys=bob_keys))
        seqs: list[int] = []

        def follow(event: Event) -> dict[str, Any]:
            seqs.extend([event.seq] if event.durable else [])
            return getattr(event, "delivery", {})

        follow(next(bob))
        context = stack.enter_context(zmq.Context())
        anna = Stranger(context, address, f"{address}.replay", anna_keys)
        stack.callback(anna.close)
        while not anna.asks():
            pass
        heard: list[Any] = []
        while sum("seq" in message for message in heard) < 2:
            follow(next(bob))
            heard += anna.received()
        assert completed("keys", "revoke", "anna", "--dir", tmp_path).returncode == 0
        delivery: dict[str, Any] = {}
        while not all("key revoked" in delivery.get(name, {}) for name in ("refused", "replay_refused")):
            delivery = follow(next(bob)) or delivery
        assert delivery["refused"]["key revoked"] == delivery["replay_refused"]["key revoked"] == 1
        assert anna.was_told(zmq.EVENT_DISCONNECTED) and anna.was_told(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        told = seqs[-1]
        heard += anna.received()
        while seqs[-1] < told + 5:
            follow(next(bob))
        assert not anna.received() and not anna.asks()
        assert max(message["seq"] for message in heard if "seq" in message) <= told
        assert seqs == list(range(seqs[-1] + 1))
        run.terminate()
        _, err = run.communicate(timeout=PATIENCE_S)
    said = [entry["message"] for entry in map(json.loads, err.splitlines()) if "no longer allowed" in entry["message"]]
    assert len(said) == 2 and all("'anna'" in text and text.endswith("ended: 1") for text in said)


def test_a_connection_that_has_said_nothing_is_ended_when_a_key_is_revoked(tmp_path: Path) -> None:
    """Its key is not known yet: it may be the revoked one. The others connect again."""
    for name in ("station", "anna", "bob"):
        new_pair(tmp_path, name)
    for name in ("anna", "bob"):
        allow(tmp_path, tmp_path / f"{name}.key")
    keys = client_keys(tmp_path / "anna.key_secret", tmp_path / "station.key")
    with (
        Publisher(ANY_PORT, STREAM, keys=server_keys(tmp_path / "station.key_secret")) as publisher,
        zmq.Context() as context,
        MonitoredSocket(context, zmq.SUB) as silent,
    ):
        keys.secure(silent)
        silent.setsockopt(zmq.LINGER, 0)
        told = silent.watch(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        silent.connect(publisher.endpoint)
        assert recv_monitor_message(told)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        assert completed("keys", "revoke", "anna", "--dir", tmp_path).returncode == 0
        assert told.poll(int(1000 * PATIENCE_S)) and recv_monitor_message(told)["event"] == zmq.EVENT_DISCONNECTED


@pytest.mark.slow
def test_idle_connections_keep_nobody_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Journal(tmp_path / "j", STREAM) as journal, Publisher(ANY_PORT, STREAM, journal=journal) as publisher:
        publisher.publish(start())
        with (
            subscribe(publisher.endpoint, replay=publisher.replay, begin="oldest", timeout_s=PATIENCE_S) as before,
            ExitStack() as peers,
        ):
            while not next(before).durable:
                pass
            for address in (publisher.endpoint, publisher.replay):
                assert address is not None
                port = int(address.rpartition(":")[2])
                for _ in range(2 * CONNECTIONS):
                    peers.enter_context(net.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
            refused: dict[str, Any] = {}
            for event in islice(heartbeats(before), HEARTBEATS):
                refused = event.delivery
                if all(
                    refused[name].get("too many connections", 0) >= CONNECTIONS
                    for name in ("refused", "replay_refused")
                ):
                    break
            else:
                raise AssertionError(refused)
            assert all(0 < each["open"] <= each["limit"] == CONNECTIONS for each in publisher.connections().values())
            publisher.publish(transition(1))
            with subscribe(
                publisher.endpoint, replay=publisher.replay, begin="oldest", timeout_s=PATIENCE_S
            ) as newcomer:
                assert [next(e for e in newcomer if e.durable).seq for _ in range(2)] == [0, 1]
            assert next(event for event in before if event.durable).seq == 1  # it was never cut
    said = [
        record.getMessage()
        for record in caplog.records
        if "the oldest that has asked for nothing" in record.getMessage()
    ]
    assert len(said) == 2  # once for each address


@contextmanager
def limited_run(*arguments: str, limit: int = FEW) -> Iterator[subprocess.Popen[str]]:
    """`edge-hal run` that may have `limit` descriptors."""
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\n"
        "from edge_hal.__main__ import main\n"
        "sys.exit(main())\n"
    )
    run = start_run("run", *arguments, code=code)
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def test_a_run_that_may_open_too_few_files_says_so(tmp_path: Path, bundle: Path) -> None:
    source = ("--camera", eventful(tmp_path), "--pace", "asap", "--pub", ANY_PORT)
    with limited_run("--bundle", str(bundle), *source, limit=LEAST - 1) as run:
        _, said = run.communicate(timeout=60)
    assert run.returncode == 1 and f"needs at least {LEAST}" in said and "Traceback" not in said
    with limited_run("--bundle", str(bundle), *source, limit=LEAST) as run:
        _, said = run.communicate(timeout=60)
    assert run.returncode == 0, said


@pytest.mark.slow
def test_idle_peers_leave_descriptors_for_the_camera(tmp_path: Path, bundle: Bundle) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 3 * IDLE + 200:
        pytest.skip(f"the test itself opens {3 * IDLE} connections, more than its limit of descriptors")
    ports = []
    with ExitStack() as probes:
        for _ in range(3):
            probe = probes.enter_context(net.create_server(("127.0.0.1", 0)))
            ports.append(probe.getsockname()[1])
    pub, replay, metrics = (f"127.0.0.1:{port}" for port in ports)
    unplugged = ",".join(f"unplug@{at_s}s+500ms" for at_s in range(4, 200, 4))
    arguments = (
        "--bundle",
        str(bundle),
        "--camera",
        f"fault:{unplugged}:{eventful(tmp_path)}",
        "--journal",
        f"{tmp_path}/j",
    )
    addresses = ("--pub", f"tcp://{pub}", "--replay", f"tcp://{replay}", "--metrics", metrics)
    with limited_run(*arguments, *addresses) as run, ExitStack() as peers:
        endpoint = f"tcp://{pub}"
        with subscribe(endpoint, replay=f"tcp://{replay}", begin="oldest", timeout_s=PATIENCE_S) as events:
            seqs = [next(event for event in events if event.durable).seq]
            for port in ports:
                for _ in range(IDLE):
                    peers.enter_context(net.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
            opened: int | None = None
            for event in events:
                seqs += [event.seq] if event.durable else []
                if not isinstance(event, Heartbeat):
                    continue
                descriptors, connections = event.health["descriptors"], event.health["connections"]
                many = all(event.delivery[name].get("too many connections") for name in ("refused", "replay_refused"))
                if many and opened is None:
                    opened = event.health["source"]["connections"]
                if opened is not None and event.health["source"]["connections"] >= opened + 2:
                    break
            else:
                raise AssertionError("the camera was not opened again, or no connection was ended")
            assert (descriptors["limit"], descriptors["reserved"]) == (FEW, RESERVED)
            assert all(each["open"] <= each["limit"] == (FEW - RESERVED) // 3 for each in connections.values())
            assert seqs == list(range(len(seqs))) and not event.delivery["troubles"]
        assert run.poll() is None
