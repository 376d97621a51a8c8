"""What a plain installation lacks."""

from __future__ import annotations

import importlib

from edge_hal.errors import EdgeHalError


def require(*modules: str) -> None:
    """Import what a command needs, or say how to install it.

    Raises:
        EdgeHalError: a module is missing.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise EdgeHalError(
                f"{name} is not installed",
                "a device that only runs does not need it; this command does",
                "pip install 'edge-hal[train,export]'",
            ) from error
