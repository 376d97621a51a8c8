"""TensorRT plans: built on the device from the bundle's graphs, kept in a cache, rebuilt where they do not fit.

One path for TensorRT 10.3 to 11: a strongly typed network, so that the graph alone says what is float16 and what is
int8. No precision flag, no calibrator: version 11 has neither. The TensorRT module is a parameter, so that the tests
build with `tensorrt_rtx`, which has the same builder and needs no GPU.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_hal.bundle import file_hash
from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file
from edge_hal.progress import Progress

SCHEMA = 2
MAGIC = b"edge-hal plan\n"
TODO = "run it with --engine onnxruntime, and report this with the bundle (docs/tensorrt.md)"
REMEDIES = {
    "memory": "close what else uses the GPU's memory and try again, or --engine onnxruntime",
    "workspace": "close what else uses the GPU's memory and try again, or --engine onnxruntime",
    "opset": "export the bundle again: edge-hal writes opset 20, which TensorRT 10.3 and later read",
    "zero point": "export with --precision int8 --target tensorrt: TensorRT reads symmetric int8 alone",
    "DynamicQuantizeLinear": "the bundle is int8 for onnxruntime: export it with --target tensorrt",
    "MatMulInteger": "the bundle is int8 for onnxruntime: export it with --target tensorrt",
}
"""Words of TensorRT's own message -> what to do about it."""


@dataclass(frozen=True)
class BuildOptions:
    """`workspace_mb`: the most scratch memory a kernel may take. `tf32`: multiply float32 with 10 bits of mantissa, as
    TensorRT does unless told otherwise; float32 means float32 here. `targets`: compute capabilities to build for ahead
    of time, `SM86`; only TensorRT-RTX knows these, empty builds for the GPU at hand."""

    workspace_mb: int = 256
    tf32: bool = False
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceId:
    """What a plan is bound to. `platform`: L4T release on a Jetson, else the driver's version."""

    name: str
    compute_capability: str
    platform: str


@dataclass(frozen=True)
class Network:
    """What the parser made of a graph, before anything is built: tensors name -> (shape, type), layers by kind."""

    inputs: dict[str, tuple[tuple[int, ...], str]]
    outputs: dict[str, tuple[tuple[int, ...], str]]
    layers: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """`data`: the serialised engine. `timing`: the timing cache after the build, empty where there is none."""

    data: bytes
    network: Network
    timing: bytes = b""


def build_plan(
    trt: Any,
    graph: Path,
    options: BuildOptions | None = None,
    timing: bytes = b"",
    report: Progress | None = None,
) -> Plan:
    """Compile an ONNX graph.

    Args:
        trt: `tensorrt` or `tensorrt_rtx`.
        timing: a timing cache of the same device and version, to start from.
        report: report(stage, done, total, remark) while it builds.

    Raises:
        EdgeHalError: the parser refused a node (it is named), or the builder found no implementation.
    """
    options = options or BuildOptions()
    log = _log(trt)
    builder = trt.Builder(log)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, log)
    try:
        data = graph.read_bytes()
    except OSError as error:
        raise EdgeHalError(f"cannot read {graph}", str(error)) from error
    if not parser.parse(data):
        why = _refused(parser, log)
        raise EdgeHalError(f"TensorRT {trt.__version__} cannot read {graph.name}", why, _remedy(why))
    found = _describe(network)
    for name, (shape, _) in (found.inputs | found.outputs).items():
        if min(shape, default=1) < 1:
            why = f"tensor '{name}' is {shape}: it has a dynamic axis"
            raise EdgeHalError(f"TensorRT cannot build {graph.name}", why, "export it with static shapes")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not options.tf32 and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.targets:
        config.num_compute_capabilities = len(options.targets)
        for index, name in enumerate(options.targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    timed = hasattr(config, "set_timing_cache")
    if timed:
        cache = config.create_timing_cache(timing)
        # One of another device or version does not match; the builder then starts an empty one.
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    if report is not None and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, graph.name, report)
    made = builder.build_serialized_network(network, config)
    if made is None:
        why = log.worst()
        raise EdgeHalError(f"TensorRT {trt.__version__} cannot build {graph.name}", why, _remedy(why))
    kept = config.get_timing_cache() if timed else None
    return Plan(bytes(made), found, b"" if kept is None else bytes(kept.serialize()))


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
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(given) if given else Path(base) / "edge-hal" / "plans"


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


def _describe(network: Any) -> Network:
    def tensors(count: int, get: Callable[[int], Any]) -> dict[str, tuple[tuple[int, ...], str]]:
        found = [get(index) for index in range(count)]
        return {t.name: (tuple(t.shape), str(t.dtype).rsplit(".", 1)[-1]) for t in found}

    layers: dict[str, int] = {}
    for index in range(network.num_layers):
        kind = str(network.get_layer(index).type).rsplit(".", 1)[-1]
        layers[kind] = layers.get(kind, 0) + 1
    return Network(
        tensors(network.num_inputs, network.get_input), tensors(network.num_outputs, network.get_output), layers
    )


def _refused(parser: Any, log: Any) -> str:
    """The first node that the parser refused, with its name and operator."""
    if not parser.num_errors:
        return str(log.worst())
    error = parser.get_error(0)
    name = getattr(error, "node_name", lambda: "")()
    operator = getattr(error, "node_operator", lambda: "")()
    lines = [line for line in error.desc().splitlines() if line.strip()]
    detail = max(lines, key=len) if lines else ""
    detail = log.worst() if detail in ("", "false") else detail
    more = f" (and {parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
    return f"node '{name}' ({operator}): {detail}{more}"


def _remedy(why: str) -> str:
    return next((todo for word, todo in REMEDIES.items() if word.lower() in why.lower()), TODO)


def _log(trt: Any) -> Any:
    """A logger that keeps what matters instead of printing it."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.kept: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.kept.append(message)

        def worst(self) -> str:
            said: Sequence[str] = [line for text in self.kept for line in text.splitlines() if line.strip()]
            return said[0] if said else "it says nothing about why"

    return Log()


def _monitor(trt: Any, name: str, report: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):
        """Phases nest; the outermost one is what a person waits for."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outer: tuple[str, int] | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if self.outer is None:
                self.outer = (phase_name, num_steps)
                report("build", 0, num_steps, name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if self.outer is not None and phase_name == self.outer[0]:
                report("build", min(step + 1, self.outer[1]), self.outer[1], name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            if self.outer is not None and phase_name == self.outer[0]:
                report("build", self.outer[1], self.outer[1], name)
                self.outer = None

    return Monitor()
