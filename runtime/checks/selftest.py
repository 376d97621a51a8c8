"""Proof on the user's own device that each engine computes what ONNX Runtime does tick by tick, from the bundle alone.

Nobody here had a GPU of every kind. So the proof travels with the program: it needs no torch, and what it prints can be
pasted into an issue. Each variant runs in a process of its own: after some errors of CUDA every further call in a
process fails, and that must not decide about the next variant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_hal.progress import Progress, no_progress

from . import child
from .finding import Finding

SILENCE_S = 1800.0
"""TensorRT builds plans on first use, and not every version reports meanwhile."""
TICKS, PACED_S = 1000, 2.0
REPORT_IT = "run it with --engine onnxruntime, and report this (docs/tensorrt.md)"


@dataclass(frozen=True)
class Variant:
    """One way to run a bundle. `graphs`: as captured CUDA graphs."""

    name: str
    engine: str
    graphs: bool


VARIANTS = (
    Variant("ONNX Runtime", "onnxruntime", False),
    Variant("TensorRT, plain launches", "tensorrt", False),
    Variant("TensorRT, CUDA graphs", "tensorrt", True),
)


def selftest(bundles: Sequence[Path], report: Progress | None = None) -> Iterator[Finding]:
    """Every variant of every bundle.

    Args:
        report: told while TensorRT builds plans.
    """
    for bundle in bundles:
        for variant in VARIANTS:
            tell = report or no_progress
            answer = child.call(prove, str(bundle), variant.engine, variant.graphs, silence_s=SILENCE_S, report=tell)
            name = f"{bundle.name}, {variant.name}"
            for one in answer.value or ():
                yield Finding(f"{name}: {one.pop('check')}", **one)
            if answer.failure:
                yield Finding(name, "fail", answer.failure, answer.todo or REPORT_IT)


def prove(
    path: str, engine: str, graphs: bool, report: Progress | None = None, choose: Callable[..., Any] | None = None
) -> Iterator[dict[str, Any]]:
    """In the other process: the findings about one variant, ready for JSON.

    Raises:
        EdgeHalError: the bundle does not open, or the engine does not run it.
    """
    from edge_hal.bundle import load_bundle
    from edge_hal.runtime.engines.choose import choose_engines
    from edge_hal.task_folder import newest_bundle

    from .bench import measure
    from .compare import MAX_RMS, compare_encoders, compare_engines

    bundle, choose = load_bundle(newest_bundle(Path(path))), choose or choose_engines
    trusted, tested = choose(bundle, "onnxruntime"), choose(bundle, engine, graphs=graphs, report=report)
    limit = MAX_RMS[bundle.precision]
    if graphs and not tested.captured:
        yield asdict(Finding("engine", "fail", f"graphs were asked for and not captured: {tested.why}", REPORT_IT))
    else:
        yield asdict(Finding("engine", "ok", f"{bundle.precision}, {tested.why}"))
    yield from map(asdict, compare_engines(bundle.spec, tested.levels, trusted.levels, limit))
    if tested.encoder is not None and trusted.encoder is not None:
        yield asdict(compare_encoders(bundle, tested.encoder, trusted.encoder, limit))
    tick = measure(bundle, tested, TICKS, PACED_S)
    parts = ((kind, tick[f"{kind}_us"]["tick"]["p50"]) for kind in ("back_to_back", "paced"))
    yield asdict(Finding("a tick", "ok", ", ".join(f"{kind} p50 {p50:g} us" for kind, p50 in parts)))
    tested.close()
