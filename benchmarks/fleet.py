"""N stations as processes, a bridge each, one broker, one collector: events a second and lag against N.

    python benchmarks/fleet.py [--stations 1 2 4 8 16] [--streams 2] [--step-s 6] [--seconds 20] [--json]

Each station is `edge-hal run --station` with feature streams at 10 Hz, journals and the default reports, and its bridge
is `edge-hal bridge mqtt`. The broker is Mosquitto; the collector is one client that reads every message and its JSON.
Steps last `--step-s` on average. Needs mosquitto (`make services`) and `edge-hal[mqtt]`. Per N:

    messages    a second, of all kinds, at the collector; `durable`: those that are never lost (transitions, ...)
    lag_ms      from the event in the loop of the station to the collector, of durable events: p50, p99, largest
    cores       processor seconds a second of stations, bridges, broker and collector
    memory_mb   PSS of the same
    cut         ticks that the stations cut because they were too slow, as their heartbeats tell
    missing     durable events that did not arrive although a later one of the stream did
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a file, Python looks only in its folder

from benchmarks.station import processor_s, pss_mb
from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.decoding.decoder_config import DecoderConfig
from tests.helpers.bundles import LABELS, known_bundle, vectors
from tests.helpers.services import Mosquitto

HZ = 10.0
START_S, SETTLE_S = 600.0, 60.0
NEWEST = 20


class Collector:
    """Counts what arrives over MQTT while it is told to."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.heard: set[str] = set()
        self.messages = self.missing = 0
        self.lag_ms: list[float] = []
        self.cut: dict[str, int] = {}
        self.counting = False
        self._last: dict[str, int] = {}
        self._newest_ms = deque[float](maxlen=NEWEST)
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="collector")
        self.client.on_message = self._note
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_connect = lambda client, *_: client.subscribe("edge-hal/#", qos=1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(60)

    def _note(self, _client: Any, _data: Any, message: Any) -> None:
        at_ns = time.time_ns()
        _, station, *stream, kind = message.topic.split("/")
        if not stream or kind == "state":
            self.messages += self.counting
            return
        name, event = f"{station}/{stream[0]}", json.loads(message.payload)
        self.messages += self.counting
        if kind == "heartbeat":
            self.heard.add(name)
            self.cut[name] = event["counters"].get("cut", 0)
        if "seq" not in event:
            return
        last = self._last.get(name, event["seq"] - 1)
        self.missing += max(0, event["seq"] - last - 1)
        self._last[name] = max(last, event["seq"])
        lag_ms = (at_ns - event["run"]["utc_ns"]) / 1e6
        self._newest_ms.append(lag_ms)
        if self.counting:
            self.lag_ms.append(lag_ms)

    @property
    def current(self) -> bool:
        """Whether the newest events came within a second."""
        newest = list(self._newest_ms)
        return len(newest) == NEWEST and max(newest) < 1000

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def small_bundle(folder: Path, step_s: float) -> Path:
    """A bundle that knows its answers, with a procedure of steps of this length: so it reports `now` and cycles."""
    steps = np.repeat(np.arange(60) % len(LABELS), round(step_s * HZ))
    config = DecoderConfig(procedure=learn_procedure([steps], LABELS, HZ, None), decide_at=0.9)
    return known_bundle(folder / "bundle", HZ, decoder=config).path


def write_station(folder: Path, bundle: Path, streams: int, step_s: float, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    lines = [f"bundle: {bundle}", f"pub: ipc://{folder}/s", "streams:"]
    for number in range(streams):
        steps = np.repeat(np.arange(3000) % len(LABELS), (rng.uniform(0.5, 1.5, 3000) * step_s * HZ).astype(int))
        np.save(folder / f"{number}.npy", vectors(steps.tolist()))
        source = f"features:{folder}/{number}.npy@{HZ:g}"
        lines.append(f"  s{number}: {{camera: '{source}', journal: {folder}/{number}.journal}}")
    (folder / "station.yaml").write_text("\n".join(lines))
    return folder / "station.yaml"


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edge_hal", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measured(bundle: Path, stations: int, arguments: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as closing:
        place = Path(closing.enter_context(tempfile.TemporaryDirectory()))
        (place / "broker").mkdir()
        broker = Mosquitto(place / "broker")
        closing.enter_context(broker)
        collector = Collector(broker.port)
        closing.callback(collector.close)
        running: dict[str, list[subprocess.Popen[bytes]]] = {"stations": [], "bridges": []}
        closing.callback(lambda: end(process for group in running.values() for process in group))
        for number in range(stations):
            folder = place / f"{number}"
            folder.mkdir()
            file = write_station(folder, bundle, arguments.streams, arguments.step_s, number)
            running["stations"].append(start("run", "--station", file, "--json"))
            target = ("bridge", "mqtt", f"mqtt://127.0.0.1:{broker.port}", "--station", f"f{number}")
            where = ("--connect", f"ipc://{folder}/s", "--cursor", folder / "cursor")
            running["bridges"].append(start(*target, *where))
        until_s = time.monotonic() + START_S
        while len(collector.heard) < stations * arguments.streams:
            if time.monotonic() > until_s:
                raise TimeoutError(f"{len(collector.heard)} of {stations * arguments.streams} streams began")
            time.sleep(0.2)
        settled = time.monotonic() + SETTLE_S
        while time.monotonic() < settled and not collector.current:  # events from the start of the others have waited
            time.sleep(0.2)
        assert broker._process is not None
        groups = {name: [process.pid for process in group] for name, group in running.items()}
        groups |= {"broker": [broker._process.pid]}
        before = {name: (processor_s(pids), time.monotonic()) for name, pids in groups.items()}
        own_s, cut = time.process_time(), sum(collector.cut.values())
        began_s, collector.counting = time.monotonic(), True
        time.sleep(arguments.seconds)
        collector.counting, passed_s = False, time.monotonic() - began_s
        cores = {"collector": (time.process_time() - own_s) / passed_s}
        for name, pids in groups.items():
            used_s, at_s = before[name]
            cores[name] = (processor_s(pids) - used_s) / (time.monotonic() - at_s)
        p50, p99, most = np.percentile(collector.lag_ms, (50, 99, 100))
        return {
            "stations": stations,
            "messages": round(collector.messages / passed_s, 1),
            "durable": round(len(collector.lag_ms) / passed_s, 2),
            "lag_ms": {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "largest": round(float(most), 1)},
            "cores": {name: round(value, 3) for name, value in cores.items()},
            "memory_mb": {name: round(pss_mb(pids), 1) for name, pids in groups.items()},
            "cut": sum(collector.cut.values()) - cut,
            "missing": collector.missing,
            "load": round(os.getloadavg()[0], 1),
        }


def end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    ending = list(processes)
    for process in ending:
        process.kill()
    for process in ending:
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stations", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--streams", type=int, default=2, help="of each station")
    parser.add_argument("--step-s", type=float, default=6.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = small_bundle(Path(folder), arguments.step_s)
        for stations in arguments.stations:
            rows.append(measured(bundle, stations, arguments))
            if not arguments.json:
                print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
