"""A trained model on disk: `model.safetensors`, with shapes, thresholds and provenance as metadata. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edge_hal.bundle import file_hash
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import Familiarity
from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable, file_error
from edge_hal.files.untrusted import parse_json
from edge_hal.spec import PyramidSpec
from edge_hal.task_folder import MODEL_FILE

from .front_end import FrontEnd
from .pyramid import Pyramid

SCHEMA = 1
MALFORMED = (LookupError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError)
ENCODER_FILE = "encoder.onnx"
REFERENCE_FILE = "reference.npz"
FAMILIARITY = "familiarity."
"""Tensors of what the input of training looks like. A model may be without them."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained model that was read from disk.

    Attributes:
        path: the run directory.
        encoder: the graph of the frame encoder; None for feature streams.
        familiarity: what the input of training looks like; None if it was not learned.
        reference: real input: `x`, vectors (T, D), and `pictures` (n, H, W, 3). Either may be missing.
    """

    path: Path
    spec: PyramidSpec
    pyramid: Pyramid
    front_end: FrontEnd
    decoder: DecoderConfig
    encoder: Path | None
    provenance: Mapping[str, Any]
    reference: Mapping[str, NDArray[Any]]
    familiarity: Familiarity | None = None


def save_model(
    path: Path,
    pyramid: Pyramid,
    front_end: FrontEnd,
    decoder: DecoderConfig,
    provenance: Mapping[str, Any],
    familiarity: Familiarity | None = None,
) -> None:
    """Write `path`. Raises OSError."""
    tensors = {f"pyramid.{key}": value for key, value in pyramid.state_dict().items()}
    tensors |= {f"front_end.{key}": value for key, value in front_end.state_dict().items()}
    if familiarity is not None:
        tensors |= {f"{FAMILIARITY}{key}": torch.from_numpy(value) for key, value in familiarity.tensors().items()}
    metadata = {
        "schema": SCHEMA,
        "spec": pyramid.spec.to_dict(),
        "decoder": decoder.to_dict(),
        "provenance": dict(provenance),
    }
    # Not safetensors' save_file, whose errors are no OSErrors.
    path.write_bytes(
        save({key: value.contiguous() for key, value in tensors.items()}, {"edge_hal": json.dumps(metadata)})
    )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a run directory, or its `model.safetensors`.

    Raises:
        EdgeHalError: it is neither, it is incomplete, or it has another schema.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    todo = "train again: edge-hal train DATA_DIR --out RUN_DIR"
    for needed in (file, file.with_name(REFERENCE_FILE), file.with_name(ENCODER_FILE)):
        check_readable(needed)
    if not file.is_file():
        why = f"it has no {MODEL_FILE}" if path.is_dir() else "there is no such file"
        if (path / "last").is_dir():
            why, todo = "its training is not complete", "resume it with the same edge-hal train command"
        raise EdgeHalError(f"{path} is no checkpoint", why, todo)
    try:
        with safe_open(file, "pt") as stored:
            metadata = parse_json((stored.metadata() or {}).get("edge_hal", "null"))
            if not isinstance(metadata, dict):
                raise ValueError("another program wrote it")
            if metadata["schema"] != SCHEMA:
                raise ValueError(f"it has schema {metadata['schema']}, this version reads {SCHEMA}")
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        spec = PyramidSpec.from_dict(metadata["spec"])
        learned = {
            k.removeprefix(FAMILIARITY): tensors.pop(k).numpy() for k in list(tensors) if k.startswith(FAMILIARITY)
        }
        familiarity = Familiarity.from_tensors(learned) if learned else None
        sizes = (spec.front_end.size, spec.front_end.read)
        if familiarity is not None and (familiarity.size, familiarity.vector.size) != sizes:
            raise ValueError(f"its {FAMILIARITY}mean has another size than its vectors")
        _check_tensors(tensors, spec)
        pyramid, front_end = Pyramid(spec), FrontEnd(spec.front_end)
        for name, module in (("pyramid.", pyramid), ("front_end.", front_end)):
            part = {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}
            module.load_state_dict(part)
        decoder, provenance = DecoderConfig.from_dict(metadata["decoder"]), dict(metadata["provenance"])
    except (EdgeHalError, OSError, SafetensorError, *MALFORMED) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise EdgeHalError(f"{file} is no edge-hal checkpoint", why, todo) from error
    encoder = file.with_name(ENCODER_FILE) if spec.encoder is not None else None
    if encoder is not None and not encoder.is_file():
        raise EdgeHalError(f"{file} lacks the frame encoder", f"{encoder} is missing", todo)
    if encoder is not None:
        _check_encoder(encoder, provenance, todo)
    return Checkpoint(
        path=file.parent,
        spec=spec,
        pyramid=pyramid.eval(),
        front_end=front_end,
        decoder=decoder,
        encoder=encoder,
        provenance=provenance,
        reference=_reference(file.with_name(REFERENCE_FILE)),
        familiarity=familiarity,
    )


def _check_encoder(graph: Path, provenance: Mapping[str, Any], todo: str) -> None:
    """Raises EdgeHalError if the graph is not the one that the pyramid was trained with, as far as the run says: its
    vectors would mean something else."""
    made_by = provenance.get("encoder")
    wanted = made_by.get("sha256") if isinstance(made_by, dict) else None
    try:
        differs = wanted is not None and file_hash(graph) != wanted
    except OSError as error:
        raise file_error(f"cannot read the frame encoder {graph}", error, path=graph) from error
    if differs:
        raise EdgeHalError(f"{graph} is not the frame encoder of this run", "it is damaged or of another run", todo)


def _check_tensors(tensors: Mapping[str, Tensor], spec: PyramidSpec) -> None:
    """Raises ValueError unless the file has exactly the tensors of the table. Checked before the model is allocated,
    because the table of a damaged file may ask for terabytes."""
    with torch.device("meta"):
        parts = {"pyramid.": Pyramid(spec), "front_end.": FrontEnd(spec.front_end)}
    needed = {
        f"{name}{key}": tuple(value.shape) for name, part in parts.items() for key, value in part.state_dict().items()
    }
    odd = sorted(needed.keys() ^ tensors.keys())
    if odd:
        raise ValueError(f"it {'lacks' if odd[0] in needed else 'has a strange'} tensor {odd[0]}")
    for key, shape in needed.items():
        if tuple(tensors[key].shape) != shape:
            raise ValueError(f"{key} has shape {tuple(tensors[key].shape)}, its table says {shape}")
        if not torch.isfinite(tensors[key]).all():
            raise ValueError(f"{key} holds a number that is not finite")


def _reference(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except Exception as error:  # a damaged header ends in the parsers of Python, which raise errors of many kinds
        raise EdgeHalError(f"cannot read {path}", str(error), "delete it to certify on random input") from error
