"""`edge-hal run`: recognise a source live and publish each transition."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_hal import logs
from edge_hal.commands import streams
from edge_hal.commands.listen import describe
from edge_hal.commands.parsing import only_with, parse_duration, parse_settings, parse_size
from edge_hal.errors import EdgeHalError

SOURCE, DECISIONS, DELIVERY = "Source", "Decisions", "Delivery"
RECORDING, ENGINE, SERVICE = "Recording", "Engine", "Service"


def run(
    camera: Annotated[
        str,
        typer.Option(
            help="The source of frames: a camera index (0), rtsp://..., http://..., gst:PIPELINE, csi:0, a video file, "
            "a folder of pictures, or feature vectors as features:FILE.npy@HZ. fault:SCRIPT:SOURCE simulates failures "
            "of a source.",
            rich_help_panel=SOURCE,
        ),
    ] = "0",
    camera_auth: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="File with one line USER:PASSWORD for the camera's address. Without it the environment variable "
            "EDGE_HAL_CAMERA_AUTH is read.",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Request this frame size in pixels from the camera, for example 1280x720 (default: the camera's own).",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames per second. It is requested from a camera, and replaces the rate written in a video file "
            "(default: the source's own).",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    fourcc: Annotated[
        str | None,
        typer.Option(
            help="Request this pixel format from the camera, for example MJPG (default: the camera's own).",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    pace: Annotated[
        str,
        typer.Option(
            help="How fast a file is read. realtime: at its own frame rate, frames that come too fast are dropped. "
            "asap: as fast as possible, no frame is dropped.",
            rich_help_panel=SOURCE,
        ),
    ] = "realtime",
    max_hold_ms: Annotated[
        float,
        typer.Option(
            help="Longest time in milliseconds for which the last frame is repeated when no new one comes. After it a "
            "gap is published and the model starts afresh.",
            rich_help_panel=SOURCE,
        ),
    ] = 500.0,
    stall: Annotated[
        str,
        typer.Option(
            help="Open the camera again when it has delivered no frame for this long, for example 5s or 500ms.",
            rich_help_panel=SOURCE,
        ),
    ] = "5s",
    still: Annotated[
        str,
        typer.Option(
            help="Open the camera again when its picture has not changed in any bit for this long. 0 disables the "
            "check.",
            rich_help_panel=SOURCE,
        ),
    ] = "30s",
    resume: Annotated[
        str,
        typer.Option(
            help="After a pause of a camera that is no longer than this, go on with what was believed before it: after "
            "a gap, and after a restart with the same journal. At most 10m; 0 resumes nothing.",
            rich_help_panel=SOURCE,
        ),
    ] = "30s",
    give_up: Annotated[
        str | None,
        typer.Option(
            help="Stop with exit code 1 when the camera has delivered no frame for this long, for example 10m "
            "(default: try for ever).",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Stop after this many seconds of the stream (default: run until the source ends or a signal comes).",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Replace a threshold of the bundle's decoder.json, for example decoder.decide_at=0.8. Repeat the "
            "option for several thresholds.",
            rich_help_panel=DECISIONS,
        ),
    ] = None,
    decide: Annotated[
        str | None,
        typer.Option(
            help="How sure a transition must be: fast, balanced or sure. `edge-hal export` prints what each costs "
            "(default: balanced).",
            rich_help_panel=DECISIONS,
        ),
    ] = None,
    now_hz: Annotated[
        float,
        typer.Option(
            min=0,
            help="Most `now` reports per second of the stream: what most likely goes on at this moment. 0 sends none.",
            rich_help_panel=DECISIONS,
        ),
    ] = 10.0,
    decide_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of model ticks between two decisions (default: the stride of the model's second level).",
            rich_help_panel=DECISIONS,
        ),
    ] = None,
    pub: Annotated[
        str,
        typer.Option(
            help="ZeroMQ address to publish events on: tcp://HOST:PORT or ipc://PATH. The port * chooses a free one.",
            rich_help_panel=DELIVERY,
        ),
    ] = "tcp://127.0.0.1:5570",
    events: Annotated[
        str,
        typer.Option(
            help="Which types of events are published. all: every type. core: only those of version 0.2 (start, "
            "transition, gap, end, heartbeat, snapshot), for older subscribers.",
            rich_help_panel=DELIVERY,
        ),
    ] = "all",
    stream: Annotated[
        str,
        typer.Option(
            help="Name of the stream. It is in every event and is the first part of every topic.",
            rich_help_panel=DELIVERY,
        ),
    ] = "default",
    wait_subscribers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Do not start before this many subscribers are connected.",
            rich_help_panel=DELIVERY,
        ),
    ] = 0,
    journal: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="File in which events are kept so that subscribers can ask for past ones (default: for a camera "
            "edge-hal/STREAM.journal under XDG_STATE_HOME, for a file none).",
            rich_help_panel=DELIVERY,
        ),
    ] = None,
    no_journal: Annotated[
        bool,
        typer.Option(
            "--no-journal",
            help="Keep no events on disk. Subscribers then cannot ask for past events.",
            rich_help_panel=DELIVERY,
        ),
    ] = False,
    retention: Annotated[
        str | None,
        typer.Option(
            help="Delete events from the journal that are older than an age, or when it exceeds a size, or both: "
            "7d,500MB (default: 30d,1GB).",
            rich_help_panel=DELIVERY,
        ),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            help="ZeroMQ address on which requests for past events are answered (default: the port after that of "
            "--pub, or PATH.replay for ipc).",
            rich_help_panel=DELIVERY,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Encrypt with this secret key, a .key_secret file that `edge-hal keys new` made (default: no "
            "encryption).",
            rich_help_panel=DELIVERY,
        ),
    ] = None,
    allowed: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Folder with the public keys of the subscribers that may connect when --key is given (default: the "
            "folder allowed/ beside the key).",
            rich_help_panel=DELIVERY,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Allow addresses that other machines can reach without encryption. Use it only on a trusted network.",
            rich_help_panel=DELIVERY,
        ),
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Record the frames that the model sees, and their times, in this new folder. `edge-hal replay FOLDER` "
            "runs them again.",
            rich_help_panel=RECORDING,
        ),
    ] = None,
    record_around: Annotated[
        str | None,
        typer.Option(
            help="Keep only recordings this close to a transition or gap, within a total size: 2m,2GB (default: the "
            "whole run is recorded).",
            rich_help_panel=RECORDING,
        ),
    ] = None,
    bundle: Annotated[
        Path,
        typer.Option(readable=False, help="Folder that `edge-hal export` wrote.", rich_help_panel=ENGINE),
    ] = Path("bundle"),
    engine: Annotated[
        str,
        typer.Option(
            help="Engine that computes the model: onnxruntime, tensorrt, or auto (TensorRT if this machine can run it, "
            "else ONNX Runtime).",
            rich_help_panel=ENGINE,
        ),
    ] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Stop with an error if the bundle is not of this precision: fp32, fp16 or int8 (default: accept any).",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(min=1, help="Number of threads that ONNX Runtime computes with.", rich_help_panel=ENGINE),
    ] = 1,
    overload: Annotated[
        str | None,
        typer.Option(
            help="What happens when the machine is too slow. cut: skip ticks and publish a gap. lag: compute every "
            "tick, results come late (default: cut for cameras, lag for files).",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    selfcheck: Annotated[
        str | None,
        typer.Option(
            help="At this interval, for example 10m, compute the state of the model anew from recent frames and "
            "compare; on a difference the model is reset (default: never).",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    allow_uncertified: Annotated[
        bool,
        typer.Option(
            "--allow-uncertified",
            help="Run a bundle although its certificate is missing, failed, or belongs to another manifest.",
            rich_help_panel=ENGINE,
        ),
    ] = False,
    trusted: Annotated[
        Path | None,
        typer.Option(
            help="Folder of public signing keys (*.signer). A bundle that none of them signed, or that was changed "
            "since, is refused, also at a reload (default: signatures are not asked for).",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Serve /metrics for Prometheus and /health over HTTP on this address, for example 127.0.0.1:9570 "
            "(default: not served).",
            rich_help_panel=SERVICE,
        ),
    ] = None,
    log: Annotated[
        str,
        typer.Option(
            help="Format of the log on standard error: human, json (one object per line), or auto (human on a "
            "terminal, else json).",
            rich_help_panel=SERVICE,
        ),
    ] = "auto",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print nothing but the summary, as one JSON object, when the run ends.",
            rich_help_panel=SERVICE,
        ),
    ] = False,
) -> None:
    """Recognise a camera, a file or a stream of feature vectors, and publish each transition when it happens.

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
        bundle=bundle,
        camera=camera,
        endpoint=pub,
        pace=pace,
        stream=stream,
        decoder=parse_settings(settings or []),
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
        resume_s=parse_duration(resume),
        overload=overload,
        selfcheck_s=None if selfcheck is None else parse_duration(selfcheck),
        record=record,
        record_around=None if record_around is None else Retention.parse(record_around, "--record-around"),
        seconds=seconds,
        allow_uncertified=allow_uncertified,
        trusted=trusted,
        journal=journal,
        retention=None if retention is None else Retention.parse(retention),
        replay=replay,
        keys=None if key is None else server_keys(key, allowed),
        metrics=metrics,
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
