"""A bundle with known answers whose procedure has each step once in a cycle, and vectors that show steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.procedure.rules import Procedure, Step
from tests.helpers.bundles import LABELS, known_bundle, vectors

HZ = 20
AFTER = {"blue": {"green": 1.0}, "green": {"red": 1.0}, "red": {"blue": 1.0}}
SURE = {"shortest_s": 0.2, "optional": False, "repeatable": False}
AGAIN: dict[str, dict[str, Any]] = {"blue": {}, "green": {}, "red": {"ends_cycle": True}}
"""Nothing says where a cycle begins, so after no pause it may be another one."""
LACKING: dict[str, dict[str, Any]] = {
    "blue": {"begins_cycle": True},
    "green": {"shortest_s": 590.0},
    "red": {"requires": {"green": 0.9}, "ends_cycle": True},
}
"""`red` needs `green`, which lasts longer than any pause."""


def following(folder: Path, rules: dict[str, dict[str, Any]], labels: tuple[str, ...] = LABELS) -> Path:
    """A bundle that follows the steps by these rules, and decides by the belief. Steps last a minute."""
    steps = {name: Step(1 / 3, 1 / 3, 60.0, 1.3, AFTER[name], **{**SURE, **rules[name]}) for name in labels}
    decoder = DecoderConfig(decide_at=0.6, min_duration_s=0.2, procedure=Procedure(steps))
    return known_bundle(folder / "bundle", HZ, decoder=decoder, labels=labels).path


def seconds(*parts: tuple[int, float]) -> Any:
    """(T, 3) vectors: each label for so many seconds."""
    return vectors([label for label, lasts_s in parts for _ in range(round(lasts_s * HZ))])
