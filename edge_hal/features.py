"""Encode recordings offline: run the exported encoder graph over pictures, exactly as the device does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.preprocess import resize


def read_pictures(path: Path, wanted: NDArray[np.int64], height: int, width: int) -> NDArray[np.uint8]:
    """Frames `wanted` (increasing, repeats allowed) of a video file, resized.

    Returns:
        (n, height, width, 3) uint8 BGR; n is smaller than asked if the file ends early.

    Raises:
        EdgeHalError: the file cannot be opened or decodes to nothing.
    """
    pictures = list(_pictures(path, wanted, height, width))
    if not pictures:
        raise EdgeHalError(f"no frame of {path} could be decoded", "", "check the file: ffprobe " + str(path))
    return np.stack(pictures)


def _pictures(path: Path, wanted: NDArray[np.int64], height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise EdgeHalError(f"cannot open the video {path}", "", "check the file: ffprobe " + str(path))
        index, picture = -1, None
        for frame in wanted.tolist():
            while index < frame:
                if not capture.grab():
                    return
                index, picture = index + 1, None
            if picture is None:
                ok, decoded = capture.retrieve()
                if not ok:
                    return
                picture = resize(np.asarray(decoded, np.uint8), height, width)
            yield picture
    finally:
        capture.release()


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
