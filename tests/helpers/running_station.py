"""A station that runs in a thread of the test, and what it publishes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edge_hal.events import Event
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.station.options import AddressOptions, StationOptions, StationSummary
from edge_hal.runtime.station.run import run_station
from edge_hal.runtime.stop import Stop
from tests.helpers.loops import ANY_PORT

TIMEOUT_S = 60.0


class Heard:
    """The events of each stream, as they were published. `until` waits for one."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.setdefault(event.stream, []).append(event)
            self._changed.notify_all()

    def until(self, condition: Callable[[dict[str, list[Event]]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.events), TIMEOUT_S), self.events.keys()

    def count(self, name: str, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events.get(name, ()))


def options_of(*streams: RunOptions, **address: Any) -> StationOptions:
    return StationOptions({each.stream: each for each in streams}, AddressOptions(ANY_PORT, **address))


@contextmanager
def running(options: list[StationOptions], heard: Heard, stop: Stop) -> Iterator[list[StationSummary]]:
    """A station in a thread; `options[-1]` is what its file says at present. The summary is in the list at the end."""
    ended: list[Any] = []

    def work() -> None:
        try:
            ended.append(run_station(lambda: options[-1], on_event=heard, stop=stop))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ended
    finally:
        stop.ask()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive() and isinstance(ended[0], StationSummary), ended
