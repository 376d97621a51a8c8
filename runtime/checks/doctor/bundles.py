"""Whether a bundle runs here: it opens, it steps, and it keeps up with its own rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_hal.progress import Progress, no_progress
from edge_hal.runtime.checks import child
from edge_hal.runtime.checks.doctor.machine import FASTEST_CLOCKS
from edge_hal.runtime.checks.finding import NOTHING, Finding, State

SILENCE_S = 1800.0
"""TensorRT builds plans on first use, and TensorRT before 10 reports nothing meanwhile."""
PACED_S, BACK_TO_BACK_TICKS = 2.0, 200
FASTER = f"a smaller preset, a lower model_hz, or (on a Jetson) {FASTEST_CLOCKS}"


def check_bundle(path: Path, report: Progress | None = None) -> Iterator[Finding]:
    """In a process of its own, which a broken GPU may end."""
    answer = child.call(try_bundle, str(path), silence_s=SILENCE_S, report=report or no_progress)
    yield from (Finding(**one) for one in answer.value or ())
    if answer.failure:
        todo = answer.todo or "edge-hal doctor --selftest; then try --engine onnxruntime"
        yield Finding(f"bundle {path}", "fail", answer.failure, todo)


def try_bundle(path: str, report: Progress) -> Iterator[dict[str, Any]]:
    """In the other process: the findings.

    Raises:
        EdgeHalError: it does not open, or no engine runs it.
    """
    import numpy as np

    from edge_hal.bundle import load_bundle
    from edge_hal.runtime.checks.bench import measure
    from edge_hal.runtime.engines.choose import choose_engines
    from edge_hal.runtime.stream.pyramid import PyramidStream
    from edge_hal.task_folder import newest_bundle

    def told(what: str, state: State, found: str, todo: str = NOTHING) -> dict[str, Any]:
        return asdict(Finding(f"bundle {path}: {what}", state, found, todo if state != "ok" else NOTHING))

    bundle = load_bundle(newest_bundle(Path(path)))
    spec = bundle.spec
    takes = "vectors" if spec.encoder is None else f"pictures {spec.encoder.width}x{spec.encoder.height}"
    text = f"{bundle.precision}, {len(spec.labels)} labels at {spec.model_hz:g} Hz, takes {takes}"
    yield told("opens", "ok", f"{text}, {bundle.fingerprint[:12]}")
    engines = choose_engines(bundle, report=report)
    slow = bundle.target == "tensorrt" and engines.kind == "onnxruntime"
    todo = "export it for this machine: --target onnxruntime, or --precision fp32"
    yield told("engine", "warn" if slow else "ok", f"{engines.kind}: {engines.why}", todo)
    stream = PyramidStream(spec, engines.levels)
    vector = np.random.default_rng(0).normal(size=spec.front_end.size).astype(np.float32)
    if engines.encoder is not None and spec.encoder is not None:
        vector = engines.encoder.encode(np.zeros(spec.encoder.image.shape, np.uint8))
    stream.step(vector[None], (0,))
    total = float(np.exp(stream.posterior(1)[0]).sum())
    todo = "edge-hal doctor --selftest; then try --engine onnxruntime"
    yield told("a step", "ok" if abs(total - 1) < 0.02 else "fail", f"probabilities add up to {total:.3f}", todo)
    figures = measure(bundle, engines, BACK_TO_BACK_TICKS, PACED_S)["paced_us"]["tick"]
    yield told("deadline", *deadline(1e3 / spec.model_hz, figures["p50"] / 1e3, figures["p99"] / 1e3), FASTER)
    engines.close()


def deadline(period_ms: float, p50_ms: float, p99_ms: float) -> tuple[State, str]:
    """Whether ticks, paced at the model's rate, take less than there is time between two."""
    state: State = "fail" if p50_ms > period_ms else "warn" if p99_ms > period_ms else "ok"
    kept = {"ok": "met", "warn": "met by most ticks", "fail": "missed: ticks would be cut"}[state]
    return state, f"{kept}: a tick takes {p50_ms:.2f} ms (p50), {p99_ms:.2f} ms (p99) of {period_ms:.1f} ms"
