"""From a checkpoint to a certified bundle: export the graphs in a precision, lint them, and certify them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_hal import __version__
from edge_hal.bundle import Bundle, encoder_name, file_hash, graph_name, write_bundle
from edge_hal.calib.calibration_set import CalibrationRecording
from edge_hal.calib.sensitivity import Budget
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.files.feature_file import as_float32, is_real, open_features
from edge_hal.files.untrusted import read_json
from edge_hal.model.model_file import Checkpoint, load_checkpoint
from edge_hal.progress import Progress, no_progress
from edge_hal.spec import PyramidSpec
from edge_hal.task_folder import MODEL_FILE

from .certificate import certify
from .compute import multiply_adds
from .graphs import OPSET, export_level
from .int8 import ENCODER_PREFIX, Calibration, calibrate
from .lint import lint_encoder, lint_step_graph
from .precision import half_graph
from .quantise_convolutions import for_cpus_only

TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime")
CALIBRATION = "calibration"
CONFIDENCE = "confidence.json"


def export_bundle(
    ckpt: Path,
    out: Path,
    *,
    precision: str = "fp32",
    target: str = "onnxruntime",
    recordings: Sequence[CalibrationRecording] = (),
    budget: Budget | None = None,
    work: Path | None = None,
    reference: Path | None = None,
    progress: Progress = no_progress,
) -> Bundle:
    """Write the bundle `out` of the checkpoint `ckpt`, whole or not at all. An existing bundle is replaced at the end.

    Args:
        ckpt: a run directory, or its `model.safetensors`.
        precision: `fp32`, `fp16` or `int8`.
        target: of int8: `onnxruntime` (for CPUs) or `tensorrt` (explicit Q/DQ in float16 graphs).
        recordings: for int8: to find the ranges and the cost of each layer.
        budget: how far the events of a lower precision may differ: for int8 on the recordings, for int8 and fp16 on
            the reference.
        work: where int8 keeps its results; by default `calibration` in the run directory.
        reference: input vectors for the certificate (.npy, or .npz with `x`); by default those of the checkpoint.
        progress: progress(stage, done, total, remark).

    Raises:
        EdgeHalError: there is no checkpoint, the lint refuses a graph, the recordings are not fit for calibration, the
            certificate failed, or `out` cannot be written.
    """
    checkpoint = load_checkpoint(ckpt)
    spec = checkpoint.spec
    for_cpus = checkpoint.encoder is not None and for_cpus_only(onnx.load(checkpoint.encoder))
    if for_cpus and (precision == "fp16" or (precision == "int8" and target == "tensorrt")):
        why = "its convolutions are in 8 bits as ONNX Runtime reads them (model.encoder.int8)"
        todo = "export --precision fp32, or int8 with --target onnxruntime; for TensorRT train without it"
        raise EdgeHalError("the encoder of this run is for CPUs", why, todo, exit_code=2)
    vectors = None if reference is None else read_reference(reference, spec)
    calibration = None
    if precision == "int8":
        calibration = calibrate(checkpoint, recordings, target, work or checkpoint.path / CALIBRATION, progress, budget)
    provenance = _provenance(checkpoint)
    if calibration is not None:
        provenance["quantisation"] = calibration.report

    def write(folder: Path) -> None:
        write_graphs(checkpoint, precision, calibration, folder, progress)
        provenance["multiply_adds"] = multiply_adds(folder, spec, precision)

    return write_bundle(
        out,
        spec,
        precision,
        calibrated_decoder(checkpoint),
        provenance,
        write,
        lambda bundle: certify(bundle, checkpoint, vectors, progress, budget),
        target="onnxruntime" if for_cpus else target if calibration is not None else "any",
        familiarity=checkpoint.familiarity,
    )


def write_graphs(
    checkpoint: Checkpoint, precision: str, calibration: Calibration | None, folder: Path, progress: Progress
) -> None:
    """Write every graph of a bundle into `folder`, linted. int8 graphs are made from float graphs."""
    spec = checkpoint.spec
    jobs = [(level, chunk) for level in range(len(spec.levels)) for chunk in spec.chunks(level)]
    base = float_precision(precision, calibration)
    with tempfile.TemporaryDirectory() as beside:
        place = folder if calibration is None else Path(beside)
        for number, (level, chunk) in enumerate(jobs):
            progress("export", number, len(jobs), f"level {level}, steps of {chunk}")
            export_level(checkpoint.pyramid, checkpoint.front_end, level, chunk, base, place)
            if calibration is not None:
                name = graph_name(level, chunk, precision)
                model = calibration.apply(onnx.load(place / graph_name(level, chunk, base)), f"l{level}")
                lint_step_graph(model, spec, level, chunk, name)
                onnx.save(model, folder / name)
    if checkpoint.encoder is not None and spec.encoder is not None:
        name = encoder_name(precision)
        if precision == "fp32":
            shutil.copyfile(checkpoint.encoder, folder / name)  # the same file that computed the training vectors
        else:
            model = onnx.load(checkpoint.encoder)
            model = half_graph(model) if base == "fp16" else model
            model = model if calibration is None else calibration.apply(model, ENCODER_PREFIX)
            lint_encoder(model, spec.encoder, name, tensorrt=not for_cpus_only(model))
            onnx.save(model, folder / name)
    progress("export", len(jobs), len(jobs), "")


def calibrated_decoder(checkpoint: Checkpoint) -> DecoderConfig:
    """The thresholds of the run, with the temperatures of `edge-hal calibrate --confidence` if they were fitted.

    Raises:
        EdgeHalError: the file of the temperatures is damaged.
    """
    path = checkpoint.path / CONFIDENCE
    if not path.is_file():
        return checkpoint.decoder
    try:
        found = read_json(path)
        decoder = replace(checkpoint.decoder, temperature=found["temperature"])
        now = found.get("now")  # versions up to 0.4 do not write it
        return decoder if now is None else replace(decoder, now_temperature=now["temperature"])
    except (OSError, ValueError, KeyError, TypeError, EdgeHalError) as error:
        todo = "fit it again: edge-hal calibrate DATA_DIR --confidence, or delete the file"
        raise EdgeHalError(f"cannot read {path}", f"{type(error).__name__}: {error}", todo) from error


def float_precision(precision: str, calibration: Calibration | None) -> str:
    """The precision of everything that is not int8."""
    if calibration is None:
        return precision
    return "fp16" if calibration.target == "tensorrt" else "fp32"


def read_reference(path: Path, spec: PyramidSpec) -> NDArray[np.float32]:
    """Input vectors (T, D) from a .npy file, (T, D) or (D, T), or from `x` of an .npz file, which has that suffix.

    Raises:
        EdgeHalError: the file does not exist, has another shape, or holds a number that is not finite.
    """
    size = spec.front_end.size
    todo = f"give vectors (T, {size}) as .npy, or as 'x' in an .npz"
    vectors = _from_npz(path, todo) if path.suffix == ".npz" else open_features(path, todo)
    if vectors.ndim == 2 and vectors.shape[1] != size:
        vectors = vectors.T
    if vectors.ndim != 2 or vectors.shape[1] != size or not len(vectors) or not is_real(vectors.dtype):
        why = f"it holds {vectors.dtype} {vectors.shape}"
        raise EdgeHalError(f"the reference {path} does not fit the model", why, todo)
    vectors = as_float32(vectors)
    if not np.isfinite(vectors).all():
        raise EdgeHalError(f"the reference {path} holds a number that is not finite", "", todo)
    return vectors


def _from_npz(path: Path, todo: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return np.asarray(stored["x"])
    except Exception as error:  # a damaged header ends in the parsers of Python, which raise errors of many kinds
        raise EdgeHalError(f"cannot read the reference {path}", str(error), todo) from error


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        **checkpoint.provenance,
        "model_sha256": file_hash(checkpoint.path / MODEL_FILE),
        "export": {"edge_hal": __version__, "opset": OPSET, **{tool: version(tool) for tool in TOOLS}},
    }
