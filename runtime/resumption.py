"""What was believed, and known of the cycle, before a pause: kept with the journal, and resumed if the pause was short.

Within a run the pause is stream time, which is monotonic for cameras. Between two runs it is measured with the wall
clock, and not believed if that clock ran backwards, jumped or was never set.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from .delivery.journal import LARGEST_SEQ, OLDEST_NS
from .delivery.publisher import Publisher
from .observer import Observer
from .recording.replay_source import ReplaySource
from .sources.base import Source
from .stream.clock import Break
from .stream.recognizer import Recognizer
from .stream.resumed import Instant, Noted, Resumed, read_row

JUMP_NS = 10**9
"""Wall clock and boot clock may differ by this over a pause. More is a jump of the wall clock."""

log = logging.getLogger("edge_hal.run")


def pause_ns(before: Instant, now: Instant) -> int | None:
    """Nanoseconds between two moments, perhaps of different processes; None if the wall clock cannot be believed."""
    passed_ns = now.utc_ns - before.utc_ns
    if passed_ns < 0 or before.utc_ns < OLDEST_NS:
        return None
    if before.boot and before.boot == now.boot:
        return None if abs(now.boot_ns - before.boot_ns - passed_ns) > JUMP_NS else passed_ns
    if now.boot_ns > passed_ns + JUMP_NS:  # started since then, yet it has run for longer
        return None
    return passed_ns


class Resumer:
    """Resumes what a recogniser can use of it, tells the observers, and gives the publisher what is to be kept.

    Args:
        limit_s: the longest pause.
    """

    def __init__(self, limit_s: float, source: Source, publisher: Publisher, observers: Sequence[Observer]) -> None:
        self._publisher, self._observers = publisher, observers
        self._found: Resumption
        if isinstance(source, ReplaySource):
            self._found = ReplayedResumption(source.resumed)
        else:
            self._found = LiveResumption(limit_s, source, publisher.kept_belief, publisher.next_seq)

    def at_start(self, recognizer: Recognizer) -> Resumed | None:
        """What the event `start` tells. It is resumed at the first frame."""
        found = self._found.at_start()
        usable = self._usable(found, recognizer)
        if found is not None and usable is None:
            log.warning("the belief in the journal is not resumed: the bundle has other labels, or follows no belief")
        return usable

    def at_first_frame(self, recognizer: Recognizer) -> None:
        self.resume(recognizer, self._usable(self._found.at_first_frame(), recognizer))

    def at_break(self, due: Break, recognizer: Recognizer) -> Resumed | None:
        """What the event `gap` tells. Then call `resume`."""
        return self._usable(self._found.at_break(due), recognizer)

    def resume(self, recognizer: Recognizer, found: Resumed | None) -> None:
        if found is not None:
            recognizer.resume(found.belief, found.cycle, found.pause_ns / 1e9)

    def note(self, recognizer: Recognizer) -> None:
        """The recogniser has a new belief."""
        self._keep(self._found.note(recognizer))

    def close(self, recognizer: Recognizer) -> None:
        """The epoch has ended, and what is to be said of its cycle was said."""
        self._keep(self._found.close(recognizer))

    def _usable(self, found: Resumed | None, recognizer: Recognizer) -> Resumed | None:
        """`found`, if the recogniser can use it; then it is recorded."""
        if found is None or not recognizer.can_resume(found.belief):
            return None
        if recognizer.cycle() is None:
            found = replace(found, cycle=None)
        for observer in self._observers:
            observer.resumed(found)
        return found

    def _keep(self, noted: Noted | None) -> None:
        if noted is not None:
            self._publisher.note(noted)


class Resumption(Protocol):
    """What a run may resume. Each method says what, or None."""

    def note(self, recognizer: Recognizer) -> Noted | None:
        """The recogniser has a new belief: what the journal should keep of it."""

    def close(self, recognizer: Recognizer) -> Noted | None:
        """The epoch has ended, and what is to be said of its cycle was said: what the journal should keep now."""

    def at_start(self) -> Resumed | None:
        """For the event `start`."""

    def at_first_frame(self) -> Resumed | None:
        """For the first epoch: the pause has lasted longer meanwhile."""

    def at_break(self, due: Break) -> Resumed | None:
        """For the epoch after `due`."""


class LiveResumption:
    """Of cameras: `row` of the journal at the start, and the newest belief after each break. Of files: only after a
    reload.

    Args:
        limit_s: the longest pause.
        next_seq: of the journal. A row that names a later event is of another journal.
    """

    def __init__(self, limit_s: float, source: Source, row: bytes | None, next_seq: int = LARGEST_SEQ) -> None:
        self._limit_ns, self._live = round(limit_s * 1e9), source.live
        self._row, self._next_seq = row if self._live and limit_s > 0 else None, next_seq
        self._noted: Noted | None = None
        self._before: Resumed | None = None
        self._began_ns = 0

    def note(self, recognizer: Recognizer) -> Noted | None:
        belief = recognizer.belief
        if belief is None or not self._limit_ns:
            return None
        spec = recognizer.spec
        # The journal needs the cycle. A file needs it at the end of an epoch only, see `close`.
        at, cycle = Instant.now(), recognizer.cycle() if self._live else None
        self._noted = Noted(belief, spec.labels, spec.model_hz, at, recognizer.belief_t_ns, cycle)
        return self._noted if self._live else None

    def close(self, recognizer: Recognizer) -> Noted | None:
        # Without a belief another bundle has just taken over, or the epoch had no tick.
        if self._noted is None or recognizer.belief is None:
            return None
        self._noted = replace(self._noted, cycle=recognizer.cycle())
        return self._noted if self._live else None

    def at_start(self) -> Resumed | None:
        if self._row is None:
            return None
        self._began_ns = time.monotonic_ns()
        try:
            at, belief, cycle = read_row(self._row)
            if cycle is not None and cycle.newest_seq >= self._next_seq:
                raise ValueError("it names events that are not in this journal")
        except ValueError as error:
            log.warning("the belief in the journal is not resumed: %s", error)
            return None
        passed_ns = pause_ns(at, Instant.now())
        if passed_ns is None:
            log.warning("the belief in the journal is not resumed: the clock ran backwards or jumped since then")
        elif passed_ns <= self._limit_ns:
            self._before = Resumed(at.utc_ns, belief, passed_ns, cycle)
        return self._before

    def at_first_frame(self) -> Resumed | None:
        before = self._before
        if before is None:
            return None
        return self._within(replace(before, pause_ns=before.pause_ns + time.monotonic_ns() - self._began_ns))

    def at_break(self, due: Break) -> Resumed | None:
        noted = self._noted
        if noted is None or not (self._live or due.reason == "reload"):
            return None
        return self._within(Resumed(noted.at.utc_ns, noted.kept(), due.end.t_ns - noted.t_ns, noted.cycle))

    def _within(self, found: Resumed) -> Resumed | None:
        return found if 0 <= found.pause_ns <= self._limit_ns else None


class ReplayedResumption:
    """What the recorded run resumed, for a replay."""

    def __init__(self, take: Callable[[], Resumed | None]) -> None:
        self._take = take

    def note(self, recognizer: Recognizer) -> Noted | None:
        return None

    def close(self, recognizer: Recognizer) -> Noted | None:
        return None

    def at_start(self) -> Resumed | None:
        return self._take()

    def at_first_frame(self) -> Resumed | None:
        return self._take()

    def at_break(self, due: Break) -> Resumed | None:
        return self._take()
