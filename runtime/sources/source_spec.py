"""The text of `--camera`, parsed once into a frozen value. No other module looks at that text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

from edge_hal.errors import EdgeHalError
from edge_hal.media.names import printable
from edge_hal.rate import checked_rate
from edge_hal.redaction import redact, remember

from .credentials import has_password
from .faults import EXAMPLE, FaultScript

DEVICE = re.compile(r"(?:/dev/video)?(\d+)")
ADDRESS = re.compile(r"(rtsp|rtsps|http|https)://", re.IGNORECASE)
NEARLY = re.compile(r"\s*(rtsps?|https?)\s*:", re.IGNORECASE)
KNOWN = "a camera index, rtsp://, http://, gst:, csi:, a video file, a folder or features:FILE.npy@HZ"


class SourceKind(Enum):
    """What a text names. Each kind says what `SourceSpec.target` holds."""

    DEVICE = "the number of a local camera: /dev/videoN"
    ADDRESS = "an rtsp:// or http:// address, user and password included if the text has them"
    GSTREAMER = "a GStreamer pipeline"
    CSI = "the number of a CSI sensor of a Jetson"
    FEATURES = "the path of a .npy array of feature vectors"
    RECORDING = "the folder of a recording"
    PATH = "the path of a video file or a folder of pictures"


PREFIXES = {"gst:": SourceKind.GSTREAMER, "csi:": SourceKind.CSI, "replay:": SourceKind.RECORDING}
EXAMPLES = {"gst:": "gst:v4l2src ! videoconvert ! appsink", "csi:": "csi:0", "replay:": "replay:FOLDER"}
LIVE = (SourceKind.DEVICE, SourceKind.ADDRESS, SourceKind.GSTREAMER, SourceKind.CSI)


@dataclass(frozen=True)
class SourceSpec:
    """One source.

    `target`: see `SourceKind`. It may hold a password, so it is never logged and not part of `repr`.
    `log_name`: the text without user, password, query and pipeline properties; for logs, errors and events.
    `rate`: the rate of a feature array; None for all other kinds.
    `faults`: the script of `fault:SCRIPT:SOURCE`, None without one.
    """

    kind: SourceKind
    target: str = field(repr=False)
    log_name: str
    rate: Fraction | None = None
    faults: FaultScript | None = None

    @classmethod
    def parse(cls, text: str) -> SourceSpec:
        """Parse `0`, `/dev/video0`, `rtsp://`, `http://`, `gst:PIPELINE`, `csi:N`, a path, `features:FILE.npy@HZ`,
        `replay:FOLDER`, and any but the last as `fault:SCRIPT:SOURCE`. Nothing is opened.

        Raises:
            EdgeHalError: the text names no source.
        """
        remember(text)
        if not text.startswith("fault:"):
            return _parse_plain(text)
        _, script, rest = (*text.split(":", 2), "")[:3]
        todo = f"for example {EXAMPLE}"
        if not rest:
            raise EdgeHalError(f"'{redact(text)}' names no source", "", todo, exit_code=2)
        if rest.startswith("fault:"):
            why = "a source takes one fault script"
            raise EdgeHalError("cannot read a fault script within another", why, todo, exit_code=2)
        inner = _parse_plain(rest)
        if inner.kind is SourceKind.RECORDING:
            why = "a recording is replayed as it was"
            raise EdgeHalError(f"cannot add faults to {inner.log_name}", why, "remove fault:", exit_code=2)
        faults = FaultScript.parse(script)
        return cls(inner.kind, inner.target, f"fault:{script}:{inner.log_name}", inner.rate, faults)

    @property
    def live(self) -> bool:
        """Whether it is a camera: it cannot wait, and what it shows cannot be read a second time."""
        return self.kind in LIVE

    @property
    def may_be_vectors(self) -> bool:
        """Whether its frames can be feature vectors: those of an array are, those of a recording may be."""
        return self.kind in (SourceKind.FEATURES, SourceKind.RECORDING)

    @property
    def has_password(self) -> bool:
        return self.kind in (SourceKind.ADDRESS, SourceKind.GSTREAMER) and has_password(self.target)


def _parse_plain(text: str) -> SourceSpec:
    if device := DEVICE.fullmatch(text):
        return SourceSpec(SourceKind.DEVICE, device[1], text)
    if not text.strip():
        raise EdgeHalError("the source is empty", "", f"use {KNOWN}", exit_code=2)
    shown = printable(redact(text))
    if ADDRESS.match(text):
        scheme, _, rest = text.partition("://")
        _require(rest, shown, f"write for example {scheme.lower()}://camera/stream")
        return SourceSpec(SourceKind.ADDRESS, f"{scheme.lower()}://{rest}", shown)
    if text.startswith("features:"):
        return _parse_features(text)
    for prefix, kind in PREFIXES.items():
        if text.startswith(prefix):
            target = text.removeprefix(prefix)
            _require(target, shown, f"write {EXAMPLES[prefix]}")
            if kind is SourceKind.CSI and not re.fullmatch("[0-9]+", target):
                raise EdgeHalError(f"'{shown}' names no source", "a sensor has a number", "write csi:0", exit_code=2)
            return SourceSpec(kind, target, shown)
    if "://" in text or NEARLY.match(text):
        why = "unknown scheme" if "://" in text else "it is not an address"
        raise EdgeHalError(f"cannot open the source {shown}", why, f"use {KNOWN}", exit_code=2)
    return SourceSpec(SourceKind.PATH, text, shown)


def _require(target: str, shown: str, todo: str) -> None:
    """Raises EdgeHalError if nothing follows the prefix. A path that is empty would be the current folder."""
    if not target.strip():
        raise EdgeHalError(f"'{shown}' names no source", "nothing follows the prefix", todo, exit_code=2)


def _parse_features(text: str) -> SourceSpec:
    path, _, hz = text.removeprefix("features:").rpartition("@")
    todo = "write features:FILE.npy@HZ, for example features:hand.npy@30"
    try:
        rate_hz = float(hz)
    except ValueError as error:
        why = "the rate after @ is missing or not a number"
        raise EdgeHalError(f"cannot read '{redact(text)}'", why, todo, exit_code=2) from error
    shown = printable(redact(text))
    _require(path, shown, todo)
    try:
        rate = checked_rate(rate_hz, f"'{shown}'", todo)
    except EdgeHalError as error:
        raise EdgeHalError(error.what, error.why, error.todo, exit_code=2) from error
    return SourceSpec(SourceKind.FEATURES, path, shown, rate)
