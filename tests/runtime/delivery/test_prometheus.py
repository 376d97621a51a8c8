from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import struct
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery import sender as module
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.prometheus import CONNECTIONS, MetricsServer
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.report import Status
from tests.helpers.sample_events import ANY_PORT, STREAM, start, transition

COUNTERS = {
    **{"captured": 9, "used": 6, "dropped": {"superseded": 2, "reset": 0}, "in_flight": 1},
    **{"ticks": 8, "fresh": 6, "held": 2, "cut": 0},
}


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{server.address}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def value(text: str, name: str, **labels: str) -> float:
    """Of the one line with this name and these labels."""
    lines = [line for line in text.splitlines() if re.match(rf"{name}\{{", line)]
    [line] = [line for line in lines if all(f'{key}="{value}"' in line for key, value in labels.items())]
    return float(line.split()[-1])


def test_prometheus_reads_what_heartbeats_tell(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "j", STREAM) as journal,
        Publisher(f"ipc://{tmp_path}/s", STREAM, journal=journal) as publisher,
        MetricsServer("127.0.0.1:0", publisher.vitals) as server,
        subscribe(f"ipc://{tmp_path}/s", timeout_s=20) as events,
    ):
        publisher.wait_subscribers(1)
        publisher.publish(start())
        publisher.publish(transition(1))
        publisher.status(Status(COUNTERS))
        while next(events).type != "heartbeat":
            pass
        code, text = get(server, "/metrics")
        assert code == 200
        for fate, count in (("captured", 9), ("used", 6), ("dropped_superseded", 2), ("dropped_reset", 0)):
            assert value(text, "edge_hal_frames_total", stream=STREAM, fate=fate) == count
        assert value(text, "edge_hal_ticks_total", kind="held") == 2
        assert value(text, "edge_hal_in_flight_frames") == 1 and value(text, "edge_hal_healthy") == 1
        assert value(text, "edge_hal_events_total") == 2 and value(text, "edge_hal_held_events") == 0
        assert 0 < value(text, "edge_hal_latency_seconds", stage="journal", quantile="0.99") < 60
        assert get(server, "/health") == (200, json.dumps({"stream": STREAM, "troubles": []}))
        assert get(server, "/other")[0] == 404


def test_health_turns_red_for_a_journal_that_cannot_be_written_and_for_a_loop_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)
    with (
        Journal(tmp_path / "j", STREAM) as journal,
        Publisher(f"ipc://{tmp_path}/s", STREAM, journal=journal) as publisher,
        MetricsServer("127.0.0.1:0", publisher.vitals) as server,
        subscribe(f"ipc://{tmp_path}/s", timeout_s=20) as events,
    ):
        assert get(server, "/health")[0] == 200  # it was opened just now: nothing can be wrong yet
        publisher.status(Status(COUNTERS))
        assert get(server, "/health")[0] == 200
        monkeypatch.setattr(module, "SILENCE_S", -1.0)
        code, text = get(server, "/health")
        assert code == 503 and "no progress" in text
        monkeypatch.setattr(module, "SILENCE_S", 600.0)
        holder = sqlite3.connect(tmp_path / "j", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        publisher.publish(start())
        while next(events).delivery["journal"] == "ok":
            pass
        code, text = get(server, "/health")
        assert code == 503 and "locked" in text
        holder.execute("ROLLBACK")
        holder.close()
        while next(events).type != "start":
            pass
        assert get(server, "/health")[0] == 200


def test_addresses_are_checked(tmp_path: Path) -> None:
    with Publisher(ANY_PORT, STREAM) as publisher:
        for address, code in (("9570", 2), ("127.0.0.1:99999", 2), ("0.0.0.0:0", 2), ("192.0.2.1:1", 2)):
            with pytest.raises(EdgeHalError) as error:
                MetricsServer(address, publisher.vitals)
            assert error.value.exit_code == code and error.value.todo
        with (
            MetricsServer("127.0.0.1:0", publisher.vitals) as server,
            pytest.raises(EdgeHalError, match="uses this address"),
        ):
            MetricsServer(server.address, publisher.vitals)
        MetricsServer("0.0.0.0:0", publisher.vitals, insecure=True).close()


@pytest.mark.slow
def test_idle_and_slow_peers_are_bounded_and_a_scrape_is_still_answered(caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(ANY_PORT, STREAM) as publisher, MetricsServer("127.0.0.1:0", publisher.vitals) as server:
        host, port = server.address.split(":")
        before = len(os.listdir("/proc/self/fd"))
        peers = [socket.create_connection((host, int(port)), timeout=60) for _ in range(2 * CONNECTIONS)]
        for peer in peers[::2]:
            peer.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ")  # and never the rest
        assert "troubles" in get(server, "/health")[1]
        assert len(os.listdir("/proc/self/fd")) - before - len(peers) <= CONNECTIONS + 10
        for peer in peers:
            with suppress(ConnectionError):
                while peer.recv(65536):
                    pass
            peer.close()
        for _ in range(20):  # a client that leaves before it is answered
            with socket.create_connection((host, int(port)), timeout=60) as rude:
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                rude.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert get(server, "/metrics")[0] == 200
    assert not caplog.records


def test_a_slow_trickle_of_a_request_does_not_keep_a_connection() -> None:
    with Publisher(ANY_PORT, STREAM) as publisher, MetricsServer("127.0.0.1:0", publisher.vitals) as server:
        host, port = server.address.split(":")
        with socket.create_connection((host, int(port)), timeout=0.3) as peer:
            for _ in range(200):
                try:
                    peer.sendall(b"G")
                    peer.recv(1024)
                    break  # closed, or answered with an error
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            else:
                raise AssertionError("it is still open")
