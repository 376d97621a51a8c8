"""A YAML file that a user writes: its values, and the line of each, for errors that name it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from edge_hal.config_keys import PlainLoader
from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error

Lines = dict[tuple[str | int, ...], int]


def read_yaml(path: Path, example: str = "test: [VIDEO]") -> tuple[dict[str, Any], Lines]:
    """The keys and values of a file (words stay text, see `PlainLoader`), and the line of each key and listed value,
    counted from 1. An empty file has none.

    Args:
        example: a line that such a file may hold, for the error of a file without keys.

    Raises:
        EdgeHalError: it cannot be read or is malformed. The message names the line. Exit code 2.
    """
    try:
        text = path.read_text("utf-8-sig")
        node = yaml.compose(text, PlainLoader)
        values = yaml.load(text, PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise EdgeHalError(f"{path}, line {line}: {error.problem}", exit_code=2) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise file_error(f"cannot read {path}", error, path=path, exit_code=2) from error
    if values is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise EdgeHalError(f"{path}, line 1: it holds no keys", "", f"write lines like `{example}`", exit_code=2)
    try:
        lines = _lines(node, path)
        json.dumps(values)
    except (RecursionError, ValueError) as error:
        raise EdgeHalError(f"{path}: a key holds itself", "", "write its values out", exit_code=2) from error
    return values, lines


def line_of(lines: Lines, place: Sequence[str | int]) -> int:
    """The line of `place`, or of the nearest key above it."""
    return next((lines[tuple(place[:n])] for n in range(len(place), 0, -1) if tuple(place[:n]) in lines), 1)


def _lines(node: yaml.MappingNode, path: Path, above: tuple[str | int, ...] = ()) -> Lines:
    """Raises EdgeHalError for a key that occurs twice."""
    lines: Lines = {}
    for key, value in node.value:
        place, line = (*above, str(key.value)), key.start_mark.line + 1
        if place in lines:
            raise EdgeHalError(f"{path}, line {line}: key '{key.value}' twice", exit_code=2)
        lines[place] = line
        if isinstance(value, yaml.MappingNode):
            lines |= _lines(value, path, place)
        elif isinstance(value, yaml.SequenceNode):
            lines |= {(*place, i): each.start_mark.line + 1 for i, each in enumerate(value.value)}
    return lines
