"""JSON that people edit: the line of each key and each entry, so that an error can name it, and keys that occur
twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from edge_hal.files.untrusted import parse_json

Path = tuple[str | int, ...]

_MARKS = frozenset("[]{}:,")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,"]+')


def parse_edited(text: str) -> Any:
    """As `parse_json`. The error names the line also where the text is JSON, but a number or a text cannot be used."""
    try:
        return parse_json(text)
    except json.JSONDecodeError:
        raise  # it names the line
    except ValueError:
        for token, line in _tokens(text):
            if token not in _MARKS:
                try:
                    parse_json(token)
                except ValueError as error:
                    raise ValueError(f"line {line}: {error}") from error
        raise


def lines_of(text: str) -> tuple[dict[Path, int], list[tuple[Path, int]]]:
    """Lines, from 1, by the path of keys and indices that leads to each value; the path of the whole is ().

    Args:
        text: valid JSON. For other text the result is incomplete.

    Returns:
        The line where each value begins, for a member of an object the line of its key. And the keys that occur more
        than once in one object, with the line of the second.
    """
    lines: dict[Path, int] = {}
    twice: list[tuple[Path, int]] = []
    path: list[str | int] = []  # of the container that is open, and last the key or index within it
    key_comes = False
    for token, line in _tokens(text):
        if token == ":":
            continue
        if token in ("}", "]"):
            path, key_comes = path[:-1], False
        elif token == ",":
            if path and isinstance(path[-1], int):
                path[-1] += 1
            else:
                key_comes = True
        elif key_comes and path:
            path[-1], key_comes = _text(token), False
            if tuple(path) in lines:
                twice.append((tuple(path), line))
            lines[tuple(path)] = line
        else:
            lines.setdefault(tuple(path), line)
            if token in ("{", "["):
                path.append("" if token == "{" else 0)
                key_comes = token == "{"
    return lines, twice


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line, end = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", end, match.start())
        end = match.start()
        yield match.group(), line


def _text(token: str) -> str:
    try:
        return str(json.loads(token))
    except ValueError:
        return token
