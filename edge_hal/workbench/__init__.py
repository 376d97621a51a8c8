"""Rendered workbench videos: a hand assembles a gearbox or a circuit board, and the step of each frame is known.

The demo and the tests learn from these videos, so nothing is downloaded. `procedure.py`: what a procedure is made of;
`gearbox.py` and `circuit_board.py` are two. `schedule.py`: order and durations of the steps. `mistakes.py`: sessions
with a mistake. `motion.py`: the hand. `place.py`: colours, light and camera. `scene.py`, `pen.py`: the drawing of the
bench. `nuisance.py`: disturbances of the picture. `render.py`: frames. `dataset.py`: videos and labels in the layout of
MS-TCN.
"""

from __future__ import annotations

from .dataset import render_dataset
from .render import iter_frames
from .schedule import STEPS, Session, sample_session

__all__ = ["STEPS", "Session", "iter_frames", "render_dataset", "sample_session"]
