"""How far a number may be from its reference, per precision, and the comparison of named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Check = dict[str, Any]
"""One entry of a certificate: `name`, `passed`, and numbers."""


@dataclass(frozen=True)
class Tolerance:
    """Limits of the error of each number of a tensor.

    |found - expected| <= absolute + relative * |expected| + peak * max |expected of the tensor|, and the RMS of the
    error <= rms * the RMS of the tensor. `relative` is for log posteriors, which can be as low as -100. `peak` and
    `rms` are for precisions where the error of a sum depends on its largest term.
    """

    absolute: float
    relative: float
    peak: float = 0.0
    rms: float = float("inf")


EXACT = Tolerance(1e-9, 0.0)
TOLERANCES = {
    "fp32": Tolerance(1e-5, 1e-4),
    # Unit roundoff is 2^-11 = 5e-4. A block has about 20 rounded operations and as many residual additions. Their
    # errors add up like a random walk and are amplified by later layers: 7e-4 of the RMS was measured
    # (docs/tensorrt.md). A graph with a wrong connection is off by 0.1 to 1.
    "fp16": Tolerance(2e-3, 0.0, peak=0.05, rms=0.02),
    # Inputs and weights of a layer have a signal-to-noise ratio of 25 to 40 dB, an error of 1 to 6 % of the RMS per
    # layer. So the check of whole tensors can only be coarse; layers, states and events have checks of their own.
    "int8": Tolerance(2e-2, 0.0, peak=0.75, rms=0.3),
}


def compare(name: str, found: Mapping[str, Array], expected: Mapping[str, Array], tolerance: Tolerance) -> Check:
    """One check over all tensors. It names the worst tensor. A number that is not finite fails."""
    worst, worst_excess, max_abs, passed = "", -np.inf, 0.0, found.keys() == expected.keys()
    max_rms = 0.0
    for key in sorted(found.keys() & expected.keys()):
        a, b = np.asarray(found[key], np.float64), np.asarray(expected[key], np.float64)
        if a.shape != b.shape:
            passed, worst, worst_excess = False, key, np.inf
            continue
        error = np.abs(a - b)
        largest = np.abs(b).max(initial=0.0)
        excess = error - (tolerance.absolute + tolerance.relative * np.abs(b) + tolerance.peak * largest)
        rms = float(np.sqrt((error**2).mean() / max((b**2).mean(), 1e-12))) if b.size else 0.0
        bounded = bool(error.max(initial=0.0) <= tolerance.absolute) or rms <= tolerance.rms
        passed = passed and bool((excess <= 0).all()) and bounded  # false for nan
        max_rms = max(max_rms, rms) if rms == rms else np.inf
        beyond = float(np.nan_to_num(excess, nan=np.inf).max(initial=-np.inf))
        if beyond > worst_excess:
            worst, worst_excess = key, beyond
        max_abs = max(max_abs, float(np.nan_to_num(error, nan=np.finfo(float).max).max(initial=0.0)))
    return {
        "name": name,
        "passed": passed,
        "tensors": len(expected),
        "max_abs": max_abs,
        "max_rms": min(max_rms, float(np.finfo(float).max)),
        "worst": worst,
        "tolerance_abs": tolerance.absolute,
        "tolerance_rel": tolerance.relative,
        **({} if tolerance.peak == 0 else {"tolerance_peak": tolerance.peak, "tolerance_rms": tolerance.rms}),
    }
