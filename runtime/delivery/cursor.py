"""Where a subscriber is, in a file that survives it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_hal import __version__
from edge_hal.errors import EdgeHalError
from edge_hal.files import write_file
from edge_hal.untrusted import read_json

SCHEMA = 1
"""Of the file. 0.1.0 wrote the same fields without naming a schema."""


@dataclass(frozen=True)
class Position:
    """`seq` is the last event dealt with; `journal` names the numbers it belongs to."""

    journal: str
    stream: str
    seq: int


def write_cursor(path: Path, position: Position) -> None:
    """On the disk when this returns; a crash leaves the old position or the new one. Raises EdgeHalError."""
    what, todo = f"cannot write the cursor {path}", "choose another --cursor"
    write_file(path, json.dumps({"schema": SCHEMA, **asdict(position)}), what=what, todo=todo)


def read_cursor(path: Path) -> Position | None:
    """None where there is no file yet. Raises EdgeHalError where it is damaged or of a newer version."""
    try:
        body = read_json(path)
        schema = body.get("schema", 1)
        if isinstance(schema, int) and schema > SCHEMA:
            raise EdgeHalError(
                f"the cursor {path} was written by a newer version of edge-hal",
                f"its schema is {schema}, edge-hal {__version__} reads schemas up to {SCHEMA}",
                "use the newer edge-hal, or choose another --cursor to begin anew",
            )
        position = Position(str(body["journal"]), str(body["stream"]), body["seq"])
        if not isinstance(position.seq, int) or isinstance(position.seq, bool) or position.seq < -1:
            raise ValueError(f"seq is {position.seq!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        todo = "delete it to begin anew"
        raise EdgeHalError(f"cannot read the cursor {path}", f"{type(error).__name__}: {error}", todo) from error
    return position
