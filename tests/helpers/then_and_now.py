"""Compare what this version says with what an earlier one said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest


def same(now: Any, then: Any, tolerance: float = 1e-3) -> bool:
    """Fractions within the tolerance (absolute or relative: another machine may round differently), all else exactly.
    New versions may add fields. `decoder` is left out: it is a hash of all thresholds, new ones included."""
    if isinstance(then, Mapping):
        return all(key == "decoder" or (key in now and same(now[key], then[key], tolerance)) for key in then)
    if isinstance(then, list):
        return len(now) == len(then) and all(same(a, b, tolerance) for a, b in zip(now, then, strict=True))
    return bool(now == pytest.approx(then, tolerance, 1e-3) if isinstance(then, float) else now == then)
