"""A task folder with short films of plain colours, and a run that has aligned them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.films import BLUE, GREEN, RED, write_film

STEPS = ("close", "fill", "open")
LISTED = ("open", "fill", "close")
LENGTH = 100
"""Frames of each video, at 10 a second."""
BEGINS = (0, 30, 60)
"""Of the steps, as the run found them."""


def write_task(root: Path, names: Sequence[str]) -> Path:
    """The steps truly begin at 0, 35 and 70."""
    for folder in ("videos", "transcripts", "runs/1"):
        (root / folder).mkdir(parents=True)
    (root / "task.yaml").write_text("encoder: own\n")
    alignment = {}
    for name in names:
        write_film(root / "videos" / f"{name}.avi", [(BLUE, 35), (GREEN, 35), (RED, 30)])
        (root / "transcripts" / f"{name}.txt").write_text("".join(f"{step}\n" for step in LISTED))
        segments = [list(each) for each in zip(LISTED, BEGINS, strict=True)]
        alignment[name] = {"frames": LENGTH, "labelled": False, "agreement": 0.9, "segments": segments}
    (root / "runs" / "1" / "alignment.json").write_text(json.dumps(alignment))
    return root
