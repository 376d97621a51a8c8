"""Ranges of the activations that enter quantised layers, from histograms, by one of three methods.

Magnitudes are counted in logarithmic bins, 64 per factor of two, so counts of several recordings can be added in any
order. The range is the largest magnitude that int8 represents; larger ones are clipped. `max` clips nothing,
`percentile` clips 0.01 % of the values, and `entropy` clips where the Kullback-Leibler divergence between the quantised
and the true distribution is least (Migacz, 8-bit inference with TensorRT, GTC 2017).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files.untrusted import read_json

SCHEMA = 1
METHODS = ("max", "percentile", "entropy")
PER_OCTAVE = 64
LOWEST, HIGHEST = -24, 16
"""Exponents of two. Smaller magnitudes count as zero; larger ones do not fit float16."""
BINS = (HIGHEST - LOWEST) * PER_OCTAVE
PERCENTILE = 0.9999
LEVELS = 128
FINE = 2048
Counts = NDArray[np.int64]


def count(values: NDArray[np.floating]) -> Counts:
    """(BINS + 1,) the number of magnitudes in each bin. Bin 0 is for values close to zero."""
    magnitude = np.abs(np.asarray(values, np.float64)).ravel()
    octave = np.log2(np.maximum(magnitude, 2.0**LOWEST))
    index = np.clip(np.ceil((octave - LOWEST) * PER_OCTAVE), 0, BINS).astype(np.int64)
    return np.bincount(index, minlength=BINS + 1)


def upper_edge(index: int) -> float:
    """The largest magnitude of a bin."""
    return float(2.0 ** (LOWEST + index / PER_OCTAVE))


def cut(counts: Counts, method: str) -> float:
    """The range of a histogram by `max`, `percentile` or `entropy`; 0 if all values were zero."""
    filled = np.flatnonzero(counts[1:]) + 1
    if not len(filled):
        return 0.0
    if method == "max":
        return upper_edge(int(filled[-1]))
    if method == "percentile":
        share = np.cumsum(counts) / counts.sum()
        return upper_edge(max(1, int(np.searchsorted(share, PERCENTILE))))
    if method == "entropy":
        return _entropy(counts, upper_edge(int(filled[-1])))
    raise EdgeHalError(f"unknown range method '{method}'", f"it is one of {', '.join(METHODS)}", exit_code=2)


def _entropy(counts: Counts, largest: float) -> float:
    """The range with the least divergence, between 1/16 of the largest magnitude and all of it."""
    fine = _linear(counts, largest)
    fine[0] = 0.0  # int8 represents 0 exactly, whatever the range
    if not fine.any():
        return largest
    best, where = np.inf, FINE
    for stop in range(FINE // 16, FINE + 1, FINE // 128):
        reference = fine[:stop].copy()
        reference[-1] += fine[stop:].sum()
        part = np.arange(stop) * LEVELS // stop
        occupied = fine[:stop] > 0
        total = np.bincount(part, fine[:stop], LEVELS)
        share = np.bincount(part, occupied, LEVELS)
        quantised = np.where(occupied, (total / np.maximum(share, 1))[part], 0.0)
        p, q = reference / reference.sum(), quantised / max(quantised.sum(), 1e-12)
        seen = p > 0
        divergence = float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))).sum())
        if divergence < best:
            best, where = divergence, stop
    return largest * where / FINE


def _linear(counts: Counts, largest: float) -> NDArray[np.float64]:
    """(FINE,) the counts in bins of equal width up to `largest`. A logarithmic bin that covers several of them is
    spread evenly over them."""
    edges = 2.0 ** (LOWEST + np.arange(BINS + 1) / PER_OCTAVE)
    below = np.interp(np.linspace(0.0, largest, FINE + 1), np.append(0.0, edges), np.append(0.0, counts.cumsum()))
    return np.diff(below)


@dataclass(frozen=True)
class Ranges:
    """The contents of `ranges.json`.

    Attributes:
        graphs: SHA-256 over the float32 graphs that were observed.
        seen: recording -> SHA-256 of its contents.
        layers: layer -> method -> range.
    """

    graphs: str
    seen: Mapping[str, str]
    ticks: int
    layers: Mapping[str, Mapping[str, float]]
    schema: int = SCHEMA

    def by(self, method: str) -> dict[str, float]:
        """layer -> range, by one method"""
        return {layer: values[method] for layer, values in self.layers.items()}

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> Ranges:
        """Read the file. Raises EdgeHalError if it is damaged or has another schema."""
        todo = "calibrate again: edge-hal calibrate DATA_DIR --ckpt RUN_DIR"
        try:
            data = read_json(path)
            if data["schema"] != SCHEMA:
                raise EdgeHalError(f"{path} has schema {data['schema']}", f"this version reads {SCHEMA}", todo)
            ranges = cls(**data)
            complete = all(set(METHODS) <= set(values) for values in ranges.layers.values())
            if not complete or not np.isfinite([v for m in ranges.layers.values() for v in m.values()]).all():
                raise ValueError("a layer lacks a range")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EdgeHalError(f"cannot read the ranges {path}", f"{type(error).__name__}: {error}", todo) from error
        return ranges
