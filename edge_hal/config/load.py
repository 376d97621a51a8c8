"""A configuration from a preset or a YAML file, with keys replaced by `--set a.b=c`. Each error names the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.encoder_kind import parse_kind
from edge_hal.errors import EdgeHalError
from edge_hal.files.yaml_file import read_yaml

from .config import Config
from .keys import in_words, nearest_key, replace_key
from .model import Model

PRESETS = Path(__file__).parents[1] / "configs"


def load_config(source: str, overrides: Iterable[str] = (), model: Model | None = None) -> Config:
    """Load a preset (by name) or a YAML file, put `model` in the place of its own, and replace keys given as
    `a.b=value`.

    Raises:
        EdgeHalError: no such preset or file, bad YAML, an unknown key (named, with the nearest valid one), a
            value of the wrong type or out of range. Exit code 2.
    """
    path = PRESETS / f"{source}.yaml"
    if not path.is_file():
        path = Path(source)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise EdgeHalError(f"no preset and no file '{source}'", "", f"presets: {names}", exit_code=2)
    data, _ = read_yaml(path, "learning: {restarts: 4}")
    if model is not None:
        data["model"] = model.model_dump(mode="json")
    overrides = list(overrides)
    for override in overrides:
        replace_key(Config, data, override)
    return parse_config(data, f"{source} with --set" if overrides else source)


def parse_config(data: Mapping[str, Any], where: str) -> Config:
    """Check a configuration. `where` names its source at the start of each error; see `load_config`."""
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        # A misspelt required key gives two errors, "missing" and "unknown key". The second one is more useful.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            todo = nearest_key(Config, first["loc"])
            raise EdgeHalError(f"{where}: unknown key '{key}'", "", todo, exit_code=2) from error
        raise EdgeHalError(f"{where}: '{key}'", in_words(first["msg"]), exit_code=2) from error
    # No default stride above level 0: a forgotten stride would silently be 1.
    for name, levels in (("model", config.model.levels), ("learning.teacher", config.learning.teacher.levels)):
        for index, level in enumerate(levels[1:], 1):
            if "stride" not in level.model_fields_set:
                raise EdgeHalError(f"{where}: {name}.levels[{index}] has no stride", "", "give it", exit_code=2)
    # Contradictions are reported now, not after minutes of training.
    encoder, model = config.model.encoder, config.model
    try:
        if encoder is not None and encoder.pretrained:  # its sizes are known when it is opened
            parse_kind(encoder.kind)
            model = model.model_copy(update={"encoder": None})
        spec = model.spec(("any",), None, max(1, model.projected))
        replace(spec, encoder=None, levels=tuple(level.spec() for level in config.learning.teacher.levels))
        DecoderConfig().with_thresholds(config.decoder.given())
    except EdgeHalError as error:
        raise EdgeHalError(f"{where}: {error.what}", error.why, error.todo, exit_code=2) from error
    return config
