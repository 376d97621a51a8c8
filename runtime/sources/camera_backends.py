"""What is read like a camera, by a blocking `grab` and `read`: devices, addresses, pipelines, and files with faults.

All of this runs in the reading process (`camera_process.py`).
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.rate import FPS_RANGE, exact_rate

from .credentials import with_auth
from .devices import denied
from .faults import FaultInjector
from .file_readers import Reader, Undecodable, open_file, opencv
from .source_spec import SourceKind, SourceSpec

OPEN_TIMEOUT_MS = 10_000
HANG_FOREVER_NS = 10**18
WITHOUT_CAMERA = "see: edge-hal cameras; or run without: edge-hal run --camera FILE"
CSI = (
    "nvarguscamerasrc sensor-id={index} ! video/x-raw(memory:NVMM){size}{fps} ! nvvidconv ! "
    "video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
)


@dataclass(frozen=True)
class CameraRequest:
    """What to open and how.

    `width`, `height`, `fps`, `fourcc`: asked of the camera, which may choose others.
    `auth`: `user:password` of an address.
    `vector_size`: see `open_file`.
    `first_ns`: monotonic clock at the first frame of the stream, None before it. A camera that is opened again plays a
    file from where it would be now, and does not repeat faults.
    """

    source: SourceSpec
    auth: str | None = field(default=None, repr=False)
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    fourcc: str | None = None
    vector_size: int | None = None
    first_ns: int | None = None

    @property
    def age_ns(self) -> int:
        """Time since the first frame of the stream."""
        return 0 if self.first_ns is None else time.monotonic_ns() - self.first_ns


class Camera(Protocol):
    """`grab` waits for the next frame and returns False when none will come. `read` decodes it, or raises Undecodable.

    `mode`: width, height, fps and fourcc as the camera reports them.
    `rate`: frames per second, None where unknown.
    `finished`: it was a file, and there will never be more frames.
    """

    mode: dict[str, Any]

    @property
    def rate(self) -> Fraction | None: ...

    @property
    def finished(self) -> bool: ...

    def grab(self) -> bool: ...

    def read(self) -> NDArray[Any]: ...

    def close(self) -> None: ...


def open_camera(request: CameraRequest) -> Camera:
    """Raises EdgeHalError where it cannot be opened; then nothing stays open."""
    source = request.source
    if source.faults is None:
        return _open(request)
    faults = FaultInjector(source.faults, request.age_ns)
    if faults.unplugged(request.age_ns):
        raise EdgeHalError(f"cannot open the camera {source.log_name}", "unplugged by the fault script")
    return FaultyCamera(_open(request), faults, request.age_ns)


def check_gstreamer() -> None:
    """Raises EdgeHalError where OpenCV cannot run a pipeline."""
    cv2 = opencv()
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise EdgeHalError(
            f"this OpenCV ({cv2.__version__}) cannot run gst: and csi: cameras",
            "it was built without GStreamer, as every wheel of OpenCV is",
            "use the system's python3-opencv (JetPack brings it) and uninstall opencv-python-headless",
        )


def _open(request: CameraRequest) -> Camera:
    if request.source.live:
        return OpenCvCamera(request)
    return FileCamera(open_file(request.source, request.vector_size, request.fps), request.age_ns)


class OpenCvCamera:
    """A device, an address or a pipeline, read by OpenCV with as little buffering as it allows."""

    def __init__(self, request: CameraRequest) -> None:
        cv2, source, self.finished = opencv(), request.source, False
        if source.kind is SourceKind.DEVICE:
            self._capture = _open_device(request)
        elif source.kind is SourceKind.ADDRESS:
            self._capture = _open_address(request)
        else:
            check_gstreamer()
            self._capture = cv2.VideoCapture(pipeline(request), cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            self._capture.release()
            why = _devices_found() if source.kind is SourceKind.DEVICE else "no answer, or not a video stream"
            raise EdgeHalError(f"cannot open the camera {source.log_name}", why, WITHOUT_CAMERA)
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        plausible = math.isfinite(fps) and 1.0 <= fps <= FPS_RANGE[1]
        self.rate = exact_rate(fps) if plausible else None
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        self.mode = {
            "width": int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            "height": int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            "fps": round(fps, 3) if plausible else None,
            "fourcc": "".join(chr(code >> shift & 0x7F) for shift in (0, 8, 16, 24)).strip("\0 ") or None,
        }
        # An address may serve a video file: only that has a number of frames.
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) if source.kind is SourceKind.ADDRESS else 0
        self._frames_left = int(count) if math.isfinite(count) and 0 < count < 2**31 else None

    def grab(self) -> bool:
        grabbed = bool(self._capture.grab())
        if self._frames_left is not None:
            self._frames_left -= grabbed
            self.finished = not grabbed and self._frames_left <= 0
        return grabbed

    def read(self) -> NDArray[Any]:
        picture: NDArray[Any]
        ok, picture = self._capture.retrieve()
        if not ok:
            raise Undecodable
        return picture

    def close(self) -> None:
        self._capture.release()


class FileCamera:
    """A file played like a camera: time passes whether its frames are read or not."""

    def __init__(self, reader: Reader, age_ns: int) -> None:
        self.rate, self.finished, self._reader = reader.rate, False, reader
        self.mode: dict[str, Any] = {"fps": round(float(reader.rate), 3)}
        self._next = reader.read()
        while self._next is not None and self._next[0] < age_ns:
            self._next = reader.read()
        self._started_ns = time.monotonic_ns() - (age_ns if self._next is None else self._next[0])

    def grab(self) -> bool:
        self.finished = self._next is None
        if self._next is None:
            return False
        t_ns, self._data = self._next
        self._next = self._reader.read()
        ahead_ns = self._started_ns + t_ns - time.monotonic_ns()
        time.sleep(max(0, ahead_ns) / 1e9)  # a file has no clock of its own: these are its times
        return True

    def read(self) -> NDArray[Any]:
        if self._data is None:
            raise Undecodable
        return self._data

    def close(self) -> None:
        self._reader.close()


class FaultyCamera:
    """A camera with injected faults: its `grab` really hangs, its pictures really freeze."""

    def __init__(self, inner: Camera, faults: FaultInjector, age_ns: int) -> None:
        self.rate, self.mode, self._inner, self._faults = inner.rate, inner.mode, inner, faults
        self._started_ns = time.monotonic_ns() - age_ns
        self._repeat = False
        self._shown: NDArray[Any] | None = None
        self.close = inner.close

    @property
    def finished(self) -> bool:
        return self._inner.finished

    @property
    def age_ns(self) -> int:
        return time.monotonic_ns() - self._started_ns

    def shift_ns(self) -> int:
        """Error of the timestamps now."""
        return self._faults.shift_ns(self.age_ns)

    def grab(self) -> bool:
        if self._repeat:
            self._repeat = False
            return True
        while True:
            if (hang := self._faults.hang(self.age_ns)) is not None:
                length_ns = HANG_FOREVER_NS if hang.end_ns is None else hang.end_ns - hang.begin_ns
                time.sleep(length_ns / 1e9)  # this is the fault: a read that does not return
            if self._faults.unplugged(self.age_ns) or not self._inner.grab():
                return False
            if not self._faults.dropped():
                break
        time.sleep(self._faults.jitter_ns() / 1e9)  # this is the fault: jitter
        self._repeat = self._faults.duplicated()
        return True

    def read(self) -> NDArray[Any]:
        picture = self._inner.read()
        if self._shown is None or not self._faults.frozen(self.age_ns):
            self._shown = picture
        return self._shown


def pipeline(request: CameraRequest) -> str:
    """The GStreamer pipeline of a `gst:` or `csi:` camera. It must end in BGR pictures at an appsink."""
    if request.source.kind is SourceKind.GSTREAMER:
        return request.source.target
    size = f",width={request.width},height={request.height}" if request.width and request.height else ""
    fps = "" if request.fps is None else f",framerate={Fraction(request.fps).limit_denominator(1001)}"
    fps += "/1" if fps and "/" not in fps else ""
    return CSI.format(index=request.source.target, size=size, fps=fps)


def _open_device(request: CameraRequest) -> Any:
    """A `cv2.VideoCapture` of /dev/videoN, which may have failed to open."""
    cv2, number = opencv(), request.source.target
    if os.name == "posix" and not Path(f"/dev/video{number}").exists():
        raise EdgeHalError(f"there is no camera {number}", _devices_found(), WITHOUT_CAMERA)
    if todo := denied(number):
        raise EdgeHalError(f"cannot open /dev/video{number}", "permission denied", todo)
    backend = getattr(cv2, "CAP_V4L2", cv2.CAP_ANY) if os.name == "posix" else cv2.CAP_ANY
    capture = cv2.VideoCapture(int(number), backend)
    # The order matters: V4L2 chooses sizes and rates among those of the pixel format.
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*(request.fourcc or "MJPG")))
    for prop, value in (
        (cv2.CAP_PROP_FRAME_WIDTH, request.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, request.height),
        (cv2.CAP_PROP_FPS, request.fps),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ):
        if value is not None:
            capture.set(prop, value)
    return capture


def _open_address(request: CameraRequest) -> Any:
    """A `cv2.VideoCapture` of an address, which may have failed to open."""
    cv2 = opencv()
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
    return cv2.VideoCapture(with_auth(request.source.target, request.auth), cv2.CAP_FFMPEG, timeouts)


def _devices_found() -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"there is {', '.join(found)}" if found else "this machine has no /dev/video*"
