"""Calibration for int8: ranges from recordings, and the choice of layers by the effect on the events.

`tensorrt`: explicit Q/DQ in float16 graphs. The search uses the same Q/DQ in float32 graphs, because float16 is slow on
a CPU; the certificate checks the float16 graphs afterwards. `onnxruntime`: dynamic quantisation of float32 graphs,
which needs the same search but no ranges. The convolutions of a large encoder are one more layer of it, see
`quantise_convolutions.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_hal.bundle import encoder_name, graph_name
from edge_hal.calib.calibration_set import CalibrationRecording, bounded, check_recordings
from edge_hal.calib.observe import RANGES, observe
from edge_hal.calib.ranges import METHODS
from edge_hal.calib.sensitivity import MIN_TRANSITIONS, Budget, Memory, Shift, Verdict, compare_events, search
from edge_hal.decoding.decode import decode_posteriors
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.files import check_writable, file_error
from edge_hal.model.model_file import Checkpoint
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.progress import Progress
from edge_hal.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import PyramidSpec

from .graphs import export_level
from .quantise import layers_of, quantise_dynamic, quantise_static
from .quantise_convolutions import CONVOLUTIONS, has_many_convolutions, quantise_convolutions

ENCODER_PREFIX = "encoder"
MAX_TICKS = 20_000
SEARCH = 2
"""Version of the search. A new number makes the evaluations on the disk invalid."""
MAX_PICTURE_BYTES = 256 << 20


@dataclass(frozen=True)
class Calibration:
    """The result: `ranges` by layer (empty for dynamic quantisation), the `layers` to quantise, and a report for
    JSON. `convolutions`: the encoder with its convolutions in 8 bits, if they are a layer."""

    target: str
    ranges: dict[str, float]
    layers: frozenset[str]
    report: dict[str, Any]
    convolutions: onnx.ModelProto | None = None

    def apply(self, model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
        """The int8 form of the graph with this prefix: `l0`, `l1`, ... or `encoder`."""
        chosen = [layer for layer in self.layers if layer.split(".")[0] == prefix]
        if self.target == "tensorrt":
            return quantise_static(model, prefix, {layer: self.ranges[layer] for layer in chosen})
        if CONVOLUTIONS in chosen:
            assert self.convolutions is not None
            model = self.convolutions
            chosen.remove(CONVOLUTIONS)
        return quantise_dynamic(model, prefix, chosen)


def limit(recordings: Sequence[CalibrationRecording], spec: PyramidSpec) -> list[CalibrationRecording]:
    """Fewer recordings, so that the search can stream them dozens of times."""
    ticks = MAX_TICKS
    if spec.encoder is not None:
        ticks = min(ticks, MAX_PICTURE_BYTES // int(np.prod(spec.encoder.image.shape)))
    chosen = bounded(recordings, max(ticks, 4 * spec.receptive_field))
    return [recording for recording in chosen if recording.ticks >= spec.chunk_sizes[-1]]


def float_graphs(checkpoint: Checkpoint, folder: Path) -> list[Path]:
    """Write the float32 step graphs that calibration runs: those of the largest chunk of each level."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = checkpoint.spec
    for level in range(len(spec.levels)):
        export_level(checkpoint.pyramid, checkpoint.front_end, level, spec.chunks(level)[-1], "fp32", folder)
    return [folder / graph_name(i, spec.chunks(i)[-1], "fp32") for i in range(len(spec.levels))]


def calibrate(
    checkpoint: Checkpoint,
    recordings: Sequence[CalibrationRecording],
    target: str,
    work: Path,
    progress: Progress,
    budget: Budget | None = None,
) -> Calibration:
    """Find the ranges, then choose the layers. Both are kept in `work` and reused if nothing has changed.

    Raises:
        EdgeHalError: the recordings are not fit for calibration, no layer stays within the budget, or `work` cannot be
            written or is used by another calibration.
    """
    check_writable(work, f"cannot write the calibration {work}", "choose another --work")
    check_recordings(recordings, checkpoint.spec)
    try:
        with _locked(work):
            return _calibrate(checkpoint, recordings, target, work, progress, budget or Budget())
    except OSError as error:
        raise file_error(f"cannot write the calibration {work}", error, "choose another --work") from error


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Lock `work`, because two calibrations would overwrite each other's trial graphs. The lock ends with the
    process."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            todo = "wait for it, or give this one a folder of its own: --work DIR"
            raise EdgeHalError(f"another calibration is at work in {work}", "", todo) from error
        yield


