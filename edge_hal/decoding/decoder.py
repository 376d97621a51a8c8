"""What all decoders share: their configuration, the decision they return, their interface, and how to open and run one.

To add a decoder: write a subclass of `Decoder` in a module of this folder, and name it in `open_decoder`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.spec import PyramidSpec
from edge_hal.untrusted import read_json

from .procedure import Procedure

LOG_RATIO_LIMIT = 4.0
"""Nats. The log posteriors of one tick are clipped to this range before a boundary is placed, so that one wrong and
very confident tick cannot move the boundary."""


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
        procedure: order and durations of the steps, from a file of its own, `procedure.json`.
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
            # 0, 0.0 and -0.0 give the same decisions, so they must give the same fingerprint.
            object.__setattr__(self, name, float(value) + 0.0)

    @property
    def thresholds(self) -> dict[str, float]:
        """Every field but `procedure`."""
        return {name: getattr(self, name) for name in THRESHOLDS}

    def changed(self, thresholds: Mapping[str, float]) -> DecoderConfig:
        return replace(self, **thresholds)  # type: ignore[arg-type]  # the names are checked where they come from

    def replaced(self, thresholds: Mapping[str, float]) -> DecoderConfig:
        """As `changed`, for thresholds that a user gives.

        Raises:
            EdgeHalError: one of them would have no effect: `margin` if the procedure decides, `evidence_hz` if there is
                no procedure (exit code 2).
        """
        changed = self.changed(thresholds)
        if "margin" in thresholds and changed.procedure is not None and changed.evidence_hz > 0:
            why, todo = "the decoder follows the procedure", "add decoder.evidence_hz=0, or leave decoder.margin out"
            raise EdgeHalError("decoder.margin has no effect here", why, todo, exit_code=2)
        if thresholds.get("evidence_hz", 0.0) > 0 and changed.procedure is None:
            raise EdgeHalError("decoder.evidence_hz has no effect here", "there is no procedure", exit_code=2)
        return changed

    def smooth_ticks(self, model_hz: float) -> int:
        """`smooth_s` in ticks; at least one."""
        return max(1, round(self.smooth_s * model_hz))

    def fingerprint(self) -> str:
        """Short hash of thresholds and procedure. Every event carries it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        return {**self.thresholds, "procedure": None if self.procedure is None else self.procedure.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DecoderConfig:
        """Inverse of `to_dict`."""
        procedure = data.get("procedure")
        return cls(**{**data, "procedure": None if procedure is None else Procedure.from_dict(procedure)})

    def to_json(self) -> str:
        """The contents of `decoder.json`: the thresholds without the procedure."""
        return json.dumps(self.thresholds, indent=2) + "\n"

    @classmethod
    def from_file(cls, path: Path, procedure: Procedure | None = None) -> DecoderConfig:
        """Read `decoder.json`. Raises EdgeHalError if it cannot be read, or holds an unknown key or a bad value."""
        todo = f"correct {path.name}, or export the checkpoint again"
        try:
            data = read_json(path)
            unknown = sorted(data.keys() - set(THRESHOLDS))
        except (OSError, ValueError, AttributeError) as error:
            raise file_error(f"cannot read {path}", error, todo, path=path) from error
        if unknown:
            known = ", ".join(THRESHOLDS)
            raise EdgeHalError(f"{path} has an unknown key '{unknown[0]}'", f"known: {known}", todo)
        return cls(**data, procedure=procedure)


THRESHOLDS = tuple(field.name for field in fields(DecoderConfig) if field.name != "procedure")


@dataclass(frozen=True)
class Decision:
    """A change of label.

    Attributes:
        label: the new label.
        previous: the label before it; None for the first label of an epoch.
        boundary_tick: the estimated first tick of `label`.
        decision_tick: the tick whose posteriors led to the decision.
        confidence: the mean posterior of `label` over the last `smooth_s`, after division by the temperature.
    """

    label: int
    previous: int | None
    boundary_tick: int
    decision_tick: int
    confidence: float


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
    def decide(self, tick: int, log_posterior: NDArray[np.float32]) -> Decision | None:
        """The decision at `tick`, or None if the label stays.

        Args:
            tick: index within the epoch of the newest row.
            log_posterior: (n, K) log posteriors of ticks tick - n + 1 .. tick, where n is the length of the buffer.
        """

    def _change_label(self, tick: int, label: int, row: int | None, log_posterior: NDArray[np.float32]) -> Decision:
        """Begin `label` at `row` of the posteriors, or at the start of the epoch if `row` is None. The boundary is
        limited by `min_duration_s` and by the oldest row of the buffer."""
        since, boundary = self._lag_ticks, 0
        if row is not None:
            oldest = tick + 1 - len(log_posterior)
            since = min(tick, max(row, self.since + self._min_ticks, oldest + self._lag_ticks))
            boundary = since - self._lag_ticks
        recent = log_posterior[-self.smooth_ticks :]
        confidence = float(mean_posterior(recent, self.config.temperature)[label])
        decision = Decision(label, self.label, boundary, tick, confidence)
        self.label, self.since = label, since
        return decision


def open_decoder(config: DecoderConfig, spec: PyramidSpec) -> Decoder:
    """The decoder that `config` asks for: the semi-Markov filter if it has a procedure and `evidence_hz` is above 0,
    otherwise hysteresis."""
    from .hysteresis import HysteresisDecoder
    from .semi_markov import SemiMarkovDecoder

    hysteresis = config.procedure is None or config.evidence_hz == 0
    kind: type[Decoder] = HysteresisDecoder if hysteresis else SemiMarkovDecoder
    return kind(config, spec.model_hz, spec.lag_ticks)


def decode_posteriors(log_posterior: NDArray[np.float32], config: DecoderConfig, spec: PyramidSpec) -> list[Decision]:
    """The decisions that a stream takes on log posteriors (T, K) of one epoch: one call of the decoder at the end of
    each bin of the first level, with at most `spec.ring_capacity` rows."""
    decoder, decisions = open_decoder(config, spec), []
    for tick in range(spec.first_stride - 1, len(log_posterior), spec.first_stride):
        decision = decoder.decide(tick, log_posterior[max(0, tick + 1 - spec.ring_capacity) : tick + 1])
        if decision is not None:
            decisions.append(decision)
    return decisions


def mean_posterior(log_posterior: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Mean over the rows of softmax(log_posterior / temperature): (n, K) -> (K,)."""
    scaled = log_posterior / np.float32(temperature)
    p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray((p / p.sum(axis=1, keepdims=True)).mean(axis=0), np.float32)
