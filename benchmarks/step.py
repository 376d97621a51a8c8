"""One tick of the pyramid: ONNX Runtime, torch eager, and recomputing the receptive field each frame.

    python benchmarks/step.py [--preset tiny] [--set KEY=VALUE ...] [--rounds 40]

Random weights; microseconds per tick at chunk 1, upper levels included; ratios against our engine in the same run.
The three take turns in blocks of twenty cycles of the slowest level, so that each sees its own caches as a stream does;
`alternating` is our step with a torch step of the others between any two: what a cold cache costs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from edge_hal.bundle import graph_name
from edge_hal.config import load_config
from edge_hal.export.graphs import export_level
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.pyramid import Pyramid
from edge_hal.model.step import TorchEngine
from edge_hal.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edge_hal.runtime.stream.pyramid import PyramidStream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = load_config(arguments.preset, arguments.settings)
    spec = config.model.spec(tuple(f"step{i}" for i in range(8)), None, 36)
    pyramid, front_end = Pyramid(spec).eval(), FrontEnd(spec.front_end)
    levels = range(len(spec.levels))
    with tempfile.TemporaryDirectory() as folder:
        for level in levels:
            export_level(pyramid, front_end, level, 1, "fp32", Path(folder))
        ours = PyramidStream(
            spec,
            [OnnxRuntimeEngine.open({1: Path(folder) / graph_name(i, 1, "fp32")}, spec, i) for i in levels],
        )
    eager = PyramidStream(spec, [TorchEngine(pyramid, front_end, level) for level in levels])
    x = np.random.default_rng(0).standard_normal((spec.receptive_field, spec.front_end.size)).astype(np.float32)
    window = torch.from_numpy(x)

    def step(stream: PyramidStream) -> None:
        stream.step(x[:1], (stream.ticks,))
        stream.settle()

    @torch.inference_mode()
    def recompute() -> None:
        pyramid(front_end(window)[None])

    cycle = 20 * spec.period(spec.top)
    ways: dict[str, tuple[Callable[[], None], int]] = {
        "onnxruntime step": (lambda: step(ours), cycle),
        "torch eager step": (lambda: step(eager), cycle),
        "exact recompute": (recompute, 4),
    }
    spent: dict[str, list[float]] = {name: [] for name in (*ways, "alternating")}

    def timed(name: str, way: Callable[[], None]) -> None:
        began_ns = time.perf_counter_ns()
        way()
        spent[name].append((time.perf_counter_ns() - began_ns) / 1e3)

    for way, _ in ways.values():
        for _ in range(20):
            way()
    for _ in range(arguments.rounds):
        for name, (way, block) in ways.items():
            for _ in range(block):
                timed(name, way)
    for _ in range(arguments.rounds):
        recompute()
        timed("alternating", lambda: step(ours))
    base = float(np.mean(spent["onnxruntime step"]))
    print(f"{arguments.preset}: receptive field {spec.receptive_field} ticks, state {spec.state_bytes} bytes")
    for name, times in spent.items():
        p50, p99 = np.percentile(times, [50, 99])
        print(f"{name:18s} mean {np.mean(times):9.1f} us  p50 {p50:9.1f}  p99 {p99:9.1f}  x{np.mean(times) / base:.1f}")

    costs = []
    for first in (1_000, 100_000):
        while ours.ticks < first:
            step(ours)
        began_ns = time.perf_counter_ns()
        for _ in range(1000):
            step(ours)
        costs.append((time.perf_counter_ns() - began_ns) / 1e6)
    print(f"per frame at frame 1,000: {costs[0]:.1f} us, at 100,000: {costs[1]:.1f} us, x{costs[1] / costs[0]:.2f}")


if __name__ == "__main__":
    main()
