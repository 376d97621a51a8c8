"""Cameras, each read by one blocking `grab` and `read`: V4L2, addresses, GStreamer; files, for rehearsal.

All of this runs in the reading process (`camera_process.py`).
"""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .credentials import redact, with_auth
from .faults import Faults, FaultScript
from .file_readers import FPS_RANGE, Reader, Undecodable, open_file, opencv
from .rate import exact_rate, instant_ns

OPEN_TIMEOUT_MS = 10_000
WITHOUT_CAMERA = "see: edge-hal cameras; or run without: edge-hal run --camera FILE"
DEVICE = re.compile(r"(?:/dev/video)?(\d+)")
ADDRESS = re.compile(r"(rtsp|rtsps|http|https)://")
CSI = (
    "nvarguscamerasrc sensor-id={index} ! video/x-raw(memory:NVMM){size}{fps} ! nvvidconv ! "
    "video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
)


@dataclass(frozen=True)
class CameraRequest:
    """What to open and how. `width`, `height`, `fps` and `fourcc` are asked for, not promised.

    `first_ns`: the monotonic clock at the stream's first frame, None before it: a file played as a
    camera goes on where it would be by now, and faults happen once.
    `vector_size`: see `open_file`.
    """

    uri: str
    auth: str | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    fourcc: str | None = None
    vector_size: int | None = None
    faults: str | None = None
    first_ns: int | None = None

    @property
    def age_ns(self) -> int:
        return 0 if self.first_ns is None else time.monotonic_ns() - self.first_ns


class Camera(Protocol):
    """`grab` waits for the next frame, False when none will come; `read` decodes it, or raises
    Undecodable. `over`: there will never be more, it was a file. `mode` tells what it delivers."""

    mode: dict[str, Any]

    @property
    def rate(self) -> Fraction | None: ...

    @property
    def over(self) -> bool: ...

    def grab(self) -> bool: ...

    def read(self) -> NDArray[Any]: ...

    def close(self) -> None: ...


def is_live(uri: str) -> bool:
    return DEVICE.fullmatch(uri) is not None or re.match(r"(gst|csi):", uri) is not None or is_address(uri)


def is_address(uri: str) -> bool:
    return ADDRESS.match(uri) is not None


def open_camera(request: CameraRequest) -> Camera:
    """Raises EdgeHalError: it does not open; nothing is left behind."""
    if request.faults is None:
        return _open(request)
    faults = Faults(FaultScript.parse(request.faults), request.age_ns)
    if faults.unplugged(request.age_ns):
        raise EdgeHalError(f"cannot open the camera {redact(request.uri)}", "unplugged by the fault script")
    return FaultyCamera(_open(request), faults, request.age_ns)


def check_gstreamer() -> None:
    """Raises EdgeHalError where OpenCV cannot run a pipeline."""
    cv2 = opencv()
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise EdgeHalError(
            f"this OpenCV ({cv2.__version__}) cannot run gst: and csi: cameras",
            "it was built without GStreamer, as every opencv-python wheel is",
            "use the system's python3-opencv (JetPack brings it) and uninstall opencv-python",
        )


def _open(request: CameraRequest) -> Camera:
    if is_live(request.uri):
        return OpenCvCamera(request)
    return FileCamera(open_file(request.uri, request.vector_size, request.fps), request.age_ns)


class OpenCvCamera:
    """A device, address or pipeline through OpenCV, asked for as little buffering as it offers."""

    def __init__(self, request: CameraRequest) -> None:
        cv2, uri, self.over = opencv(), request.uri, False
        if device := DEVICE.fullmatch(uri):
            if os.name == "posix" and not Path(f"/dev/video{device[1]}").exists():
                raise EdgeHalError(f"there is no camera {device[1]}", _present(), WITHOUT_CAMERA)
            backend = getattr(cv2, "CAP_V4L2", cv2.CAP_ANY) if os.name == "posix" else cv2.CAP_ANY
            self._capture = cv2.VideoCapture(int(device[1]), backend)
            # The order matters: V4L2 chooses sizes and rates among those of the pixel format.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*(request.fourcc or "MJPG")))
            for prop, value in (
                (cv2.CAP_PROP_FRAME_WIDTH, request.width),
                (cv2.CAP_PROP_FRAME_HEIGHT, request.height),
                (cv2.CAP_PROP_FPS, request.fps),
                (cv2.CAP_PROP_BUFFERSIZE, 1),
            ):
                if value is not None:
                    self._capture.set(prop, value)
        elif is_address(uri):
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
            limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
            self._capture = cv2.VideoCapture(with_auth(uri, request.auth), cv2.CAP_FFMPEG, limits)
        else:
            check_gstreamer()
            self._capture = cv2.VideoCapture(pipeline(request), cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            self._capture.release()
            why = _present() if device else "it does not answer, or is not a video stream"
            raise EdgeHalError(f"cannot open the camera {redact(uri)}", why, WITHOUT_CAMERA)
        claimed = float(self._capture.get(cv2.CAP_PROP_FPS))
        believed = math.isfinite(claimed) and 1.0 <= claimed <= FPS_RANGE[1]
        self.rate = exact_rate(claimed) if believed else None
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        self.mode = {
            "width": int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            "height": int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            "fps": round(claimed, 3) if believed else None,
            "fourcc": "".join(chr(code >> shift & 0x7F) for shift in (0, 8, 16, 24)).strip("\0 ") or None,
        }
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) if is_address(uri) else 0
        self._left = int(count) if math.isfinite(count) and 0 < count < 2**31 else None

    def grab(self) -> bool:
        grabbed = bool(self._capture.grab())
        if self._left is not None:
            self._left -= grabbed
            self.over = not grabbed and self._left <= 0
        return grabbed

    def read(self) -> NDArray[Any]:
        ok, picture = self._capture.retrieve()
        if not ok:
            raise Undecodable
        return picture

    def close(self) -> None:
        self._capture.release()


