"""Bridges that are killed, and what they feed too: what is lost, and what comes twice.

    python benchmarks/bridge_kills.py [sqlite postgresql mqtt webhook] [--kills 20]

A publisher with a journal sends up to 200 events a second, most of them transitions. The bridge is killed 20 times
(SIGKILL) at random moments while it works, and so is the broker, the database or the web server, except SQLite, which
is no process. What has arrived is compared with the journal, event by event. The receiver over MQTT has a session that
the broker keeps; the broker is Mosquitto and writes to its disk after every change. Needs mosquitto and postgresql
(`make services`).
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a file, Python looks only in its folder

from edge_hal.events import encode
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.journal_reader import JournalReader
from edge_hal.runtime.delivery.publisher import Publisher
from tests.helpers.sample_events import STREAM, mixed
from tests.helpers.services import Mosquitto, Postgres, Receiver, Service, position, start_bridge, until

PAUSE_S = 0.005
"""Between two events."""
AHEAD = 400
"""No more events than this wait for the bridge: on a busy machine it would be behind for minutes."""


@dataclass(frozen=True)
class Outcome:
    """`repeated` came again as the same bytes; `altered` came again as others; `lost` never came."""

    events: int
    bridge_kills: int
    target_kills: int
    lost: int
    repeated: int
    altered: int
    seconds: float


class Subscriber:
    """A client of the broker whose session outlives its connection."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        self.bodies: list[bytes] = []
        kept = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        kept.SessionExpiryInterval = 3600
        version = MQTTProtocolVersion.MQTTv5
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="receiver", protocol=version)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_message = self._note
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_connect = lambda client, *_: client.subscribe(f"edge-hal/+/{STREAM}/+", qos=1)
        self.client.connect("127.0.0.1", port, clean_start=False, properties=kept)
        self.client.loop_start()
        assert subscribed.wait(60)

    def _note(self, _client: Any, _data: Any, message: Any) -> None:
        if b'"seq":' in message.payload and not message.topic.endswith("/state"):
            self.bodies.append(message.payload)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def measure(kind: str, folder: Path, kills: int, seed: int = 0) -> Outcome:
    """Kill the bridge `kills` times and what it feeds as often, in random order.

    Args:
        kind: `sqlite`, `postgresql`, `mqtt` or `webhook`.
        folder: an empty folder. Each service has one of its own in it.
    """
    (folder / "service").mkdir()
    (folder / "secret").write_text("a long secret")
    (folder / "secret").chmod(0o600)
    service: Service | None = None
    subscriber: Subscriber | None = None
    arguments: tuple[str, ...] = ("sql", f"sqlite:///{folder}/events.db")
    if kind == "sqlite":
        arrived = lambda: rows_of_sqlite(folder / "events.db")  # noqa: E731
    elif kind == "postgresql":
        database = Postgres(folder / "service")
        (folder / "secret").write_text(database.PASSWORD)
        service, arrived = database, lambda: rows_of_postgres(database)
        arguments = ("sql", database.url, "--password-file", f"{folder}/secret")
    elif kind == "mqtt":
        service = broker = Mosquitto(folder / "service")
        arguments = ("mqtt", f"mqtt://127.0.0.1:{broker.port}", "--station", "here")
    else:
        service = receiver = Receiver(folder / "service")
        arguments = ("webhook", receiver.url, "--secret-file", f"{folder}/secret")
        arrived = lambda: [str(each["body"]).encode() for each in receiver.received()]  # noqa: E731
    if service is not None:
        service.start()
    if kind == "mqtt":
        subscriber = Subscriber(broker.port)
        broker.save()  # the session survives the first kill
        arrived = lambda: list(subscriber.bodies)  # noqa: E731
    try:
        return _killed((*arguments, "--log", "json"), service, arrived, folder, kills, seed)
    finally:
        if subscriber is not None:
            subscriber.close()
        if service is not None:
            service.kill()


