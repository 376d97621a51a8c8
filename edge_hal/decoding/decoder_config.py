"""The thresholds of a decoder: their meaning, their limits, `decoder.json`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import read_regular
from edge_hal.procedure.json_lines import lines_of, parse_edited
from edge_hal.procedure.rules import Procedure

PATIENCE = ("fast", "balanced", "sure")
Scores = Mapping[str, float | None]


def check_settings(patience: object, curve: object) -> None:
    """Raises EdgeHalError (exit code 2) if `patience` or `curve` of `DecoderConfig` is not what it should be."""

    def number(value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

    if not isinstance(patience, Mapping) or not all(
        name in PATIENCE and number(value) and 0 < value < 1 for name, value in patience.items()
    ):
        why = f"it maps {', '.join(PATIENCE)} to probabilities"
        raise EdgeHalError("decoder.patience cannot be used", why, exit_code=2)
    if not isinstance(curve, (list, tuple)) or not all(
        isinstance(row, Mapping) and all(value is None or number(value) for value in row.values()) for row in curve
    ):
        raise EdgeHalError("decoder.curve cannot be used", "it is a list of scores by name", exit_code=2)


@dataclass(frozen=True)
class DecoderConfig:
    """Thresholds of a decoder, in seconds and probabilities. Users edit them in `decoder.json`.

    Attributes:
        smooth_s: the length of the moving average over posteriors.
        confirm_s: how long a new label must lead before it is published.
        margin: how far its averaged posterior must exceed that of the current label.
        min_duration_s: the shortest segment.
        lead_s: boundaries are moved earlier by this much. A causal model sees a part of a step before its posteriors
            change, so uncorrected boundaries are late.
        temperature: log posteriors are divided by it to compute the confidence of an event. It changes nothing else
            (`calib/confidence.py`).
        evidence_hz: how many independent observations one second of posteriors counts as in the semi-Markov filter.
            With 0 the decoder is hysteresis, and `procedure` is not used.
        decide_at: a change is decided when the belief gives another label this probability. With 0, as in bundles
            before 0.3, `evidence_hz` says which of the other two decoders decides.
        decide_hz: as `evidence_hz`, for the belief that decides.
        belief_hz: as `evidence_hz`, for the belief that the reports `now` show.
        now_temperature: log probabilities of that belief are divided by it. It changes no order and no decision.
        free_order: the probability that the next step is any of the others, whatever the procedure says (belief).
        unfamiliar_per_h: false reports an hour of unfamiliar input that are accepted, see `familiarity`; 0: no reports.
        procedure: order and durations of the steps, from a file of its own, `procedure.json`.
        patience: `decide_at` of the settings `fast`, `balanced` and `sure`.
        curve: scores on held-out training videos for several `decide_at`; empty if none were held out.
    """

    smooth_s: float = 0.5
    confirm_s: float = 0.5
    margin: float = 0.0
    min_duration_s: float = 1.0
    lead_s: float = 0.0
    temperature: float = 1.0
    evidence_hz: float = 0.0
    decide_at: float = 0.0
    decide_hz: float = 2.5
    belief_hz: float = 3.0
    now_temperature: float = 1.0
    free_order: float = 0.05
    unfamiliar_per_h: float = 0.0
    procedure: Procedure | None = None
    patience: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[Scores, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self.patience, self.curve)
        for name in THRESHOLDS:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if name in ("margin", "decide_at", "free_order"):
                ok, why = number and 0 <= value < 1, "it must lie in [0, 1)"
            elif name in ("temperature", "now_temperature"):
                ok, why = number and 0.01 <= value <= 100, "it must lie in 0.01..100"
            elif name == "decide_hz":
                ok, why = number and 0 < value <= 1000, "it must lie above 0, up to 1000 looks a second"
            elif name in ("evidence_hz", "belief_hz"):
                ok, why = number and 0 <= value <= 1000, "it must lie in 0..1000 looks a second"
            elif name == "unfamiliar_per_h":
                ok, why = number and (value == 0 or 0.001 <= value <= 1000), "it must be 0, or lie in 0.001..1000"
            else:
                ok, why = number and 0 <= value <= 600, "it must lie in 0..600 seconds"
            if not ok:
                raise EdgeHalError(f"decoder.{name} = {value!r}", why, exit_code=2)
            # 0, 0.0 and -0.0 give the same decisions, so they must give the same fingerprint.
            object.__setattr__(self, name, float(value) + 0.0)

    @property
    def believes(self) -> bool:
        """Whether the belief decides."""
        return self.procedure is not None and self.decide_at > 0

    @property
    def thresholds(self) -> dict[str, float]:
        """Every number."""
        return {name: getattr(self, name) for name in THRESHOLDS}

    def with_thresholds(self, thresholds: Mapping[str, float]) -> DecoderConfig:
        return replace(self, **thresholds)  # type: ignore[arg-type]  # the names are checked where they come from

    def with_user_thresholds(self, thresholds: Mapping[str, float]) -> DecoderConfig:
        """As `with_thresholds`, for thresholds that a user gives.

        Raises:
            EdgeHalError: one of them would have no effect with the decoder that then decides (exit code 2).
        """
        changed = self.with_thresholds(thresholds)
        for name in thresholds:
            if reason := changed._without_effect(name):
                raise EdgeHalError(f"decoder.{name} has no effect here", *reason, exit_code=2)
        return changed

    def _without_effect(self, name: str) -> tuple[str, str] | None:
        """Why the threshold `name` changes nothing, and what to do; None if it acts. See `open_decoder`."""
        drop = f"leave decoder.{name} out"
        if self.procedure is None:
            # 0 of the first two asks for the decoder without a procedure, which is what decides.
            chosen = name in ("evidence_hz", "decide_at") and getattr(self, name) > 0
            if chosen or name in ("decide_hz", "belief_hz", "now_temperature", "free_order"):
                return "there is no procedure", drop
        elif self.believes:
            if name in ("smooth_s", "confirm_s", "margin", "evidence_hz"):
                return "the belief decides", f"add decoder.decide_at=0, or {drop}"
        elif name == "decide_hz":
            return "the belief does not decide, because decoder.decide_at is 0", f"set decoder.decide_at, or {drop}"
        elif name == "margin" and self.evidence_hz > 0:
            return "the decoder follows the procedure", f"add decoder.evidence_hz=0, or {drop}"
        return None

    def with_decide(self, name: str | None) -> DecoderConfig:
        """The setting `fast`, `balanced` or `sure`. None changes nothing.

        Raises:
            EdgeHalError: the bundle has no such setting, or no procedure (exit code 2).
        """
        if name is None:
            return self
        if name in self.patience and self.procedure is None:
            raise EdgeHalError("--decide has no effect here", "there is no procedure", "leave it out", exit_code=2)
        if name in self.patience:
            return self.with_thresholds({"decide_at": self.patience[name]})
        known = ", ".join(self.patience)
        why = f"it has {known}" if known else "it was exported by a version before 0.3, or its decoder.json lacks them"
        todo = "leave --decide out, or train and export again"
        raise EdgeHalError(f"the bundle has no setting '{name}' for --decide", why, todo, exit_code=2)

    def smooth_ticks(self, model_hz: float) -> int:
        """`smooth_s` in ticks; at least one."""
        return max(1, round(self.smooth_s * model_hz))

    def fingerprint(self) -> str:
        """Short hash of thresholds and procedure. Every event carries it."""
        # Thresholds of the belief do not enter where it does not decide: fingerprints of older bundles stay the same.
        used = {
            name: value
            for name, value in self.thresholds.items()
            if name in OLDER_THRESHOLDS
            or (self.believes and name in NEW_THRESHOLDS)
            or value != LATER_THRESHOLDS.get(name, value)
        }
        decides = {**used, "procedure": None if self.procedure is None else self.procedure.to_dict()}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.thresholds,
            "procedure": None if self.procedure is None else self.procedure.to_dict(),
            "patience": dict(self.patience),
            "curve": [dict(row) for row in self.curve],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DecoderConfig:
        """Inverse of `to_dict`."""
        procedure = data.get("procedure")
        return cls(
            **{
                **data,
                "procedure": None if procedure is None else Procedure.from_dict(procedure),
                "curve": tuple(data.get("curve", ())),
            }
        )

    def to_json(self) -> str:
        """The contents of `decoder.json`: everything but the procedure."""
        body = {key: value for key, value in self.to_dict().items() if key != "procedure"}
        return json.dumps(body, indent=2) + "\n"

    @classmethod
    def from_file(cls, path: Path, procedure: Procedure | None = None) -> DecoderConfig:
        """Read `decoder.json`. Raises EdgeHalError if it cannot be read, or holds an unknown key, a key twice or a bad
        value; the message names the line."""
        todo = f"correct {path.name}, or export the checkpoint again"
        try:
            text = read_regular(path).decode("utf-8-sig")  # some editors write a byte order mark
            data = parse_edited(text)
            if not isinstance(data, dict):
                raise ValueError("it is not a JSON object")
        except (OSError, ValueError) as error:
            raise file_error(f"cannot read {path}", error, todo, path=path) from error
        lines, twice = lines_of(text)
        for key, line in twice:
            raise EdgeHalError(f"{path}, line {line}: '{key[-1]}' occurs twice", "", todo)
        for name, value in data.items():
            where = f"{path}, line {lines[name,]}"
            if name not in (*THRESHOLDS, *SETTINGS):
                known = ", ".join((*THRESHOLDS, *SETTINGS))
                raise EdgeHalError(f"{where}: unknown key '{name}'", f"known: {known}", todo)
            try:
                cls(**{name: value})  # each field is checked by itself
            except EdgeHalError as error:
                raise EdgeHalError(f"{where}: {error.what}", error.why, todo, exit_code=error.exit_code) from error
        return cls(**{**data, "curve": tuple(data.get("curve", ()))}, procedure=procedure)


SETTINGS = ("patience", "curve")
THRESHOLDS = tuple(entry.name for entry in fields(DecoderConfig) if entry.name not in ("procedure", *SETTINGS))
NEW_THRESHOLDS = ("decide_at", "decide_hz", "belief_hz", "free_order")
"""Those of the belief."""
LATER_THRESHOLDS = {"unfamiliar_per_h": 0.0, "now_temperature": 1.0}
"""Those of 0.4 and later, with the values that have no effect."""
OLDER_THRESHOLDS = tuple(name for name in THRESHOLDS if name not in (*NEW_THRESHOLDS, *LATER_THRESHOLDS))
"""Those of versions before 0.3."""
