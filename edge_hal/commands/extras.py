"""Packages that a plain installation does not have."""

from __future__ import annotations

import importlib

from edge_hal.errors import EdgeHalError


def require(*modules: str, extra: str = "train,export") -> None:
    """Check that the modules a command needs can be imported, or say how to install them.

    Args:
        extra: the extras of edge-hal that install them.

    Raises:
        EdgeHalError: a module is missing.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise EdgeHalError(
                f"{name} is not installed",
                "this command needs it; a device that only runs bundles does not",
                f"pip install 'edge-hal[{extra}]'",
            ) from error
