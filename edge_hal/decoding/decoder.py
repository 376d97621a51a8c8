"""What all decoders share: their configuration, the decision they return, their interface.

To add a decoder: write a subclass of `Decoder` in a module of this folder, and name it in `open_decoder` (`decode.py`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.untrusted import read_json

from .procedure import Procedure

if TYPE_CHECKING:
    from .belief import Belief

LOG_RATIO_LIMIT = 4.0
"""Nats. The log posteriors of one tick are clipped to this range before a boundary is placed, so that one wrong and
very confident tick cannot move the boundary."""
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
    if not isinstance(curve, Sequence) or not all(
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
        free_order: the probability that the next step is any of the others, whatever the procedure says (belief).
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
    free_order: float = 0.05
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
            elif name == "temperature":
                ok, why = number and 0.01 <= value <= 100, "it must lie in 0.01..100"
            elif name in ("evidence_hz", "decide_hz", "belief_hz"):
                ok, why = number and 0 <= value <= 1000, "it must lie in 0..1000 looks a second"
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

    def changed(self, thresholds: Mapping[str, float]) -> DecoderConfig:
        return replace(self, **thresholds)  # type: ignore[arg-type]  # the names are checked where they come from

    def replaced(self, thresholds: Mapping[str, float]) -> DecoderConfig:
        """As `changed`, for thresholds that a user gives.

        Raises:
            EdgeHalError: one of them would have no effect with the decoder that then decides (exit code 2).
        """
        changed = self.changed(thresholds)
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
            if chosen or name in ("decide_hz", "belief_hz", "free_order"):
                return "there is no procedure", drop
        elif self.believes:
            if name in ("smooth_s", "confirm_s", "margin", "evidence_hz"):
                return "the belief decides", f"add decoder.decide_at=0, or {drop}"
        elif name == "decide_hz":
            return "the belief does not decide, because decoder.decide_at is 0", f"set decoder.decide_at, or {drop}"
        elif name == "margin" and self.evidence_hz > 0:
            return "the decoder follows the procedure", f"add decoder.evidence_hz=0, or {drop}"
        return None

    def patient(self, name: str | None) -> DecoderConfig:
        """The setting `fast`, `balanced` or `sure`. None changes nothing.

        Raises:
            EdgeHalError: the bundle has no such setting, or no procedure (exit code 2).
        """
        if name is None:
            return self
        if name in self.patience and self.procedure is None:
            raise EdgeHalError("--decide has no effect here", "there is no procedure", "leave it out", exit_code=2)
        if name in self.patience:
            return self.changed({"decide_at": self.patience[name]})
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
        used = self.thresholds if self.believes else {name: self.thresholds[name] for name in OLDER_THRESHOLDS}
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
        """Read `decoder.json`. Raises EdgeHalError if it cannot be read, or holds an unknown key or a bad value."""
        todo = f"correct {path.name}, or export the checkpoint again"
        try:
            data = read_json(path)
            unknown = sorted(data.keys() - {*THRESHOLDS, *SETTINGS})
            if not isinstance(data.get("curve", []), list):
                raise ValueError("its curve is no list")
            data["curve"] = tuple(data.get("curve", ()))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise file_error(f"cannot read {path}", error, todo, path=path) from error
        if unknown:
            known = ", ".join((*THRESHOLDS, *SETTINGS))
            raise EdgeHalError(f"{path} has an unknown key '{unknown[0]}'", f"known: {known}", todo)
        return cls(**data, procedure=procedure)


SETTINGS = ("patience", "curve")
THRESHOLDS = tuple(entry.name for entry in fields(DecoderConfig) if entry.name not in ("procedure", *SETTINGS))
NEW_THRESHOLDS = ("decide_at", "decide_hz", "belief_hz", "free_order")
"""Those of the belief."""
OLDER_THRESHOLDS = tuple(name for name in THRESHOLDS if name not in NEW_THRESHOLDS)
"""Those of versions before 0.3."""


@dataclass(frozen=True)
class Decision:
    """A change of label.

    Attributes:
        label: the new label.
        previous: the label before it; None for the first label of an epoch.
        boundary_tick: the estimated first tick of `label`.
        decision_tick: the tick whose posteriors led to the decision.
        confidence: the mean probability of `label` over the rows of `evidence`, after division by the temperature.
        evidence: (n, K) the log probabilities that the decision was based on: the posteriors of the last `smooth_s`, or
            the belief (n = 1).
    """

    label: int
    previous: int | None
    boundary_tick: int
    decision_tick: int
    confidence: float
    evidence: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((0, 0), np.float32), compare=False, repr=False
    )


class Decoder(ABC):
    """Decides which step is running, from the posteriors of one epoch of one stream.

    Args:
        config: the thresholds.
        model_hz: ticks per second.
        lag_ticks: the posteriors of tick t describe tick t - `lag_ticks`.
    """

    def __init__(self, config: DecoderConfig, model_hz: float, lag_ticks: int = 0) -> None:
        self.config = config
        self.smooth_ticks = config.smooth_ticks(model_hz)
        self._confirm_ticks = round(config.confirm_s * model_hz)
        self._min_ticks = max(1, round(config.min_duration_s * model_hz))
        self._lead_ticks = round(config.lead_s * model_hz)
        self._lag_ticks = lag_ticks
        self.reset()

    def reset(self) -> None:
        """Start a new epoch: no label yet, and the next tick is tick 0."""
        self.label: int | None = None
        self.since = self._lag_ticks  # the row of posteriors where the label begins; rows lag behind ticks

    def another(self) -> Decoder:
        """A decoder for another stream. It shares the tables and has a state of its own."""
        made = copy.copy(self)
        made.reset()
        return made

    def state(self) -> dict[str, Any]:
        """A copy of all that later decisions depend on, besides the configuration: numbers and arrays."""
        return {"label": self.label, "since": self.since}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of a decoder with the same configuration. Raises ValueError if a number is out of
        range."""
        self.label, self.since = state["label"], state["since"]

    @abstractmethod
    def decide(self, tick: int, log_posterior: NDArray[np.float32], belief: Belief | None = None) -> Decision | None:
        """The decision at `tick`, or None if the label stays.

        Args:
            tick: index within the epoch of the newest row.
            log_posterior: (n, K) log posteriors of ticks tick - n + 1 .. tick, where n is the length of the buffer.
            belief: the one that decides, at `tick`; None without a procedure.
        """

    def _recent(self, tick: int, log_posterior: NDArray[np.float32]) -> tuple[int, NDArray[np.float32]]:
        """The oldest tick of the buffer, and the posteriors of the last `smooth_s`."""
        return tick + 1 - len(log_posterior), log_posterior[-self.smooth_ticks :].copy()

    def _change_label(
        self,
        tick: int,
        label: int,
        row: int | None,
        oldest: int,
        evidence: NDArray[np.float32],
    ) -> Decision:
        """Begin `label` at `row` of the posteriors, or at the start of the epoch if `row` is None. The boundary is
        limited by `min_duration_s` and by the tick `oldest`. `evidence`: as in `Decision`."""
        since, boundary = self._lag_ticks, 0
        if row is not None:
            since = min(tick, max(row, self.since + self._min_ticks, oldest + self._lag_ticks))
            boundary = since - self._lag_ticks
        confidence = float(mean_posterior(evidence, self.config.temperature)[label])
        decision = Decision(label, self.label, boundary, tick, confidence, evidence)
        self.label, self.since = label, since
        return decision


def mean_posterior(log_posterior: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Mean over the rows of softmax(log_posterior / temperature): (n, K) -> (K,)."""
    scaled = log_posterior / np.float32(temperature)
    p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray((p / p.sum(axis=1, keepdims=True)).mean(axis=0), np.float32)
