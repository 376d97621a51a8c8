"""Small pyramids with random weights, every learned part of them away from zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.export.bundle import export_bundle
from edge_hal.export.graphs import export_encoder
from edge_hal.model.encoder import FrameEncoder
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.model_file import save_model
from edge_hal.model.pyramid import Pyramid
from edge_hal.spec import EncoderSpec, FrontEndSpec, LevelSpec, PyramidSpec

FLAT = (LevelSpec(1, 5, 8, 2, 2),)
TWO = (LevelSpec(1, 5, 8, 2, 2), LevelSpec(4, 3, 12, 3, 1))
THREE = (LevelSpec(1, 4, 8, 2, 1), LevelSpec(6, 3, 12, 3, 2), LevelSpec(2, 4, 16, 4, 1))


def small_spec(
    levels: tuple[LevelSpec, ...] = TWO,
    *,
    size: int = 3,
    encoder: EncoderSpec | None = None,
    projected: int = 0,
    baseline: int = 0,
) -> PyramidSpec:
    return PyramidSpec(
        model_hz=10.0,
        labels=("reach", "grasp", "turn", "place"),
        front_end=FrontEndSpec(size, window=3, projected=projected, baseline=baseline),
        levels=levels,
        encoder=encoder,
        lookback_s=5.0,
    )


MIDDLE = (LevelSpec(1, 4, 8, 2, 2), LevelSpec(2, 3, 12, 3, 1), LevelSpec(2, 4, 16, 4, 1))
"""Three levels, so that one has neighbours on both sides."""
# The model whose graphs the tests of several modules export: each is exported once (`kept_graphs`).
EXPORTED, EXPORTED_SEED = small_spec(MIDDLE, encoder=EncoderSpec(12, 16, 3)), 3


def random_model(spec: PyramidSpec, seed: int = 0, *, causal: bool = True) -> tuple[Pyramid, FrontEnd]:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    pyramid, front_end = Pyramid(spec, causal=causal).eval(), FrontEnd(spec.front_end)
    with torch.no_grad():
        for parameter in pyramid.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    size, width = spec.front_end.size, spec.front_end.width
    mean, deviation = torch.randn(size, generator=generator), 0.5 + torch.rand(width, generator=generator)
    directions = torch.linalg.qr(torch.randn(size, size, generator=generator))[0][:, :width]
    front_end.fit(mean, deviation, directions if spec.front_end.projected else None)
    return pyramid, front_end


def save_run(path: Path, spec: PyramidSpec, seed: int = 0, reference: NDArray[np.float32] | None = None) -> Path:
    """A run directory as training leaves it, the model random."""
    path.mkdir(parents=True)
    save_model(path / "model.safetensors", *random_model(spec, seed), DecoderConfig(), {"by": "tests"})
    if reference is not None:
        np.savez(path / "reference.npz", x=reference)
    return path


def save_picture_run(path: Path) -> Path:
    """A run directory of `EXPORTED`, with its frame encoder."""
    run = save_run(path, EXPORTED, EXPORTED_SEED, reference=random_input(300))
    save_encoder(run / "encoder.onnx", EXPORTED)
    return run


MadeOnce = Callable[[str, Callable[[Path], object]], Path]
"""The fixture `made_once`."""


def picture_bundles(made_once: MadeOnce) -> dict[str, Path]:
    """Bundles of `EXPORTED` by precision, fp32 and fp16. Nobody may write into them."""

    def make(folder: Path) -> None:
        run = save_picture_run(folder / "run")
        for precision in ("fp32", "fp16"):
            export_bundle(run, folder / precision, precision=precision)

    folder = made_once("picture-bundles", make)
    return {precision: folder / precision for precision in ("fp32", "fp16")}


def save_encoder(path: Path, spec: PyramidSpec) -> None:
    """The graph of a random frame encoder."""
    assert spec.encoder is not None
    torch.manual_seed(0)
    export_encoder(FrameEncoder(spec.encoder), spec.encoder, path)


def random_input(ticks: int, size: int = 3, seed: int = 0) -> NDArray[np.float32]:
    """(ticks, size): a slow random walk under noise, with jumps."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(ticks, size)).cumsum(axis=0) * 0.1
    jumps = np.repeat(rng.normal(size=(ticks // 40 + 1, size)), 40, axis=0)[:ticks]
    return (walk + jumps + rng.normal(size=(ticks, size))).astype(np.float32)
