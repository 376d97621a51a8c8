"""The frames of a video file, each at the time of its own stamp. Frames that cannot be decoded are counted.

PyAV reads it, because OpenCV cannot tell a damaged frame from the end of the file, nor a missing stamp from zero.
"""

from __future__ import annotations

import heapq
import itertools
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_hal.rate import FPS_RANGE, checked_rate, exact_rate, instant_ns

from .names import printable
from .open_video import open_pyav, open_video
from .stamps import Gaps, Missing, TimeBase, steadied

PROBED = 32
"""Packets read when a file is opened, to find its first stamp and to see whether it has stamps."""
MOST_PROBED = 2000
NO_TIMESTAMPS = 128  # AVFMT_NOTIMESTAMPS
ATTEMPTS = 100
"""Failed reads in a row after which a file counts as ended."""
REPRODUCIBLE = 0x10 | 0x40000 | 0x80000
"""SWS_POINT | SWS_ACCURATE_RND | SWS_BITEXACT of libswscale. Its other conversions round as is fastest on a processor:
pictures then differ between machines, by 2 of 255 and, for 10-bit video, by up to 33."""
XVID_TAGS = {"XVID", "XVIX", "RMP4", "ZMP4", "SIPP"}
STATES_DURATION = {"matroska", "webm", "flv", "asf", "avi", "mov", "mp4"}
"""Containers whose header holds a duration. Of others the library only guesses one from the file's size."""


class Aspect(NamedTuple):
    """Width over height of an upright picture: as it is shown, and of its array. Pixels need not be square."""

    shown: float
    stored: float


