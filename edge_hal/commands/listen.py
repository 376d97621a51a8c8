"""`edge-hal listen`: print the events of a publisher, past and new ones, in order."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import sys
import time
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.commands import streams
from edge_hal.commands.options.parsing import parse_time
from edge_hal.commands.options.subscriber import Key, ServerKey, subscriber_keys
from edge_hal.errors import EdgeHalError
from edge_hal.redaction import one_line

if TYPE_CHECKING:
    from edge_hal.events import Event, Moment, Now
    from edge_hal.runtime.delivery.client import Begin


def listen(
    connect: Annotated[
        str, typer.Option(help="ZeroMQ address of the publisher, the --pub of `edge-hal run`.")
    ] = "tcp://127.0.0.1:5570",
    stream: Annotated[
        str | None, typer.Option(help="Name of the stream (default: all streams that are published at the address).")
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            help="ZeroMQ address that past events are requested from (default: the port after that of --connect, or "
            "PATH.replay for ipc)."
        ),
    ] = None,
    from_start: Annotated[
        bool,
        typer.Option(
            "--from-start", help="Begin with the oldest event in the journal (default: begin with new events)."
        ),
    ] = False,
    from_seq: Annotated[
        int | None, typer.Option("--from", min=0, help="Begin with the event of this sequence number.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Begin at a time, for example 2026-05-01T08:00 (local time), or at an age: 90m, 2h, 3d."),
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="File that keeps the position in each stream: the next call continues after the last printed event, "
            "the first begins with the oldest.",
        ),
    ] = None,
    key: Key = None,
    server_key: ServerKey = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line of JSON, exactly as it was published.")
    ] = False,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop after this number of events. Reports such as heartbeats are printed and do not count (default: "
            "do not stop).",
        ),
    ] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when the stream ends; of several streams, when all have ended.")
    ] = False,
) -> None:
    """Print the events of `edge-hal run` as they come. It can be started before or after the run.

    In a terminal, the last line shows what most likely goes on at this moment.
    """
    from edge_hal.events import End, Now, Snapshot
    from edge_hal.files import check_readable, check_writable
    from edge_hal.runtime.delivery.client import subscribe

    if cursor is not None:
        check_readable(cursor)
        check_writable(cursor.parent, f"cannot write the cursor {cursor}", "choose another --cursor")
    begin = _begin(from_start or cursor is not None, from_start, from_seq, since)
    keys = subscriber_keys(key, server_key)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not have every character
    number, line = 0, StatusLine()
    going_on: set[str] = set()
    ends: dict[str, int] = {}  # the `seq` of the newest `end` of each stream
    with subscribe(connect, stream, replay=replay, begin=begin, cursor=cursor, keys=keys) as events, closing(line):
        line.show(f"waiting for events of {'any stream' if stream is None else stream} at {connect}")
        for event in events:
            if isinstance(event, Now) and not as_json:
                line.show(describe(event))
                continue
            line.clear()
            print(json_line(events.raw) if as_json else describe(event), flush=True)
            if streams.failed():
                return streams.require_written()
            events.ack()
            number += event.durable
            if isinstance(event, End):
                going_on.discard(event.stream)
                ends[event.stream] = event.seq
            elif event.durable or (isinstance(event, Snapshot) and event.last_seq != ends.get(event.stream)):
                going_on.add(event.stream)  # other reports, and a snapshot after the end, tell nothing new
            if number == count or (until_end and isinstance(event, End) and not going_on):
                return


class StatusLine:
    """The last line of a terminal, which is written again in place. Without a terminal it shows nothing."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, text: str) -> None:
        if not sys.stdout.isatty():
            return
        self.clear()
        self._shown = _cut(text, max(1, shutil.get_terminal_size().columns - 1))
        print(self._shown, end="", flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r" + " " * sum(map(_cells, self._shown)) + "\r", end="", flush=True)
            self._shown = ""

    def close(self) -> None:
        """Leave the line as it is, and the next output below it."""
        if self._shown:
            print(flush=True)


def _cut(text: str, most_cells: int) -> str:
    """The begin of a text that fits into `most_cells` cells of a terminal."""
    ends = itertools.accumulate(map(_cells, text))
    return text[: sum(end <= most_cells for end in ends)]


def _cells(character: str) -> int:
    """How many cells of a terminal it takes: two in Chinese, Japanese and Korean, none for an accent of its own."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _begin(oldest: bool, from_start: bool, from_seq: int | None, since: str | None) -> Begin:
    from edge_hal.runtime.delivery.client import Since

    if from_start + (from_seq is not None) + (since is not None) > 1:
        raise EdgeHalError(
            "more than one place to begin at", "", "use one of --from-start, --from and --since", exit_code=2
        )
    if from_seq is not None:
        return from_seq
    if since is not None:
        return Since(parse_time(since, time.time_ns()))
    return "oldest" if oldest else "now"


def json_line(raw: bytes) -> str:
    """The JSON of an event as one line without characters that could control a terminal. They become JSON escapes, and
    blanks between values become spaces. What an edge-hal publisher sends stays as it is."""
    return "".join(c if c.isprintable() else _json_escape(c) for c in raw.decode())


def _json_escape(character: str) -> str:
    return " " if character in "\n\r\t" else json.dumps(character)[1:-1].replace("\x7f", "\\u007f")


def describe(event: Event) -> str:
    """One event as one readable line. Characters that could control a terminal are escaped."""
    return one_line(_describe(event))


def _describe(event: Event) -> str:
    from edge_hal import events

    head = f"[{event.stream}]"
    if isinstance(event, events.Transition):
        text = f"{event.from_ or '(start)'} -> {event.to}"
        late_s = (event.decision.t_ns - event.boundary.t_ns) / 1e9
        warm = "" if event.warm else ", warming up"
        return (
            f"{head} {_clock(event.boundary)}  {text}  "
            f"(confidence {event.confidence:.2f}, decided {late_s:.2f} s later{warm})"
        )
    if isinstance(event, events.Now):
        return f"{head} {_clock(event.at)}  now: {_now(event)}"
    if isinstance(event, events.Deviation):
        expected = f", expected {' or '.join(event.expected)}" if event.expected else ""
        corrected = "" if event.corrects is None else f", corrects event {event.corrects}"
        return (
            f"{head} {_clock(event.boundary)}  DEVIATION {event.kind}: {event.evidence}{expected} "
            f"(confidence {event.confidence:.2f}{corrected})"
        )
    if isinstance(event, events.Cycle):
        lasted_s = (event.end.t_ns - event.begin.t_ns) / 1e9
        without = f", without {', '.join(event.missing)}" if event.missing else ""
        missing = "complete" if event.complete else f"incomplete{without}"
        return (
            f"{head} {_clock(event.begin)}  cycle of {lasted_s:.1f} s, {len(event.steps)} steps, {missing}, "
            f"{len(event.deviations)} deviations"
        )
    if isinstance(event, events.Unknown):
        return f"{head} {event.type}: a type that this version does not know"
    if isinstance(event, events.Gap):
        lost_s = (event.end.t_ns - event.begin.t_ns) / 1e9
        return f"{head} {_clock(event.begin)}  gap of {lost_s:.2f} s ({event.reason})"
    if isinstance(event, events.Start):
        return f"{head} start: {event.source} at {event.model_hz:g} Hz, {len(event.labels)} actions"
    if isinstance(event, events.End):
        return f"{head} {_clock(event.last)}  end ({event.reason})"
    if isinstance(event, events.Lost):
        return f"{head} events {event.from_} to {event.to} are lost: the publisher has deleted them"
    if isinstance(event, (events.Heartbeat, events.Snapshot)):
        since = "" if event.since is None else f" since {_clock(event.since)}"
        return f"{head} {event.type}: {event.action or 'nothing recognised yet'}{since}"
    return f"{head} {event.type}"


def _now(event: Now) -> str:
    since = "" if event.since is None else f" for {(event.at.t_ns - event.since.t_ns) / 1e9:.1f} s"
    left = event.remaining_s.get("p50")
    about = "" if not isinstance(left, (int, float)) else f", about {left:.0f} s left"
    following = [str(each.get("action")) for each in event.next[:2]]
    then = f", then {' or '.join(following)}" if following else ""
    return f"{event.action} ({event.probability:.0%}){since}{about}{then}"


def _clock(moment: Moment) -> str:
    minutes, seconds = divmod(moment.t_ns / 1e9, 60)
    return f"{int(minutes):02d}:{seconds:05.2f}"
