"""Videos whose frames show their own number, with stamps, damage and gaps as asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

av: Any = pytest.importorskip("av")

WIDTH, HEIGHT = 64, 48
BASE = 25
"""Numbers are written as two digits, left and right, each as a brightness."""


def numbered(index: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """(height, width, 3) a picture that shows `index`, up to 624."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = (8 * digit + 24 for digit in divmod(index, BASE))
    return picture


def number_of(picture: NDArray[np.uint8]) -> int:
    width = picture.shape[1]
    digits = [picture[8:-8, at - 4 : at + 4].mean() for at in (width // 4, 3 * width // 4)]
    high, low = (round(float(value - 24) / 8) for value in digits)
    return BASE * high + low


def write_video(
    path: Path,
    times_ms: Sequence[int],
    *,
    codec: str = "mjpeg",
    rate: int = 10,
    container: str | None = None,
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixel: Fraction = Fraction(1),
) -> Path:
    """Frame i at `times_ms[i]`, as exactly as the container stores it. `rate` is the rate that the file claims. The
    times must be multiples of its period for containers that know nothing else. `size`: width and height. `pixel`:
    width over height of one pixel."""
    unit = Fraction(1, rate if path.suffix in (".avi", ".mpg") else 1000)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.codec_context.sample_aspect_ratio = pixel
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.time_base = stream.codec_context.time_base = unit
        stream.bit_rate = 2_000_000
        for index, t_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(numbered(index, *size), format="bgr24")
            frame.pts, frame.time_base = round(Fraction(t_ms, 1000) / unit), unit
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def rewrite(
    source: Path,
    path: Path,
    *,
    damaged: Collection[int] = (),
    dropped: Collection[int] = (),
    container: str | None = None,
) -> Path:
    """A copy in which the packets `damaged` (numbers in the order of storage) hold zeros and `dropped` are left out."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(old.streams.video[0]) if packet.size]
        for index, packet in enumerate(packets):
            if index in dropped:
                continue
            made = av.Packet(bytes(packet.size) if index in damaged else bytes(packet))
            made.pts, made.dts, made.time_base, made.duration = (
                packet.pts,
                packet.dts,
                packet.time_base,
                packet.duration,
            )
            made.stream, made.is_keyframe = stream, packet.is_keyframe
            new.mux(made)
    return path
