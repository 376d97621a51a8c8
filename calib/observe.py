"""Histograms of the activations that enter each layer, observed while recordings stream through the float32 graphs.

The graphs run as on the device, from a fresh state through each recording: states start from zeros, so the inputs of a
layer at tick 1,000 differ from those at tick 1. The counts of each recording are kept on disk, and an interrupted
calibration resumes after the last.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import CONTINUE, file_error, replacing, write_file
from edge_hal.progress import Progress
from edge_hal.runtime.engines.onnxruntime_engine import open_session
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import PyramidSpec

from .calibration_set import CalibrationRecording
from .ranges import BINS, METHODS, Counts, Ranges, count, cut

Layers = Mapping[str, str]
"""layer name -> the tensor that enters it"""
PARTIAL, RANGES = "partial", "ranges.json"
PICTURE_EVERY = 5


class Observer:
    """Runs a graph and counts the values that enter its layers. For a level it is a step engine.

    Args:
        layers: of this graph, by the names in `Ranges`.
        work: a folder for a temporary graph.
        spec, level: of a step graph; None for an encoder.
    """

    def __init__(
        self, graph: Path, layers: Layers, work: Path, spec: PyramidSpec | None = None, level: int = 0
    ) -> None:
        model = onnx.load(graph)
        known = {value.name for value in (*model.graph.input, *model.graph.output)}
        wanted = sorted(set(layers.values()) - known)
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        work.mkdir(parents=True, exist_ok=True)
        seen = work / f"observed.{graph.name}"
        onnx.save(model, seen)
        self._session = open_session(seen)
        seen.unlink()
        self.layers = layers
        self.counts: dict[str, Counts] = {name: np.zeros(BINS + 1, np.int64) for name in layers}
        self._names = [output.name for output in self._session.get_outputs()]
        self._states = [] if spec is None else list(spec.states(level))
        self._outputs = [] if spec is None else [tensor.name for tensor in spec.outputs(level)]
        self.reset()

    def reset(self) -> None:
        self._state = {s.name: np.full(s.shape, s.fill, np.float32) for s in self._states}

    def state(self) -> dict[str, NDArray[Any]]:
        return {name: value.copy() for name, value in self._state.items()}

    def step(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = {name: np.asarray(value) for name, value in inputs.items()} | self._state
        found = dict(zip(self._names, self._session.run(None, given), strict=True))
        for layer, tensor in self.layers.items():
            self.counts[layer] += count(found[tensor] if tensor in found else given[tensor])
        self._state = {name: found[f"{name}.next"] for name in self._state}
        return {name: found[name] for name in self._outputs}


def observe(
    spec: PyramidSpec,
    levels: Sequence[tuple[Path, Layers]],
    encoder: tuple[Path, Layers] | None,
    recordings: Sequence[CalibrationRecording],
    work: Path,
    progress: Progress,
) -> Ranges:
    """Stream `recordings` through float32 graphs and write `work`/ranges.json.

    Args:
        levels: for each level the step graph of the largest chunk, and its layers.
        encoder: the float32 encoder and its layers, if the recordings have pictures.
        work: a folder that is kept between runs. Results of the same graphs and recordings are reused.

    Raises:
        EdgeHalError: a graph cannot be opened, `work` cannot be written.
    """
    graphs = hashlib.sha256()
    for path, _ in (*levels, *([] if encoder is None else [encoder])):
        graphs.update(path.read_bytes())
    fingerprint = graphs.hexdigest()
    seen = {recording.name: recording.sha256() for recording in recordings}
    ticks = sum(recording.ticks for recording in recordings)
    with contextlib.suppress(EdgeHalError):  # none yet, or damaged: observe again
        known = Ranges.from_file(work / RANGES)
        if (known.graphs, dict(known.seen), known.ticks) == (fingerprint, seen, ticks):
            progress("observe", len(recordings), len(recordings), "kept from before")
            return known
    try:
        (work / PARTIAL).mkdir(parents=True, exist_ok=True)
        engines = [Observer(path, layers, work, spec, i) for i, (path, layers) in enumerate(levels)]
        encoder_observer = None if encoder is None else Observer(encoder[0], encoder[1], work)
        observers = [*engines, *([] if encoder_observer is None else [encoder_observer])]
        total: dict[str, Counts] = {name: np.zeros(BINS + 1, np.int64) for o in observers for name in o.layers}
        for number, recording in enumerate(recordings):
            progress("observe", number, len(recordings), recording.name)
            partial = work / PARTIAL / f"{fingerprint[:12]}.{seen[recording.name][:24]}.npz"
            counts = _read_counts(partial, total)
            if counts is None:
                _count_one(spec, engines, encoder_observer, recording)
                counts = {name: value for o in observers for name, value in o.counts.items()}
                with replacing(partial) as beside:
                    np.savez_compressed(beside, **counts)  # type: ignore[arg-type]
            for name in total:
                total[name] += counts[name]
        layers = {name: {method: cut(value, method) for method in METHODS} for name, value in total.items()}
        ranges = Ranges(fingerprint, seen, ticks, layers)
        write_file(work / RANGES, ranges.to_json())
        for old in (work / PARTIAL).iterdir():
            old.unlink()
        (work / PARTIAL).rmdir()
    except OSError as error:
        raise file_error(f"cannot write the calibration {work}", error, CONTINUE) from error
    progress("observe", len(recordings), len(recordings), f"{ticks} ticks")
    return ranges


def _read_counts(path: Path, names: Iterable[str]) -> dict[str, Counts] | None:
    """The counts of one recording from an interrupted calibration; None if there are none."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in names}
            return found if all(each.shape == (BINS + 1,) for each in found.values()) else None
    except Exception:  # whatever is damaged in it: it is counted again
        return None


def _count_one(
    spec: PyramidSpec, engines: Sequence[Observer], encoder_observer: Observer | None, recording: CalibrationRecording
) -> None:
    for observer in (*engines, *([] if encoder_observer is None else [encoder_observer])):
        for value in observer.counts.values():
            value[:] = 0
    if encoder_observer is not None and recording.pictures is not None:
        for picture in recording.pictures[::PICTURE_EVERY]:
            encoder_observer.step({"image": picture})
    stream = PyramidStream(spec, engines)
    stream.reset()
    chunk = spec.chunk_sizes[-1]
    for start in range(0, recording.ticks - recording.ticks % chunk, chunk):
        stream.push(recording.vectors[start : start + chunk], range(start, start + chunk))
