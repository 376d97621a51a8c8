"""What the server knows of each stream: the newest events in memory, older ones in journals."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Heartbeat, Lost, Now, decode
from edge_hal.runtime.delivery.journal_reader import JournalReader

STREAMS = 64
KEPT_EVENTS, KEPT_BYTES, KEPT_NOW = 4000, 8_000_000, 1000
"""What is kept of one stream in memory: events, their bytes, and reports `now`."""
HELLO_EVENTS, HELLO_NOW = 200, 500
"""What the first message to a page holds of one stream. The page asks for more when it shows them."""
PAGE_EVENTS, PAGE_BYTES = 500, 4_000_000


@dataclass(frozen=True)
class Kept:
    """One event in memory. `number` counts those of the stream; `origin`: the journal that stores it, or None."""

    number: int
    origin: str | None
    seq: int
    utc_ns: int
    raw: bytes


@dataclass(frozen=True)
class Page:
    """Events in the order of the stream, as published. `older` asks for those before them; None: there are none."""

    events: Sequence[bytes]
    older: str | None

    def json(self) -> bytes:
        return b'{"events":[' + b",".join(self.events) + b'],"older":' + json.dumps(self.older).encode() + b"}"


@dataclass
class Stream:
    """`now`: the newest reports in short form, (session, t_ns, action, probability), one for each change of the
    action. `reports`: the newest report of each type, as published. `address`: where its events come from."""

    kept: deque[Kept] = field(default_factory=deque)
    kept_bytes: int = 0
    count: int = 0
    now: deque[tuple[str, int, str, float]] = field(default_factory=lambda: deque(maxlen=KEPT_NOW))
    reports: dict[str, bytes] = field(default_factory=dict)
    address: str = ""
    preview: str | None = None
    bundle: str = ""
    decoder: str = ""


class History:
    """For any thread.

    Args:
        journals: files of runs, which hold what is older than the memory. They may be written meanwhile.

    Raises:
        EdgeHalError: a journal cannot be read.
    """

    def __init__(self, journals: Sequence[Path] = ()) -> None:
        self._lock = threading.Lock()
        self._streams: dict[str, Stream] = {}
        self._journals = tuple(journals)
        for path in journals:
            name = _stream_of(path)
            if name is not None:
                self._streams.setdefault(name, Stream())

    def add(self, event: Event, raw: bytes, address: str) -> str | None:
        """Keep an event that came from this address. Returns why it is not kept, and should not be shown; None if it
        is kept."""
        if b"NaN" in raw or b"Infinity" in raw:
            try:
                json.loads(raw, parse_constant=_refuse)
            except ValueError as error:
                return f"a message of {address} is no JSON: {error}"
        with self._lock:
            if event.stream not in self._streams and len(self._streams) >= STREAMS:
                return f"there are more than {STREAMS} streams"
            stream = self._streams.setdefault(event.stream, Stream())
            if stream.address not in ("", address):
                return f"'{event.stream}' is published at {stream.address} and {address}: rename one (run --stream)"
            stream.address = address
            if event.durable or isinstance(event, Lost):
                _keep(stream, event, raw)
            else:
                stream.reports[event.type] = raw
            if isinstance(event, Now):
                short = (str(event.run.get("session")), event.at.t_ns, event.action, round(event.probability, 3))
                if not stream.now or (stream.now[-1][0], stream.now[-1][2]) != (short[0], short[2]):
                    stream.now.append(short)
            if isinstance(event, Heartbeat):
                preview = event.health.get("preview")
                found = preview.get("endpoint") if isinstance(preview, dict) else None
                stream.preview = found if isinstance(found, str) else None
            stream.bundle = getattr(event, "bundle", stream.bundle)
            stream.decoder = getattr(event, "decoder", stream.decoder)
        return None

    def bundles(self) -> dict[str, tuple[str, str]]:
        """The fingerprints of the bundle and the decoder of each stream, as far as known."""
        with self._lock:
            return {name: (stream.bundle, stream.decoder) for name, stream in self._streams.items()}

    def preview(self, name: str) -> tuple[str, str] | None:
        """Where the events of a stream come from, and where its run says that it shows pictures; None if it does
        not."""
        with self._lock:
            stream = self._streams.get(name)
            return None if stream is None or stream.preview is None else (stream.address, stream.preview)

    def hello(self) -> dict[str, Any]:
        """What a new page gets first. `live`: the stream was heard of, and is not in a journal only."""
        with self._lock:
            return {
                name: {
                    "events": [json.loads(each.raw) for each in list(stream.kept)[-HELLO_EVENTS:]],
                    "older": self._older(stream, max(0, len(stream.kept) - HELLO_EVENTS)),
                    "now": list(stream.now)[-HELLO_NOW:],
                    "reports": [json.loads(raw) for raw in stream.reports.values()],
                    "live": bool(stream.address),
                }
                for name, stream in self._streams.items()
            }

    def page(self, name: str, before: str, limit: int = PAGE_EVENTS) -> Page | None:
        """Events before a place that `older` named; None if the stream or the place is unknown.

        Raises:
            EdgeHalError: the journal cannot be read.
        """
        kind, number = before[:1], before[1:]
        if kind not in ("m", "j") or not number.isdecimal() or len(number) > 18:
            return None
        with self._lock:
            stream = self._streams.get(name)
            if stream is None:
                return None
            if kind == "m":
                kept = list(stream.kept)
                until = sum(each.number < int(number) for each in kept)
                begin = max(0, until - limit)
                if until:
                    return Page([each.raw for each in kept[begin:until]], self._older(stream, begin))
            oldest = stream.kept[0] if stream.kept else None
        return self._stored(name, int(number) if kind == "j" else None, oldest, limit)

    def _older(self, stream: Stream, begin: int) -> str | None:
        if begin > 0:
            return f"m{stream.kept[begin].number}"
        if not self._journals:
            return None
        return f"m{stream.kept[0].number if stream.kept else 0}"

    def _stored(self, name: str, before: int | None, oldest: Kept | None, limit: int) -> Page:
        """Events of the stream's journal before number `before`, or before the oldest one in memory."""
        for path in self._journals:
            try:
                with closing(JournalReader(path)) as reader:
                    newest = reader.page(max(0, reader.page(0, 0, 0).next - 1), 1, PAGE_BYTES).bodies
                    event = decode(newest[0]) if newest else None
                    if event is None or event.stream != name:
                        continue
                    until = before
                    if until is None and oldest is not None:
                        same = oldest.origin is not None and oldest.origin == event.run.get("journal")
                        until = oldest.seq if same else reader.since(oldest.utc_ns)
                    return _before(reader, until, limit)
            except (sqlite3.Error, EdgeHalError) as error:
                raise _unreadable(path, error) from error
        return Page([], None)


