"""A station in a process of its own that is killed again and again, while a subscriber of all its streams counts."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_hal import subscribe
from tests.helpers.bundles import vectors
from tests.helpers.deliveries import TIMEOUT_S, kept, spawn
from tests.helpers.loops import segments

FILES = ("a", "b", "c", "d")
NAMES = (*FILES, "both")
FEWEST = 5
"""Events of each stream before a kill, at least."""


def write_station(folder: Path, bundle: Path) -> Path:
    """Four files at full pace, of different lengths, and two of them fused."""
    lines = [f"bundle: {bundle}", "pace: asap", f"pub: ipc://{folder}/s", "streams:"]
    for seed, name in enumerate(FILES):
        np.save(folder / f"{name}.npy", vectors(segments(seed, 200 + 50 * seed)))
        lines.append(f"  {name}: {{camera: 'features:{folder}/{name}.npy@10', journal: {folder}/{name}.journal}}")
    lines.append(f"  both: {{fuse: [a, b], journal: {folder}/both.journal}}")
    (folder / "station.yaml").write_text("\n".join(lines))
    return folder / "station.yaml"


def check_kills(folder: Path, bundle: Path, kills: int, seed: int) -> None:
    station, rng, received = write_station(folder, bundle), random.Random(seed), dict[str, list[bytes]]()
    finished = threading.Event()

    def count() -> None:
        """Subscribes anew now and then, as a program that is restarted does."""
        counter = random.Random(seed)
        while not finished.is_set():
            with subscribe(f"ipc://{folder}/s", begin="oldest", cursor=folder / "cursor", timeout_s=1.0) as events:
                for left, event in zip(range(counter.randrange(1, 300), 0, -1), events, strict=False):
                    if event.durable:
                        received.setdefault(event.stream, []).append(events.raw)
                        events.ack()
                    if left == 1:
                        break

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for kill in range(kills):  # each after so many events, with more of them on their way
            with spawn("-m", "edge_hal", "run", "--station", station, stderr=subprocess.DEVNULL) as process:
                assert process.stdout is not None
                assert list(itertools.islice(process.stdout, rng.randrange(1, 300)))
                while any(len(kept(folder / f"{name}.journal")) <= FEWEST * (kill + 1) for name in NAMES):
                    assert process.stdout.readline(), "the station ended"
                process.send_signal(signal.SIGKILL)
        everything = {name: kept(folder / f"{name}.journal") for name in NAMES}
        station.write_text(station.read_text().replace("asap", "realtime"))  # goes on while the subscriber catches up
        with spawn("-m", "edge_hal", "run", "--station", station, stdout=subprocess.DEVNULL) as process:
            for _ in range(round(10 * TIMEOUT_S)):  # the subscriber gets what it missed
                if all(len(received.get(name, ())) >= len(everything[name]) for name in NAMES):
                    break
                counting.join(timeout=0.1)
            process.send_signal(signal.SIGKILL)
    finally:
        finished.set()
        counting.join(timeout=TIMEOUT_S)
    for name in NAMES:
        assert received[name][: len(everything[name])] == everything[name], name
        assert len(everything[name]) > FEWEST * kills
        assert [json.loads(body)["seq"] for body in received[name]] == list(range(len(received[name])))


def test_kills_of_a_station_lose_no_event_of_any_stream(tmp_path: Path, bundle: Path) -> None:
    check_kills(tmp_path, bundle, kills=1, seed=1)


@pytest.mark.slow
def test_fifty_kills_of_a_station_lose_no_event_of_any_stream(tmp_path: Path, bundle: Path) -> None:
    check_kills(tmp_path, bundle, kills=50, seed=2)
