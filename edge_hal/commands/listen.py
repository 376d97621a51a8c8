"""`edge-hal listen`: print the events of a publisher, past and new ones, in order."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.commands import streams
from edge_hal.commands.parsing import parse_time
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.events import Event, Moment
    from edge_hal.runtime.delivery.client import Begin


def listen(
    connect: Annotated[
        str, typer.Option(help="ZeroMQ address of the publisher, the --pub of `edge-hal run`.")
    ] = "tcp://127.0.0.1:5570",
    stream: Annotated[
        str | None, typer.Option(help="Name of the stream (default: the stream that is published at the address).")
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
            help="File that keeps the position: the next call continues after the last printed event, the first "
            "begins with the oldest.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(readable=False, help="Your secret key file (.key_secret), for a publisher that encrypts."),
    ] = None,
    server_key: Annotated[
        Path | None,
        typer.Option(readable=False, help="Public key file (.key) of the publisher, needed together with --key."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line of JSON, exactly as it was published.")
    ] = False,
    count: Annotated[
        int | None, typer.Option(min=1, help="Stop after this number of events (default: do not stop).")
    ] = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when the stream ends.")] = False,
) -> None:
    """Print the events of `edge-hal run` as they come. It can be started before or after the run."""
    from edge_hal.events import End
    from edge_hal.files import check_readable, check_writable
    from edge_hal.runtime.delivery.client import subscribe
    from edge_hal.runtime.delivery.curve_keys import client_keys

    if cursor is not None:
        check_readable(cursor)
        check_writable(cursor.parent, f"cannot write the cursor {cursor}", "choose another --cursor")
    begin = _begin(from_start or cursor is not None, from_start, from_seq, since)
    if (key is None) != (server_key is None):
        todo = "give both --key and --server-key"
        raise EdgeHalError(
            "one key is missing",
            "encryption needs your secret key and the public key of the publisher",
            todo,
            exit_code=2,
        )
    keys = None if key is None or server_key is None else client_keys(key, server_key)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not have every character
    with subscribe(connect, stream, replay=replay, begin=begin, cursor=cursor, keys=keys) as events:
        for number, event in enumerate(events, start=1):
            print(json_line(events.raw) if as_json else describe(event), flush=True)
            if streams.failed():
                return streams.require_written()
            events.ack()
            if number == count or (until_end and isinstance(event, End)):
                return


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
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in _describe(event))


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


def _clock(moment: Moment) -> str:
    minutes, seconds = divmod(moment.t_ns / 1e9, 60)
    return f"{int(minutes):02d}:{seconds:05.2f}"