class FileCamera:
    """A file that plays as if it were a camera: time passes whether anybody reads or not."""

    def __init__(self, reader: Reader, age_ns: int) -> None:
        assert reader.rate is not None
        self.rate, self.over, self._reader = reader.rate, False, reader
        self.mode: dict[str, Any] = {"fps": round(float(reader.rate), 3)}
        self._index = math.ceil(age_ns * reader.rate / 10**9)
        for _ in range(self._index):
            self._take()
        self._begun_ns = time.monotonic_ns() - instant_ns(self._index, reader.rate)

    def grab(self) -> bool:
        ahead_ns = self._begun_ns + instant_ns(self._index, self.rate) - time.monotonic_ns()
        time.sleep(max(0, ahead_ns) / 1e9)  # a file has no clock of its own: this is its frame rate
        self._data = self._take()
        self._index += 1
        return not self.over

    def read(self) -> NDArray[Any]:
        if self._data is None:
            raise Undecodable
        return self._data

    def close(self) -> None:
        self._reader.close()

    def _take(self) -> NDArray[Any] | None:
        try:
            data = self._reader.read()
        except Undecodable:
            return None
        self.over = data is None
        return data


class FaultyCamera:
    """A camera to which a fault script happens, for real: its `grab` hangs, its pictures freeze."""

    def __init__(self, inner: Camera, faults: Faults, age_ns: int) -> None:
        self.rate, self.mode, self._inner, self._faults = inner.rate, inner.mode, inner, faults
        self._begun_ns = time.monotonic_ns() - age_ns
        self._again = False
        self._shown: NDArray[Any] | None = None
        self.close = inner.close

    @property
    def over(self) -> bool:
        return self._inner.over

    @property
    def age_ns(self) -> int:
        return time.monotonic_ns() - self._begun_ns

    def shift_ns(self) -> int:
        """How wrong the stamps are by now."""
        return self._faults.shift_ns(self.age_ns)

    def grab(self) -> bool:
        if self._again:
            self._again = False
            return True
        while True:
            if (hang := self._faults.hang(self.age_ns)) is not None:
                length_ns = 10**18 if hang.end_ns is None else hang.end_ns - hang.begin_ns
                time.sleep(length_ns / 1e9)  # the fault itself: a read that does not come back
            if self._faults.unplugged(self.age_ns) or not self._inner.grab():
                return False
            if not self._faults.dropped():
                break
        time.sleep(self._faults.late_ns() / 1e9)  # the fault itself: jitter
        self._again = self._faults.doubled()
        return True

    def read(self) -> NDArray[Any]:
        picture = self._inner.read()
        if self._shown is None or not self._faults.frozen(self.age_ns):
            self._shown = picture
        return self._shown


def pipeline(request: CameraRequest) -> str:
    """The GStreamer pipeline of `gst:` and `csi:` cameras; it must end in BGR pictures at an appsink."""
    if request.uri.startswith("gst:"):
        return request.uri.removeprefix("gst:")
    size = f",width={request.width},height={request.height}" if request.width and request.height else ""
    fps = "" if request.fps is None else f",framerate={Fraction(request.fps).limit_denominator(1001)}"
    fps += "/1" if fps and "/" not in fps else ""
    return CSI.format(index=request.uri.removeprefix("csi:"), size=size, fps=fps)


def _present() -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"there is {', '.join(found)}" if found else "this machine has no /dev/video*"
