"""Matplotlib for pictures in files: one style, no window, and no cache of fonts in the user's home."""

from __future__ import annotations

import colorsys
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from edge_hal.redaction import one_line

FORMATS = (".png", ".svg")
BLUE, ORANGE, QUIET = "#0072b2", "#d55e00", "0.6"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")
"""Okabe and Ito (2008): told apart with any kind of colour vision."""
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 110,
    "svg.hashsalt": "edge-hal",  # the same picture, the same file
    "text.parse_math": False,  # a label may hold $
}


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


@contextmanager
def drawing(
    path: Path,
    rows: int,
    columns: int,
    size_inch: tuple[float, float],
    *,
    style: Mapping[str, Any] | None = None,
    **how: Any,
) -> Iterator[tuple[Any, Any]]:
    """A figure and its array (rows, columns) of axes, which are written to `path` at the end of the `with` block. The
    suffix of the path is one of `FORMATS`. `style`: besides `STYLE`. `how`: for `matplotlib.pyplot.subplots`.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    plt = pyplot()
    with plt.rc_context({**STYLE, "axes.prop_cycle": plt.cycler(color=COLOURS), **(style or {})}), _boxes_told():
        figure, axes = plt.subplots(rows, columns, figsize=size_inch, squeeze=False, **how)
        try:
            yield figure, axes
            metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
            figure.savefig(path, metadata=metadata)
        finally:
            plt.close(figure)


@contextmanager
def _boxes_told() -> Iterator[None]:
    """Tells once, in plain words, if the font lacks characters."""
    with warnings.catch_warnings(record=True) as found:
        yield
    for each in found:
        if "missing from" not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if any("missing from" in str(each.message) for each in found):
        print("note: the font lacks characters of some names; they are drawn as boxes", file=sys.stderr)


def colours(count: int) -> list[tuple[float, float, float]]:
    """`count` colours, each with red, green and blue in 0..1. After the first eight, which everybody can tell apart,
    the same in lighter and darker."""
    found = []
    for number in range(count):
        base = COLOURS[number % len(COLOURS)]
        turn = number // len(COLOURS)
        hue, light, full = colorsys.rgb_to_hls(*(int(base[i : i + 2], 16) / 255 for i in (1, 3, 5)))
        shift = (0.0, 0.2, -0.2, 0.3, -0.3)[turn % 5]
        found.append(colorsys.hls_to_rgb(hue, min(0.92, max(0.08, light + shift)), full))
    return found


def shown(text: str, longest: int = 40) -> str:
    """A label as it is drawn: no character without a shape, and not too long."""
    text = one_line(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}\u2026"
