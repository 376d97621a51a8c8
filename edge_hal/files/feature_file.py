"""Feature files (.npy) and their numbers: one rule for training, evaluation, calibration and the runtime.

Accepted are integers and floats of 16, 32 or 64 bits. The model takes float32, so a number must be finite in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_regular

LEAST_BITS = 10
"""Features whose deviation keeps fewer significant bits than this are reported."""
STILL = 1e-7
"""A deviation below this share of the mean is rounding in float32, whose spacing is 1.2e-7 at 1."""
SMALLEST, LARGEST = 1e-30, 1e30
"""The deviations and means that float32 can hold with room for sums and reciprocals."""
WANTED = "an array of real numbers, (T, D) or (D, T), saved by numpy.save"


def open_features(path: Path, todo: str = "") -> NDArray[Any]:
    """The array of a feature file, memory-mapped, axes as stored.

    Raises:
        EdgeHalError: the file cannot be read, or is no array of real numbers with two axes.
    """
    check_regular(path, f"cannot read the features {path}")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise EdgeHalError(f"cannot read the features {path}", why, todo) from error
    except Exception as error:  # a damaged header ends in the parsers of Python, which raise errors of many kinds
        raise EdgeHalError(f"cannot read the features {path}", _what_it_is(path), todo) from error
    if array.ndim != 2 or 0 in array.shape or not is_real(array.dtype):
        why = f"it holds {array.dtype} of shape {array.shape}, not {WANTED}"
        raise EdgeHalError(f"cannot use the features {path}", why, todo)
    return array


def _what_it_is(path: Path) -> str:
    """Why the file, which can be read, is no .npy file of numbers."""
    with path.open("rb") as file:
        start = file.read(6)
    if not start:
        return "the file is empty"
    if start.startswith(b"PK"):
        return f"it is an .npz or zip archive, not {WANTED}"
    if start == b"\x93NUMPY":
        return f"it is not a whole .npy file of numbers (empty, cut off, damaged or of Python objects), not {WANTED}"
    return f"it is no .npy file (a pickle or text, perhaps), not {WANTED}"


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether values of this type are taken: integers, and floats of 16, 32 or 64 bits."""
    return dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize <= 8)


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """A copy in float32, in C order. A number beyond its range becomes infinite, without a warning of numpy."""
    with np.errstate(over="ignore"):
        return np.array(values, np.float32, order="C")


@dataclass(frozen=True)
class Spread:
    """`mean` and `variance` (D,) float64 of each column, over all rows."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    @property
    def deviation(self) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(self.variance))

    @property
    def constant(self) -> NDArray[np.bool_]:
        """(D,) the columns that do not move, but for rounding in float32."""
        return np.asarray((self.deviation <= STILL * np.abs(self.mean)) | (self.deviation < SMALLEST))

    def coarse(self, dtype: np.dtype[Any]) -> NDArray[np.bool_]:
        """(D,) the columns whose mean leaves the deviation under `LEAST_BITS` significant bits, stored as `dtype` and
        used as float32. Whole numbers are exact as stored, so only the conversion can cost them bits."""
        size = np.abs(self.mean)
        moves = self.deviation > 1e-12 * size  # less is rounding of the mean in float64
        step = np.spacing(np.minimum(size, LARGEST).astype(np.float32)).astype(np.float64)
        if dtype.kind in "iu":
            step = np.where(step > 1, step, 0)
        elif dtype.itemsize == 2:
            step = np.maximum(step, np.spacing(np.minimum(size, 32768).astype(np.float16)).astype(np.float64))
        return np.asarray(moves & (self.deviation < 2**LEAST_BITS * step))


def spread_of(parts: Sequence[NDArray[Any]]) -> Spread:
    """Of arrays (T, D), all rows together. Sums are in float64, so squares of float32 neither overflow nor vanish."""
    count = sum(len(x) for x in parts)
    mean = sum(x.sum(0, dtype=np.float64) for x in parts) / count
    variance = sum(((x - mean) ** 2).sum(0) for x in parts) / count
    return Spread(np.asarray(mean), np.asarray(variance))


def columns(selected: NDArray[np.bool_], shown: int = 8) -> str:
    """'3 of 36 features (columns 0, 7, 9)'."""
    found = np.flatnonzero(selected)
    names = ", ".join(map(str, found[:shown])) + (", ..." if len(found) > shown else "")
    return f"{len(found)} of {len(selected)} features (column{'' if len(found) == 1 else 's'} {names})"


def coarse_note_of(array: NDArray[Any], rows: int = 2000) -> str | None:
    """`coarse_note` of a stored array (T, D), from about `rows` of its rows."""
    some = array[:: max(1, len(array) // rows)]
    some = some[np.isfinite(as_float32(some)).all(axis=1)]
    return coarse_note(spread_of([some]), array.dtype) if len(some) else None


def coarse_note(spread: Spread, dtype: np.dtype[Any]) -> str | None:
    """What to tell of an offset that is too large for the stored type; None if there is none."""
    coarse = spread.coarse(dtype)
    if not coarse.any():
        return None
    coarser = "float16" if dtype.kind == "f" and dtype.itemsize == 2 else "float32"
    return (
        f"{columns(coarse)} keep under {LEAST_BITS} bits of their deviation in {coarser}, because their offset "
        "is large: subtract a constant before they are stored"
    )
