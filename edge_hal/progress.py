"""The types of progress callbacks."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""progress(stage, done, total, remark)"""

ProgressCount = Callable[[int, int], None]
"""progress(done, total), for a function that is one stage of a longer work"""


def no_progress(stage: str, done: int, total: int, remark: str) -> None:
    """A `Progress` that does nothing."""
