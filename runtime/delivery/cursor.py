"""Where a subscriber is in each stream, in a file that survives it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_hal import __version__
from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file
from edge_hal.files.untrusted import read_json

SCHEMA = 2
"""Schema of the file. A file about one stream has schema 1 and names its stream, so that earlier versions read it.
0.1.0 wrote the same fields without naming a schema."""


@dataclass(frozen=True)
class Position:
    """`seq` is the last event dealt with; `journal` names the numbers it belongs to."""

    journal: str
    stream: str
    seq: int


def write_cursor(path: Path, positions: Mapping[str, Position]) -> None:
    """Write the position in each stream. On the disk when this returns; a crash leaves the old positions or the new
    ones. Raises EdgeHalError."""
    what, todo = f"cannot write the cursor {path}", "choose another --cursor"
    body: dict[str, Any]
    if len(positions) == 1:
        [position] = positions.values()
        body = {"schema": 1, **asdict(position)}
    else:
        streams = {name: {"journal": each.journal, "seq": each.seq} for name, each in positions.items()}
        body = {"schema": SCHEMA, "streams": streams}
    write_file(path, json.dumps(body), what=what, todo=todo)


def read_cursor(path: Path) -> dict[str, Position]:
    """The position in each stream, none where there is no file yet. Raises EdgeHalError where it is damaged or of a
    newer version."""
    try:
        body = read_json(path)
        schema = body.get("schema", 1)
        if isinstance(schema, int) and schema > SCHEMA:
            raise EdgeHalError(
                f"the cursor {path} was written by a newer version of edge-hal",
                f"its schema is {schema}, edge-hal {__version__} reads schemas up to {SCHEMA}",
                "use the newer edge-hal, or choose another --cursor to begin anew",
            )
        streams = body["streams"] if schema == SCHEMA else {str(body["stream"]): body}
        return {name: _position(name, each) for name, each in streams.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{error.strerror or error}" if isinstance(error, OSError) else "it is no cursor, or it is damaged"
        todo = "choose another --cursor; if it is a damaged one, delete it to begin anew"
        raise EdgeHalError(f"cannot read the cursor {path}", why, todo) from error


def _position(stream: str, body: Mapping[str, Any]) -> Position:
    position = Position(str(body["journal"]), stream, body["seq"])
    if not isinstance(position.seq, int) or isinstance(position.seq, bool) or position.seq < -1:
        raise ValueError(f"seq is {position.seq!r}")
    return position
