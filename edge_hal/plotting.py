"""Matplotlib for pictures in files: no window, and no cache of fonts in the user's home."""

from __future__ import annotations

import os
import sys
import tempfile
from types import ModuleType


def pyplot() -> ModuleType:
    """`matplotlib.pyplot`. Raises ImportError where it is not installed."""
    if "matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ:
        return _pyplot()
    # Matplotlib reads and writes its caches when it is imported.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MPLCONFIGDIR"] = folder
        try:
            return _pyplot()
        finally:
            del os.environ["MPLCONFIGDIR"]


def _pyplot() -> ModuleType:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot
