"""`edge-hal listen`: the events of a publisher, past and present, in order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.commands.parsing import parse_time
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.events import Event, Moment
    from edge_hal.runtime.delivery.client import Begin


def listen(
    connect: Annotated[str, typer.Option(help="The publisher's endpoint.")] = "tcp://127.0.0.1:5570",
    stream: Annotated[str | None, typer.Option(help="The stream (default: what is published there).")] = None,
    replay: Annotated[str | None, typer.Option(help="Answers about the past (default: the next port).")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest event kept.")] = False,
    from_seq: Annotated[int | None, typer.Option("--from", min=0, help="Begin with this seq.")] = None,
    since: Annotated[str | None, typer.Option(help="Begin at a time: 2026-05-01T08:00, or 90m ago.")] = None,
    cursor: Annotated[
        Path | None, typer.Option(help="Keep the position here; go on there next time (first time: from the start).")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Your .key_secret file, where the publisher encrypts.")] = None,
    server_key: Annotated[Path | None, typer.Option(help="The publisher's .key file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One event a line, as published.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when the stream ends.")] = False,
) -> None:
    """Print the events of `edge-hal run`, as they come. It may be started before or after it."""
    from edge_hal.events import End
    from edge_hal.runtime.delivery.client import subscribe
    from edge_hal.runtime.delivery.curve_keys import client_keys

    begin = _begin(from_start or cursor is not None, from_start, from_seq, since)
    if (key is None) != (server_key is None):
        todo = "give both --key and --server-key"
        raise EdgeHalError("one key is missing", "an encrypted line needs yours and the publisher's", todo, exit_code=2)
    keys = None if key is None or server_key is None else client_keys(key, server_key)
    with subscribe(connect, stream, replay=replay, begin=begin, cursor=cursor, keys=keys) as events:
        for number, event in enumerate(events, start=1):
            print(events.raw.decode() if as_json else describe(event), flush=True)
            events.ack()
            if number == count or (until_end and isinstance(event, End)):
                return


def _begin(oldest: bool, from_start: bool, from_seq: int | None, since: str | None) -> Begin:
    from edge_hal.runtime.delivery.client import Since

    if from_start + (from_seq is not None) + (since is not None) > 1:
        raise EdgeHalError("two places to begin at", "", "use one of --from-start, --from and --since", exit_code=2)
    if from_seq is not None:
        return from_seq
    if since is not None:
        return Since(parse_time(since, time.time_ns()))
    return "oldest" if oldest else "now"


def describe(event: Event) -> str:
    """One event as one line for people."""
    from edge_hal import events

    head = f"[{event.stream}]"
    if isinstance(event, events.Transition):
        text = f"{event.from_ or '(start)'} -> {event.to}"
        late_s = (event.decision.t_ns - event.boundary.t_ns) / 1e9
        warm = "" if event.warm else ", warming up"
        return (
            f"{head} {_clock(event.boundary)}  {text}  "
            f"(confidence {event.confidence:.2f}, seen {late_s:.2f} s later{warm})"
        )
    if isinstance(event, events.Gap):
        lost_s = (event.end.t_ns - event.begin.t_ns) / 1e9
        return f"{head} {_clock(event.begin)}  gap of {lost_s:.2f} s ({event.reason})"
    if isinstance(event, events.Start):
        return f"{head} start: {event.source} at {event.model_hz:g} Hz, {len(event.labels)} actions"
    if isinstance(event, events.End):
        return f"{head} {_clock(event.last)}  end ({event.reason})"
    if isinstance(event, events.Lost):
        return f"{head} events {event.from_} to {event.to} are lost: the publisher keeps them no more"
    if isinstance(event, (events.Heartbeat, events.Snapshot)):
        since = "" if event.since is None else f" since {_clock(event.since)}"
        return f"{head} {event.type}: {event.action or 'nothing recognised yet'}{since}"
    return f"{head} {event.type}"


def _clock(moment: Moment) -> str:
    minutes, seconds = divmod(moment.t_ns / 1e9, 60)
    return f"{int(minutes):02d}:{seconds:05.2f}"
