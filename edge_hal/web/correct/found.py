"""What a run found in its training videos: its alignment, and how certain each boundary is."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import MB, read_json, read_regular
from edge_hal.learning.hmm.alignment_file import ALIGNMENT_FILE, read_alignment
from edge_hal.learning.hmm.trust import Evidence, evidence_in

WORTH = "labels.json"
"""File of a run with what `train` estimates that labels would bring. Runs of earlier versions have none."""
Boundary = tuple[int, str, str]
"""Frame, step before it, step after it."""


@dataclass(frozen=True)
class Worth:
    """`frames_right`: the share of the frames that is right, as `train` estimates. `gains`: (minutes of labels, the
    share that would be right with them). `videos`: which to label, the most useful first."""

    frames_right: float
    gains: tuple[tuple[float, float], ...]
    videos: tuple[str, ...]

    def __str__(self) -> str:
        gains = ", ".join(f"{minutes:g} min: {share:.0%}" for minutes, share in self.gains)
        now = f"{self.frames_right:.0%} of the frames were right (estimated)"
        return f"When the run was trained, {now}; with labels of {gains}."


@dataclass(frozen=True)
class Found:
    """Attributes:
    run: the name of the run; None if there is none.
    segments: by video, (step, first frame).
    evidence: of the alignment of each video that had no labels.
    worth: what labels would bring when the run was trained; None if that is not known.
    confidences: by video and boundary, 0..1, as `edge-hal label` writes them; None until they are known.
    """

    run: str | None = None
    segments: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    evidence: Sequence[Evidence] = ()
    worth: Worth | None = None
    confidences: Mapping[tuple[str, Boundary], float] | None = None

    def begins(self, name: str, length: int) -> list[tuple[str, int]] | None:
        """The segments of a video as (step, first frame); None if the run does not know it."""
        found: list[tuple[str, int]] = []
        for step, first in self.segments.get(name, ()):
            if first < length and not (found and found[-1][0] == step):
                found.append((step, first))
        return found or None

    def confidence(self, name: str, frame: int, before: str, after: str) -> float | None:
        """Of a boundary; None if it is not known yet. One that the run did not find was set by a person: 1."""
        if self.confidences is not None:
            return self.confidences.get((name, (frame, before, after)), 1.0)
        known = self.segments.get(name, ())
        return None if (after, frame) in known else 1.0


def read_found(run: Path | None, steps: Sequence[str]) -> Found:
    """The alignment of a run. Raises EdgeHalError if it cannot be read."""
    if run is None:
        return Found()
    path = run / ALIGNMENT_FILE
    stored = read_alignment(path)
    try:
        segments = {
            name: [(str(step), int(first)) for step, first in entry["segments"]] for name, entry in stored.items()
        }
        evidence = tuple(evidence_in(entry) for entry in stored.values() if not entry.get("labelled"))
        for name, begins in segments.items():
            firsts = [first for _, first in begins]
            if not firsts or firsts[0] != 0 or any(b <= a for a, b in pairwise(firsts)):
                raise ValueError(f"the segments of video {name} are not in order from frame 0")
            unknown = {step for step, _ in begins} - set(steps)
            if unknown:
                raise ValueError(f"it names the step {sorted(unknown)[0]!r}, which the task does not have")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise file_error(f"cannot read the alignment {path}", error, "train again", path=path) from error
    return Found(run.name, segments, evidence, _worth(run / WORTH))


def _worth(path: Path) -> Worth | None:
    if not path.is_file():
        return None
    try:
        stored = read_json(path)
        gains = tuple((float(gain["minutes"]), float(gain["frames_right"])) for gain in stored["gains"])
        return Worth(float(stored["frames_right"]), gains, tuple(str(name) for name in stored["videos"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise file_error(f"cannot read {path}", error, "delete it, or train again", path=path) from error


def read_confidences(path: Path, rates: Mapping[str, float]) -> dict[tuple[str, Boundary], float]:
    """The confidences of a `boundaries.csv` of `edge-hal label`. `rates`: frames per second by video.

    Raises:
        EdgeHalError: the file cannot be read.
    """
    try:
        rows = csv.DictReader(read_regular(path, 256 * MB).decode().splitlines())
        return {
            (row["video"], (round(float(row["time_s"]) * rates[row["video"]]), row["from"], row["to"])): float(
                row["confidence"]
            )
            for row in rows
            if row["video"] in rates
        }
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise EdgeHalError(f"cannot read {path.name}", str(error)) from error
