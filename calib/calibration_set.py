"""The recordings of a calibration, sampled at the model's rate, and the check that they are fit for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files.feature_file import spread_of
from edge_hal.spec import PyramidSpec

MIN_TICKS = 500
"""The fewest ticks beyond the receptive field. With less, ranges and event scores mean little."""


@dataclass(frozen=True)
class CalibrationRecording:
    """`vectors`: (T, D) float32 at the ticks of the model. `pictures`: (T, H, W, 3) uint8, if an encoder made the
    vectors."""

    name: str
    vectors: NDArray[np.float32]
    pictures: NDArray[np.uint8] | None = None

    @property
    def ticks(self) -> int:
        return len(self.vectors)

    def sha256(self) -> str:
        """Of the pictures if there are any, otherwise of the vectors."""
        seen: NDArray[Any] = self.vectors if self.pictures is None else self.pictures
        digest = hashlib.sha256(f"{seen.dtype}{seen.shape}".encode())
        digest.update(np.ascontiguousarray(seen).reshape(-1).data)
        return digest.hexdigest()


def check_recordings(recordings: Sequence[CalibrationRecording], spec: PyramidSpec) -> None:
    """Raises EdgeHalError for recordings that are missing, too short, of the wrong size, not finite or constant."""
    todo = "give recordings of the procedure as it is really done"
    if not recordings:
        raise EdgeHalError("there is nothing to calibrate on", "the folder has no recording", todo)
    for recording in recordings:
        size = spec.front_end.size
        if recording.vectors.ndim != 2 or recording.vectors.shape[1] != size:
            why = f"its vectors are {recording.vectors.shape}, the model takes (T, {size})"
            raise EdgeHalError(f"the calibration recording {recording.name} is of the wrong size", why, todo)
        if not np.isfinite(recording.vectors).all():
            why = "it holds a number that is not finite"
            raise EdgeHalError(f"the calibration recording {recording.name} is damaged", why, todo)
    ticks, needed = sum(recording.ticks for recording in recordings), spec.receptive_field + MIN_TICKS
    if ticks < needed:
        have_s, needed_s = ticks / spec.model_hz, needed / spec.model_hz
        why = f"{ticks} ticks ({have_s:.0f} s), at least {needed} are needed ({needed_s:.0f} s)"
        raise EdgeHalError("the calibration recordings are too short", why, todo)
    if spread_of([recording.vectors for recording in recordings]).constant.all():
        raise EdgeHalError("the calibration recordings are constant", "nothing moves in any of them", todo)


def bounded(recordings: Sequence[CalibrationRecording], ticks: int) -> list[CalibrationRecording]:
    """Recordings spread evenly over the set, until there are `ticks` in total. The last one is cut."""
    order = sorted(range(len(recordings)), key=lambda i: (int(f"{i:032b}"[::-1], 2), i))
    chosen: list[tuple[int, CalibrationRecording]] = []
    for index in order:
        room = ticks - sum(recording.ticks for _, recording in chosen)
        if room <= 0:
            break
        whole = recordings[index]
        pictures = None if whole.pictures is None else whole.pictures[:room]
        chosen.append((index, CalibrationRecording(whole.name, whole.vectors[:room], pictures)))
    return [recording for _, recording in sorted(chosen, key=lambda pair: pair[0])]
