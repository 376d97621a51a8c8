"""The events `deviation` and `cycle` of one stream: from decisions, through the rules of the procedure, to the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.decoding.decoder import Decision
from edge_hal.events import Cycle as CycleEvent
from edge_hal.events import Deviation as DeviationEvent
from edge_hal.events import Event, Moment
from edge_hal.procedure.conformance import Conformance, Cycle, Deviation
from edge_hal.procedure.kept_cycle import NOT_KNOWN, KeptCycle
from edge_hal.procedure.rules import Procedure

KINDS = ("skipped", "out_of_order", "repeated", "overdue")
REMEMBERED = 512
"""Moments of boundaries, and deviations, that later events may name: twice what a cycle lists."""


def has_rules(procedure: Procedure) -> bool:
    """Whether anything can be a deviation or a cycle. Procedures of versions before 0.3 have no rules."""
    return any(
        step.requires
        or step.not_after
        or not step.repeatable
        or step.begins_cycle
        or step.ends_cycle
        or step.overdue_s is not None
        for step in procedure.steps.values()
    )


class ProcedureReports:
    """Follows one epoch after the other.

    Args:
        stream: the name that events carry.
        decoder_hash: fingerprint of thresholds and procedure.
        next_seq: gives each event its number.
    """

    def __init__(
        self, procedure: Procedure, model_hz: float, stream: str, decoder_hash: str, next_seq: Callable[[], int]
    ) -> None:
        self._conformance = Conformance(procedure, model_hz)
        self._names, self._steps, self._hz = tuple(procedure.steps), list(procedure.steps.values()), model_hz
        self._stream, self._decoder_hash, self._next_seq = stream, decoder_hash, next_seq
        self._moments = np.full((REMEMBERED, 3), -1, np.int64)  # tick, frame, t_ns of boundaries; the newest overwrite
        self._told = np.full((REMEMBERED, 3), -1, np.int64)  # number, seq, kind of deviations
        self._counts = np.zeros(2, np.int64)  # of the rows written so far

    def reset(self, *, mid_cycle: bool) -> None:
        """Begin a new epoch. `mid_cycle`: it may begin within a cycle. Then what that cycle lacks is not reported."""
        self._conformance.reset(mid_cycle=mid_cycle)
        self._moments[:], self._told[:], self._counts[:] = -1, -1, 0

    def kept(self) -> KeptCycle:
        """What is known of the cycle, for another epoch or run. Deviations have their `seq`."""
        kept = self._conformance.kept()
        return replace(kept, called={name: self._seq(number) for name, number in kept.called.items()})

    def resume(self, kept: KeptCycle, pause_s: float) -> None:
        """Begin a new epoch within a cycle of which something is known, `pause_s` after that."""
        self.reset(mid_cycle=True)
        self._conformance.resume(kept, pause_s)
        for number, seq in enumerate(kept.called.values()):
            if seq != NOT_KNOWN:
                self._tell(number, seq, "skipped")

    def state(self) -> dict[str, Any]:
        return {
            "conformance": self._conformance.state(),
            "moments": self._moments.copy(),
            "told": self._told.copy(),
            "counts": self._counts.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if a number is out of range."""
        moments, told, counts = state["moments"], state["told"], state["counts"]
        if min(moments.min(), told.min()) < -1 or counts.min() < 0 or told[:, 2].max() >= len(KINDS):
            raise ValueError("the reports of the procedure are out of range")
        self._conformance.restore(state["conformance"])
        self._moments, self._told, self._counts = moments.copy(), told.copy(), counts.copy()

    def follow(
        self,
        epoch: int,
        tick: int,
        decision: Decision | None,
        probability: NDArray[np.floating] | None,
        moment: Callable[[int], Moment],
    ) -> Iterator[Event]:
        """What is to be reported at `tick`, after `decision` if there is one.

        Args:
            probability: (K,) what is believed at `tick`; None without a belief.
            moment: gives a recent tick's moment.
        """
        if decision is None:
            found = self._conformance.passed(tick, probability)
        else:
            self._remember(moment(decision.boundary_tick))
            found = self._conformance.decided(
                decision.label, decision.boundary_tick, decision.decision_tick, decision.confidence
            )
        for each in found:
            yield self._event(each, epoch, moment)

    def finish(self, epoch: int, tick: int, moment: Callable[[int], Moment]) -> Iterator[Event]:
        """What is to be reported when the epoch ends at `tick`."""
        for each in self._conformance.finish(tick):
            yield self._event(each, epoch, moment)

    def progress(self, label: int, age_ticks: int) -> float | None:
        """The share of the usual duration of a cycle that is over, if `label` has lasted `age_ticks`; None if the
        procedure does not say where a cycle ends. A step that comes again was over before, so nothing is taken back."""
        if not any(step.ends_cycle for step in self._steps):
            return None
        done, own_s = self._conformance.done(), self._steps[label].median_s
        if not self._conformance.came_before(label):
            own_s = min(age_ticks / self._hz, own_s)
        over_s = own_s + sum(step.median_s for each, step in enumerate(self._steps) if done[each] and each != label)
        left_s = (
            self._steps[label].median_s
            - own_s
            + sum(
                step.median_s
                for each, step in enumerate(self._steps)
                if not done[each] and each != label and not step.optional and not step.background
            )
        )
        return over_s / (over_s + left_s) if over_s + left_s > 0 else None

    # --- inside ---------------------------------------------------------------------------------

    def _event(self, found: Deviation | Cycle, epoch: int, moment: Callable[[int], Moment]) -> Event:
        if isinstance(found, Deviation):
            return self._deviation(found, epoch, moment)
        steps = [
            {
                "action": self._names[step.label],
                "begin_t_ns": self._at(step.begin_tick, moment).t_ns,
                "end_t_ns": self._at(step.end_tick, moment).t_ns,
            }
            for step in found.steps
        ]
        return CycleEvent(
            self._stream,
            epoch,
            seq=self._next_seq(),
            begin=self._at(found.begin_tick, moment),
            end=self._at(found.end_tick, moment),
            steps=tuple(steps),
            deviations=tuple(self._remembered(found.deviations)),
            missing=tuple(self._names[label] for label in found.missing),
            complete=found.complete,
            decoder=self._decoder_hash,
            before=None if found.before is None else tuple(self._names[label] for label in found.before),
        )

    def _deviation(self, found: Deviation, epoch: int, moment: Callable[[int], Moment]) -> DeviationEvent:
        seq = self._next_seq()
        self._tell(found.number, seq, found.kind)
        corrects = NOT_KNOWN if found.corrects is None else self._seq(found.corrects)
        return DeviationEvent(
            self._stream,
            epoch,
            seq=seq,
            kind=found.kind,
            expected=() if found.expected is None else (self._names[found.expected],),
            seen=None if found.seen is None else self._names[found.seen],
            evidence=self._words(found),
            boundary=self._at(found.boundary_tick, moment),
            decision=moment(found.decision_tick),
            confidence=found.confidence,
            corrects=None if corrects == NOT_KNOWN else corrects,
            decoder=self._decoder_hash,
        )

    def _words(self, found: Deviation) -> str:
        """Why a deviation is believed."""
        seen = None if found.seen is None else self._names[found.seen]
        expected = None if found.expected is None else self._names[found.expected]
        if found.kind == "overdue":
            lasted_s, limit_s = (found.evidence[key] / self._hz for key in ("ticks", "limit_ticks"))
            return f"'{seen}' has lasted {lasted_s:.1f} s, the limit is {limit_s:.1f} s"
        if found.kind == "repeated":
            times = int(found.evidence["times_before"])
            return f"'{seen}' was done {'before' if times == 1 else f'{times} times before'} in this cycle"
        if found.kind == "out_of_order":
            return f"'{seen}' was done after '{expected}'"
        if "cycle_ended" in found.evidence:
            return f"the cycle ended without '{expected}'"
        return f"'{seen}' began, and '{expected}' was not done before"

    def _remember(self, moment: Moment) -> None:
        self._moments[self._counts[0] % REMEMBERED] = (moment.tick, moment.frame, moment.t_ns)
        self._counts[0] += 1

    def _at(self, tick: int, moment: Callable[[int], Moment]) -> Moment:
        """The moment of a boundary, which may be long ago, or of a recent tick."""
        rows = np.flatnonzero(self._moments[:, 0] == tick)
        return Moment(*self._moments[rows[0]].tolist()) if len(rows) else moment(tick)

    def _tell(self, number: int, seq: int, kind: str) -> None:
        self._told[self._counts[1] % REMEMBERED] = (number, seq, KINDS.index(kind))
        self._counts[1] += 1

    def _seq(self, number: int) -> int:
        """The `seq` of a deviation; `NOT_KNOWN` of one that is no longer remembered."""
        row = self._row(number)
        return NOT_KNOWN if row is None else int(row[1])

    def _row(self, number: int) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        rows = np.flatnonzero(self._told[:, 0] == number)
        return self._told[rows[0]] if len(rows) else None

    def _remembered(self, numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The deviations of these numbers that are remembered, as a cycle names them."""
        for number in numbers:
            row = self._row(number)
            if row is not None:
                yield {"seq": int(row[1]), "kind": KINDS[row[2]]}
