"""Feature and video files: their shapes, lengths and rates. Every error names the fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .mstcn_files import Layout, count_of, reason_of


def open_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file, memory-mapped."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EdgeHalError(
            f"cannot read {path}",
            f"not a whole .npy file ({reason_of(error)})",
            "extract the features of this video again, or take it out of the split",
        ) from error
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise EdgeHalError(
            f"{path} holds {array.dtype} {array.shape}",
            "features are real numbers (D, T) or (T, D)",
        )
    return array


def find_layout(root: Path, files: dict[str, Path], names: Sequence[str], lengths: dict[str, int]) -> Layout:
    """The order of the axes: D is the axis of equal size in all files of the data set, not only those of `names`."""
    shapes = {name: open_array(files[name]).shape for name in names}
    for name in files.keys() - shapes.keys():
        try:
            shapes[name] = open_array(files[name]).shape
        except EdgeHalError:  # damaged, but not a video of this part
            continue
    same = [len({shape[axis] for shape in shapes.values()}) == 1 for axis in (0, 1)]
    if same == [True, False]:
        return "DT"
    if same == [False, True]:
        return "TD"
    if same == [True, True]:
        known = [name for name in names if name in lengths]
        gaps = [sum(abs(shapes[name][axis] - lengths[name]) for name in known) for axis in (0, 1)]
        if gaps[0] != gaps[1]:
            return "TD" if gaps[0] < gaps[1] else "DT"
        raise EdgeHalError(
            f"cannot tell time from features under {root}",
            f"all arrays are {next(iter(shapes.values()))}",
            "say the layout: DT or TD",
        )
    common = [Counter(shape[i] for shape in shapes.values()).most_common(1)[0] for i in (0, 1)]
    axis = 0 if common[0][1] >= common[1][1] else 1
    width = common[axis][0]
    odd = [f"{n} {s}" for n, s in sorted(shapes.items()) if s[axis] != width]
    raise EdgeHalError(
        f"the feature arrays under {root} have no axis of one size",
        f"most have {width} features, but not {count_of(odd, 'video')}"
        if common[axis][1] > 1
        else f"for example {count_of(odd, 'video')}",
        "extract all with the same settings",
    )


def feature_length(files: dict[str, Path], names: Sequence[str], name: str, layout: Layout | None) -> int:
    """Number of frames of a feature file. Raises EdgeHalError if D is not that of the first video."""
    axes = (0, 1) if layout == "DT" else (1, 0)  # (features, time)
    shape, first = (open_array(files[x]).shape for x in (name, names[0]))
    if shape[axes[0]] != first[axes[0]]:
        raise EdgeHalError(
            f"video {name} has {shape[axes[0]]} features, video {names[0]} {first[axes[0]]}",
            f"their arrays are {shape} and {first}, read as {layout}",
            "extract all with the same settings",
        )
    return int(shape[axes[1]])


def probe_video(path: Path, rate_hz: float | None) -> tuple[int, float | None]:
    """Number of frames and frames per second of a video file; `rate_hz` if the file has no rate."""
    try:
        import cv2
    except ImportError as error:
        raise EdgeHalError(
            f"cannot open {path}", "OpenCV is not installed", "pip install 'edge-hal[camera]'"
        ) from error
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise EdgeHalError(f"cannot open the video {path}", "it is damaged or of an odd codec")
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return max(frames, 0), fps if fps > 0 else rate_hz
