"""A source opened from its text, as `edge-hal run --camera` does it."""

from __future__ import annotations

from typing import Any

from edge_hal.runtime.open_source import open_source
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.source_spec import SourceSpec


def opened(text: str, pace: str = "realtime", **options: Any) -> Source:
    return open_source(SourceSpec.parse(text), pace, **options)