def _killed(
    arguments: tuple[str, ...],
    service: Service | None,
    arrived: Callable[[], list[bytes]],
    folder: Path,
    kills: int,
    seed: int,
) -> Outcome:
    rng, began_s = random.Random(seed), time.monotonic()
    victims = ["bridge"] * kills + ["target"] * (kills if service is not None else 0)
    rng.shuffle(victims)
    endpoint, cursor, log = f"ipc://{folder}/s", folder / "cursor", folder / "log"
    arguments = (*arguments, "--connect", endpoint, "--cursor", str(cursor))
    enough = threading.Event()

    def goes_on(process: subprocess.Popen[str]) -> None:
        """Until it has carried more than when it was started, and a while longer."""
        before = position(cursor)
        until(lambda: position(cursor) > before and process.poll() is None, log.read_text)
        time.sleep(rng.uniform(0, 0.3))

    with Journal(folder / "journal", STREAM) as journal, Publisher(endpoint, STREAM, journal=journal) as publisher:

        def publish() -> None:
            seq = 0
            while not enough.is_set():
                if seq % 20 or seq < position(cursor) + AHEAD:
                    publisher.publish(mixed(seq), wait=True)
                    seq += 1
                time.sleep(PAUSE_S)

        source = threading.Thread(target=publish)
        source.start()
        bridge = start_bridge(*arguments, log=log)
        try:
            for victim in victims:
                goes_on(bridge)
                if victim == "bridge":
                    bridge.kill()
                    bridge.wait()
                    bridge = start_bridge(*arguments, log=log)
                else:
                    assert service is not None
                    service.kill()
                    service.start()
            goes_on(bridge)
            enough.set()
            source.join()
            until(lambda: position(cursor) == journal.next_seq - 1, log.read_text, limit_s=300)
            reader = JournalReader(folder / "journal")
            sent = reader.page(0, 10**9, 10**12).bodies
            reader.close()
            if "mqtt" in arguments:  # confirmed by the broker; the receiver may have to come back
                patience_s = time.monotonic() + 20
                until(lambda: {*sent} <= {*arrived()} or time.monotonic() > patience_s)
            bridge.send_signal(signal.SIGTERM)
            assert bridge.wait(timeout=60) == 0, log.read_text()
        finally:
            enough.set()
            source.join()
            bridge.kill()
            bridge.wait()
    counts = Counter(arrived())
    lost, altered = sum(body not in counts for body in sent), sum(body not in {*sent} for body in counts)
    repeated = sum(counts[body] - 1 for body in sent if body in counts)
    targets = 0 if service is None else kills
    return Outcome(len(sent), kills, targets, lost, repeated, altered, time.monotonic() - began_s)


def rows_of_sqlite(path: Path) -> list[bytes]:
    with sqlite3.connect(path) as database:
        found = database.execute("SELECT body FROM edge_hal_events ORDER BY seq").fetchall()
        bodies = [str(body).encode() for (body,) in found]
        for table, kind in TABLES.items():
            [(count,)] = database.execute(f"SELECT count(*) FROM edge_hal_{table}").fetchall()
            assert count == sum(json.loads(body)["type"] == kind for body in bodies), table
    return bodies


def rows_of_postgres(database: Postgres) -> list[bytes]:
    bodies = [str(body).encode() for (body,) in database.ask("SELECT body FROM edge_hal_events ORDER BY seq")]
    for table, kind in TABLES.items():
        [(count,)] = database.ask(f"SELECT count(*) FROM edge_hal_{table}")
        assert count == sum(json.loads(body)["type"] == kind for body in bodies), table
    return bodies


TABLES = {"transitions": "transition", "deviations": "deviation", "cycles": "cycle"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["sqlite", "postgresql", "mqtt", "webhook"])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"a transition has about {len(encode(mixed(1)))} bytes")
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            outcome = measure(kind, Path(folder), arguments.kills, arguments.seed)
            print(
                f"{kind:>10}: {outcome.bridge_kills} kills of the bridge, {outcome.target_kills} of what it feeds, "
                f"{outcome.events} events in {outcome.seconds:.0f} s: "
                f"{outcome.lost} lost, {outcome.repeated} repeated, {outcome.altered} altered",
                flush=True,
            )


if __name__ == "__main__":
    main()
