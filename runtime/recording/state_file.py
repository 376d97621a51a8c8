"""The state of a run as one file: all that its later events depend on.

State is a tree of dictionaries with numbers, strings, lists and arrays as leaves. Each object that has state returns it
from `state()` and sets it in `restore()`.
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
        return value.item()  # a numpy number; anything else raises, and is a bug

    text = json.dumps(state, default=leaf)
    np.savez(path, state=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def load(path: Path) -> State:
    """Raises OSError, ValueError or KeyError if the file was not written by `save`."""
    try:
        with np.load(path, allow_pickle=False) as file:

            def node(value: dict[str, Any]) -> Any:
                return file[value[ARRAY]] if value.keys() == {ARRAY} else value

            state: State = json.loads(file["state"].tobytes(), object_hook=node)
    except (EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name}: {error}") from error
    return state
