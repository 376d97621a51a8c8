"""Streams for a station, which read vectors with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.runtime.options import RunOptions
from tests.helpers.bundles import vectors
from tests.helpers.loops import segments


def stream(folder: Path, bundle: Path, name: str, seed: int = 0, **more: Any) -> RunOptions:
    """A file of random labels at full pace, with a journal."""
    np.save(folder / f"{name}.npy", vectors(segments(seed, 12)))
    given = {"camera": f"features:{folder}/{name}.npy@10", "pace": "asap", "journal": folder / f"{name}.journal"}
    return RunOptions(bundle, stream=name, **{**given, **more})


def endless(folder: Path, bundle: Path, name: str, **more: Any) -> RunOptions:
    """A stream that goes on for longer than the test, at 100 vectors a second."""
    given = {"camera": f"features:{folder}/{name}.npy@100", "pace": "realtime"}
    made = stream(folder, bundle, name, **{**given, **more})
    np.save(folder / f"{name}.npy", vectors(segments(3, 2000)))
    return made
