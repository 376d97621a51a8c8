"""Keys of a configuration as text: `--set a.b=c`, the known key nearest to an unknown one, and messages in the words of
a YAML file."""

from __future__ import annotations

import difflib
from typing import Any

import yaml
from pydantic import BaseModel

from edge_hal.errors import EdgeHalError
from edge_hal.files.yaml_file import PlainLoader


def replace_key(model: type[BaseModel], data: dict[str, Any], override: str) -> None:
    """Replace a key of `data`, which becomes a `model`, by `override`: `a.b=value`, the value in YAML.

    Raises:
        EdgeHalError: it does not read so. Whether the key is known is checked with the whole configuration.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise EdgeHalError(f"--set {override}", "it must read key.path=value", exit_code=2)
    *path, last = key.split(".")
    node: Any = data
    for part in path:
        node = node.setdefault(part, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise EdgeHalError(f"--set {override}", f"'{part}' holds no keys", exit_code=2)
    try:
        value = yaml.load(text, PlainLoader)
        # Only `~` empties a key that holds text: an action may be called null.
        plain = isinstance(value, str) or text in ("", "~") or not _holds_text(model, path, last)
        node[last] = value if plain else text
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise EdgeHalError(f"--set {override}", str(error), exit_code=2) from error


WORDS = {
    "Input should be": "it must be",
    "a valid tuple": "a list",
    "a valid list": "a list",
    "a valid dictionary": "keys with values",
    "a valid string": "a text",
    "a valid number": "a number",
    "a valid integer": "a whole number",
    "a valid boolean": "true or false",
}


def in_words(message: str) -> str:
    """A message of pydantic in the words of a YAML file: `Input should be a valid tuple` -> `it must be a list`."""
    message = message.partition(", unable to ")[0]
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _holds_text(section: Any, path: list[str], last: str) -> bool:
    for part in path:
        field = section.model_fields.get(part) if section is not None else None
        section = None if field is None else _section(field.annotation)
    field = None if section is None else section.model_fields.get(last)
    return field is not None and field.annotation == (str | None)


def nearest_key(section: Any, location: tuple[Any, ...]) -> str:
    """A hint: the valid key closest to an unknown one in the same section. `section`: the model of the whole."""
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        section = _section(section.model_fields[part].annotation)
    names = list(section.model_fields)
    near = difflib.get_close_matches(str(location[-1]), names, 1, 0.5)
    return f"did you mean '{near[0]}'?" if near else f"valid keys here: {', '.join(names)}"


def _section(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section(inner)
        if found is not None:
            return found
    return None
