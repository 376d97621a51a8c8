"""`alignment.json` of a run: where each step of each training video was found. Training can begin from one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.errors import EdgeHalError
from edge_hal.metrics import runs_of

from .data.recordings import Labels, Recording
from .hmm.first_alignment import Started

Alignment = Mapping[str, Mapping[str, Any]]


def alignment_of(
    recordings: Sequence[Recording], labels: Sequence[Labels], names: Sequence[str], agreement: Sequence[float]
) -> dict[str, Any]:
    """Where each step was found: [step, first frame], by video; `labelled`: it was told, wholly or in part;
    `agreement`: how far the restarts of the starter agree about it."""
    found = {}
    for recording, label, agreed in zip(recordings, labels, agreement, strict=True):
        actions, starts, _ = runs_of(label)
        found[recording.name] = {
            "frames": int(recording.frames[-1]) + 1,
            "labelled": recording.labels is not None,
            "agreement": round(agreed, 3),
            "segments": [
                [names[action], int(recording.frames[start])] for action, start in zip(actions, starts, strict=True)
            ],
        }
    return found


def read_alignment(path: Path) -> Alignment:
    """Raises EdgeHalError for a file that is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise EdgeHalError(f"cannot read the alignment {path}", str(error), exit_code=2) from error
    if not isinstance(found, dict):
        raise EdgeHalError(f"{path} holds no alignment", "", "give the alignment.json of a run", exit_code=2)
    return found


def started_from(alignment: Alignment, recordings: Sequence[Recording], names: Sequence[str]) -> Started:
    """Labels (T,) at the ticks of every recording.

    Raises:
        EdgeHalError: a video is missing, of another length, or its segments are not [step, first frame] in order from
            frame 0.
    """
    labels: list[Labels] = []
    agreement: list[float] = []
    for recording in recordings:
        found = alignment.get(recording.name)
        if found is None:
            what = f"the alignment knows no video {recording.name}"
            raise EdgeHalError(what, "", "give one of this split", exit_code=2)
        try:
            steps = np.array([names.index(str(name)) for name, _ in found["segments"]], np.int64)
            first = np.array([frame for _, frame in found["segments"]], np.int64)
            frames, agreed = int(found["frames"]), float(found.get("agreement", 1.0))
        except (LookupError, TypeError, ValueError) as error:
            raise _bad(recording.name, str(error)) from error
        if frames != int(recording.frames[-1]) + 1:
            raise _bad(recording.name, f"it is of {frames} frames, not of {recording.frames[-1] + 1} at this rate")
        if not first.size or first[0] != 0 or (np.diff(first) <= 0).any() or first[-1] >= frames:
            raise _bad(recording.name, f"its segments do not begin in order, from frame 0 and within {frames} frames")
        labels.append(steps[np.searchsorted(first, recording.frames, side="right") - 1])
        agreement.append(agreed)
    return Started(labels, agreement)


def _bad(name: str, why: str) -> EdgeHalError:
    return EdgeHalError(f"the alignment of video {name} is unusable", why, "correct it, or train without", exit_code=2)
