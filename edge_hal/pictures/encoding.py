"""Pictures of video files at the ticks of a model, and their vectors by the encoder's graph, exactly as the device sees
and computes them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.media.names import printable
from edge_hal.media.stamps import Missing
from edge_hal.media.video_file import VideoFile
from edge_hal.pictures.moving import MovingParts
from edge_hal.pictures.resize import resize
from edge_hal.rate import exact_rate, instant_ns
from edge_hal.spec import EncoderSpec


def each_picture(
    path: Path,
    model_hz: float,
    height: int,
    width: int,
    take: Callable[[NDArray[np.uint8]], None],
    unstamped_hz: float | None = None,
    seen: Callable[[int], None] | None = None,
) -> Missing:
    """Call `take` with what a video file shows at each tick, resized to (height, width, 3) uint8 BGR: the newest frame
    that is not later, as the runtime's ticks see it. Before the first frame that can be decoded, that one. The last
    tick is not later than the last frame. One decoded frame is held at a time.

    Args:
        unstamped_hz: frames per second of a file without time stamps.
        seen: called with the time of each frame in nanoseconds; what it raises ends the reading.

    Returns:
        What the file lacks.

    Raises:
        EdgeHalError: the file cannot be opened or decodes to nothing.
    """
    rate = exact_rate(model_hz)
    shown: Any = None
    picture: NDArray[np.uint8] | None = None
    tick = 0

    def show_until(end_ns: int) -> None:
        nonlocal picture, tick
        while instant_ns(tick, rate) < end_ns:
            picture = resize(video.picture(shown), height, width) if picture is None else picture
            take(picture)
            tick += 1

    with VideoFile(path, unstamped_hz=unstamped_hz) as video:
        last_ns = 0
        for t_ns, frame in video.frames():
            if seen is not None:
                seen(t_ns)
            if frame is not None:
                if shown is not None:
                    show_until(t_ns)
                shown, picture, last_ns = frame, None, t_ns
        missing = video.missing()
        if shown is not None:
            show_until(last_ns + 1)
    if not tick:
        name = printable(path)
        raise EdgeHalError(f"no frame of {name} could be decoded", "", f"check the file: ffprobe {name}")
    return missing


def encode_pictures(encoder: Path, pictures: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """n pictures (H, W, 3) uint8 -> (n, D) float32 by an encoder graph, one picture at a time as on the device."""
    graph = EncoderGraph(encoder)
    return np.concatenate([graph(picture) for picture in pictures])


class _Enough(Exception):
    pass


def first_pictures(
    path: Path, model_hz: float, encoder: EncoderSpec, count: int, unstamped_hz: float | None = None
) -> NDArray[np.uint8]:
    """(count or fewer, height, width, 3) uint8 BGR: what `encoder` sees first. No more of the file is read."""
    found: list[NDArray[np.uint8]] = []
    moving = MovingParts.of(encoder)

    def take(picture: NDArray[np.uint8]) -> None:
        found.append(picture.copy() if moving is None else moving(picture))
        if len(found) == count:
            raise _Enough

    with contextlib.suppress(_Enough):
        each_picture(path, model_hz, encoder.height, encoder.width, take, unstamped_hz)
    return np.stack(found)


class EncoderGraph:
    """An encoder graph, opened with one thread. Several threads may call it at once.

    Raises:
        EdgeHalError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors only: ONNX Runtime warns about each float16 convolution on a CPU
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the exceptions of onnxruntime have no common base class
            raise EdgeHalError(f"cannot open the encoder {path}", str(error).splitlines()[0]) from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W, 3) uint8 BGR -> (1, D) float32."""
        vector: NDArray[np.float32] = self._session.run(None, {self._input: picture})[0]
        return vector
