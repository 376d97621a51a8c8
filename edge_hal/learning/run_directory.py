"""The run directory: what training leaves and `eval` and `export` read. No pickle in it.

`model.safetensors`: weights, with the table, thresholds and origin as metadata. `config.yaml`. `reference.npz`: a
bounded piece of real input for the certificate. `alignment.json`: where the steps of the training videos were
found. `encoder.onnx`: the frame encoder's graph, if there is one. `last/`: stages under way, until the run is
complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.config import Config
from edge_hal.decoder import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.model.checkpoint import MODEL, REFERENCE, save_model
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.pyramid import Pyramid


class RunDirectory:
    """A run being written. A directory that holds a run with other settings is refused."""

    def __init__(self, path: Path, config: Config, seed: int) -> None:
        self.path, self.last = path, path / "last"
        identity = json.dumps({"seed": seed, **config.model_dump(mode="json")}, sort_keys=True)
        settings = self.last / "settings.json"
        if (path / MODEL).exists():
            raise EdgeHalError(
                f"{path} already holds a complete run", "", "choose another --out, or delete it"
            )
        try:
            if settings.is_file() and settings.read_text() != identity:
                raise EdgeHalError(
                    f"{path} holds an unfinished run with other settings",
                    "resuming it would mix the two",
                    "choose another --out, or delete it",
                )
            if path.exists() and any(path.iterdir()) and not settings.is_file():
                raise EdgeHalError(f"{path} is not empty and no run", "", "choose another --out")
            self.last.mkdir(parents=True, exist_ok=True)
            write_beside(settings, identity.encode())
        except OSError as error:
            raise EdgeHalError(f"cannot write {path}", str(error), "choose another --out") from error

    def complete(
        self,
        config: Config,
        pyramid: Pyramid,
        front_end: FrontEnd,
        decoder: DecoderConfig,
        provenance: Mapping[str, Any],
        reference: Mapping[str, NDArray[Any]],
        alignment: Mapping[str, Any],
    ) -> None:
        """Write the results; the model last, since it is what makes a run complete."""
        write_beside(self.path / "config.yaml", config.to_yaml().encode())
        write_beside(self.path / "alignment.json", json.dumps(alignment, indent=1).encode())
        beside = self.last / "reference.npz"
        np.savez_compressed(beside, allow_pickle=False, **reference)
        os.replace(beside, self.path / REFERENCE)
        model = self.last / MODEL
        save_model(model, pyramid, front_end, decoder, provenance)
        os.replace(model, self.path / MODEL)
        shutil.rmtree(self.last)


def write_beside(path: Path, data: bytes) -> None:
    """Write, then rename: the file is whole or not there."""
    beside = path.with_name(f".{path.name}.partial")
    beside.write_bytes(data)
    os.replace(beside, path)
