"""The cache of TensorRT plans: built on the device from the bundle's graphs, kept on disk, built again where they do
not fit."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_hal.bundle import file_hash
from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file
from edge_hal.files.user_folders import cache_folder
from edge_hal.progress import Progress

from .tensorrt_builder import TODO, BuildOptions, build_plan

SCHEMA = 2
MAGIC = b"edge-hal plan\n"


@dataclass(frozen=True)
class DeviceId:
    """What a plan is bound to. `platform`: L4T release on a Jetson, else the driver's version."""

    name: str
    compute_capability: str
    platform: str


def plan_key(trt: Any, graph: Path, device: DeviceId, options: BuildOptions) -> str:
    """What decides whether a kept plan fits. Of inputs only: two builds of one graph differ in their bytes."""
    parts = {
        "schema": SCHEMA,
        "graph": file_hash(graph),
        "tensorrt": [trt.__name__, trt.__version__],
        "device": asdict(device),
        "options": asdict(options),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def default_cache() -> Path:
    """`$EDGE_HAL_CACHE`, else `edge-hal/plans` in the user's cache folder."""
    given = os.environ.get("EDGE_HAL_CACHE")
    return Path(given) if given else cache_folder() / "plans"


class PlanCache:
    """Plans on disk, by key. One process builds a plan, others wait for it; a damaged one is built again; where
    nothing can be written the plan is used without being kept, and whatever was there stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.plan"

    def open(
        self,
        trt: Any,
        graph: Path,
        device: DeviceId,
        load: Callable[[bytes], Any],
        options: BuildOptions | None = None,
        report: Progress | None = None,
    ) -> Any:
        """The engine of `graph`: what `load` makes of a plan. `load` returns None for a plan that does not fit.

        Raises:
            EdgeHalError: the graph cannot be built, or its fresh plan cannot be loaded.
        """
        options = options or BuildOptions()
        key = plan_key(trt, graph, device, options)
        with self._alone(key):
            kept = self.read(key)
            engine = None if kept is None else load(kept)
            if engine is not None:
                return engine
            if kept is not None:
                self.notes.append(f"the plan of {graph.name} did not fit and was built again")
            timing = self._timing(trt, device)
            known = unpack(timing.stem, _read(timing)) or b""
            plan = build_plan(trt, graph, options, known, report)
            self._write(self.path(key), pack(key, plan.data))
            if plan.timing:
                self._write(timing, pack(timing.stem, plan.timing))
        engine = load(plan.data)
        if engine is None:
            why = "a plan just built does not load: driver and TensorRT may not fit each other"
            raise EdgeHalError(f"TensorRT cannot run {graph.name}", why, TODO)
        return engine

    def read(self, key: str) -> bytes | None:
        """The kept plan; None where there is none or it is damaged, which is noted."""
        data = _read(self.path(key))
        if not data:
            return None
        plan = unpack(key, data)
        if plan is None:
            self.notes.append(f"{self.path(key)} was damaged and is built again")
        return plan

    def _timing(self, trt: Any, device: DeviceId) -> Path:
        identity = json.dumps([trt.__name__, trt.__version__, asdict(device)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.timing"

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Nobody else builds this plan meanwhile. The lock goes with the process, however it ends."""
        with contextlib.ExitStack() as closing:
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                lock = closing.enter_context((self.folder / f"{key}.lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:  # a folder that cannot be written, a file system without locks
                self.notes.append(f"plans cannot be locked and may not be kept: {error}")
            yield

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_file(path, data)
        except EdgeHalError as error:
            self.notes.append(f"{path.name} was not kept: {error.why}")


def pack(key: str, plan: bytes) -> bytes:
    """A plan as the cache keeps it. The checksum guards the file, not the build: TensorRT does not promise to
    survive damaged bytes."""
    head = {"key": key, "bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest()}
    return MAGIC + json.dumps(head).encode() + b"\n" + plan


def unpack(key: str, data: bytes) -> bytes | None:
    """The plan, or None where the file is not one of this key, whole."""
    try:
        if not data.startswith(MAGIC):
            return None
        line, _, plan = data[len(MAGIC) :].partition(b"\n")
        head = json.loads(line)
        whole = head["key"] == key and head["bytes"] == len(plan)
        return plan if whole and head["sha256"] == hashlib.sha256(plan).hexdigest() else None
    except (ValueError, KeyError, TypeError):
        return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
