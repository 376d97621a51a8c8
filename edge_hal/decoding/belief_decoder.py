"""Decoding by the belief: a change is decided when another step has the probability `decide_at`.

A lower `decide_at` decides earlier and is wrong more often. The boundary is the median of the first tick of the new
step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .belief import Belief
from .decoder import Decision, Decoder
from .decoder_config import DecoderConfig

FIRST_S = 1.0
"""The first label of an epoch is decided after this long, or after half of the median of the shortest step. The first
ticks have no context, and often no hand is seen yet. In the rendered workbench 93 % of the labels that are decided
after 0.5 s are right, and 99 % after 1 s."""


class BeliefDecoder(Decoder):
    """Uses `decide_at`, `min_duration_s` and `lead_s`. The belief is about the newest tick, so nothing lags.

    Args:
        memory_ticks: a boundary lies at most so far back.
    """

    def __init__(self, config: DecoderConfig, model_hz: float, memory_ticks: int) -> None:
        self._memory_ticks = memory_ticks
        assert config.procedure is not None
        first_s = min([FIRST_S, *(0.5 * step.median_s for step in config.procedure.steps.values())])
        self._first_decision_tick = round(first_s * model_hz)
        super().__init__(config, model_hz)

    def decide(
        self, tick: int, log_posterior: NDArray[np.float32] | None, belief: Belief | None = None
    ) -> Decision | None:
        assert belief is not None
        label = belief.label
        if label == self.label or belief.probability[label] < self.config.decide_at:
            return None
        oldest = tick + 1 - self._memory_ticks
        evidence = np.log(np.maximum(belief.probability[None], 1e-9)).astype(np.float32)
        if self.label is None:
            if tick < self._first_decision_tick:
                return None
            return self._change_label(tick, label, None, oldest, evidence)
        if tick - self.since < self._min_ticks:
            return None
        return self._change_label(tick, label, belief.began(label) - self._lead_ticks, oldest, evidence)
