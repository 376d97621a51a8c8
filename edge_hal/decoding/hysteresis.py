"""From posteriors to transitions, online: hysteresis, minimum duration, and a boundary placed at full rate.

The decoder decides when the first level completes a bin, from the frame posteriors of the last seconds. It
may be late (that is `confirm_s`), so it says two times: when it decided, and where the boundary was.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .procedure import Procedure

LOG_RATIO_LIMIT = 4.0
"""One frame may argue this much (in nats) for or against a boundary, so that a single confident blunder
of the model cannot drag it."""


@dataclass(frozen=True)
class DecoderConfig:
    """Thresholds in seconds and probabilities; people edit them in `decoder.json`.

    `smooth_s`: posteriors are averaged over this long. `confirm_s`: a new label must lead this long.
    `margin`: by how much its averaged posterior must lead the current label's.
    `min_duration_s`: no action is shorter. `lead_s`: a step begins this long before the posteriors turn to it,
    since a causal model must see some of it first; boundaries are placed that much earlier. `temperature`: log
    posteriors are divided by it for an event's confidence, and for nothing else (`calib/confidence.py`).
    `evidence_hz`: posteriors count as so many independent looks a second against what `procedure` expects; 0 leaves
    the procedure out, and `smooth_s` and `margin` decide. `procedure` has a file of its own, `procedure.json`.
    """

    smooth_s: float = 0.5
    confirm_s: float = 0.5
    margin: float = 0.0
    min_duration_s: float = 1.0
    lead_s: float = 0.0
    temperature: float = 1.0
    evidence_hz: float = 0.0
    procedure: Procedure | None = None

    def __post_init__(self) -> None:
        for name in THRESHOLDS:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if name == "margin":
                ok, why = number and 0 <= value < 1, "it must lie in [0, 1)"
            elif name == "temperature":
                ok, why = number and 0.01 <= value <= 100, "it must lie in 0.01..100"
            elif name == "evidence_hz":
                ok, why = number and 0 <= value <= 1000, "it must lie in 0..1000 looks a second"
            else:
                ok, why = number and 0 <= value <= 600, "it must lie in 0..600 seconds"
            if not ok:
                raise EdgeHalError(f"decoder.{name} = {value!r}", why, exit_code=2)
            # 0, 0.0 and -0.0 decide alike: one fingerprint for all of them.
            object.__setattr__(self, name, float(value) + 0.0)

    @property
    def thresholds(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in THRESHOLDS}

    def changed(self, thresholds: Mapping[str, float]) -> DecoderConfig:
        return replace(self, **thresholds)  # type: ignore[arg-type]  # the names are checked where they come from

    def replaced(self, thresholds: Mapping[str, float]) -> DecoderConfig:
        """As `changed`, for thresholds that a user gives.

        Raises:
            EdgeHalError: one of them would have no effect: `margin` where the procedure decides, `evidence_hz` where
                there is no procedure (exit code 2).
        """
        changed = self.changed(thresholds)
        if "margin" in thresholds and changed.procedure is not None and changed.evidence_hz > 0:
            why, todo = "the decoder follows the procedure", "add decoder.evidence_hz=0, or leave decoder.margin out"
            raise EdgeHalError("decoder.margin has no effect here", why, todo, exit_code=2)
        if thresholds.get("evidence_hz", 0.0) > 0 and changed.procedure is None:
            raise EdgeHalError("decoder.evidence_hz has no effect here", "there is no procedure", exit_code=2)
        return changed

    def fingerprint(self) -> str:
        """Short hash that every event carries: which thresholds and which procedure decided."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        return {**self.thresholds, "procedure": None if self.procedure is None else self.procedure.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DecoderConfig:
        """Inverse of `to_dict`."""
        procedure = data.get("procedure")
        return cls(**{**data, "procedure": None if procedure is None else Procedure.from_dict(procedure)})

    def to_json(self) -> str:
        """The thresholds alone, as `decoder.json` has them."""
        return json.dumps(self.thresholds, indent=2) + "\n"

    @classmethod
    def from_file(cls, path: Path, procedure: Procedure | None = None) -> DecoderConfig:
        """Raises EdgeHalError where the file is no decoder configuration."""
        todo = f"correct {path.name}, or export the checkpoint again"
        try:
            data = json.loads(path.read_text())
            unknown = sorted(data.keys() - set(THRESHOLDS))
        except (OSError, ValueError, AttributeError) as error:
            raise EdgeHalError(f"cannot read {path}", str(error), todo) from error
        if unknown:
            known = ", ".join(THRESHOLDS)
            raise EdgeHalError(f"{path} has an unknown key '{unknown[0]}'", f"known: {known}", todo)
        return cls(**data, procedure=procedure)


