from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings, never part of the repository: EDGE_HAL_DATA, else ../shared/data."""
    root = Path(os.environ.get("EDGE_HAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real recordings at {root}: set EDGE_HAL_DATA to measure on them")
    return root
