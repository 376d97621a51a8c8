"""`edge-hal run`: recognise a source live and publish each transition."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from edge_hal import logs
from edge_hal.commands import run_options as option
from edge_hal.commands import streams
from edge_hal.commands.listen import describe
from edge_hal.commands.parsing import only_with, parse_duration, parse_settings, parse_size
from edge_hal.errors import EdgeHalError
from edge_hal.task_folder import TASK_FILE, is_task, newest_bundle


def run(
    camera: option.Camera = "0",
    camera_auth: option.CameraAuth = None,
    size: option.Size = None,
    fps: option.Fps = None,
    fourcc: option.Fourcc = None,
    pace: option.Pace = "realtime",
    max_hold_ms: option.MaxHoldMs = 500.0,
    stall: option.Stall = "5s",
    still: option.Still = "30s",
    resume: option.Resume = "30s",
    give_up: option.GiveUp = None,
    seconds: option.Seconds = None,
    settings: option.Set = None,
    decide: option.Decide = None,
    now_hz: option.NowHz = 10.0,
    decide_every: option.DecideEvery = None,
    pub: option.Pub = "tcp://127.0.0.1:5570",
    events: option.Events = "all",
    stream: option.Stream = "default",
    wait_subscribers: option.WaitSubscribers = 0,
    journal: option.Journal = None,
    no_journal: option.NoJournal = False,
    retention: option.Retention = None,
    replay: option.Replay = None,
    preview: option.Preview = None,
    key: option.Key = None,
    allowed: option.Allowed = None,
    insecure: option.Insecure = False,
    record: option.Record = None,
    record_around: option.RecordAround = None,
    record_pictures: option.RecordPictures = "encoder",
    bundle: option.Bundle = None,
    engine: option.Engine = "auto",
    precision: option.Precision = None,
    threads: option.Threads = 1,
    overload: option.Overload = None,
    selfcheck: option.Selfcheck = None,
    allow_uncertified: option.AllowUncertified = False,
    trusted: option.Trusted = None,
    metrics: option.Metrics = None,
    log: option.Log = "auto",
    as_json: option.Json = False,
    task: option.Task = None,
) -> None:
    """Recognise a camera, a file or a stream of feature vectors, and publish what happens when it happens.

    The run ends with the source, after --seconds, or at SIGINT or SIGTERM. SIGHUP loads the bundle again.
    """
    from edge_hal.runtime import runner
    from edge_hal.runtime.delivery.curve_keys import server_keys
    from edge_hal.runtime.delivery.journal import Retention
    from edge_hal.runtime.sources.watchdog import Limits
    from edge_hal.runtime.stop import early_stop

    logs.set_up(log, stream)
    only_with("--key", {"--allowed": key is None and allowed is not None})
    limits = Limits(
        stall_s=parse_duration(stall),
        still_s=parse_duration(still),
        give_up_s=None if give_up is None else parse_duration(give_up),
    )
    journal = _journal(journal, no_journal, camera, stream)
    if journal is None:
        only_with("--journal", {"--retention": retention is not None})
    options = runner.RunOptions(
        bundle=_bundle(task, bundle),
        camera=camera,
        endpoint=pub,
        pace=pace,
        stream=stream,
        decoder=parse_settings(settings or []),
        resume_s=parse_duration(resume),
        decide=decide,
        now_hz=now_hz,
        events=events,
        decide_every=decide_every,
        engine=engine,
        precision=precision,
        threads=threads,
        wait_subscribers=wait_subscribers,
        max_hold_ms=max_hold_ms,
        fps=fps,
        size=None if size is None else parse_size(size),
        fourcc=fourcc,
        camera_auth=camera_auth,
        limits=limits,
        overload=overload,
        selfcheck_s=None if selfcheck is None else parse_duration(selfcheck),
        record=record,
        record_around=None if record_around is None else Retention.parse(record_around, "--record-around"),
        record_pictures=record_pictures,
        seconds=seconds,
        allow_uncertified=allow_uncertified,
        trusted=trusted,
        journal=journal,
        retention=None if retention is None else Retention.parse(retention),
        replay=replay,
        keys=None if key is None else server_keys(key, allowed),
        metrics=metrics,
        preview=preview,
        insecure=insecure,
    )
    with streams.never_waiting():
        summary = runner.run(
            options,
            on_ready=partial(_log_endpoint, stream, journal),
            on_event=None if as_json else lambda event: print(describe(event), flush=True),
            stop=early_stop(),
        )
    ended = {"reason": summary.reason, "counters": summary.counters}
    logs.log.info("'%s' ended: %s", stream, summary.reason, extra={"fields": ended})
    print(json.dumps(summary.to_dict()) if as_json else _describe_summary(summary.to_dict()), flush=True)
    if as_json:
        streams.require_written()
    if summary.reason == "source":
        todo = "check its cable or address, or run without --give-up"
        raise EdgeHalError("the camera delivers no more frames", "", todo)


def _bundle(task: Path | None, bundle: Path | None) -> Path:
    """The bundle to run: the one given, or the newest of a task folder."""
    from edge_hal.bundle import DEFAULT_PATH

    if task is not None and bundle is not None:
        raise EdgeHalError("TASK and --bundle", "both name what to run", "give one of them", exit_code=2)
    if task is not None and not is_task(task):
        todo = f"a bundle is given as --bundle {task}, a source as --camera {task}"
        raise EdgeHalError(f"{task} is no task folder", f"it has no {TASK_FILE}", todo, exit_code=2)
    given = task or bundle or DEFAULT_PATH
    found = newest_bundle(given)
    if found != given:
        logs.log.info("bundle: %s", found, extra={"fields": {"bundle": found}})
    return found


def _log_endpoint(stream: str, journal: Path | None, endpoint: str) -> None:
    kept = "" if journal is None else f", events are kept in {journal}"
    fields = {"endpoint": endpoint, "journal": journal}
    logs.log.info("publishing '%s' on %s%s", stream, endpoint, kept, extra={"fields": fields})


def _journal(given: Path | None, none: bool, camera: str, stream: str) -> Path | None:
    """The journal file: always one for a camera, for a file only on request, since a file can be run again."""
    from edge_hal.runtime.delivery.endpoint import check_stream
    from edge_hal.runtime.delivery.journal import default_path
    from edge_hal.runtime.sources.source_spec import SourceSpec

    if given is not None and none:
        raise EdgeHalError("--journal and --no-journal", "they exclude each other", exit_code=2)
    if given is not None or none or not SourceSpec.parse(camera).live:
        return given
    check_stream(stream)
    return default_path(stream)


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
