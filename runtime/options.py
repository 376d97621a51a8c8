"""What a run can be told, and what it says when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edge_hal.bundle import DEFAULT_PATH, Bundle, require_precision
from edge_hal.errors import EdgeHalError
from edge_hal.rate import FPS_RANGE

from .delivery.prometheus import parse_address
from .delivery.retention import Retention
from .network.curve_keys import ServerKeys
from .network.endpoint import DEFAULT_ENDPOINT, check_endpoint, check_stream, replay_address
from .sources.source_spec import SourceKind, SourceSpec
from .sources.watchdog import Limits
from .stream.resumed import LONGEST_RESUME_S

LONGEST_HOLD_MS = 600_000.0
"""Ten minutes. The limit is there because all ticks of a held frame may be due at once."""
MOST_TICKS = 100_000
"""Ticks between two decisions. This many ticks may wait to be stepped at once."""

MOST_NOW_HZ = 1000.0
MOST_THREADS = 512
"""More would only take memory: no machine has more cores for one model."""
DEFAULT_RESUME_S = 30.0


@dataclass(frozen=True)
class RunOptions:
    """Everything a run can be told.

    Attributes:
        decoder: overrides thresholds of the bundle by name.
        decide: a setting of the bundle's decoder, `fast`, `balanced` or `sure`.
        now_hz: most reports `now` per second of the stream; 0 sends none.
        events: `all`, or `core`: only `start`, `transition`, `gap`, `end`, `heartbeat` and `snapshot`.
        engine: `auto`, `onnxruntime` or `tensorrt`.
        precision: refuses a bundle of another one.
        seconds: ends the run after so much stream time.
        decide_every: ticks between two decisions.
        overload: `cut` or `lag`; None: cameras cut, files lag.
        selfcheck_s: seconds between checks of the state.
        fps, size, fourcc: asked of cameras.
        record: a folder to write: all of the run or, with `record_around`, what lies near to events, up to a number of
            bytes.
        record_pictures: `encoder`: a recording has the pictures at the encoder's size. `source`: it has those of the
            source as well.
        journal: None keeps no events.
        resume_s: the longest pause of a camera, within a run or between two with the same journal, after which the
            belief and the running cycle are resumed; 0 resumes nothing.
        trusted: a folder of public signing keys. A bundle that none of them signed is refused.
        preview: an address to publish small pictures of the source on.
    """

    bundle: Path = DEFAULT_PATH
    camera: str = "0"
    endpoint: str = DEFAULT_ENDPOINT
    pace: str = "realtime"
    stream: str = "default"
    decoder: Mapping[str, float] = field(default_factory=dict)
    decide: str | None = None
    now_hz: float = 10.0
    events: str = "all"
    decide_every: int | None = None
    engine: str = "auto"
    precision: str | None = None
    threads: int = 1
    wait_subscribers: int = 0
    max_hold_ms: float = 500.0
    fps: float | None = None
    size: tuple[int, int] | None = None
    fourcc: str | None = None
    camera_auth: Path | None = None
    limits: Limits = field(default_factory=Limits)
    overload: str | None = None
    selfcheck_s: float | None = None
    record: Path | None = None
    record_around: Retention | None = None
    record_pictures: str = "encoder"
    seconds: float | None = None
    allow_uncertified: bool = False
    trusted: Path | None = None
    insecure: bool = False
    journal: Path | None = None
    retention: Retention | None = None
    resume_s: float = DEFAULT_RESUME_S
    replay: str | None = None
    keys: ServerKeys | None = None
    metrics: str | None = None
    preview: str | None = None

    @cached_property
    def source(self) -> SourceSpec:
        """`camera`, parsed.

        Raises:
            EdgeHalError: it names no source.
        """
        return SourceSpec.parse(self.camera)

    def check(self, bundle: Bundle) -> None:
        """Refuse before anything is opened what cannot work.

        Raises:
            EdgeHalError: what and why.
        """
        require_precision(bundle, self.precision)
        self._check_addresses()
        if bundle.spec.encoder is None and not self.source.may_be_vectors:
            raise EdgeHalError(
                f"the bundle {self.bundle} takes feature vectors, not pictures",
                "it was exported without a frame encoder",
                "run it on an array: --camera features:FILE.npy@HZ",
            )
        self._check_numbers()
        self._check_recording(bundle)
        for option, value, allowed in (
            ("--events", self.events, ("all", "core")),
            ("--overload", self.overload, (None, "cut", "lag")),
            ("--record-pictures", self.record_pictures, ("encoder", "source")),
        ):
            if value not in allowed:
                either = " or ".join(each for each in allowed if each is not None)
                raise EdgeHalError(f"{option} {value}", f"it is {either}", exit_code=2)
        if self.overload == "cut" and self.pace == "asap":
            raise EdgeHalError("--overload cut with --pace asap", "a file that waits is never too fast", exit_code=2)
        if self.metrics is not None:
            parse_address(self.metrics)
        if self.journal is not None and self.journal.is_dir():
            todo = f"name a file in it: --journal {self.journal}/{self.stream}.journal"
            raise EdgeHalError(f"the journal {self.journal} is a folder", "", todo, exit_code=2)
        if self.decide is not None and "decide_at" in self.decoder:
            why = "both say how probable another step must be"
            raise EdgeHalError("--decide with --set decoder.decide_at", why, "leave one of them out", exit_code=2)
        bundle.decoder.with_decide(self.decide).with_user_thresholds(self.decoder)
        if self.fourcc is not None and len(self.fourcc) != 4:
            why = "a pixel format has four characters"
            raise EdgeHalError(f"--fourcc {self.fourcc}", why, "for example MJPG", exit_code=2)
        for option, (given, used, by) in self._of_sources().items():
            if given and not used:
                why, todo = f"only {by} uses it", f"leave {option} out"
                raise EdgeHalError(f"{option} with --camera {self.source.log_name}", why, todo, exit_code=2)

    def _check_addresses(self) -> None:
        check_stream(self.stream)  # a journal would keep the name
        for address in (self.endpoint, self.replay, self.preview):
            if address is not None:
                check_endpoint(address, insecure=self.insecure, encrypted=self.keys is not None)
        replay_address(self.endpoint, self.replay, kept=self.journal is not None)

    def _check_numbers(self) -> None:
        positive = {name: getattr(self, name) for name in ("max_hold_ms", "seconds", "threads", "selfcheck_s")}
        positive |= {name: getattr(self.limits, name) for name in ("open_s", "stall_s", "give_up_s")}
        for name, value in positive.items():
            if value is not None and not 0 < value < 1e9:
                option = name.removesuffix("_s").replace("_", "-")
                why = "it must be a number above 0 and below 1e9"
                raise EdgeHalError(f"{name} = {value}", why, f"correct --{option}", exit_code=2)
        for option, name, (low, high), unit in (
            ("--threads", "threads", (1, MOST_THREADS), ""),
            ("--fps", "fps", FPS_RANGE, ""),
            ("--max-hold-ms", "max_hold_ms", (0, LONGEST_HOLD_MS), ""),
            ("--decide-every", "decide_every", (1, MOST_TICKS), " ticks"),
            ("--now-hz", "now_hz", (0, MOST_NOW_HZ), ""),
            ("--resume", "resume_s", (0, LONGEST_RESUME_S), " seconds"),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                why = f"it must lie in {low:g}..{high:g}{unit}"
                raise EdgeHalError(f"{name} = {value}", why, f"correct {option}", exit_code=2)

    def _check_recording(self, bundle: Bundle) -> None:
        given = {"--record-around": self.record_around is not None}
        given["--record-pictures source"] = self.record_pictures == "source"
        for option, wanted in given.items():
            if wanted and self.record is None:
                raise EdgeHalError(
                    f"{option} without --record", "nothing is recorded", "add --record FOLDER", exit_code=2
                )
        if self.record_around is not None and not self.record_around.age_s < 1e9:
            why = "it must begin with a time"
            raise EdgeHalError("--record-around", why, "write --record-around 2m,2GB", exit_code=2)
        if self.record_pictures == "source" and (bundle.spec.encoder is None or self.source.may_be_vectors):
            why = f"{self.source.log_name} has no pictures of a source"
            raise EdgeHalError("--record-pictures source", why, "leave it out", exit_code=2)

    def _of_sources(self) -> dict[str, tuple[bool, bool, str]]:
        """For each option of the source: whether it was given, whether this kind of source uses it, which kinds do.

        An option that has no effect is refused, because the user expects one.
        """
        source, plain, camera = self.source, Limits(), "a camera"
        watched = source.live or source.faults is not None
        return {
            "--camera-auth": (self.camera_auth is not None, source.kind is SourceKind.ADDRESS, "a network address"),
            "--size": (self.size is not None, source.live, camera),
            "--fourcc": (self.fourcc is not None, source.live, camera),
            "--preview": (
                self.preview is not None,
                source.kind is not SourceKind.FEATURES,
                "a source of pictures",
            ),
            "--fps": (self.fps is not None, not source.may_be_vectors, "a camera, a video or a folder of pictures"),
            "--stall": (self.limits.stall_s != plain.stall_s, watched, camera),
            "--still": (self.limits.still_s != plain.still_s, watched, camera),
            "--resume": (self.resume_s != DEFAULT_RESUME_S, watched, camera),
            "--give-up": (self.limits.give_up_s is not None, watched, camera),
        }


@dataclass(frozen=True)
class Summary:
    """What a run did. `counters` obey both conservation laws; `events` counts the durable ones;
    `fps` is ticks per second of wall time; `latency_ms` holds p50 and p99 of each stage over the
    last ticks; `health` is what the last heartbeat would have told."""

    reason: str
    counters: Mapping[str, Any]
    events: int
    fps: float
    latency_ms: Mapping[str, Mapping[str, float]]
    health: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.counters,
            "events": self.events,
            "fps": self.fps,
            "health": self.health,
            "latency_ms": self.latency_ms,
            "reason": self.reason,
        }
