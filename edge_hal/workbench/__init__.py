"""Rendered workbench videos: a hand assembles a gearbox, and which step is on is known.

The demo and the tests learn from these instead of a download. `procedure` says which steps follow
which and for how long, `motion` moves the hand, `scene` draws the bench, `nuisance` spoils the
picture on purpose, `render` makes frames of it and `dataset` writes them in the usual layout.
"""

from __future__ import annotations

from edge_hal.workbench.dataset import render_dataset
from edge_hal.workbench.procedure import STEPS, Session, sample_session
from edge_hal.workbench.render import iter_frames

__all__ = ["STEPS", "Session", "iter_frames", "render_dataset", "sample_session"]
