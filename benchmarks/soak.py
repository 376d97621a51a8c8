"""A long run at maximum pace: does memory grow, does the state drift, does a frame cost more in the end?

    python benchmarks/soak.py [--frames 1000000] [--preset kinematics]

Random weights on random feature vectors, with faults (lost frames and holes), through the whole of `edge-hal run`
but a subscriber. Memory is anonymous memory (RssAnon: what the process has allocated, not the file it maps), after
the first tenth and at the end. Cost is processor time of the loop's thread, which other programs disturb less than the
clock on the wall. The state is compared with a fresh stream's ten times on the way (`--selfcheck`).
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from bundles import random_bundle

from edge_hal.runtime import runner
from edge_hal.runtime.open_source import open_source
from edge_hal.runtime.sources.base import Source


def anonymous_mb() -> float:
    """Megabytes this process has allocated and touched."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--preset", default="kinematics")
    arguments = parser.parse_args()
    count = arguments.frames
    marks: list[tuple[int, int, float]] = []

    def opened(*args: Any, **kwargs: Any) -> Source:
        source = open_source(*args, **kwargs)
        take = source.take

        def taking(due_ns: int | None) -> Any:
            got = take(due_ns)
            if got is not None and got[0].index * 10 // count > len(marks) - 1:
                marks.append((got[0].index, time.thread_time_ns(), anonymous_mb()))
            return got

        source.take = taking  # type: ignore[method-assign,assignment]
        return source

    with tempfile.TemporaryDirectory() as folder:
        bundle = random_bundle(Path(folder) / "bundle", arguments.preset, pictures=False)
        hz, size = bundle.spec.model_hz, bundle.spec.front_end.size
        rows = np.lib.format.open_memmap(f"{folder}/f.npy", "w+", np.float32, (count, size))
        rng = np.random.default_rng(0)
        for start in range(0, count, 10_000):
            rows[start : start + 10_000] = rng.normal(size=(min(10_000, count - start), size))
        seconds = count / hz
        holes = ",".join(f"unplug@{seconds * part / 7:.1f}s+3s" for part in range(1, 7))
        begun = time.perf_counter()
        with patch.object(runner, "open_source", opened):
            summary = runner.run(
                runner.RunOptions(
                    bundle.path,
                    f"fault:drop=1%,{holes}:features:{folder}/f.npy@{hz}",
                    "tcp://127.0.0.1:*",
                    "asap",
                    selfcheck_s=seconds / 10.5,
                )
            )
        elapsed = time.perf_counter() - begun
        marks.append((summary.counters["captured"], time.thread_time_ns(), anonymous_mb()))
    counters = summary.counters
    dropped = sum(counters["dropped"].values())
    frames_kept = counters["captured"] == counters["used"] + dropped + counters["in_flight"]
    ticks_kept = counters["ticks"] == counters["fresh"] + counters["held"] + counters["cut"]
    costs = [(b[1] - a[1]) / (b[0] - a[0]) / 1e3 for a, b in itertools.pairwise(marks)]
    print(f"{arguments.preset}: {counters['captured']} frames, {counters['ticks']} ticks, {summary.events} events")
    print(f"  {counters['captured'] / elapsed:.0f} frames a second; both laws: {frames_kept and ticks_kept}")
    print(f"  memory after a tenth {marks[1][2]:.1f} MB, at the end {marks[-1][2]:.1f} MB")
    first, last = costs[0], costs[-1]
    print(f"  a frame in the first tenth {first:.1f} us, in the last {last:.1f} us, x{last / first:.3f}")
    print(f"  each tenth: {', '.join(f'{cost:.1f}' for cost in costs)} us")
    print(f"  state: {summary.health['selfcheck']}")


if __name__ == "__main__":
    main()