THRESHOLDS = tuple(field.name for field in fields(DecoderConfig) if field.name != "procedure")


def tempered(log_posterior: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Mean over rows (n, K) of softmax(log_posterior / temperature): (K,)."""
    scaled = log_posterior / np.float32(temperature)
    p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray((p / p.sum(axis=1, keepdims=True)).mean(axis=0), np.float32)


@dataclass(frozen=True)
class Decision:
    """`label` took over from `previous` (None at the start of an epoch) at `boundary_tick`; decided at
    `decision_tick`, with the averaged posterior `confidence`."""

    label: int
    previous: int | None
    boundary_tick: int
    decision_tick: int
    confidence: float


class Decoder:
    """One epoch of one stream. `decide` is called with the posteriors of the last ticks, newest last; those of a tick
    speak of what was seen `lag_ticks` before it."""

    def __init__(self, config: DecoderConfig, model_hz: float, lag_ticks: int = 0) -> None:
        self.config = config
        self.smooth_ticks = max(1, round(config.smooth_s * model_hz))
        self._confirm = round(config.confirm_s * model_hz)
        self._shortest = max(1, round(config.min_duration_s * model_hz))
        self._lead = round(config.lead_s * model_hz)
        self._lag = lag_ticks
        self.reset()

    def reset(self) -> None:
        """Back to `from: None`, tick 0: a new epoch."""
        self.label: int | None = None
        self.since = self._lag  # in rows of posteriors, which lag
        self._challenger: int | None = None
        self._challenged = 0

    def another(self) -> Decoder:
        """A decoder for another stream: it shares the tables and has state of its own."""
        made = copy.copy(self)
        made.reset()
        return made

    def state(self) -> dict[str, Any]:
        """All that later decisions depend on, besides the configuration: numbers and arrays."""
        return {
            "label": self.label,
            "since": self.since,
            "_challenger": self._challenger,
            "_challenged": self._challenged,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, with the same configuration."""
        self.label, self.since = state["label"], state["since"]
        self._challenger, self._challenged = state["_challenger"], state["_challenged"]

    def decide(self, tick: int, log_posterior: NDArray[np.float32]) -> Decision | None:
        """Args:
        tick: index within the epoch of the newest row.
        log_posterior: (n, K) log posteriors of ticks tick-n+1 .. tick; n as far back as is kept.
        """
        mean = np.exp(log_posterior[-self.smooth_ticks :]).mean(axis=0)
        leader = int(mean.argmax())
        if leader == self.label or (self.label is not None and mean[leader] - mean[self.label] < self.config.margin):
            self._challenger = None
            return None
        if leader != self._challenger:
            self._challenger, self._challenged = leader, tick
        if tick - self._challenged < self._confirm:
            return None
        if self.label is None:
            return self._take_over(tick, leader, None, log_posterior)
        if tick - self.since < self._shortest:
            return None
        return self._take_over(tick, leader, self._place(tick, log_posterior, leader), log_posterior)

    def _take_over(self, tick: int, label: int, row: int | None, log_posterior: NDArray[np.float32]) -> Decision:
        """`label` begins at `row` of the posteriors (None: with the epoch), no earlier than the shortest action
        allows, nor than what is kept."""
        recent = log_posterior[-self.smooth_ticks :]
        since, boundary = self._lag, 0
        if row is not None:
            kept = tick + 1 - len(log_posterior)
            since = min(tick, max(row, self.since + self._shortest, kept + self._lag))
            boundary = since - self._lag
        confidence = float(tempered(recent, self.config.temperature)[label])
        decision = Decision(label, self.label, boundary, tick, confidence)
        self.label, self.since, self._challenger = label, since, None
        return decision

    def _place(self, tick: int, log_posterior: NDArray[np.float32], leader: int) -> int:
        """`lead_s` before the row b that maximises sum_{t<b} log p(from) + sum_{t>=b} log p(to), no earlier
        than the shortest action allows. Only the sum of log p(to) - log p(from) over t >= b depends on b."""
        earliest = self.since + self._shortest
        rows = log_posterior[-(tick - earliest + 1) :]
        ratio = rows[:, leader] - rows[:, self.label]
        gain = np.clip(ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)[::-1].cumsum()
        return tick - int(gain.argmax()) - self._lead
