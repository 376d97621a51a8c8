"""250,000 ticks of a station whose cameras fail all the time: memory stays, and every frame and tick is counted."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.events import End, Event, Gap
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.report import Status
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.sources.watchdog import Limits
from edge_hal.runtime.station.options import AddressOptions, FusedOptions, StationOptions
from edge_hal.runtime.station.run import run_station
from edge_hal.runtime.stop import Stop
from tests.helpers.bundles import known_bundle, vectors
from tests.helpers.loops import ANY_PORT, check_laws, segments
from tests.helpers.station_streams import stream

NAMES = ("a", "b", "c", "d")
HZ, TICKS, LONGEST_S = 200.0, 250_000, 3600
REPORTS = 4000
"""Memory is read so often, in reports of the streams."""


def anonymous_bytes() -> int:
    """What this process has allocated and touched; mapped files are not part of it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


def faults(seed: int) -> str:
    """A camera that is gone, hangs, freezes or has a wrong clock every few seconds, for an hour."""
    rng, at_s, script = random.Random(seed), 5.0, ["drop=3%", "dup=1%", "jitter=4ms", f"seed={seed}"]
    while at_s < LONGEST_S:
        kind = rng.choice(["unplug", "hang", "freeze", "clock"])
        if kind == "clock":
            script.append(f"clockstep={rng.choice([-1, 1]) * rng.randrange(1, 4)}s@{at_s:.1f}s")
        else:
            script.append(f"{kind}@{at_s:.1f}s+{rng.uniform(0.5, 2.0):.1f}s")
        at_s += rng.uniform(3.0, 9.0)
    return ",".join(script)


def check_views(source: dict[str, Any]) -> None:
    for counts in source["views"].values():
        kinds = ("used", "superseded", "late", "unfit", "waiting")
        assert counts["ticks"] == sum(counts[kind] for kind in kinds)
    used = sum(counts["used"] for counts in source["views"].values())
    assert used == sum(n * count for n, count in enumerate(source["seen_by"], 1))


@pytest.mark.slow
def test_a_station_whose_cameras_fail_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = known_bundle(tmp_path / "bundle", HZ).path
    streams = {}
    for seed, name in enumerate(NAMES):
        each = stream(
            tmp_path,
            bundle,
            name,
            pace="realtime",
            retention=Retention(3600.0, 1 << 17),  # full early: SQLite caches a journal that grows
            journal=tmp_path / f"{name}.journal",
        )
        np.save(tmp_path / f"{name}.npy", vectors(segments(seed, round(LONGEST_S * HZ / 30), 6, 60)))
        camera = f"fault:{faults(seed)}:features:{tmp_path}/{name}.npy@{HZ:g}"
        streams[name] = replace(each, camera=camera, limits=Limits(stall_s=0.5), overload="cut")
    both = replace(streams["a"], stream="both", journal=tmp_path / "both.journal")
    options = StationOptions(streams, AddressOptions(ANY_PORT), fused={"both": FusedOptions(both, ("a", "b"))})
    stop, real, lock = Stop(), Publisher.status, threading.Lock()
    ticks, gaps, memory, reports = Counter[str](), Counter[str](), list[int](), 0

    def status(publisher: Publisher, report: Status) -> None:
        nonlocal reports
        check_laws(report.counters)
        if publisher.stream == "both":
            check_views(report.health["source"])
        with lock:
            ticks[publisher.stream] = report.counters["ticks"]
            reports += 1
            if reports % REPORTS == 0:
                memory.append(anonymous_bytes())
            if sum(ticks[name] for name in NAMES) >= TICKS:
                stop.ask()
        real(publisher, report)

    ended: dict[str, End] = {}

    def follow(event: Event) -> None:
        gaps[event.stream] += isinstance(event, Gap)
        if isinstance(event, End):
            ended[event.stream] = event

    monkeypatch.setattr(Publisher, "status", status)
    logging.disable(logging.ERROR)  # pytest would keep every line of the log
    try:
        summary = run_station(lambda: options, on_event=follow, stop=stop)
    finally:
        logging.disable(logging.NOTSET)
    assert sum(ticks[name] for name in NAMES) >= TICKS
    for name in (*NAMES, "both"):
        told = summary.streams[name]
        assert told is not None and told.reason == "signal" and told.health["restarts"]["failures"] == 0, name
        assert ended[name].counters == told.counters
        check_laws(dict(told.counters))
    assert min(gaps[name] for name in NAMES) > 20 and ticks["both"] > TICKS / 8
    both_told = summary.streams["both"]
    assert both_told is not None
    check_views(both_told.health["source"])
    tail = memory[len(memory) // 5 :]
    assert len(tail) >= 8 and max(tail) - tail[0] < 3_000_000, [value >> 10 for value in memory]
