"""What a bundle is: the names of its files, and the value that stands for one on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import Familiarity
from edge_hal.errors import EdgeHalError
from edge_hal.spec import PyramidSpec

SCHEMA = 1
PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("any", "onnxruntime", "tensorrt")
DEFAULT_PATH = Path("bundle")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk. `fingerprint` is the SHA-256 of the manifest. `target` is the engine that the graphs
    are made for: float graphs run on any engine, int8 graphs differ. `signer`: the name of the trusted key that signed
    it, None if no signature was asked for. `familiarity`: what the input of training looks like, None if
    that was not learned."""

    path: Path
    spec: PyramidSpec
    precision: str
    decoder: DecoderConfig
    fingerprint: str
    provenance: Mapping[str, Any]
    certified: bool
    target: str = "any"
    signer: str | None = None
    familiarity: Familiarity | None = None

    def graph(self, level: int, chunk: int = 1) -> Path:
        return self.path / graph_name(level, chunk, self.precision)

    @property
    def encoder(self) -> Path | None:
        return None if self.spec.encoder is None else self.path / encoder_name(self.precision)


def graph_name(level: int, chunk: int, precision: str) -> str:
    return f"level{level}.c{chunk}.{precision}.onnx"


def encoder_name(precision: str) -> str:
    return f"encoder.{precision}.onnx"


def expected_graphs(spec: PyramidSpec, precision: str) -> list[str]:
    """The names of all graph files that a bundle with this table must hold."""
    names = [graph_name(level, chunk, precision) for level in range(len(spec.levels)) for chunk in spec.chunks(level)]
    return names if spec.encoder is None else [*names, encoder_name(precision)]


def file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_precision(bundle: Bundle, precision: str | None) -> None:
    """Raises EdgeHalError (exit code 2) if `precision` is given and is not that of the bundle."""
    if precision is None or precision == bundle.precision:
        return
    if precision not in PRECISIONS:
        raise EdgeHalError(f"--precision {precision}", f"it is one of {', '.join(PRECISIONS)}", exit_code=2)
    todo = f"edge-hal export --ckpt RUN_DIR --precision {precision} --out ANOTHER_DIR"
    what = f"the bundle {bundle.path} has no {precision} graphs"
    raise EdgeHalError(what, f"it is {bundle.precision}", todo, exit_code=2)
