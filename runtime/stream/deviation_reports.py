"""The events `deviation` and `cycle` of one stream: what the procedure and the familiarity of the input give.

What the bundle does not know, or the user does not want, is not followed and gives no event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.decoding.belief import Belief
from edge_hal.decoding.decoder import Decision
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import check_unfamiliar
from edge_hal.events import Event, Moment
from edge_hal.procedure.kept_cycle import KeptCycle

from .familiarity_reports import FamiliarityReports
from .procedure_reports import ProcedureReports, has_rules


class DeviationReports:
    """Follows one epoch after the other.

    Args:
        config: of the decoder.
        stream: the name that events carry.
        next_seq: gives each event its number.
        wanted: whether anything is reported.

    Raises:
        EdgeHalError: a threshold that the bundle has no use for.
    """

    def __init__(
        self, bundle: Bundle, config: DecoderConfig, stream: str, next_seq: Callable[[], int], *, wanted: bool
    ) -> None:
        check_unfamiliar(config, bundle.familiarity)
        spec, thresholds = bundle.spec, config.fingerprint()
        self._procedure: ProcedureReports | None = None
        if wanted and config.procedure is not None and has_rules(config.procedure):
            self._procedure = ProcedureReports(config.procedure, spec.model_hz, stream, thresholds, next_seq)
        self._familiarity: FamiliarityReports | None = None
        per_h = config.unfamiliar_per_h
        if wanted and bundle.familiarity is not None and per_h > 0:
            self._familiarity = FamiliarityReports(bundle.familiarity, per_h, spec, stream, thresholds, next_seq)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """The vectors (n, D) of the next ticks, which are stepped at once."""
        if self._familiarity is not None:
            self._familiarity.add(vectors)

    def follow(
        self,
        epoch: int,
        tick: int,
        decision: Decision | None,
        probability: NDArray[np.floating] | None,
        action: str | None,
        moment: Callable[[int], Moment],
    ) -> Iterator[Event]:
        """What is to be reported at `tick`, after `decision` if there is one.

        Args:
            probability: (K,) what is believed at `tick`; None without a belief.
            action: the one that goes on.
            moment: gives a recent tick's moment.
        """
        if self._procedure is not None:
            yield from self._procedure.follow(epoch, tick, decision, probability, moment)
        if self._familiarity is not None:
            yield from self._familiarity.follow(epoch, tick, action, moment)

    def finish(self, epoch: int, tick: int, moment: Callable[[int], Moment]) -> list[Event]:
        """What is to be said of the cycle that goes on, if the epoch ends at `tick`."""
        return [] if self._procedure is None else list(self._procedure.finish(epoch, tick, moment))

    def progress(self, belief: Belief) -> float | None:
        """How far the cycle is, see `ProcedureReports.progress`; None if the procedure is not followed."""
        if self._procedure is None:
            return None
        return self._procedure.progress(belief.label, belief.tick + 1 - belief.began(belief.label))

    def reset(self) -> None:
        """Begin a new epoch."""
        self.begin_mid_cycle()
        if self._familiarity is not None:
            self._familiarity.reset()

    def begin_mid_cycle(self) -> None:
        """The epoch may begin within a cycle. Before its first tick."""
        if self._procedure is not None:
            self._procedure.reset(mid_cycle=True)

    def kept(self) -> KeptCycle | None:
        """What is known of the running cycle; None if the procedure is not followed."""
        return None if self._procedure is None else self._procedure.kept()

    def resume(self, cycle: KeptCycle | None, pause_s: float) -> None:
        """Begin the epoch `pause_s` after what was kept of a cycle, if something was."""
        if cycle is not None and self._procedure is not None:
            self._procedure.resume(cycle, pause_s)

    def state(self) -> dict[str, Any]:
        return {
            "procedure": None if self._procedure is None else self._procedure.state(),
            **({} if self._familiarity is None else {"familiarity": self._familiarity.state()}),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if a number is out of range."""
        if self._procedure is not None:
            self._procedure.restore(state["procedure"])
        if self._familiarity is not None:
            self._familiarity.restore(state["familiarity"])
