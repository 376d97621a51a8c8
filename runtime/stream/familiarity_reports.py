"""The event `deviation` of kind `unfamiliar` of one stream: the input is unlike anything in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.familiarity import Familiarity, FamiliarityTracker
from edge_hal.events import Deviation, Moment
from edge_hal.spec import PyramidSpec


class FamiliarityReports:
    """Follows one epoch after the other.

    Args:
        per_h: false reports an hour that are accepted.
        stream, decoder_hash: what events carry.
        next_seq: gives each event its number.
    """

    def __init__(
        self,
        familiarity: Familiarity,
        per_h: float,
        spec: PyramidSpec,
        stream: str,
        decoder_hash: str,
        next_seq: Callable[[], int],
    ) -> None:
        self._tracker = FamiliarityTracker(familiarity, per_h, spec.model_hz, max(spec.chunk_sizes))
        self._stream, self._decoder_hash, self._next_seq = stream, decoder_hash, next_seq

    def add(self, vectors: NDArray[np.float32]) -> None:
        """The vectors (n, D) of the next ticks, which are stepped at once."""
        self._tracker.add(vectors)

    def follow(self, epoch: int, tick: int, seen: str | None, moment: Callable[[int], Moment]) -> list[Deviation]:
        """What is to be reported at `tick`.

        Args:
            seen: the action that goes on.
            moment: gives a recent tick's moment.
        """
        found = self._tracker.decide(tick)
        if found is None:
            return []
        evidence = (
            f"for {found.seconds:.1f} s the input was {found.times:.1f} times as far from training as is usual; "
            f"the limit is {found.limit_times:.1f}"
        )
        event = Deviation(
            self._stream,
            epoch,
            seq=self._next_seq(),
            kind="unfamiliar",
            expected=(),
            seen=seen,
            evidence=evidence,
            boundary=moment(found.boundary_tick),
            decision=moment(found.decision_tick),
            confidence=found.confidence,
            corrects=None,
            decoder=self._decoder_hash,
        )
        return [event]

    def reset(self) -> None:
        """Begin a new epoch."""
        self._tracker.reset()

    def state(self) -> dict[str, Any]:
        return self._tracker.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if a number is out of range."""
        self._tracker.restore(state)
