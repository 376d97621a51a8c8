"""A YAML file that a user writes: its values, and the line of each, for errors that name it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import MB, read_regular

LARGEST = 1 * MB
"""Bytes of a file. A station with a hundred streams has a hundredth of it."""
MOST_VALUES = 100_000
"""Keys and values, with each repetition of an anchor counted: a few lines of anchors stand for billions."""
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "null", "seq", "map", "int", "float", "bool")}

Lines = dict[tuple[str | int, ...], int]


class PlainLoader(yaml.SafeLoader):
    """YAML whose words stay text, except null: the type of a key says what its value is. Else an action called `off`
    would be false, `1e3` text and `012` ten."""


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path, example: str = "test: [VIDEO]") -> tuple[dict[str, Any], Lines]:
    """The keys and values of a file (words stay text, see `PlainLoader`), and the line of each key and listed value,
    counted from 1. An empty file has none.

    Args:
        example: a line that such a file may hold, for the error of a file without keys.

    Raises:
        EdgeHalError: it cannot be read or is malformed. The message names the line. Exit code 2.
    """
    try:
        text = read_regular(path, LARGEST).decode("utf-8-sig")
        node = yaml.compose(text, PlainLoader)
        if node is not None:
            _check_node(node, path, {})
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
    return values, _lines(node, path)


def line_of(lines: Lines, place: Sequence[str | int]) -> int:
    """The line of `place`, or of the nearest key above it."""
    return next((lines[tuple(place[:n])] for n in range(len(place), 0, -1) if tuple(place[:n]) in lines), 1)


def _check_node(node: yaml.Node, path: Path, sizes: dict[int, int]) -> int:
    """How many values a node stands for. `sizes`: of the nodes that were counted, 0 for those that hold this one.

    Raises:
        EdgeHalError: there are too many, an anchor holds itself, or a value is no text, list or keys.
    """
    at = f"{path}, line {node.start_mark.line + 1}"
    if node.tag not in PLAIN_TAGS:
        what = f"{at}: a value with the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}"
        raise EdgeHalError(what, "values are texts, lists and keys with values", "leave the tag out", exit_code=2)
    if id(node) in sizes and not sizes[id(node)]:
        raise EdgeHalError(f"{at}: a key holds itself", "", "write its values out", exit_code=2)
    if id(node) not in sizes:
        sizes[id(node)] = 0
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
        inner = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else inner
        sizes[id(node)] = 1 + sum(_check_node(each, path, sizes) for each in inner)
    if sizes[id(node)] > MOST_VALUES:
        why = f"it stands for more than {MOST_VALUES} values"
        raise EdgeHalError(f"{at}: too much", why, "write less, and without anchors", exit_code=2)
    return sizes[id(node)]


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
