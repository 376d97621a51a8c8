"""The state of a run as one file: all that its later events depend on.

State is a tree of dictionaries with numbers, strings, lists and arrays as leaves. Each object that has state returns it
from `state()` and sets it in `restore()`. A file from elsewhere is checked against the state of a new run before it is
used: it has the same keys, and arrays of the same shapes and types.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.files import private
from edge_hal.files.untrusted import parse_json, read_regular

State = dict[str, Any]
ARRAY = "array"
LARGEST_FILE = 3 << 30
MOST_ARRAYS = 10_000
LARGEST_TEXT = 1 << 24


def save(path: Path, state: State) -> None:
    """Raises OSError where the file cannot be written."""
    arrays: dict[str, NDArray[Any]] = {}

    def leaf(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"a{len(arrays)}"] = value
            return {ARRAY: f"a{len(arrays) - 1}"}
        return value.item()  # a numpy number; anything else raises, and is a bug

    text = json.dumps(state, default=leaf)
    with open(path, "wb", opener=private) as file:
        np.savez(file, state=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def load(path: Path) -> State:
    """Raises OSError or ValueError if the file was not written by `save`.

    Nothing larger than the file is allocated: `save` does not compress, so a compressed member is refused, and so is an
    array whose header promises other bytes than the member has.
    """
    content = read_regular(path, LARGEST_FILE, links=False)
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = file.infolist()
            if len(members) > MOST_ARRAYS or sum(member.file_size for member in members) > len(content):
                raise ValueError("its arrays are larger than the file")
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("it is compressed")
                arrays[member.filename.removesuffix(".npy")] = _array(file.read(member))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, IndexError, OverflowError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    text = arrays.get("state")
    if text is None or text.nbytes > LARGEST_TEXT:
        raise ValueError(f"{path.name} has no state")
    state = _with_arrays(parse_json(text.tobytes()), arrays)
    if not isinstance(state, dict):
        raise ValueError(f"{path.name} has no state")
    return state


def check_like(template: Any, found: Any, where: str = "state") -> None:
    """Check a state from a file against that of a new run with the same bundle and options.

    Where the template has an array, `found` has one of the same shape and type, without NaN; where it has a dictionary,
    one with the same keys; where it has a number, a number of the same type. Where the template has None, `found` has
    something small: what a new run does not have yet.

    Raises:
        ValueError: it differs, and where.
    """
    problem = ""
    if isinstance(template, np.ndarray):
        if not isinstance(found, np.ndarray) or (found.shape, found.dtype) != (template.shape, template.dtype):
            problem = f"there is no array {template.shape} of {template.dtype}"
        elif found.dtype.kind == "f" and np.isnan(found).any():
            problem = "a number is not finite"
    elif isinstance(template, dict):
        if not isinstance(found, dict) or found.keys() != template.keys():
            problem = "it has other keys"
        else:
            for key, value in template.items():
                check_like(value, found[key], f"{where}.{key}")
    elif isinstance(template, list) and template and isinstance(template[0], dict):
        if not isinstance(found, list) or len(found) != len(template):
            problem = "it has another length"
        else:
            for index, value in enumerate(template):
                check_like(value, found[index], f"{where}[{index}]")
    elif template is not None and type(found) is not type(template):
        problem = f"it is no {type(template).__name__}"
    if problem:
        raise ValueError(f"{where}: {problem}")


def _array(data: bytes) -> NDArray[Any]:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError("an array has an unknown format")
    try:
        shape, fortran, dtype = read(stream)
    except Exception as error:  # a damaged header ends in the parsers of Python, which raise errors of many kinds
        raise ValueError(f"an array has a damaged header: {type(error).__name__}") from error
    size = dtype.itemsize
    for length in shape:
        size *= length
    if dtype.hasobject or fortran or any(length < 0 for length in shape) or size != len(data) - stream.tell():
        raise ValueError("an array has another size than its header says")
    array: NDArray[Any] = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape).copy()
    return array


def _with_arrays(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            name = value[ARRAY]
            if not isinstance(name, str) or name not in arrays:
                raise ValueError("an array is missing")
            return arrays[name]
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    return [_with_arrays(item, arrays) for item in value] if isinstance(value, list) else value
