"""One stream of a station, in a thread of its own. Whatever ends its run, the other streams go on.

A run that fails, or whose source delivers no more frames, begins again: after a second, and later each time.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event
from edge_hal.runtime import threads
from edge_hal.runtime.delivery.prometheus import Vitals
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.shared_address import SharedAddress
from edge_hal.runtime.observer import Checkpoint, EventCallback, Observer
from edge_hal.runtime.options import RunOptions, Summary
from edge_hal.runtime.runner import OpenedRun
from edge_hal.runtime.sources.frame import Frame
from edge_hal.runtime.stop import Stop
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.runtime.stream.recognizer import Recognizer
from edge_hal.runtime.stream.ring import TIME

from .turns import Turns
from .views import View

Opening = Callable[[RunOptions, Stop], AbstractContextManager[OpenedRun]]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
HEALTHY_S = 60.0
"""After a run of this length, the pauses begin with the first one again."""
END_S = 10.0
"""A stream that has sent no event for this long after it was asked to end is left behind."""

log = logging.getLogger("edge_hal.run")


class StreamThread(Observer):
    """Runs a stream until it ends, or until it is asked to stop.

    Args:
        opening: opens one run; see `open_run`.
        views: this stream as a view of fused streams. They may be set at any time (`watch`).
        ended: called in the thread when no more runs follow.

    Attributes:
        bundle: the one in use; None before the first run.
        priority: of its turns; it may be set at any time.
        summary: of the last run that ended without an error.
        over: no more runs follow.
    """

    def __init__(
        self,
        options: RunOptions,
        opening: Opening,
        address: SharedAddress,
        turns: Turns,
        *,
        views: Sequence[View] = (),
        priority: int,
        on_event: Callable[[Event], None] | None,
        ended: Callable[[], None],
    ) -> None:
        self.options = options
        self.summary: Summary | None = None
        self.priority = priority
        self.bundle: Bundle | None = None
        self._views = tuple(views)
        self._opening, self._address, self._turns = opening, address, turns
        self._on_event, self._ended = on_event, ended
        self._stop, self._again, self._replaced = Stop(), threading.Event(), False
        self._ending = threading.Lock()  # a view must not be told that it goes on after it was told that it is over
        self._publisher: Publisher | None = None
        self._state: dict[str, Any] = {"state": "starting", "failures": 0, "why": None}
        for view in self._views:
            view.over(False)
        self._thread = threads.Worker(self._serve, f"stream-{options.stream}", stream=options.stream)
        self._thread.start()

    @property
    def over(self) -> bool:
        return bool(self._state["state"] == "ended")

    def stop(self, *, replaced: bool = False) -> None:
        """Ask the run to end; `finish` waits for it. `replaced`: another thread goes on with the stream, so fused
        streams go on too, even if all their views end."""
        self._replaced = replaced
        self._stop.ask()
        self._again.set()

    def finish(self) -> None:
        """A thread that makes no progress is left behind, with its source and its journal."""
        self._thread.finish(self._progress, END_S)

    def reload(self) -> None:
        """Read the bundle again if its files have changed. A run that waits to begin again does so at once."""
        self._stop.ask_reload()
        self._again.set()

    def watch(self, views: Sequence[View]) -> None:
        """Hand posteriors over to these views from now on."""
        with self._ending:
            before, self._views = self._views, tuple(views)
            for view in self._views:
                if view not in before:
                    view.over(self.over)

    def frame_taken(self, frame: Frame, missed: int, period_ns: int | None) -> None:
        for view in self._views:
            view.frame_taken(frame, asap=self.options.pace == "asap", stopped=lambda: self._stop.asked)

    def stepped(self, vectors: NDArray[np.float32], t_ns: int, pyramid: PyramidStream) -> None:
        for view in self._views:
            last = pyramid.ticks
            times_ns = pyramid.ring.rows(0, TIME, last - len(vectors), last)
            view.stepped(pyramid.spec, times_ns, pyramid.heads(len(vectors)))

    def bundle_changed(self, successor: Recognizer, checkpoint: Checkpoint) -> None:
        self.bundle = successor.bundle

    def health(self) -> dict[str, Any]:
        """For the health of the run: how often this stream was begun again, and why the last time."""
        return {"restarts": {key: self._state[key] for key in ("failures", "why")}}

    def vitals(self) -> Vitals:
        """The state of the stream; any thread may ask."""
        publisher, state = self._publisher, self._state
        troubles = () if state["state"] != "waiting" else (f"it failed and begins again: {state['why']}",)
        if publisher is None:
            return Vitals(self.options.stream, {}, {}, 0, 0, troubles, state)
        [now] = publisher.vitals()
        return Vitals(now.stream, now.counters, now.latency_ms, now.events, now.held, now.troubles + troubles, state)

    def _serve(self) -> None:
        pause_s = FIRST_PAUSE_S
        try:
            while not self._stop.asked:
                began_s = time.monotonic()
                why = self._run()
                if why is None or self._stop.asked or self._address.failure is not None:
                    break
                pause_s = FIRST_PAUSE_S if time.monotonic() - began_s > HEALTHY_S else pause_s
                self._tell("waiting", why=why, failures=self._state["failures"] + 1)
                log.error("%s; it begins again in %g s", why, pause_s)
                self._again.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            with self._ending:
                self._tell("ended")
                for view in () if self._replaced else self._views:
                    view.over(True)
            self._ended()

    def _run(self) -> str | None:
        """Run once. Returns why it must begin again, None if it must not."""
        self._again.clear()
        self._tell("starting")
        try:
            with ExitStack() as closing:
                options = _recording_anew(self.options)
                opened = closing.enter_context(self._opening(options, self._stop))
                self.bundle = opened.recognizer.bundle
                for view in self._views:
                    view.began()
                closing.callback(self._tell_views_ended)
                publisher = Publisher(self._address, options.stream, journal=opened.journal, latency=opened.latency)
                self._publisher = closing.enter_context(publisher)
                closing.callback(self._forget_publisher)
                self._tell("running")
                told = [] if self._on_event is None else [EventCallback(self._on_event)]
                self.summary = opened.run(publisher, [*told, self], lambda: self._turns.turn(self.priority))
        except EdgeHalError as error:
            return f"{error.what}: {error.why}" if error.why else error.what
        except Exception as error:  # whatever it is, it is this stream's alone
            return threads.describe(error)
        log.info("the stream ended: %s", self.summary.reason)
        return "the camera delivers no more frames" if self.summary.reason == "source" else None

    def _progress(self) -> tuple[str, int]:
        """Changes as long as the end of this stream gets on."""
        publisher = self._publisher
        return self._state["state"], 0 if publisher is None else publisher.vitals()[0].events

    def _tell_views_ended(self) -> None:
        for view in self._views:
            view.ended()

    def _forget_publisher(self) -> None:
        self._publisher = None

    def _tell(self, state: str, **more: Any) -> None:
        self._state = {**self._state, "state": state, **more}  # a new dict, because other threads read the old one


def _recording_anew(options: RunOptions) -> RunOptions:
    """A recording of a whole run is never written over: FOLDER, else the first free one of FOLDER-2, FOLDER-3, ..."""
    folder = options.record
    if folder is None or options.record_around is not None:  # pieces of several runs share a folder
        return options
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return replace(options, record=next(path for path in itertools.chain([folder], numbered) if not path.exists()))