def _calibrate(
    checkpoint: Checkpoint,
    recordings: Sequence[CalibrationRecording],
    target: str,
    work: Path,
    progress: Progress,
    budget: Budget,
) -> Calibration:
    spec = checkpoint.spec
    chosen = limit(recordings, spec)
    graphs = float_graphs(checkpoint, work / "graphs")
    trial = _Trial(checkpoint, graphs, chosen, target, work, budget)
    progress("expect", 0, 1, "float32")
    trial.expect()
    progress("expect", 1, 1, f"{sum(r.ticks for r in chosen)} ticks")
    evidence: dict[str, Any] = {}
    method = ""
    if target == "tensorrt":
        levels = [(path, layers_of(onnx.load(path), f"l{i}")) for i, path in enumerate(graphs)]
        encoder = None
        if trial.encoder is not None:
            encoder = (trial.encoder, layers_of(onnx.load(trial.encoder), ENCODER_PREFIX))
        ranges = observe(spec, levels, encoder, chosen, work, progress)
        trial.ranges = {name: ranges.by(name) for name in METHODS}
        evidence["ranges_sha256"] = hashlib.sha256((work / RANGES).read_bytes()).hexdigest()
    layers = trial.layers()
    memory = Memory(work / f"search.{target}.json", trial.key(chosen))
    if target == "tensorrt":
        whole = {}
        for number, name in enumerate(METHODS):
            progress("method", number, len(METHODS), name)
            whole[name] = memory.through(trial.evaluate(name), name)(frozenset(layers))
        method = min(METHODS, key=lambda name: (not budget.allows(whole[name]), whole[name].posterior_rms))
        progress("method", len(METHODS), len(METHODS), f"{method} ranges")
        evidence["methods"] = {name: asdict(shift) for name, shift in whole.items()}
    verdict: Verdict = search(layers, memory.through(trial.evaluate(method), method), budget, progress)
    return Calibration(
        target,
        {layer: trial.ranges[method][layer] for layer in verdict.layers} if method else {},
        verdict.layers,
        {
            "target": target,
            "method": method or "dynamic",
            "budget": asdict(budget),
            "ticks": sum(r.ticks for r in chosen),
            "recordings": {r.name: r.sha256() for r in chosen},
            **evidence,
            **verdict.to_dict(),
        },
        trial.convolutions,
    )


