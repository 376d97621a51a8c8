"""Networks of torchvision and timm, with random weights that stand in a file: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edge_hal.config import Encoder
from edge_hal.errors import EdgeHalError
from edge_hal.export.lint import lint_encoder
from edge_hal.learning.encoders.choose import open_pretrained
from edge_hal.pictures.encoding import encode_pictures

UNFIT = (ImportError, RuntimeError)
"""A build for another torch raises the second."""
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def torchvision() -> Any:
    return pytest.importorskip("torchvision", reason="pip install torchvision, for this torch", exc_type=UNFIT)  # type: ignore[arg-type]


def timm() -> Any:
    return pytest.importorskip("timm", reason="pip install timm", exc_type=UNFIT)  # type: ignore[arg-type]


def inputs() -> torch.Tensor:
    rgb = (PICTURES[..., ::-1] / 255.0 - MEAN) / STD
    return torch.from_numpy(rgb.astype(np.float32)).permute(0, 3, 1, 2)


def vectors(kind: str, weights: Path, folder: Path) -> np.ndarray:
    encoder = open_pretrained(Encoder(kind=kind, weights=weights, coarse=0))
    encoder.write(folder / "encoder.onnx")
    lint_encoder(onnx.load(folder / "encoder.onnx"), encoder.spec, "encoder.onnx")
    return encode_pictures(folder / "encoder.onnx", PICTURES)


def test_a_network_of_torchvision_gives_the_mean_of_its_last_map(tmp_path: Path) -> None:
    network = torchvision().models.resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = network(inputs()).numpy()
    found = vectors("torchvision:resnet18@64x96", tmp_path / "w.pth", tmp_path)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_network_of_timm_gives_the_mean_of_its_last_map(tmp_path: Path) -> None:
    network = timm().create_model("resnet10t", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with torch.inference_mode():
        expected = network.forward_features(inputs()).mean((2, 3)).numpy()
    found = vectors("timm:resnet10t@64x96", tmp_path / "w.pth", tmp_path)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_missing_unfit_and_unreadable_weights_are_one_error_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = torchvision().models
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(EdgeHalError, match="resnet18 are not on this machine") as absent:
        open_pretrained(Encoder(kind="torchvision:resnet18@64"))
    assert "model.encoder.weights=FILE" in absent.value.todo
    torch.save(models.resnet34(weights=None).state_dict(), tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("other.pth", "text.pth"):
        with pytest.raises(EdgeHalError, match=f"{name} do not fit"):
            open_pretrained(Encoder(kind="torchvision:resnet18@64", weights=tmp_path / name))
    with pytest.raises(EdgeHalError, match="no such file"):
        open_pretrained(Encoder(kind="torchvision:resnet18@64", weights=tmp_path / "none.pth"))


def test_models_without_a_map_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    models = torchvision().models
    torch.save(models.vit_b_16(weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(EdgeHalError, match="vit_b_16"):
        open_pretrained(Encoder(kind="torchvision:vit_b_16@224", weights=tmp_path / "w.pth"))
    with pytest.raises(EdgeHalError, match="no model nonsense"):
        open_pretrained(Encoder(kind="torchvision:nonsense"))
