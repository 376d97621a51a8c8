"""What all decoders share: the decision they return, and their interface.

To add a decoder: write a subclass of `Decoder` in a module of this folder, and name it in `open_decoder` (`decode.py`).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .belief import Belief
from .decoder_config import DecoderConfig


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
