"""What a table of rates and shapes may hold. A bundle is untrusted input: no huge shape may reach an allocation."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.spec import PyramidSpec

LARGEST_LABELS = 1024
LONGEST_LABEL = 1000
LARGEST_NAMES = 64_000
"""Bytes of all labels as JSON. Events that list them must be smaller than what a subscriber accepts."""
CONTROL = re.compile("[\0-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
"""Characters that separate neither words nor lines. XML, and so ELAN, has none of them."""
MOST_LAGS = 8
BACKGROUND = 8
"""Pictures that a stream keeps to know what rests (`pictures/moving.py`); the window of them is at least as long."""
LARGEST_BYTES = 1 << 30
"""Bytes of the state and the buffers of one stream."""
LONGEST_FIELD = 1 << 24
"""Ticks of the receptive field."""


def check_spec(spec: PyramidSpec) -> None:
    """Raises EdgeHalError if a number is out of range or contradicts another; the message names the field."""

    def require(ok: bool, what: str, why: str) -> None:
        if not ok:
            raise EdgeHalError(f"the model's {what} cannot be used", why, "correct the configuration")

    limit = 1 << 16
    for name, low, high in (
        ("model_hz", 0.01, 1000),
        ("change_window_s", 0, 3600),
        ("lookback_s", 0, 3600),
        ("lag_s", 0, 3600),
    ):
        value = getattr(spec, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        require(number and low <= value <= high, name, f"{value!r} is not in {low:g}..{high:g}")
    require(0 < len(spec.labels) <= LARGEST_LABELS, "labels", f"there must be 1 to {LARGEST_LABELS}")
    named = all(0 < len(label) <= LONGEST_LABEL for label in spec.labels)
    require(named, "labels", f"a name has 1 to {LONGEST_LABEL} characters")
    names = len(json.dumps(spec.labels, ensure_ascii=False).encode())
    require(names <= LARGEST_NAMES, "labels", f"they have {names} bytes together, and may have {LARGEST_NAMES}")
    require(len(set(spec.labels)) == len(spec.labels), "labels", "a name appears twice")
    require(
        spec.background is None or spec.background in spec.labels,
        "background",
        f"'{spec.background}' is not one of the labels {', '.join(spec.labels)}",
    )
    require(1 <= len(spec.levels) <= 8, "levels", f"{len(spec.levels)} is not in 1..8")
    require(spec.lookback_s > 0, "lookback_s", "it must be positive")
    require(0 <= spec.lag_s <= spec.lookback_s / 2, "lag_s", f"{spec.lag_s} is not in 0..lookback_s / 2")
    require(len(spec.other_lags_s) <= MOST_LAGS, "other_lags_s", f"there may be {MOST_LAGS}")
    for lag_s in spec.other_lags_s:
        number = isinstance(lag_s, (int, float)) and not isinstance(lag_s, bool)
        allowed = number and 0 <= lag_s <= spec.lookback_s / 2
        require(allowed, "other_lags_s", f"{lag_s!r} is not in 0..lookback_s / 2")
    ticks = list(spec.other_lags_ticks)
    distinct = ticks == sorted(set(ticks)) and spec.lag_ticks not in ticks
    require(distinct, "other_lags_s", f"{spec.other_lags_s} and {spec.lag_s} are not ascending and apart by a tick")
    for part in (spec.front_end, *spec.levels, spec.encoder):
        for field in () if part is None else dataclasses.fields(part):
            value = getattr(part, field.name)
            whole = field.type != "int" or type(value) is int
            require(whole, field.name, f"{value!r} is not a whole number")
    clip = spec.front_end.clip
    require(type(clip) in (int, float) and 0 < clip <= 1e6, "front_end.clip", f"{clip!r} is not in (0, 1e6]")
    require(1 <= spec.front_end.size <= limit, "front_end.size", str(spec.front_end.size))
    unread = spec.front_end.unread
    require(0 <= unread < spec.front_end.size, "front_end.unread", f"{unread} of {spec.front_end.size} numbers")
    projected = spec.front_end.projected
    require(
        0 <= projected <= spec.front_end.read,
        "front_end.projected",
        f"{projected} components of a vector of {spec.front_end.read} numbers",
    )
    require(1 <= spec.front_end.window <= 4096, "front_end.window", str(spec.front_end.window))
    baseline = spec.front_end.baseline
    require(baseline == 0 or 2 <= baseline <= 4096, "front_end.baseline", f"{baseline} is not 0 or in 2..4096")
    for index, level in enumerate(spec.levels):
        name = f"levels[{index}]"
        require(
            level.stride == 1 if index == 0 else 1 <= level.stride <= 256,
            f"{name}.stride",
            f"{level.stride}: level 0 has stride 1, the others 1..256",
        )
        require(2 <= level.window <= 4096, f"{name}.window", f"{level.window} is not in 2..4096")
        require(
            1 <= level.heads <= level.width <= 8192 and level.width % level.heads == 0,
            f"{name}.width",
            f"{level.width} does not divide by {level.heads} heads",
        )
        require(1 <= level.blocks <= 64, f"{name}.blocks", f"{level.blocks} is not in 1..64")
    if spec.encoder is not None:
        require(
            1 <= spec.encoder.height <= 4096 and 1 <= spec.encoder.width <= 4096,
            "encoder",
            f"images of {spec.encoder.width} x {spec.encoder.height}",
        )
        require(0 <= spec.encoder.coarse <= spec.encoder.height, "encoder.coarse", f"{spec.encoder.coarse} rows")
        require(
            (spec.encoder.size, spec.encoder.unread) == (spec.front_end.read, spec.front_end.unread),
            "encoder.size",
            f"it gives {spec.encoder.size} and {spec.encoder.unread} numbers, "
            f"the front end takes {spec.front_end.read} and {spec.front_end.unread}",
        )
        moving = spec.encoder.moving
        allowed = moving == 0 or BACKGROUND <= moving <= 4096
        require(allowed, "encoder.moving", f"{moving} ticks are not 0 or in {BACKGROUND}..4096")
    field_ticks, size = spec.receptive_field, spec.state_bytes + spec.ring_bytes
    require(field_ticks <= LONGEST_FIELD, "receptive field", f"{field_ticks} ticks are more than {LONGEST_FIELD}")
    require(size <= LARGEST_BYTES, "size", f"a stream would need {size >> 20} MB, possible are 1024")
