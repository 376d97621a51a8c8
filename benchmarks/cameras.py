"""How many cameras one station carries: MJPEG over HTTP, decoded for real, a reading process each.

    python benchmarks/cameras.py [--cameras 24] [--seconds 300] [--preset tiny [--encoder NAME] | --bundle BUNDLE]

A server in a process of its own sends a rendered session, 640 x 480 at 30 frames a second, to each camera, from another
frame on. `edge-hal run --station` reads them all. Several numbers of cameras show the limit: `--cameras 8 16 24`.

    cut, held      ticks that did not take place; ticks without a new frame
    lost           frames that were replaced by a newer one before the station took them
    age p50, p99   from the capture of a frame to the socket of the publisher, ms, over all transitions
    cores          processor seconds a second: station, reading processes, server
    station, reader  PSS in MB; of the reading processes the largest
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
import zmq
from bundles import random_bundle
from station import STAGES, processor_s, pss_mb, tree

from edge_hal.workbench.dataset import render_video
from edge_hal.workbench.schedule import sample_session

FPS, WIDTH, HEIGHT, QUALITY = 30, 640, 480, 85
NOISE = 2.0
"""Standard deviation of the noise of the sensor, in levels of 255."""
BOUNDARY = b"--frame"
BEGIN_S = 180.0
"""All cameras deliver within this time."""


def pictures(folder: Path, count: int = 300) -> list[bytes]:
    """JPEG pictures of a rendered session, with the noise of a sensor."""
    rng = np.random.default_rng(0)
    video = folder / "session.mp4"
    render_video(video, sample_session(rng), np.random.SeedSequence(0))
    capture, made = cv2.VideoCapture(str(video)), list[bytes]()
    while len(made) < count:
        ok, picture = capture.read()
        if not ok:
            break
        large = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + rng.normal(0, NOISE, large.shape), 0, 255).astype(np.uint8)
        made.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
    return made


def serve(port: Any, frames: list[bytes]) -> None:
    """An MJPEG camera on every path, each from another frame on. Sends the port through `port`."""

    async def camera(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        number = int(request.split(b" ")[1].strip(b"/") or 0)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        start_s, index = time.monotonic() + 0.011 * number % (1 / FPS), 0
        try:
            while True:
                body = frames[(index + 17 * number) % len(frames)]
                head = BOUNDARY + b"\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body)
                writer.write(head + body + b"\r\n")
                await writer.drain()
                index += 1
                await asyncio.sleep(max(0.0, start_s + index / FPS - time.monotonic()))
        except ConnectionError:
            pass

    async def run() -> None:
        server = await asyncio.start_server(camera, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def measured(bundle: Path, count: int, seconds: float, port: int, server: int, folder: Path) -> dict[str, float]:
    """One station of `count` cameras, for `seconds` after the last one has begun."""
    endpoint = f"ipc://{folder}/events"
    streams = {f"c{n}": {"camera": f"http://127.0.0.1:{port}/{n}", "bundle": str(bundle)} for n in range(count)}
    station = folder / "station.yaml"
    station.write_text(yaml.safe_dump({"pub": endpoint, "decide-every": 1, "streams": streams}))
    command = [sys.executable, "-m", "edge_hal", "run", "--station", str(station)]
    log = (folder / "log").open("w")
    child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    first: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[str, Any]] = {}
    age_ms: list[float] = []
    gaps = 0
    try:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.setsockopt(zmq.RCVTIMEO, 60_000)
            socket.connect(endpoint)
            opened_s = time.monotonic()
            end_s = used_s = begin_s = 0.0
            readers: list[int] = []
            while not end_s or time.monotonic() < end_s:
                topic, body = socket.recv_multipart()
                event, kind = json.loads(body), topic.rsplit(b"/", 1)[-1]
                if kind == b"heartbeat" and event["counters"]["fresh"] > 0:
                    name = event["stream"]
                    if end_s:
                        first.setdefault(name, event["counters"])
                    last[name] = event["counters"]
                if not end_s and len(last) == count:
                    readers = tree([child.pid])[1:]
                    begin_s = time.monotonic()
                    used_s, read_s, served_s = (processor_s(p) for p in ([child.pid], readers, [server]))
                    end_s = begin_s + seconds
                if not end_s and time.monotonic() > opened_s + BEGIN_S:
                    raise SystemExit(f"only {len(last)} of {count} cameras deliver: see {folder}/log")
                if end_s and kind == b"gap":
                    gaps += 1
                if end_s and kind == b"transition":
                    stages = event["run"]["latency_ms"]
                    age_ms.append(sum(stages.get(stage, 0.0) for stage in STAGES))
            wall_s = time.monotonic() - begin_s
            after = [processor_s(p) for p in ([child.pid], readers, [server])]
            each_mb = [pss_mb([pid]) for pid in readers]
            station_mb = pss_mb([child.pid]) - sum(each_mb)
    finally:
        child.terminate()
        child.wait()
        log.close()

    def grown(get: Any) -> int:
        return int(sum(get(last[name]) - get(first[name]) for name in first))

    ticks = grown(lambda c: c["ticks"])
    p50, p99 = np.percentile(age_ms, (50, 99)) if age_ms else (float("nan"),) * 2
    return {
        "cameras": count,
        "ticks": ticks,
        "cut": grown(lambda c: c["cut"]),
        "held": grown(lambda c: c["held"]),
        "lost": grown(lambda c: c["dropped"]["superseded"] + c["dropped"]["overload"]),
        "frames": grown(lambda c: c["captured"]),
        "gaps": gaps,
        "age_p50_ms": float(p50),
        "age_p99_ms": float(p99),
        "cores_station": (after[0] - used_s - after[1] + read_s) / wall_s,
        "cores_readers": (after[1] - read_s) / wall_s,
        "cores_server": (after[2] - served_s) / wall_s,
        "station_mb": station_mb,
        "reader_mb": max(each_mb),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, nargs="+", default=[24])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument(
        "--encoder", help="a given encoder, for example efficientnet-lite2@160, before the pyramid of --preset"
    )
    parser.add_argument("--bundle", type=Path, help="in place of random weights of --preset")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = pictures(folder)
        bundle = arguments.bundle or random_bundle(folder / "bundle", arguments.preset, encoder=arguments.encoder).path
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(theirs, frames), daemon=True)
        server.start()
        assert server.pid is not None
        port = ours.recv()
        size_kb = sum(map(len, frames)) / len(frames) / 1000
        if not arguments.json:
            print(f"{os.cpu_count()} cores, pictures of {size_kb:.0f} kB, {arguments.seconds:g} s each")
        for count in arguments.cameras:
            row = measured(bundle, count, arguments.seconds, port, server.pid, folder)
            print(json.dumps(row) if arguments.json else "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
        server.terminate()


if __name__ == "__main__":
    main()
