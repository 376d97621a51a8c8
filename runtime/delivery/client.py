"""Receives a publisher's events in order, fills holes from its journals, and stores its position in a file.

With a publisher that keeps journals, every durable event within retention arrives once, and those of each stream in the
order of `seq`, across restarts and `kill -9` of either side. Only events that were not acknowledged arrive again, as
the same bytes. Events that are no longer available are reported as `Lost`. A journal that was restored from a backup,
or has lost its `-wal` file, gives numbers again; then all its events arrive again, with a warning.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Lost, decode, encode
from edge_hal.runtime.network.curve_keys import ClientKeys
from edge_hal.runtime.network.endpoint import DEFAULT_ENDPOINT

from .connection import Answer, Connection, LiveMessage, Silence, Unavailable
from .cursor import Position, read_cursor, write_cursor

log = logging.getLogger("edge_hal")

PAGE_EVENTS = 1000
MOST_STREAMS = 1000
"""What is known of each stream takes memory, and a publisher cannot be trusted."""


@dataclass(frozen=True)
class Since:
    """Begin with the first event stored at this wall clock, nanoseconds since 1970, or later."""

    utc_ns: int


Begin = Literal["now", "oldest"] | int | Since
"""`now`; the `oldest` event stored; a `seq`; or a time."""


LATE_NS = 10 * 10**9
"""A message that comes late, over a connection that has ended, was made before those that came already. Within a run
the order of making is not exact: an event waits while its journal cannot be written, a heartbeat does not."""
LONE_TRIES = 3
"""Answers that the journal of the only stream known cannot be read, before messages of others are received."""


@dataclass
class _Followed:
    """The number of the next event of a stream, None before it is known, and what it counts in: see `LiveMessage`.

    Attributes:
        began: an event was returned, or acknowledged earlier. Before, `next` may lie ahead of what is published.
        newest_ns: when the newest message was made that was not behind `next`, wall clock of the publisher. `session`:
            the run that made it.
    """

    next: int | None = None
    numbers: str = ""
    began: bool = False
    newest_ns: int = 0
    session: object = None


class Subscription:
    """Iterate over it, and close it or leave its `with` block. For one thread.

    `raw` is the JSON of the event returned last, as it was published.
    """

    def __init__(
        self,
        endpoint: str,
        stream: str | None,
        *,
        replay: str | None,
        begin: Begin,
        cursor: Path | None,
        timeout_s: float | None,
        keys: ClientKeys | None,
    ) -> None:
        self.raw = b""
        self.endpoint = endpoint
        self._named = stream is not None  # nothing can be returned before the events of this stream
        self._begin, self._cursor = begin, cursor
        self._last = {} if cursor is None else read_cursor(cursor)  # of each stream, the event returned last
        self._acknowledged = dict(self._last)
        if stream is not None and self._last and stream not in self._last:
            why = f"it belongs to the stream '{', '.join(self._last)}'"
            raise EdgeHalError(f"cannot use the cursor {cursor}", why, "use one file for each", exit_code=2)
        self._streams = {name: _Followed(at.seq + 1, at.journal, True) for name, at in self._last.items()}
        self._live: LiveMessage | None = None  # received; it waits until everything before it was returned
        self._ready: deque[tuple[Event, bytes]] = deque()
        self._misdirected = False  # the last answer was of another journal, and that was told
        self._connection = Connection(endpoint, stream, replay, timeout_s, keys)

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Event:
        try:
            while not self._ready:
                self._advance()
        except Silence:
            raise StopIteration from None
        event, self.raw = self._ready.popleft()
        if event.durable or isinstance(event, Lost):
            seq = event.to if isinstance(event, Lost) else event.seq  # type: ignore[attr-defined]
            self._streams[event.stream].began = True
            self._last[event.stream] = Position(self._streams[event.stream].numbers, event.stream, seq)
        return event

    @property
    def waiting(self) -> bool:
        """Whether an event or a report is here already, so that the iteration hardly waits."""
        return bool(self._ready) or self._connection.waiting()

    def ack(self) -> None:
        """The events returned until now have been processed: after a restart, the next ones come. Moves the cursor
        file, if there is one.

        Raises:
            EdgeHalError: the file cannot be written.
        """
        if self._cursor is None or self._last == self._acknowledged:
            return
        write_cursor(self._cursor, self._last)
        self._acknowledged = dict(self._last)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- order -----------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Make something ready: a page of the events before the live message, else the message itself, if it is new."""
        live = self._live = self._live or self._receive()
        followed = self._streams[live.event.stream]
        try:
            if followed.next is None:
                followed.next = self._first(live)
            if live.until < followed.next and self._gone_back(live, followed):
                return
            if followed.next < live.until:
                self._ready.extend(self._fill(live, followed))
                return
        except Unavailable:  # the other streams go on; the next message of this one asks again
            self._live = None
            return
        self._live = None
        if live.until == followed.next:  # else replay has returned it already, or something newer
            followed.newest_ns = max(followed.newest_ns, _made_ns(live.event))
            followed.session = live.event.run.get("session")
            followed.next += live.event.durable
            self._ready.append((live.event, live.raw))

    def _gone_back(self, live: LiveMessage, followed: _Followed) -> bool:
        """Whether numbers that were returned already belong to new events. Nobody knows to which ones, so everything
        comes again. Raises Unavailable."""
        assert followed.next is not None
        late_ns = LATE_NS if live.event.run.get("session") == followed.session else 0
        if not followed.began or _made_ns(live.event) <= followed.newest_ns + late_ns:
            return False
        first = self._ask(live, from_=0, limit=0).first if live.kept else live.until
        log.warning(
            "the journal of '%s' has gone back: event %d came already, and it ends before that. Was it restored from "
            "a backup, or was its -wal file lost? All events that it holds come again, from event %d on: some are new",
            *(live.event.stream, followed.next - 1, first),
        )
        followed.next = first
        return True

    def _receive(self) -> LiveMessage:
        """The next live message. Another journal, or another run without one, counts from 0 again."""
        live = self._connection.receive()
        name = live.event.stream
        if name not in self._streams:
            if len(self._streams) >= MOST_STREAMS:
                raise EdgeHalError(f"{self.endpoint} publishes more than {MOST_STREAMS} streams", "", "name a stream")
            self._streams[name] = _Followed()
        followed = self._streams[name]
        if followed.numbers not in ("", live.numbers):
            followed.next, followed.newest_ns = 0, 0
        followed.numbers = live.numbers
        return live

    def _first(self, live: LiveMessage) -> int:
        """The number to begin with."""
        if isinstance(self._begin, int):
            return self._begin
        if self._begin == "now" or not live.kept:
            return live.until
        if isinstance(self._begin, Since):
            return self._ask(live, since=self._begin.utc_ns, limit=0).begin
        return self._ask(live, from_=0, limit=0).first

    def _ask(self, live: LiveMessage, **question: int) -> Answer:
        """Raises Unavailable, also for the answer of another run: it does not tell what the one followed has kept."""
        tries = 1 if len(self._streams) > 1 else LONE_TRIES
        answer = self._connection.ask(live.event.stream, tries=math.inf if self._named else tries, **question)
        if answer.journal != live.numbers:
            if not self._misdirected:
                log.warning(
                    "past events of '%s' cannot be requested: what answers for %s does not have the journal that is "
                    "published there. If no run was restarted just now, check --replay",
                    *(live.event.stream, self.endpoint),
                )
            self._misdirected = True
            raise Unavailable
        self._misdirected = False
        return answer

    def _fill(self, live: LiveMessage, followed: _Followed) -> Iterator[tuple[Event, bytes]]:
        """One page of the events before the live one. What cannot be read is reported as lost."""
        assert followed.next is not None
        begin, bodies = live.until, list[bytes]()
        if live.kept:
            limit = min(PAGE_EVENTS, live.until - followed.next)
            answer = self._ask(live, from_=followed.next, limit=limit)
            if answer.bodies or answer.begin > followed.next:
                begin, bodies = min(live.until, answer.begin), answer.bodies
        if begin > followed.next:
            yield self._lost(live, followed, begin)
        for body in bodies if followed.next < live.until else ():
            try:
                event = decode(body)
                ours = event.durable and event.stream == live.event.stream
                readable = ours and event.seq == followed.next  # type: ignore[attr-defined]
            except EdgeHalError:
                readable = False
            if readable:
                followed.next += 1
                yield event, body
            else:
                yield self._lost(live, followed, followed.next + 1)

    def _lost(self, live: LiveMessage, followed: _Followed, until: int) -> tuple[Event, bytes]:
        assert followed.next is not None
        run = {key: value for key, value in live.event.run.items() if key in ("session", "journal")}
        lost = Lost(live.event.stream, live.event.epoch, from_=followed.next, to=until - 1, run=run)
        followed.next = until
        return lost, encode(lost)


def _made_ns(event: Event) -> int:
    """When it was made, as it says; 0 if it does not."""
    utc_ns = event.run.get("utc_ns")
    return utc_ns if isinstance(utc_ns, int) else 0


def subscribe(
    endpoint: str = DEFAULT_ENDPOINT,
    stream: str | None = None,
    *,
    replay: str | None = None,
    begin: Begin = "now",
    cursor: Path | None = None,
    timeout_s: float | None = None,
    keys: ClientKeys | None = None,
) -> Subscription:
    """The events of a publisher, those of each stream in order. The publisher may start later.

    Args:
        stream: None: all streams that are published there.
        replay: where past events are requested; default the next port, or `.replay`.
        begin: where to begin; a `cursor` file that exists takes precedence.
        cursor: a file that `ack` stores the position in, for all streams. `begin` holds for a stream that it does not
            know.
        timeout_s: end after so long without an event; default never.
        keys: encrypt, and accept only the publisher with this key.

    Raises:
        EdgeHalError: an endpoint is malformed, or the cursor cannot be read; while iterating, something that is no
            edge-hal publisher answers.
    """
    return Subscription(endpoint, stream, replay=replay, begin=begin, cursor=cursor, timeout_s=timeout_s, keys=keys)
