"""`edge_hal.__all__`: what users import, each name at the cost of what it needs."""

from __future__ import annotations

import inspect

import pytest

import edge_hal
from edge_hal import events
from tests.helpers.processes import call

HEAVY = "{'numpy', 'zmq', 'onnxruntime', 'cv2', 'torch', 'pydantic', 'yaml', 'typer', 'rich'}"


def test_all_event_classes_are_public() -> None:
    defined = (value for value in vars(events).values() if inspect.isclass(value))
    classes = {value.__name__ for value in defined if issubclass(value, events.Event)}
    received = {"Event", "Unknown", *(c.__name__ for c in events.TYPES.values())}
    assert classes < set(edge_hal.__all__) and classes == received


@pytest.mark.parametrize("name", edge_hal.__all__)
def test_a_public_name_imports_in_a_process_of_its_own(name: str) -> None:
    code, out, err = call(code=f"from edge_hal import {name}; print({name}.__class__.__name__)")
    functions = dict.fromkeys(("open_model", "open_stream", "subscribe"), "function")
    kind = {"__version__": "str", **functions}.get(name, "type")
    assert code == 0 and out == f"{kind}\n", err


@pytest.mark.parametrize("statement", ["import edge_hal", "from edge_hal import Transition, Gap, EdgeHalError"])
def test_importing_the_package_or_an_event_loads_nothing_heavy(statement: str) -> None:
    code, out, err = call(code=f"import sys; {statement}; print(*sorted({HEAVY} & set(sys.modules)))")
    assert code == 0 and out == "\n", (out, err)


def test_an_unknown_name_is_refused_and_dir_lists_the_public_ones() -> None:
    with pytest.raises(AttributeError, match="open_steam"):
        _ = edge_hal.open_steam
    with pytest.raises(ImportError):
        exec("from edge_hal import nonsense")
    assert dir(edge_hal) == sorted(edge_hal.__all__)
