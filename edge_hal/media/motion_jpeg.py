"""Write JPEG pictures as a video file, each at its own time, without compressing them again."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from .open_video import open_pyav

UNIT = Fraction(1, 90_000)
"""Unit of the time stamps, in seconds."""


def write_motion_jpeg(path: Path, pictures: Iterable[tuple[int, bytes]], size: tuple[int, int], period_ns: int) -> None:
    """An MP4 file with Motion JPEG. Stamps are exact to 6 microseconds.

    Args:
        pictures: times in nanoseconds, increasing, and JPEG data of `size` (width, height). The first time becomes 0.
        period_ns: how long the last picture lasts.

    Raises:
        OSError: the file cannot be written.
        EdgeHalError: PyAV is not installed.
    """
    av = open_pyav()
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("mjpeg", rate=Fraction(10**9, period_ns).limit_denominator(1001))
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p"
        stream.time_base = stream.codec_context.time_base = UNIT
        origin_ns: int | None = None
        for t_ns, jpeg in pictures:
            origin_ns = t_ns if origin_ns is None else origin_ns
            packet = av.Packet(jpeg)
            packet.stream, packet.time_base, packet.is_keyframe = stream, UNIT, True
            packet.pts = packet.dts = round(Fraction(t_ns - origin_ns, 10**9) / UNIT)
            packet.duration = round(Fraction(period_ns, 10**9) / UNIT)
            out.mux(packet)
