"""`edge-hal run`: recognise a source, or the streams of a station, live and publish each transition."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edge_hal import logs
from edge_hal.commands import streams
from edge_hal.commands.listen import describe
from edge_hal.commands.options.run import decisions, delivery, engine, recording, service, source
from edge_hal.commands.options.run_values import address_options, run_options
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.events import Event
    from edge_hal.runtime.options import RunOptions


def run(
    ctx: typer.Context,
    camera: source.Camera = "0",
    camera_auth: source.CameraAuth = None,
    size: source.Size = None,
    fps: source.Fps = None,
    fourcc: source.Fourcc = None,
    pace: source.Pace = "realtime",
    max_hold_ms: source.MaxHoldMs = 500.0,
    stall: source.Stall = "5s",
    still: source.Still = "30s",
    resume: source.Resume = "30s",
    give_up: source.GiveUp = None,
    seconds: source.Seconds = None,
    settings: decisions.Set = None,
    decide: decisions.Decide = None,
    now_hz: decisions.NowHz = 10.0,
    decide_every: decisions.DecideEvery = None,
    pub: delivery.Pub = "tcp://127.0.0.1:5570",
    events: delivery.Events = "all",
    stream: delivery.Stream = "default",
    wait_subscribers: delivery.WaitSubscribers = 0,
    journal: delivery.Journal = None,
    no_journal: delivery.NoJournal = False,
    retention: delivery.Retention = None,
    replay: delivery.Replay = None,
    preview: delivery.Preview = None,
    key: delivery.Key = None,
    allowed: delivery.Allowed = None,
    insecure: delivery.Insecure = False,
    record: recording.Record = None,
    record_around: recording.RecordAround = None,
    record_pictures: recording.RecordPictures = "encoder",
    bundle: engine.Bundle = None,
    engine: engine.Engine = "auto",
    precision: engine.Precision = None,
    threads: engine.Threads = 1,
    overload: engine.Overload = None,
    selfcheck: engine.Selfcheck = None,
    allow_uncertified: engine.AllowUncertified = False,
    trusted: engine.Trusted = None,
    metrics: service.Metrics = None,
    log: service.Log = "auto",
    as_json: service.Json = False,
    station: service.Station = None,
    check: service.Check = False,
    task: engine.Task = None,
) -> None:
    """Recognise the steps in a camera, a file or a stream of feature vectors, and publish each event at once.

    The run ends with the source, after --seconds, or at SIGINT or SIGTERM. SIGHUP loads the bundle again, or the file
    of --station.
    """
    logs.set_up(log, None if station is not None else stream)
    if station is not None:
        _run_station(ctx, station, check, as_json)
        return
    given = dict(ctx.params)
    address = address_options(given)
    options = replace(
        run_options(given),
        endpoint=address.endpoint,
        replay=address.replay,
        keys=address.keys,
        insecure=address.insecure,
        metrics=address.metrics,
    )
    _check(options) if check else _run(options, as_json)


def _run(options: RunOptions, as_json: bool) -> None:
    from edge_hal.runtime import runner
    from edge_hal.runtime.stop import early_stop

    with streams.never_waiting():
        summary = runner.run(
            options,
            on_ready=partial(_log_endpoint, options.stream, options.journal),
            on_event=_printer(as_json),
            stop=early_stop(),
        )
    ended = {"reason": summary.reason, "counters": summary.counters}
    logs.log.info("'%s' ended: %s", options.stream, summary.reason, extra={"fields": ended})
    print(json.dumps(summary.to_dict()) if as_json else _describe_summary(summary.to_dict()), flush=True)
    if as_json:
        streams.require_written()
    if summary.reason == "source":
        todo = "check its cable or address, or run without --give-up"
        raise EdgeHalError("the camera delivers no more frames", "", todo)


def _check(options: RunOptions) -> None:
    from edge_hal.runtime.runner import check_run, check_source

    check_source(options, check_run(options))
    print(f"'{options.stream}' can run: {_what(options)}")


def _run_station(ctx: typer.Context, path: Path, check: bool, as_json: bool) -> None:
    from edge_hal.commands.options.station_file import given_to_station, read_station
    from edge_hal.runtime.station.run import run_station
    from edge_hal.runtime.stop import early_stop

    given = given_to_station(ctx)
    read = partial(read_station, path, run, given)
    if check:
        options = read()
        options.check(sources=True)
        for name, each in options.streams.items():
            print(f"'{name}' can run: {_what(each)}")
        for name, fused in options.fused.items():
            print(f"'{name}' can run: fused from {', '.join(fused.views)}, {_kept(fused.run)}")
        return
    with streams.never_waiting():
        summary = run_station(
            read,
            on_ready=lambda endpoint: logs.log.info(
                "publishing on %s", endpoint, extra={"fields": {"endpoint": endpoint}}
            ),
            on_event=_printer(as_json),
            stop=early_stop(),
        )
    if as_json:
        print(json.dumps(summary.to_dict()), flush=True)
        streams.require_written()
        return
    for name, last in summary.streams.items():
        text = "no run ended" if last is None else _describe_summary(last.to_dict())
        print(f"'{name}':\n{text}", flush=True)


def _printer(as_json: bool) -> Callable[[Event], None] | None:
    """Prints an event in one write: streams of several threads may call it."""
    return None if as_json else lambda event: print(f"{describe(event)}\n", end="", flush=True)


def _what(options: RunOptions) -> str:
    return f"{options.source.log_name}, bundle {options.bundle}, {_kept(options)}"


def _kept(options: RunOptions) -> str:
    return "no journal" if options.journal is None else f"journal {options.journal}"


def _log_endpoint(stream: str | None, journal: Path | None, endpoint: str) -> None:
    of = "" if stream is None else f"'{stream}' "
    kept = "" if journal is None else f", events are kept in {journal}"
    fields = {"endpoint": endpoint, "journal": journal}
    logs.log.info("publishing %son %s%s", of, endpoint, kept, extra={"fields": fields})


def _describe_summary(summary: dict[str, Any]) -> str:
    lost = ", ".join(f"{count} {name}" for name, count in summary["dropped"].items() if count) or "none"
    stages = ", ".join(f"{name} {value['p50']:g}/{value['p99']:g}" for name, value in summary["latency_ms"].items())
    return (
        f"frames: {summary['captured']} captured, {summary['used']} used, dropped: {lost}, "
        f"{summary['in_flight']} in flight\n"
        f"ticks: {summary['ticks']} at {summary['fps']:g} per second: {summary['fresh']} fresh, "
        f"{summary['held']} held, {summary['cut']} cut\n"
        f"latency in ms (p50/p99): {stages}"
    )