def _keep(stream: Stream, event: Event, raw: bytes) -> None:
    origin, utc_ns = event.run.get("journal"), event.run.get("utc_ns")
    seq = getattr(event, "seq", -1)
    stream.kept.append(Kept(stream.count, origin, seq, utc_ns if isinstance(utc_ns, int) else 0, raw))
    stream.count += 1
    stream.kept_bytes += len(raw)
    while len(stream.kept) > KEPT_EVENTS or stream.kept_bytes > KEPT_BYTES:
        stream.kept_bytes -= len(stream.kept.popleft().raw)


def _before(reader: JournalReader, until: int | None, limit: int) -> Page:
    """The newest `limit` events before `until` that can be read, in no more than `PAGE_BYTES`."""
    whole = reader.page(0, 0, 0)
    until = whole.next if until is None else min(until, whole.next)
    begin = at = max(whole.first, until - limit)
    found: deque[tuple[int, bytes]] = deque()
    size = 0
    while at < until:
        page = reader.page(at, until - at, PAGE_BYTES)
        bodies = page.bodies[: max(0, until - page.begin)]
        if not bodies:
            break
        for seq, body in enumerate(bodies, page.begin):
            if _readable(body):
                found.append((seq, body))
                size += len(body)
        while size > PAGE_BYTES and len(found) > 1:
            begin, dropped = found[1][0], found.popleft()
            size -= len(dropped[1])
        at = page.begin + len(bodies)
    return Page([body for _, body in found], f"j{begin}" if begin > whole.first else None)


def _readable(body: bytes) -> bool:
    try:
        decode(body)
        json.loads(body, parse_constant=_refuse)
    except (EdgeHalError, ValueError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(name)


def _stream_of(path: Path) -> str | None:
    """The stream of a journal; None if it is still empty."""
    try:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        with closing(JournalReader(path)) as reader:
            bodies = reader.page(max(0, reader.page(0, 0, 0).next - 1), 1, PAGE_BYTES).bodies
            return decode(bodies[0]).stream if bodies else None
    except (OSError, sqlite3.Error, EdgeHalError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> EdgeHalError:
    return EdgeHalError(f"cannot read the journal {path}", str(error), "give the file that `edge-hal run` writes")
