"""`alignment.json` of a run: the first frame of each step of each training video. A training can start from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import MB, read_json
from edge_hal.learning.data.recordings import Labels, SampledRecording
from edge_hal.learning.data.step_texts import nearest
from edge_hal.metrics import runs_of

from .trust import Evidence, evidence_in

if TYPE_CHECKING:
    from .first_alignment import FirstAlignment

ALIGNMENT_FILE = "alignment.json"
LARGEST_BYTES = 256 * MB
StoredAlignment = Mapping[str, Mapping[str, Any]]
"""video -> its entry, as in the file"""


def alignment_entries(
    recordings: Sequence[SampledRecording], labels: Sequence[Labels], names: Sequence[str], evidence: Sequence[Evidence]
) -> dict[str, Any]:
    """The contents of the file. Of each video: `segments`, as [step, first frame]; `labelled`, if the user gave labels
    of all or some of its frames; and the `Evidence` of the first alignment."""
    found = {}
    for recording, label, known in zip(recordings, labels, evidence, strict=True):
        actions, starts, _ = runs_of(label)
        found[recording.name] = {
            "frames": int(recording.frames[-1]) + 1,
            "labelled": recording.labels is not None,
            **{name: round(value, 3) for name, value in asdict(known).items()},
            "segments": [
                [names[action], int(recording.frames[start])] for action, start in zip(actions, starts, strict=True)
            ],
        }
    return found


def read_alignment(path: Path, *, todo: str = "train again", exit_code: int = 1) -> StoredAlignment:
    """Read the file. Raises EdgeHalError, with `todo` and `exit_code`, if it is not an alignment."""
    try:
        found = read_json(path, LARGEST_BYTES)
        odd = next((name for name, entry in found.items() if not isinstance(entry, dict)), None)
        if odd is not None:
            raise ValueError(f"its entry for video {odd[:80]!r} is no object")
    except (OSError, ValueError) as error:
        raise file_error(f"cannot read the alignment {path}", error, todo, path=path, exit_code=exit_code) from error
    return found


def first_alignment_from(
    alignment: StoredAlignment, recordings: Sequence[SampledRecording], names: Sequence[str]
) -> FirstAlignment:
    """The stored labels (T,) at the ticks of every recording.

    Raises:
        EdgeHalError: a video is missing or has another length, or its segments are not [step, first frame] in order
            from frame 0.
    """
    from .first_alignment import FirstAlignment  # it imports torch, and the server of `edge-hal correct` does not

    labels: list[Labels] = []
    evidence: list[Evidence] = []
    for recording in recordings:
        found = alignment.get(recording.name)
        if found is None:
            what = f"the alignment knows no video {recording.name}"
            raise EdgeHalError(what, "", "give one of this split", exit_code=2)
        _check_names(recording.name, found, names)
        try:
            steps = np.array([names.index(str(name)) for name, _ in found["segments"]], np.int64)
            first = np.array([frame for _, frame in found["segments"]], np.int64)
            frames, known = int(found["frames"]), evidence_in(found)
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise _bad(recording.name, str(error)) from error
        if frames != int(recording.frames[-1]) + 1:
            raise _bad(recording.name, f"it is of {frames} frames, not of {recording.frames[-1] + 1} at this rate")
        if not first.size or first[0] != 0 or (np.diff(first) <= 0).any() or first[-1] >= frames:
            raise _bad(recording.name, f"its segments do not begin in order, from frame 0 and within {frames} frames")
        labels.append(steps[np.searchsorted(first, recording.frames, side="right") - 1])
        evidence.append(known)
    return FirstAlignment(labels, evidence)


def _check_names(video: str, entry: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises EdgeHalError for a step that is no step of the data. Steps are matched by name."""
    try:
        unknown = [str(name) for name, _ in entry["segments"] if str(name) not in names]
    except (LookupError, TypeError, ValueError) as error:
        raise _bad(video, str(error)) from error
    if unknown:
        raise _bad(video, f"it names the unknown step {unknown[0]!r}; {nearest(unknown[0], names)}")


def _bad(name: str, why: str) -> EdgeHalError:
    return EdgeHalError(f"the alignment of video {name} is unusable", why, "correct it, or train without", exit_code=2)
