"""Encode recordings offline: run the exported encoder graph over pictures, exactly as the device does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.media.names import printable
from edge_hal.media.stamps import Missing
from edge_hal.media.video_file import VideoFile
from edge_hal.preprocess import resize


def read_pictures(
    path: Path, at_ns: NDArray[np.int64], height: int, width: int, unstamped_hz: float | None = None
) -> tuple[NDArray[np.uint8], Missing]:
    """What a video file shows at increasing times, resized: the newest frame that is not later, as the runtime's ticks
    see it. Before the first frame that can be decoded, that one.

    Args:
        at_ns: (n,) nanoseconds since the first frame.
        unstamped_hz: frames per second of a file without time stamps.

    Returns:
        (m, height, width, 3) uint8 BGR; m < n if later times are after the last frame. And what the file lacks.

    Raises:
        EdgeHalError: the file cannot be opened or decodes to nothing.
    """
    pictures: list[NDArray[np.uint8]] = []
    shown: Any = None
    picture: NDArray[np.uint8] | None = None

    def show_until(end_ns: int) -> None:
        nonlocal picture
        while len(pictures) < len(at_ns) and at_ns[len(pictures)] < end_ns:
            picture = resize(video.picture(shown), height, width) if picture is None else picture
            pictures.append(picture)

    with VideoFile(path, unstamped_hz=unstamped_hz) as video:
        last_ns = 0
        for t_ns, frame in video.frames():
            if frame is not None:
                if shown is not None:
                    show_until(t_ns)
                shown, picture, last_ns = frame, None, t_ns
        missing = video.missing()
        if shown is not None:
            show_until(last_ns + 1)
    if not pictures:
        name = printable(path)
        raise EdgeHalError(f"no frame of {name} could be decoded", "", f"check the file: ffprobe {name}")
    return np.stack(pictures), missing


def encode_pictures(encoder: Path, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, H, W, 3) uint8 -> (n, D) float32 by an encoder graph, one picture at a time as on the device."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors only: ONNX Runtime warns about each float16 convolution on a CPU
    try:
        session = ort.InferenceSession(str(encoder), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exceptions of onnxruntime have no common base class
        raise EdgeHalError(f"cannot open the encoder {encoder}", str(error).splitlines()[0]) from error
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: picture})[0] for picture in pictures])
