"""What the future of a run depends on, as one file of plain numbers and arrays: from there it goes on, exactly.

State is a tree of dictionaries with numbers, texts, lists and arrays as leaves; whoever holds state gives it with
`state()` and takes it back with `restore()`.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

State = dict[str, Any]
ARRAY = "array"


def save(path: Path, state: State) -> None:
    """Raises OSError where the file cannot be written."""
    arrays: dict[str, NDArray[Any]] = {}

    def leaf(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"a{len(arrays)}"] = value
            return {ARRAY: f"a{len(arrays) - 1}"}
        return value.item()  # a number of numpy's; anything else is a mistake, and raises

    text = json.dumps(state, default=leaf)
    np.savez(path, state=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def load(path: Path) -> State:
    """Raises OSError, ValueError or KeyError where the file is not one of `save`."""
    try:
        with np.load(path, allow_pickle=False) as file:

            def node(value: dict[str, Any]) -> Any:
                return file[value[ARRAY]] if value.keys() == {ARRAY} else value

            state: State = json.loads(file["state"].tobytes(), object_hook=node)
    except (EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name}: {error}") from error
    return state
