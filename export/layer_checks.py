"""Checks of a lower precision that a tolerance on the outputs cannot replace: of each quantised layer, and of the
states.

int8 has errors of some per cent, and consecutive ticks of real recordings differ by little more. So an error in the
handling of states could hide in the tolerance. These checks are exact in any precision: after n tokens a state holds
the older tokens bit for bit; a stream of any age equals one that began a receptive field ago; and a quantised weight is
within half a step of its float weight. Activations are checked by their signal-to-noise ratio on the reference.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_hal.bundle import Bundle
from edge_hal.calib.observe import Observer
from edge_hal.calib.ranges import BINS, LOWEST, PER_OCTAVE, Counts
from edge_hal.model.model_file import Checkpoint
from edge_hal.runtime.engines.engine import StepEngine
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import PyramidSpec

from .quantise import DYNAMIC_MAX, INT8_MAX, SMALLEST_SCALE, layers_of, quantised_layers

Check = dict[str, Any]
MIN_SNR_DB = 12.0
"""8 bits give 50 dB for a full-scale sine, minus 20 log10(peak / rms); here 25 to 40 dB. Below 12 dB the noise is a
quarter of the signal, so the range must belong to another tensor."""
AGE_TICKS = 10_000
HALF_ROUNDING = 2.0**-10
"""Relative error of weights and their scale if both were rounded to float16: 2**-11 each."""


def check_state_moves(spec: PyramidSpec, engines: Sequence[StepEngine], x: NDArray[Any], chunk: int) -> Check:
    """After a step of n tokens, each state holds its older tokens n places earlier, bit for bit."""
    unit = math.lcm(spec.period(spec.top), chunk)
    start = min(len(x) // 2, spec.receptive_field) // unit * unit
    ends = sorted({start, start + chunk, *(start + spec.period(level) for level in range(1, len(spec.levels)))})
    stream = PyramidStream(spec, engines, x.dtype)
    stream.reset()
    seen: dict[int, dict[str, NDArray[Any]]] = {}
    for tick in range(0, ends[-1], chunk):
        if tick in ends:
            seen[tick] = stream.states()
        stream.push(x[tick : tick + chunk], range(tick, tick + chunk))
    seen[ends[-1]] = stream.states()
    wrong = []
    for level in range(len(spec.levels)):
        tokens = chunk if level == 0 else 1
        after = start + (chunk if level == 0 else spec.period(level))
        for tensor in spec.states(level):
            axis = 0 if tensor.name.removeprefix("l0.") in spec.front_end.states else 1  # time
            before, now = (np.moveaxis(seen[t][tensor.name], axis, 0) for t in (start, after))
            if len(now) > tokens and not np.array_equal(now[: len(now) - tokens], before[tokens:]):
                wrong.append(tensor.name)
    return {"name": f"states move by whole tokens in steps of {chunk}", "passed": not wrong, "wrong": wrong}


def check_age(spec: PyramidSpec, engines: Sequence[StepEngine], x: NDArray[Any], ticks: int) -> Check:
    """After `ticks` ticks of `x`, repeated, states and last posterior equal those of a stream that began a receptive
    field earlier, bit for bit. So errors do not accumulate."""
    period = math.lcm(spec.period(spec.top), spec.chunk_sizes[-1])
    end = -(-ticks // period) * period
    stream = PyramidStream(spec, engines, x.dtype)
    old: dict[str, NDArray[Any]] = {}
    fresh: dict[str, NDArray[Any]] = {}
    for found, start in ((old, 0), (fresh, end - (spec.receptive_field // period + 2) * period)):
        stream.reset()
        for tick in range(max(0, start), end, period):
            at = np.arange(tick, tick + period)
            stream.push(x[at % len(x)], at)
        found.update(stream.states(), frame=stream.posterior(1).copy())
    wrong = [name for name, value in old.items() if not np.array_equal(value, fresh[name])]
    return {"name": f"after {end} ticks = from a fresh start", "passed": not wrong, "wrong": wrong[:5]}


def check_layers(bundle: Bundle, checkpoint: Checkpoint, x: NDArray[np.float32]) -> list[Check]:
    """Compare the quantised weights of every step graph with the float weights, and measure the input noise on `x` (T,
    D). The encoder has no such check: its vectors are compared as a whole."""
    spec = bundle.spec
    if bundle.precision != "int8":
        return []
    worst, wrong = 0.0, []
    snr: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        counts = _observed(checkpoint, x, Path(folder)) if bundle.target == "tensorrt" else {}
    for level in range(len(spec.levels)):
        floats = {
            f"l{level}.{name.removesuffix('.weight')}": value.numpy()
            for name, value in checkpoint.pyramid.levels[level].state_dict().items()
        }
        for chunk in spec.chunks(level):
            model = onnx.load(bundle.graph(level, chunk))
            for layer, weight in quantised_layers(model).items():
                excess = _grid_excess(weight, floats[layer], INT8_MAX if counts else DYNAMIC_MAX)
                worst = max(worst, excess)
                if not excess <= 1.0:
                    wrong.append(f"{bundle.graph(level, chunk).name} {layer}")
            for layer, scale in _input_scales(model).items():
                found = signal_to_noise_db(counts[layer], scale)
                snr[layer] = min(found, snr.get(layer, np.inf))
    checks: list[Check] = [
        {"name": "int8 weights = float weights", "passed": not wrong, "worst_of_allowed": worst, "wrong": wrong[:5]}
    ]
    if snr:
        low = sorted(layer for layer, value in snr.items() if not value >= MIN_SNR_DB)
        checks.append(
            {
                "name": "int8 inputs on the reference",
                "passed": not low,
                "snr_db_min": min(snr.values()),
                "tolerance_db": MIN_SNR_DB,
                "wrong": low[:5],
            }
        )
    return checks


def signal_to_noise_db(counts: Counts, scale: float) -> float:
    """The signal-to-noise ratio of values with this histogram of magnitudes, in int8 with `scale`. The noise is
    rounding inside the range and clipping outside."""
    centres = 2.0 ** (LOWEST + (np.arange(BINS + 1) - 0.5) / PER_OCTAVE)
    centres[0] = 0.0
    clipped = np.maximum(centres - scale * (INT8_MAX + 0.5), 0.0)
    rounding = np.where(centres == 0, 0.0, np.minimum(centres**2, scale**2 / 12))
    noise = float((counts * np.maximum(rounding, clipped**2)).sum())
    signal = float((counts * centres**2).sum())
    return 10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)) if signal > 0 else np.inf


def _grid_excess(found: NDArray[np.floating], expected: NDArray[np.floating], levels: int) -> float:
    """The largest error, relative to the allowed one: half a quantisation step of its output channel."""
    if found.shape != expected.shape:
        return float("inf")
    axes = tuple(range(1, expected.ndim))
    largest = np.abs(expected).max(axis=axes, keepdims=True)
    allowed = np.maximum(largest / levels, SMALLEST_SCALE) / 2 + 2 * HALF_ROUNDING * largest
    return float((np.abs(found - expected) / allowed).max())


def _input_scales(model: onnx.ModelProto) -> dict[str, float]:
    """layer -> scale of its input. Layers that share a quantised input appear under the name of the first."""
    return {
        entry.name.removesuffix(".x.scale"): float(numpy_helper.to_array(entry))
        for entry in model.graph.initializer
        if entry.name.endswith(".x.scale")
    }


def _observed(checkpoint: Checkpoint, x: NDArray[np.float32], folder: Path) -> Mapping[str, Counts]:
    from .int8 import float_graphs

    spec, chunk = checkpoint.spec, checkpoint.spec.chunk_sizes[-1]
    observers = [
        Observer(path, layers_of(onnx.load(path), f"l{level}"), folder, spec, level)
        for level, path in enumerate(float_graphs(checkpoint, folder))
    ]
    stream = PyramidStream(spec, observers)
    stream.reset()
    for start in range(0, len(x) - len(x) % chunk, chunk):
        stream.push(x[start : start + chunk], range(start, start + chunk))
    return {name: counts for observer in observers for name, counts in observer.counts.items()}
