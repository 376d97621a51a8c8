"""Rendered workbench videos: a hand assembles a gearbox, and which step is on is known.

The demo and the tests learn from these instead of a download. `procedure` says which steps follow
which and for how long, `motion` moves the hand, `scene` draws the bench, `nuisance` spoils the
picture on purpose, `render` makes frames of it and `dataset` writes them in the usual layout.
"""

from __future__ import annotations

from .dataset import render_dataset
from .render import iter_frames
from .schedule import STEPS, Session, sample_session

__all__ = ["STEPS", "Session", "iter_frames", "render_dataset", "sample_session"]
