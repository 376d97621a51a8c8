"""A TensorRT plan from an ONNX graph.

One path for TensorRT 10.3 to 11: a strongly typed network, so that the graph alone says what is float16 and what is
int8. No precision flag, no calibrator: version 11 has neither. The TensorRT module is a parameter, so that the tests
build with `tensorrt_rtx`, which has the same builder and needs no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.progress import Progress

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