class VideoFile:
    """A video file, opened. Read it once, by `frames` or by `times_ns`, or go back with `seek`.

    Args:
        fps: the user's frame rate; it replaces the stamps.
        unstamped_hz: the frame rate of a file without stamps; None: the one it claims.

    Attributes:
        rate: frames per second, as announced or given.
        stamped: whether times come from the file's stamps.
        seekable: whether every time is that of a stamp, so that a place can be found again. Known after `times_ns`.
        notes: what the user should know before the first frame.

    Raises:
        EdgeHalError: the file cannot be opened, holds no video, or has neither stamps nor a plausible rate.
    """

    def __init__(self, path: Path, fps: float | None = None, unstamped_hz: float | None = None) -> None:
        self.name = f"the video {printable(path)}"
        self._av = open_pyav()
        self._file, self._container, self._stream = open_video(path)
        self._format = self._container.format.name
        self._stored_in_order = self._format == "avi"  # AVI has no presentation stamps, only an order
        try:
            self._packets = self._demux()
            self._probed = self._probe()
            unit = self._stream.time_base or Fraction(1, 90_000)
            stamps = [stamp for stamp in map(self._stamp, self._shown(self._probed)) if stamp is not None]
            none = self._format.endswith("_pipe") or bool(self._container.format.flags & NO_TIMESTAMPS)
            self._has_stamps = not none and len(set(stamps)) > min(1, len(stamps) - 1) and bool(stamps)
            self.stamped = fps is None and self._has_stamps
            self.rate = self._find_rate(fps, unstamped_hz, sorted(set(stamps)), unit)
            self._base = TimeBase(unit, min(stamps, default=0), self.rate)
            if not self._is_xvid():  # the one inverse DCT that gives the same values on every processor
                self._stream.codec_context.options = {"idct": "simple"}
        except BaseException:
            self.close()
            raise
        self.seekable = False
        self.notes = list[str]()
        if fps is None and not self.stamped:
            self.notes.append(f"the file has no time stamps: its frames are taken at {float(self.rate):g} per second")
        self._to_bgr = self._av.video.reformatter.VideoReformatter()  # kept: making one costs more than a picture
        self._undecodable = self._held = 0
        self._gaps = Gaps(self.rate)

    # --- reading --------------------------------------------------------------------------------

    def frames(self) -> Iterator[tuple[int, Any]]:
        """Times in nanoseconds since the first frame, not decreasing, and decoded frames for `picture`; None for
        one that cannot be decoded."""
        placed = self._by_stamps() if self._has_stamps else self._by_order()
        t_ns = 0
        for index, (stamp, frame) in enumerate(placed):
            t_ns = max(t_ns, self._base.ns(stamp)) if self.stamped else instant_ns(index, self.rate)
            self._held += 1
            self._undecodable += frame is None
            self._gaps.add(t_ns)
            yield t_ns, frame

    def picture(self, frame: Any) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR of a decoded frame, turned upright as phones ask for. The same on every machine."""
        picture: NDArray[np.uint8] = self._to_bgr.reformat(
            frame, format="bgr24", interpolation=REPRODUCIBLE
        ).to_ndarray()
        return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90))) if frame.rotation else picture

    def times_ns(self) -> NDArray[np.int64]:
        """(frames,) the time of each frame in the file, sorted, without decoding any."""
        shown = self._shown(packet for packet in itertools.chain(self._probed, self._packets) if packet.size)
        if not self.stamped:
            self._held = sum(1 for _ in shown)
            return np.array([instant_ns(index, self.rate) for index in range(self._held)], np.int64)
        pairs = list(self._steadied(shown))
        self.seekable = all(stamp == self._stamp(packet) for stamp, packet in pairs)
        stamps = sorted(stamp for stamp, _ in pairs)
        times = np.array([self._base.ns(stamp) for stamp in stamps], np.int64)
        for t_ns in times.tolist():
            self._gaps.add(t_ns)
        self._held = len(times)
        return times

    def seek(self, t_ns: int) -> bool:
        """Let `frames` begin at a key frame that is not later than `t_ns`, as far as the file's index tells. What comes
        before the first key frame is damaged. `missing` means nothing after this. False: the file cannot be sought."""
        stamp = self._base.origin + math.floor(Fraction(t_ns, 10**9) / self._base.unit)
        try:
            self._container.seek(stamp, stream=self._stream)
        except (self._av.error.FFmpegError, OSError):
            return False
        self._probed, self._packets = [], self._demux()
        return True

    def aspect(self) -> Aspect | None:
        """That of the first picture that can be decoded. None if the packets that were read when the file was opened
        give none. `frames` is not possible after this."""
        for packet in self._probed:
            try:
                for frame in packet.decode():
                    stored, pixel = frame.width / frame.height, float(self._stream.sample_aspect_ratio or 1)
                    turned = -1 if round(frame.rotation / 90) % 2 else 1
                    return Aspect((stored * pixel) ** turned, stored**turned)
            except self._av.error.FFmpegError:
                continue
        return None

    def missing(self) -> Missing:
        """What was missing, after the last frame was read."""
        undelivered = self._gaps.missing(self._announced_s() if self.stamped else None)
        return Missing(self._held + undelivered, self._undecodable, undelivered)

    @property
    def constant_rate(self) -> bool:
        """Whether the frames are a period apart, after the last one was read."""
        return self._gaps.constant

    def close(self) -> None:
        self._container.close()
        self._file.close()

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _by_stamps(self) -> Iterator[tuple[int, Any]]:
        """Stamps and frames in order of time. A packet whose stamp is passed by a frame gave no frame itself."""
        pending: list[int] = []  # a heap: stamps of packets that gave no frame yet
        failed: set[int] = set()
        latest: int | None = None
        second_field = False
        for stamp, packet in self._steadied(itertools.chain(self._probed, self._packets)):
            if packet.size:
                packet.pts = stamp
                if not packet.is_discard:
                    heapq.heappush(pending, stamp)
            try:
                decoded = packet.decode()
            except self._av.error.FFmpegError:
                failed.add(stamp)
                continue
            for frame in decoded:
                if self._stored_in_order:
                    while pending and pending[0] in failed:
                        yield heapq.heappop(pending), None
                    found = pending[0] if pending else stamp
                else:
                    found = frame.pts if frame.pts is not None else (pending[0] if pending else stamp)
                if latest is not None and found <= latest:
                    if found in pending:  # a wrong stamp: frames come in order
                        pending.remove(found)
                        heapq.heapify(pending)
                        yield latest, frame
                    continue  # else damage moved the frame: its time has passed, and it was counted then
                while pending and pending[0] < found:
                    passed = heapq.heappop(pending)
                    if not second_field or passed in failed:
                        yield passed, None
                    second_field = False
                if pending and pending[0] == found:
                    heapq.heappop(pending)
                latest, second_field = found, frame.interlaced_frame
                yield found, frame
        for stamp in sorted(pending)[second_field:]:
            yield stamp, None

    def _by_order(self) -> Iterator[tuple[int, Any]]:
        """Frames without stamps, in the order of decoding them."""
        for packet in itertools.chain(self._probed, self._packets):
            try:
                for frame in packet.decode():
                    yield 0, frame
            except self._av.error.FFmpegError:
                yield 0, None

    def _stamp(self, packet: Any) -> int | None:
        stamp: int | None = packet.dts if self._stored_in_order or packet.pts is None else packet.pts
        return stamp

    def _steadied(self, packets: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        unit = self._base.unit
        period, second = max(1, round(1 / (self.rate * unit))), math.ceil(1 / unit)
        return steadied(((self._stamp(packet), packet) for packet in packets), period, second)

    def _demux(self) -> Iterator[Any]:
        """All packets that can be found, then an empty one that makes the decoder give its last frames."""
        failures = 0
        while failures < ATTEMPTS:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield packet
                return
            except (self._av.error.FFmpegError, OSError):
                failures += 1

    # --- opening --------------------------------------------------------------------------------

    def _probe(self) -> list[Any]:
        probed: list[Any] = []
        count = 0
        for packet in itertools.islice(self._packets, MOST_PROBED):
            probed.append(packet)
            count += bool(packet.size) and not packet.is_discard
            if count == PROBED:
                break
        return probed

    def _is_xvid(self) -> bool:
        """Whether Xvid made the file, as the library decides it. It then uses Xvid's inverse DCT, also the same."""
        codec = self._stream.codec_context
        written = (codec.extradata or b"") + b"".join(map(bytes, self._probed[:1]))
        tagged = codec.codec_tag in XVID_TAGS and b"Lavc" not in written
        return bool(codec.name == "mpeg4" and (b"XviD" in written or tagged))

    @staticmethod
    def _shown(packets: Any) -> Iterator[Any]:
        """Without those outside the file's edit list: they are decoded for others and never shown."""
        return (packet for packet in packets if packet.size and not packet.is_discard)

    def _find_rate(self, fps: float | None, unstamped_hz: float | None, stamps: list[int], unit: Fraction) -> Fraction:
        claimed = float(self._stream.guessed_rate or self._stream.average_rate or 0)
        if fps is not None or not self.stamped:
            return checked_rate(fps or unstamped_hz or claimed if fps is None else fps, self.name)
        steps = sorted(after - before for before, after in itertools.pairwise(stamps))
        measured = 1 / float(steps[len(steps) // 2] * unit) if steps else claimed or 1.0
        if not (FPS_RANGE[0] <= claimed <= FPS_RANGE[1] and 0.5 < claimed / measured < 2.0):
            claimed = min(max(measured, FPS_RANGE[0]), FPS_RANGE[1])
        return exact_rate(claimed)

    def _announced_s(self) -> float | None:
        """Seconds from the first frame to the end, as the header says; None where it does not."""
        stream, container = self._stream, self._container
        tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
        if self._format == "avi":  # its unit is a frame; the library shortens the duration to what is there
            duration_s = float(max(stream.duration or 0, stream.frames) * self._base.unit)
        elif stream.duration is not None:
            duration_s = float(stream.duration * self._base.unit)
        elif tag:
            duration_s = 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
        elif (
            container.duration and len(container.streams) == 1 and STATES_DURATION & {*container.format.name.split(",")}
        ):
            duration_s = container.duration / 1e6
        else:
            return None
        # Some containers count from their first stamp, others from 0.
        return duration_s - max(0.0, float(self._base.origin * self._base.unit))
