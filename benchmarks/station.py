"""What N streams cost in one station against N processes: memory, processor time, latency.

    python benchmarks/station.py [--streams 8] [--seconds 30] [--rounds 2] [--preset jetson] [--video | --camera]

Random weights. Each stream reads `features:` at the rate of the model (`--video`: a 640 x 480 MJPG file at 30 frames a
second; `--camera`: the same in a reading process, as a camera is read), without a journal. It begins at a random moment
within a period of the model, as cameras do. Every decision is made to send an event, so that the whole path is measured
for each tick.

A station and N runs take turns, and ratios are those of the same call:

    memory     PSS of the processes at the end, MB
    processor  seconds of the processes for each second on the wall, once all streams have begun
    start      processor seconds until all streams have begun
    latency    from the capture of a frame to the socket of the publisher, ms, over the events of all streams
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from edge_hal.bundle import Bundle

CHILD = """
import random
import sys
import time
from pathlib import Path
from edge_hal.decoding.decoder import Decision, Decoder
from edge_hal.runtime import model
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.runner import run
from edge_hal.runtime.sources.file_sources import RealtimeFileSource
from edge_hal.runtime.station.options import AddressOptions, StationOptions
from edge_hal.runtime.station.run import run_station

class Always(Decoder):
    def decide(self, tick, log_posterior, belief=None):
        super().decide(tick, log_posterior)
        previous, self.label = self.label, tick % 8
        return Decision(tick % 8, None if previous is None else (tick + 7) % 8, tick, tick, 0.5)

start = RealtimeFileSource.start

def start_apart(source):
    time.sleep(random.random() / float(hz))
    start(source)

RealtimeFileSource.start = start_apart
model.open_decoder = lambda config, spec: Always(config, spec.model_hz, spec.lag_ticks)
bundle, hz, camera, endpoint, *names = sys.argv[1:]
streams = {name: RunOptions(Path(bundle), camera, endpoint, stream=name, decide_every=1) for name in names}
if len(names) > 1:
    run_station(lambda: StationOptions(streams, AddressOptions(endpoint)))
else:
    run(streams[names[0]])
"""
STAGES = ("capture_to_tick", "encode", "step", "decide", "publish")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree(processes: list[int]) -> list[int]:
    """These processes and all below them."""
    found = list(processes)
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def processor_s(processes: list[int]) -> float:
    total = 0
    for pid in tree(processes):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def pss_mb(processes: list[int]) -> float:
    total = 0
    for pid in tree(processes):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def measured(bundle: Bundle, camera: str, groups: list[list[str]], folder: Path, seconds: float) -> dict[str, float]:
    """Streams in groups, a process for each group."""
    names = {name for group in groups for name in group}
    children, endpoints, hz = [], [], str(bundle.spec.model_hz)
    for number, group in enumerate(groups):
        endpoints.append(f"ipc://{folder}/s{number}")
        arguments = [sys.executable, "-c", CHILD, str(bundle.path), hz, camera, endpoints[-1], *group]
        children.append(subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}))
    processes = [child.pid for child in children]
    try:
        latency_ms: list[float] = []
        by_stage: dict[str, list[float]] = {}
        begun: set[str] = set()
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            for endpoint in endpoints:
                socket.connect(endpoint)
            socket.setsockopt(zmq.RCVTIMEO, 60_000)
            start_s, at_begin_s = 0.0, 0.0
            while not at_begin_s or time.monotonic() < at_begin_s + seconds:
                topic, body = socket.recv_multipart()
                if not topic.endswith(b"/transition"):
                    continue
                event: dict[str, Any] = json.loads(body)
                begun.add(event["stream"])
                if begun == names and not at_begin_s:
                    start_s, at_begin_s = processor_s(processes), time.monotonic()
                if at_begin_s:
                    stages = event["run"]["latency_ms"]
                    latency_ms.append(sum(stages.get(stage, 0.0) for stage in STAGES))
                    for stage in STAGES:
                        by_stage.setdefault(stage, []).append(stages.get(stage, 0.0))
            wall_s = time.monotonic() - at_begin_s
            used_s, memory_mb = processor_s(processes) - start_s, pss_mb(processes)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
    p50, p99 = np.percentile(latency_ms, (50, 99))
    return {
        **{"memory_mb": memory_mb, "processor": used_s / wall_s, "start_s": start_s},
        **{"p50_ms": float(p50), "p99_ms": float(p99), "events": len(latency_ms)},
        **{f"{stage}_p50_ms": float(np.median(values)) for stage, values in by_stage.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--preset", default="jetson")
    parser.add_argument("--video", action="store_true")
    parser.add_argument("--camera", action="store_true")
    arguments = parser.parse_args()
    from bundles import noise_video, random_bundle

    names = [f"s{number}" for number in range(arguments.streams)]
    ways = {"station": [names], "processes": [[name] for name in names]}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = random_bundle(place / "bundle", arguments.preset, pictures=arguments.video or arguments.camera)
        hz, frames = bundle.spec.model_hz, round((arguments.seconds + 120) * max(30.0, bundle.spec.model_hz))
        if arguments.video or arguments.camera:
            camera = ("fault:seed=1:" if arguments.camera else "") + str(noise_video(place / "v.avi", frames, 30.0))
        else:
            rows = np.random.default_rng(0).normal(size=(frames, bundle.spec.front_end.size))
            np.save(place / "f.npy", rows.astype(np.float32))
            camera = f"features:{place}/f.npy@{hz}"
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way, groups in ways.items():
                found[way].append(measured(bundle, camera, groups, place, arguments.seconds))
                print(way, {key: round(value, 3) for key, value in found[way][-1].items()}, flush=True)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{arguments.streams} streams, {arguments.preset} at {hz:g} Hz, {os.cpu_count()} cores, load {load}")
    for key in ("memory_mb", "processor", "start_s", "p50_ms", "p99_ms"):
        one, many = (float(np.median([each[key] for each in found[way]])) for way in ways)
        print(f"  {key:10} station {one:8.3f}   processes {many:8.3f}   ratio {one / many:.2f}")


if __name__ == "__main__":
    main()
