"""Run a station: one address, a thread for each stream, changes at SIGHUP."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from edge_hal.bundle import Bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event
from edge_hal.runtime.delivery.prometheus import MetricsServer, Vitals
from edge_hal.runtime.delivery.shared_address import SharedAddress
from edge_hal.runtime.model import Models
from edge_hal.runtime.network.descriptors import raise_limit
from edge_hal.runtime.network.endpoint import default_replay
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.runner import OpenedRun, open_run, quick_switches
from edge_hal.runtime.stop import Stop, signals

from .fused_run import open_fused
from .options import StationOptions, StationSummary
from .stream_thread import StreamThread
from .turns import Turns
from .views import View, Views

log = logging.getLogger("edge_hal.run")


def run_station(
    read: Callable[[], StationOptions],
    *,
    on_ready: Callable[[str], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    stop: Stop | None = None,
) -> StationSummary:
    """Run all streams until each has ended, `stop` is asked for, or SIGINT or SIGTERM arrives. SIGHUP calls `read`
    again.

    Args:
        read: the options; raises EdgeHalError if they cannot be read.
        on_ready: called with the endpoint once it is bound, before the first stream begins.
        on_event: called in the thread of a stream with each of its durable events.

    Raises:
        EdgeHalError: the options cannot work, an address cannot be bound, or publishing failed. What happens to one
            stream later is logged and told by `/health`; it is begun again.
    """
    stop = stop or Stop()
    raise_limit()
    with signals(stop):
        options = read()
        options.check()
        address = options.address
        with (
            SharedAddress(
                address.endpoint,
                options.runs,
                replay=address.replay or default_replay(address.endpoint),
                keys=address.keys,
                insecure=address.insecure,
            ) as shared,
            quick_switches(),
            ExitStack() as closing,
        ):
            station = Station(options, shared, on_event)
            if address.metrics is not None:
                served = MetricsServer(address.metrics, station.vitals, more=station.health, insecure=address.insecure)
                closing.enter_context(served)
            if on_ready is not None:
                on_ready(shared.endpoint)
            stop.on_ask(station.wake)
            closing.callback(station.end)
            station.begin()
            while not stop.asked and station.going_on():
                if stop.reload_asked:
                    stop.reload_asked = False
                    station.reload(read)
                else:
                    station.wait()
    if shared.failure is not None:
        raise shared.failure
    return StationSummary({name: each.summary for name, each in station.streams.items()})


class Station:
    """The streams of a station. For the main thread, but for `wake`, `vitals` and `health`."""

    def __init__(
        self, options: StationOptions, address: SharedAddress, on_event: Callable[[Event], None] | None
    ) -> None:
        self.streams: dict[str, StreamThread] = {}
        self._options, self._address, self._on_event = options, address, on_event
        self._models, self._turns = Models(), Turns(len(os.sched_getaffinity(0)))
        self._views: dict[str, Views] = {}  # by fused stream
        self._reloaded: dict[str, Any] | None = None  # a new dict each time, because another thread reads it
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()  # a signal handler may put into it at any time

    def begin(self) -> None:
        self._views = {name: Views(each.views) for name, each in self._options.fused.items()}
        for name in self._options.runs:
            self._start(name)

    def going_on(self) -> bool:
        return not all(each.over for each in self.streams.values()) and self._address.failure is None

    def wait(self) -> None:
        """Until a stream has ended, or something was asked for."""
        self._wakes.get()

    def wake(self) -> None:
        self._wakes.put(None)

    def vitals(self) -> list[Vitals]:
        return [each.vitals() for each in list(self.streams.values())]

    def health(self) -> dict[str, Any]:
        """What concerns no stream: nothing before the first reload. `refused`: why the last one was, or None."""
        return {} if self._reloaded is None else {"reload": self._reloaded}

    def reload(self, read: Callable[[], StationOptions]) -> None:
        """Begin the streams that are new, end those that are gone, and begin those that changed again. The others go on
        untouched, unless the files of their bundle changed. If anything is wrong, nothing changes at all."""
        try:
            options = read()
            options.check()
            if options.address != self._options.address:
                why = "pub, replay, metrics, key, allowed and insecure cannot change while it runs"
                raise EdgeHalError("the address of the station differs", why, "restart it: no event is lost")
        except Exception as error:  # whatever is wrong with the file, the streams go on
            why = str(error) if isinstance(error, EdgeHalError) else f"{type(error).__name__}: {error}"
            log.error("the station goes on as it was: %s", why)
            self._tell_reload(why)
            return
        before, after = ({**each.streams, **each.fused} for each in (self._options, options))
        ending = [name for name in before if after.get(name) != before[name]]
        for name in ending:
            self.streams[name].stop(replaced=name in after)
        for name in ending:
            self.streams[name].finish()
            if name not in after:
                del self.streams[name]
        self._options = options
        self._address.expect(after)
        begun = [name for name in after if before.get(name) != after[name]]
        for name, each in options.fused.items():
            over = name not in begun and (self.streams[name].over or self._views[name].all_over)
            if over and any(view in begun for view in each.views):  # it ended with its views, or is about to
                self.streams[name].stop()
                self.streams[name].finish()
                begun.append(name)
            if name in begun:
                self._views[name] = Views(each.views)
        self._views = {name: self._views[name] for name in options.fused}
        for name in after:
            if name in begun:
                self._start(name)
            else:
                self.streams[name].watch(self._views_of(name))
                self.streams[name].priority = options.priority.get(name, 0)
                self.streams[name].reload()
        added = [name for name in after if name not in before]
        removed = [name for name in before if name not in after]
        changed = [name for name in ending if name in after]
        told = {"added": added, "removed": removed, "changed": changed}
        texts = [f"{what}: {', '.join(names)}" for what, names in told.items() if names]
        log.info("the station was read again, %s", "; ".join(texts) or "no stream changed", extra={"fields": told})
        self._tell_reload(None)

    def end(self) -> None:
        for each in self.streams.values():
            each.stop()
        for each in self.streams.values():
            each.finish()

    def _tell_reload(self, refused: str | None) -> None:
        done = 0 if self._reloaded is None else self._reloaded["done"]
        self._reloaded = {"done": done + (refused is None), "refused": refused}

    def _start(self, name: str) -> None:
        fused = self._options.fused.get(name)

        def opening(options: RunOptions, stop: Stop) -> AbstractContextManager[OpenedRun]:
            if fused is None:
                return open_run(options, self._models, stop, reload_same=False)
            return open_fused(fused, self._options.streams, self._views[name], stop, self._bundles)

        self.streams[name] = StreamThread(
            self._options.runs[name],
            opening,
            self._address,
            self._turns,
            views=self._views_of(name),
            priority=self._options.priority.get(name, 0),
            on_event=self._on_event,
            ended=self.wake,
        )

    def _views_of(self, stream: str) -> list[View]:
        """What a stream is in fused streams."""
        return [each.views[stream] for each in self._views.values() if stream in each.names]

    def _bundles(self) -> dict[str, Bundle]:
        """The bundles that the streams use now."""
        return {name: each.bundle for name, each in list(self.streams.items()) if each.bundle is not None}