class _Trial:
    """Streams the recordings through float or quantised graphs, and compares the events with those of float32."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        graphs: Sequence[Path],
        recordings: Sequence[CalibrationRecording],
        target: str,
        work: Path,
        budget: Budget,
    ) -> None:
        self.spec: PyramidSpec = checkpoint.spec
        self.decoder: DecoderConfig = checkpoint.decoder
        pictures = all(recording.pictures is not None for recording in recordings)
        self.encoder = checkpoint.encoder if pictures else None  # without pictures it is not calibrated and stays float
        self.graphs, self.recordings, self.target, self.work = graphs, recordings, target, work
        self.budget = budget
        self.models = {f"l{i}": onnx.load(path) for i, path in enumerate(graphs)}
        if self.encoder is not None:
            self.models[ENCODER_PREFIX] = onnx.load(self.encoder)
        self.ranges: dict[str, dict[str, float]] = {}
        self.expected: list[NDArray[np.float32]] = []
        self.convolutions: onnx.ModelProto | None = None
        self._encoded: dict[tuple[tuple[str, float | None], ...], list[NDArray[np.float32]]] = {}

    def key(self, recordings: Sequence[CalibrationRecording]) -> str:
        """Identifies graphs, thresholds, recordings and budget. Evaluations with the same key are reused."""
        parts = [path.read_bytes() for path in (*self.graphs, *([self.encoder] if self.encoder else []))]
        parts += [r.sha256().encode() for r in recordings]
        parts += [] if self.convolutions is None else [self.convolutions.SerializeToString(deterministic=True)]
        settings = [SEARCH, self.decoder.to_json(), asdict(self.budget), self.ranges]
        parts.append(json.dumps(settings, sort_keys=True).encode())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def layers(self) -> list[str]:
        """The layers that can be quantised for the target."""
        found = [layer for prefix, model in self.models.items() for layer in layers_of(model, prefix)]
        if self.target == "onnxruntime":  # dynamic quantisation of convolutions is not faster on a CPU
            gemms = {
                f"{prefix}.{node.input[1].removesuffix('.weight').removeprefix('level.')}"
                for prefix, model in self.models.items()
                for node in model.graph.node
                if node.op_type == "Gemm"
            }
            found = [layer for layer in found if layer in gemms]
            if self.encoder is not None and has_many_convolutions(self.models[ENCODER_PREFIX]):
                pictures = [recording.pictures for recording in self.recordings if recording.pictures is not None]
                self.convolutions = quantise_convolutions(self.encoder, pictures)
                found.append(CONVOLUTIONS)
        return found

    def expect(self) -> None:
        """Compute the posteriors of float32. Raises EdgeHalError if they have too few transitions."""
        self.expected = self._posteriors(list(self.graphs), [r.vectors for r in self.recordings])
        found = sum(len(decode_posteriors(posterior, self.decoder, self.spec)) for posterior in self.expected)
        if found < MIN_TRANSITIONS:
            why = f"float32 sees {found} transitions in them, at least {MIN_TRANSITIONS} are needed to choose layers by"
            todo = "give more recordings of the procedure as it is really done"
            raise EdgeHalError("the calibration recordings show too little", why, todo)

    def evaluate(self, method: str) -> Callable[[frozenset[str]], Shift]:
        """A function from layers to quantise, with the ranges of `method`, to the shift of the events."""
        ranges = self.ranges.get(method, {})

        def run(layers: frozenset[str]) -> Shift:
            calibration = Calibration(self.target, ranges, layers, {}, self.convolutions)
            folder = self.work / "trial"
            folder.mkdir(exist_ok=True)
            touched = {layer.split(".")[0] for layer in layers}
            graphs = list(self.graphs)
            for index, path in enumerate(graphs):
                if f"l{index}" in touched:
                    graphs[index] = folder / path.name
                    onnx.save(calibration.apply(self.models[f"l{index}"], f"l{index}"), graphs[index])
            vectors = [r.vectors for r in self.recordings]
            if ENCODER_PREFIX in touched:
                vectors = self._vectors(calibration, folder / encoder_name("int8"))
            found = self._posteriors(graphs, vectors)
            return compare_events(found, self.expected, self.decoder, self.spec, self.budget)

        return run

    def _vectors(self, calibration: Calibration, graph: Path) -> list[NDArray[np.float32]]:
        """The vectors of the int8 encoder, which is written to `graph`. Those of the last encoder are kept, because
        encoding takes longer than all else in the search."""
        layers = sorted(layer for layer in calibration.layers if layer.split(".")[0] == ENCODER_PREFIX)
        key = tuple((layer, calibration.ranges.get(layer)) for layer in layers)
        if key not in self._encoded:
            onnx.save(calibration.apply(self.models[ENCODER_PREFIX], ENCODER_PREFIX), graph)
            self._encoded = {
                key: [r.vectors if r.pictures is None else encode_pictures(graph, r.pictures) for r in self.recordings]
            }
        return self._encoded[key]

    def _posteriors(self, graphs: Sequence[Path], vectors: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        spec, chunk = self.spec, self.spec.chunk_sizes[-1]
        engines = [
            OnnxRuntimeEngine.open({spec.chunks(level)[-1]: path}, spec, level) for level, path in enumerate(graphs)
        ]
        stream = PyramidStream(spec, engines)
        found = []
        for x in vectors:
            stream.reset()
            rows = []
            for start in range(0, len(x) - len(x) % chunk, chunk):
                stream.push(x[start : start + chunk], range(start, start + chunk))
                rows.append(stream.heads(chunk).copy())
            found.append(np.concatenate(rows) if rows else np.zeros((0, spec.heads_width), np.float32))
        return found
