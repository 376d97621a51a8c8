"""The certificate: the exported graphs compute what was trained, for every output, state tensor and chunk size.

The reference is torch in one pass, in float64. Torch in steps must equal it up to rounding, and ONNX Runtime in steps
up to the precision of the graphs. All of them run through the stream code of the device. For a lower precision,
transitions and segments must also agree with those of float32 within the `Budget`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import DTypeLike, NDArray

from edge_hal.bundle import Bundle
from edge_hal.calib.sensitivity import Budget, compare_events
from edge_hal.decoding.decode import decode_posteriors, split_heads
from edge_hal.decoding.timeline import labels_of
from edge_hal.metrics import score_videos
from edge_hal.model.model_file import Checkpoint
from edge_hal.model.one_pass import OnePass, one_pass
from edge_hal.model.step import TorchEngine
from edge_hal.progress import Progress, no_progress
from edge_hal.runtime.engines.engine import StepEngine
from edge_hal.runtime.engines.onnxruntime_engine import OnnxEncoder, open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import PyramidSpec

from .layer_checks import AGE_TICKS, check_age, check_layers, check_state_moves
from .quantise_convolutions import for_cpus_only
from .tolerance import EXACT, TOLERANCES, Check, Tolerance, compare

Array = NDArray[Any]

REFERENCE_TICKS = 3000
SNAPSHOTS = 5
SHIFT_TICKS = 1
"""Rounding in float32 can decide a tie between two boundaries; this much is no error."""
RANDOM_PICTURES = 8


def certify(
    bundle: Bundle,
    checkpoint: Checkpoint,
    reference: Array | None = None,
    progress: Progress = no_progress,
    budget: Budget | None = None,
) -> dict[str, Any]:
    """Compare the graphs of `bundle` with the checkpoint they came from.

    Args:
        reference: real input vectors (T, D). By default those of the checkpoint; if it has none, random ones.
        budget: how far the events of a lower precision may differ. Those of float32 may not.

    Returns:
        The certificate as JSON: `passed`, `reference` (`real` or `random`), `ticks`, `checks`, `metrics` and more.
    """
    spec, real = bundle.spec, checkpoint.reference.get("x") if reference is None else reference
    x, restart = reference_input(spec, real)
    expected = one_pass(checkpoint.pyramid, checkpoint.front_end, x)
    levels = range(len(spec.levels))

    def in_torch(dtype: torch.dtype) -> list[StepEngine]:
        return [TorchEngine(checkpoint.pyramid, checkpoint.front_end, level, dtype) for level in levels]

    kinds: tuple[tuple[str, Sequence[StepEngine], DTypeLike, Tolerance], ...] = (
        ("torch", in_torch(torch.float64), np.float64, EXACT),
        ("onnxruntime", open_engines(bundle), np.float32, TOLERANCES[bundle.precision]),
    )
    checks: list[Check] = []
    streamed: dict[str, dict[str, Array]] = {}
    by_layer = {"tensorrt": 2, "onnxruntime": 1}.get(bundle.target, 0)
    total = (len(kinds) + 1) * len(spec.chunk_sizes) + len(kinds) + 2 + (bundle.encoder is not None) + by_layer

    def add(check: Check) -> None:
        checks.append(check)
        progress("certify", len(checks), total, check["name"])

    for name, engines, dtype, tolerance in kinds:
        for chunk in spec.chunk_sizes:
            when = snapshots(len(x), chunk)
            found = stream(spec, engines, x.astype(dtype), chunk, when)
            add(compare(f"{name} in steps of {chunk} = one pass", found, named(expected, when), tolerance))
            streamed[name] = found
        chunk = spec.chunk_sizes[-1]
        fresh = stream(spec, engines, x[restart:].astype(dtype), chunk, [len(x) - restart])
        after = restart + spec.receptive_field - 1
        # Both compute the same numbers in the same precision, so the tolerance is that of float32.
        same = EXACT if tolerance == EXACT else TOLERANCES["fp32"]
        add(compare(f"{name} from a fresh start", _from(spec, fresh, restart, after),
                    _from(spec, streamed[name], 0, after), same))  # fmt: skip
    add(check_age(spec, kinds[1][1], x, AGE_TICKS))
    for chunk in spec.chunk_sizes:
        add(check_state_moves(spec, kinds[1][1], x, chunk))
    for check in check_layers(bundle, checkpoint, x):
        add(check)
    if bundle.encoder is not None:
        add(_encoder_check(bundle, checkpoint))
    eager = all_heads(stream(spec, in_torch(torch.float32), x, spec.chunk_sizes[-1], []))
    streamed_heads = all_heads(streamed["onnxruntime"])
    budget = budget or Budget()
    shift = compare_events([streamed_heads], [eager], bundle.decoder, spec, budget)
    metrics = temporal(bundle, streamed_heads, eager) | {"moved": shift.moved, "posterior_rms": shift.posterior_rms}
    exact = bundle.precision == "fp32"
    add(
        {
            "name": "transitions of onnxruntime = torch in float32",
            "passed": metrics["same_transitions"] and metrics["shift_ticks_max"] <= SHIFT_TICKS
            if exact
            else budget.allows(shift),
            "moved": shift.moved,
            "shift_ticks_max": metrics["shift_ticks_max"],
            "tolerance_ticks": SHIFT_TICKS,
        }
    )
    progress("certify", total, total, "")
    return {
        "passed": all(check["passed"] for check in checks),
        "precision": bundle.precision,
        "target": bundle.target,
        "reference": "random" if real is None else "real",
        "reference_ticks": 0 if real is None else min(len(real), len(x)),
        "ticks": len(x),
        "receptive_field": spec.receptive_field,
        "checks": checks,
        "metrics": metrics,
    }


def reference_input(spec: PyramidSpec, real: Array | None) -> tuple[NDArray[np.float32], int]:
    """Input vectors (T, D), longer than the receptive field, and the tick of a restart. The restart is a multiple of
    all periods, and a receptive field and some bins come after it. Real input that is too short is repeated."""
    period = math.lcm(spec.period(spec.top), spec.chunk_sizes[-1])  # steps of both streams coincide
    restart = max(1, spec.receptive_field // (2 * period)) * period
    needed = restart + spec.receptive_field + 4 * period
    if real is None:
        drawn = np.random.default_rng(0).normal(size=(needed, spec.front_end.size))
        return drawn.astype(np.float32), restart
    ticks = max(needed, min(len(real), REFERENCE_TICKS))
    return np.asarray(real, np.float32)[np.arange(ticks) % len(real)], restart


def snapshots(ticks: int, chunk: int) -> list[int]:
    """The ticks where states are compared: at ends of steps, spread over the stream, and the last tick."""
    spread = np.linspace(0, ticks, SNAPSHOTS + 1)[1:-1].astype(int)
    return sorted({max(chunk, int(tick) // chunk * chunk) for tick in spread} | {ticks})


class _Recorder:
    """An engine that records its outputs."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine = engine
        self.reset, self.state = engine.reset, engine.state
        self.recorded: list[dict[str, Array]] = []

    def step(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        outputs = self._engine.step(inputs)
        self.recorded.append({name: value.copy() for name, value in outputs.items()})
        return outputs


def stream(
    spec: PyramidSpec, engines: Sequence[StepEngine], x: Array, chunk: int, when: Sequence[int]
) -> dict[str, Array]:
    """Run a fresh stream over `x` (T, D) in steps of `chunk`. The result has all outputs as `levelL.NAME`
    (tokens, width), and all states as `NAME@TICK` for the ticks of `when`."""
    recorders = [_Recorder(engine) for engine in engines]
    pyramid = PyramidStream(spec, recorders, x.dtype)
    pyramid.reset()
    found: dict[str, Array] = {}
    for start in range(0, len(x), chunk):
        part = x[start : start + chunk]
        pyramid.push(part, range(start, start + len(part)))
        if start + len(part) in when:
            for name, value in pyramid.states().items():
                found[f"{name}@{start + len(part)}"] = value
    for level, recorder in enumerate(recorders):
        for tensor in spec.outputs(level):
            rows = [outputs[tensor.name] for outputs in recorder.recorded]
            found[f"level{level}.{tensor.name}"] = np.concatenate(rows)
    return found


def named(expected: OnePass, when: Sequence[int]) -> dict[str, Array]:
    """The one pass, with the names of `stream`."""
    found: dict[str, Array] = {
        f"level{level}.{name}": value
        for level, outputs in enumerate(expected.outputs)
        for name, value in outputs.items()
    }
    return found | {f"{name}@{t}": value for t in when for name, value in expected.states(t).items()}


def _from(spec: PyramidSpec, found: Mapping[str, Array], start: int, after: int) -> dict[str, Array]:
    """Of a stream that began at tick `start`: the outputs of tokens that end at `after` or later, and the last
    states."""
    last = max(int(name.split("@")[1]) for name in found if "@" in name)
    selected = {name.split("@")[0]: value for name, value in found.items() if name.endswith(f"@{last}")}
    for level in range(len(spec.levels)):
        period = spec.period(level)
        first = -(-(after + 1) // period) - 1 - start // period
        for tensor in spec.outputs(level):
            name = f"level{level}.{tensor.name}"
            selected[name] = found[name][first:]
    return selected


def _encoder_check(bundle: Bundle, checkpoint: Checkpoint) -> Check:
    """The encoder is deterministic, and gives the vectors of the training on its real pictures."""
    assert bundle.encoder is not None and bundle.spec.encoder is not None
    encoder = OnnxEncoder.open(bundle.encoder, bundle.spec.encoder)
    pictures, x = checkpoint.reference.get("pictures"), checkpoint.reference.get("x")
    trained = pictures is not None and x is not None
    if not trained:
        shape = (RANDOM_PICTURES, *bundle.spec.encoder.image.shape)
        pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert pictures is not None
    first, second = (np.stack([encoder.encode(p) for p in pictures]) for _ in range(2))
    vectors = first if x is None or not trained else x[: len(pictures)]
    # An int8 encoder may round otherwise on another processor than that of the training.
    tolerance = TOLERANCES["int8" if for_cpus_only(onnx.load(bundle.encoder)) else bundle.precision]
    check = compare("encoder = the one of training", {"vector": first}, {"vector": vectors}, tolerance)
    same = bool(np.array_equal(first, second) and np.isfinite(first).all())
    return {**check, "passed": check["passed"] and same, "pictures": "real" if trained else "random"}


def all_heads(outputs: Mapping[str, Array]) -> Array:
    """(T, H K) as in `PyramidStream.heads`."""
    frame = outputs["level0.frame"]
    return np.hstack([frame, outputs["level0.lagged"]]) if "level0.lagged" in outputs else frame


def temporal(bundle: Bundle, found: Array, expected: Array) -> dict[str, Any]:
    """The difference between two log posteriors (T, H K) for a subscriber: frames, transitions, F1."""
    spec = bundle.spec
    frames = [split_heads(p, spec)[spec.lag_ticks] for p in (found, expected)]
    decisions = [decode_posteriors(p, bundle.decoder, spec) for p in (found, expected)]
    pairs = list(zip(*decisions, strict=False))
    same = len(decisions[0]) == len(decisions[1]) and all(a.label == b.label for a, b in pairs)
    shifts = [max(abs(a.boundary_tick - b.boundary_tick), abs(a.decision_tick - b.decision_tick)) for a, b in pairs]
    scores = score_videos([labels_of(decisions[0], len(found))], [labels_of(decisions[1], len(found))], background=None)
    return {
        "frame_agreement": float((frames[0].argmax(1) == frames[1].argmax(1)).mean()),
        "transitions": len(decisions[1]),
        "same_transitions": same,
        "shift_ticks_max": max(shifts, default=0),
        "f1_10": scores.f1_10,
        "f1_25": scores.f1_25,
        "f1_50": scores.f1_50,
    }
