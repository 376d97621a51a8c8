"""From a checkpoint to a certified bundle: graphs exported and linted, the encoder copied, all proved."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal import __version__
from edge_hal.bundle import Bundle, encoder_name, file_hash, write_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.model.checkpoint import MODEL, Checkpoint, load_checkpoint
from edge_hal.spec import PyramidSpec

from .certificate import Progress, certify
from .graphs import OPSET, export_level

PRECISION = "fp32"
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime")


def export_bundle(
    ckpt: Path, out: Path, *, reference: Path | None = None, progress: Progress | None = None
) -> Bundle:
    """Write the bundle `out` of the checkpoint `ckpt`, or nothing. A bundle already there is replaced last.

    Args:
        ckpt: a run directory, or its `model.safetensors`.
        reference: input vectors for the certificate (.npy, or .npz with `x`); default the checkpoint's own.
        progress: progress(stage, done, total, remark).

    Raises:
        EdgeHalError: no checkpoint, a graph the lint refuses, a certificate that failed, no place to write.
    """
    report = progress or (lambda stage, done, total, remark: None)
    checkpoint = load_checkpoint(ckpt)
    spec = checkpoint.spec
    vectors = None if reference is None else read_reference(reference, spec)
    jobs = [(level, chunk) for level in range(len(spec.levels)) for chunk in spec.chunks(level)]

    def write(folder: Path) -> None:
        for number, (level, chunk) in enumerate(jobs):
            report("export", number, len(jobs), f"level {level}, steps of {chunk}")
            export_level(checkpoint.pyramid, checkpoint.front_end, level, chunk, PRECISION, folder)
        if checkpoint.encoder is not None:  # the same bytes that made the training vectors
            shutil.copyfile(checkpoint.encoder, folder / encoder_name(PRECISION))
        report("export", len(jobs), len(jobs), "")

    return write_bundle(
        out,
        spec,
        PRECISION,
        checkpoint.decoder,
        _provenance(checkpoint),
        write,
        lambda bundle: certify(bundle, checkpoint, vectors, report),
    )


def read_reference(path: Path, spec: PyramidSpec) -> NDArray[np.float32]:
    """Input vectors (T, D) from a .npy file, (T, D) or (D, T), or from `x` of an .npz file.

    Raises:
        EdgeHalError: no such file, another shape, or a number that is not finite.
    """
    size = spec.front_end.size
    todo = f"give vectors (T, {size}) as .npy, or as 'x' in an .npz"
    try:
        loaded = np.load(path, allow_pickle=False)
        vectors = np.asarray(loaded if isinstance(loaded, np.ndarray) else loaded["x"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise EdgeHalError(f"cannot read the reference {path}", str(error), todo) from error
    if vectors.ndim == 2 and vectors.shape[1] != size:
        vectors = vectors.T
    if vectors.ndim != 2 or vectors.shape[1] != size or not len(vectors) or vectors.dtype.kind not in "fiu":
        why = f"it holds {vectors.dtype} {vectors.shape}"
        raise EdgeHalError(f"the reference {path} does not fit the model", why, todo)
    if not np.isfinite(vectors).all():
        raise EdgeHalError(f"the reference {path} holds a number that is not finite", "", todo)
    return vectors.astype(np.float32)


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        **checkpoint.provenance,
        "model_sha256": file_hash(checkpoint.path / MODEL),
        "export": {"edge_hal": __version__, "opset": OPSET, **{tool: version(tool) for tool in TOOLS}},
    }
