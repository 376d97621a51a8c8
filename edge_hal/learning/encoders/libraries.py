"""Convolutional networks of torchvision and timm, with weights that are on this machine: a file of the user, or the
library's own cache. Nothing is downloaded."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_hal.config import Encoder
from edge_hal.encoder_kind import EncoderKind
from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable

from .feature_map import encoder_of
from .pretrained import PretrainedEncoder

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POOLS = ("avgpool", "fc", "classifier")
"""The first child with one of these names comes after the last feature map."""


def open_library_model(settings: Encoder, kind: EncoderKind) -> PretrainedEncoder:
    """Raises EdgeHalError if the library, the model or the weights are missing, or the weights do not fit."""
    if importlib.util.find_spec(kind.family) is None:
        raise EdgeHalError(f"the encoder {kind.name} needs {kind.family}", "", f"pip install {kind.family}")
    try:
        importlib.import_module(kind.family)
    except Exception as error:  # a build for another torch raises errors of several kinds
        why = str(error).splitlines()[0]
        todo = f"install the {kind.family} that fits torch {torch.__version__}"
        raise EdgeHalError(f"{kind.family} cannot be imported", why, todo) from error
    opened = _torchvision if kind.family == "torchvision" else _timm
    return opened(settings, kind)


def _torchvision(settings: Encoder, kind: EncoderKind) -> PretrainedEncoder:
    from torchvision import models

    try:
        network = models.get_model(kind.name, weights=None)
        known = models.get_model_weights(kind.name).DEFAULT
    except (ValueError, TypeError) as error:
        raise _unknown(kind, error) from error
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(known.url).name)
    download = f"python -c \"import torchvision; torchvision.models.get_model('{kind.name}', weights='DEFAULT')\""
    weights = _weights(settings, kind, cached, download)
    _load(network, weights, optional=())
    maps = getattr(network, "features", None)
    if not isinstance(maps, nn.Module):
        children = []
        for name, child in network.named_children():
            if name in POOLS:
                break
            children.append(child)
        maps = nn.Sequential(*children)
    transform = known.transforms()
    mean, std = getattr(transform, "mean", IMAGENET_MEAN), getattr(transform, "std", IMAGENET_STD)
    return _encoder(settings, kind, maps, mean, std, "see the model's page of torchvision")


def _timm(settings: Encoder, kind: EncoderKind) -> PretrainedEncoder:
    import timm

    try:
        network = timm.create_model(kind.name, pretrained=False, num_classes=0, global_pool="")
    except (RuntimeError, ValueError, TypeError) as error:
        raise _unknown(kind, error) from error
    about = network.pretrained_cfg
    cached = None if settings.weights is not None else _in_hub_cache(about.get("hf_hub_id"))
    download = f"python -c \"import timm; timm.create_model('{kind.name}', pretrained=True)\""
    weights = _weights(settings, kind, cached, download)
    classifier = about.get("classifier") or ()
    _load(network, weights, optional=(classifier,) if isinstance(classifier, str) else tuple(classifier))
    mean, std = about.get("mean", IMAGENET_MEAN), about.get("std", IMAGENET_STD)
    return _encoder(settings, kind, network, mean, std, about.get("license") or "see the model's card")


def _in_hub_cache(repository: str | None) -> Path | None:
    """The weights that timm downloaded earlier."""
    if not repository:
        return None
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # timm works without it
        return None
    place = try_to_load_from_cache(repository, "model.safetensors")
    return Path(place) if isinstance(place, str) else None


def _encoder(
    settings: Encoder, kind: EncoderKind, maps: nn.Module, mean: Any, std: Any, licence: str
) -> PretrainedEncoder:
    try:
        return encoder_of(settings, kind, maps, _of_255(mean), _of_255(std), licence)
    except EdgeHalError:
        raise
    except Exception as error:  # of the network, which reads other sizes or is no chain of maps
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = f"the encoder {kind.name} cannot read pictures of {kind.height}x{kind.width}"
        raise EdgeHalError(what, why, exit_code=2) from error


def _weights(settings: Encoder, kind: EncoderKind, cached: Path | None, download: str) -> Path:
    if settings.weights is not None:
        check_readable(settings.weights)
        if not settings.weights.is_file():
            raise EdgeHalError(f"cannot read the weights {settings.weights}", "there is no such file", exit_code=2)
        return settings.weights
    if cached is not None and cached.is_file():
        return cached
    raise EdgeHalError(
        f"the weights of {kind.name} are not on this machine",
        "edge-hal downloads none",
        f"give their file: --set model.encoder.weights=FILE; or fill the cache of {kind.family}: {download}",
    )


def _load(network: nn.Module, path: Path, optional: tuple[str, ...]) -> None:
    """Load a file of tensors, strictly. Entries of the `optional` modules may be in the file and not in the network."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: Mapping[str, Tensor] = load_file(path)
        else:
            tensors = torch.load(path, weights_only=True, map_location="cpu")
        kept = {k: v for k, v in tensors.items() if not any(k.startswith(f"{each}.") for each in optional)}
        network.load_state_dict(kept)
    except Exception as error:  # torch, pickle and safetensors raise their own types
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EdgeHalError(f"the weights {path} do not fit the model", why, "give the weights of this model") from error


def _unknown(kind: EncoderKind, error: Exception) -> EdgeHalError:
    why = str(error).splitlines()[0]
    return EdgeHalError(f"{kind.family} has no model {kind.name} with weights", why, exit_code=2)


def _of_255(values: Sequence[float]) -> list[float]:
    return [255.0 * value for value in values]
