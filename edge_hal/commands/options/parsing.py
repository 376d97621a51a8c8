"""Texts of the command line as values: durations, sizes, times, thresholds, choices. Each error has exit code 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

from edge_hal.errors import EdgeHalError

LARGEST_SEED = (1 << 32) - 1


def parse_duration(text: object) -> float:
    """`30s`, `10m`, `2h`, `500ms` or a number of seconds -> seconds. Raises EdgeHalError for other texts and values."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)(ms|s|m|h)?", str(text).strip())
    if match is None:
        raise EdgeHalError(f"'{text}' is no duration", "", "write 30s, 10m or 2h", exit_code=2)
    return float(match[1]) * {"ms": 0.001, "m": 60.0, "h": 3600.0}.get(match[2], 1.0)


def parse_size(text: str) -> tuple[int, int]:
    """`1280x720` -> (1280, 720). Raises EdgeHalError for other texts."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.strip())
    if match is None:
        raise EdgeHalError(f"'{text}' is no size", "", "write --size 1280x720", exit_code=2)
    return int(match[1]), int(match[2])


def parse_time(text: str, now_ns: int, option: str = "--since") -> int:
    """A date and time, or an age before `now_ns` -> nanoseconds since 1970.

    Args:
        text: `2026-05-01T08:00` (local time unless it names a time zone) or `90m` (units s, m, h, d, w).
        now_ns: nanoseconds since 1970.

    Raises:
        EdgeHalError: the text is neither.
    """
    from datetime import datetime

    from edge_hal.runtime.delivery.retention import UNITS_S

    ago = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    try:
        if ago:
            return max(0, now_ns - int(ago[1]) * UNITS_S[ago[2]] * 10**9)
        moment = datetime.fromisoformat(re.sub("Z$", "+00:00", text))  # Python 3.10 does not know Z
        return max(0, round(moment.timestamp() * 1e6) * 1000)
    except (ValueError, OverflowError, OSError) as error:
        todo = f"write {option} 2026-05-01T08:00 or {option} 90m"
        raise EdgeHalError(f"{option} {text}", "it is not a time", todo, exit_code=2) from error


def parse_settings(settings: Sequence[str]) -> dict[str, float]:
    """`decoder.NAME=NUMBER` -> {NAME: number}. Raises EdgeHalError for an unknown key or a value that is no number."""
    from edge_hal.decoding.decoder_config import THRESHOLDS

    known = [f"decoder.{name}" for name in THRESHOLDS]
    values: dict[str, float] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            todo = f"did you mean {near[0]}?" if near else ""
            raise EdgeHalError(f"unknown key '{key}' in --set", f"known: {', '.join(known)}", todo, exit_code=2)
        try:
            values[key.removeprefix("decoder.")] = float(text)
        except ValueError:
            why, todo = f"'{text}' is no number", f"write --set {key}=0.5"
            raise EdgeHalError(f"--set {setting}", why, todo, exit_code=2) from None
    return values


def one_of(option: str, value: str, known: Collection[str]) -> None:
    """Raises EdgeHalError for a value that is not among `known`."""
    if value not in known:
        raise EdgeHalError(f"{option} {value}", f"it is one of {', '.join(known)}", exit_code=2)


def only_with(needed: str, given: dict[str, bool]) -> None:
    """Raises EdgeHalError for the first option of `given` that was used although it acts only together with `needed`.

    An option that cannot act is refused: the user expects an effect.
    """
    for option, used in given.items():
        if used:
            why, todo = f"it has an effect only with {needed}", f"add {needed}, or leave {option} out"
            raise EdgeHalError(f"{option} without {needed}", why, todo, exit_code=2)
