"""The command line. Each command imports what it needs when it runs, so that `--help` is there at once."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from edge_hal import logs
from edge_hal.commands.bench import bench
from edge_hal.commands.calibrate import calibrate
from edge_hal.commands.cameras import cameras
from edge_hal.commands.demo import demo
from edge_hal.commands.doctor import doctor
from edge_hal.commands.evaluate import evaluate
from edge_hal.commands.export import export
from edge_hal.commands.keys import keys
from edge_hal.commands.listen import describe, listen
from edge_hal.commands.replay import replay
from edge_hal.commands.train import train
from edge_hal.errors import EdgeHalError

app = typer.Typer(
    name="edge-hal",
    help="Learn the steps of a procedure, recognise them live, publish each transition.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo)
app.command("cameras")(cameras)
app.command("replay")(replay)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("export")(export)
app.command("calibrate")(calibrate)
app.command("bench")(bench)
app.command("doctor")(doctor)
app.command("listen")(listen)
app.add_typer(keys, name="keys")


def main() -> None:
    """Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted. Bad input never shows a traceback."""
    try:
        app(prog_name="edge-hal")
    except EdgeHalError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def fail(error: EdgeHalError) -> NoReturn:
    """Print what happened, why and what to do next, and exit."""
    if logs.in_json():
        fields = {"why": error.why, "todo": error.todo, "exit_code": error.exit_code}
        logs.log.error(error.what, extra={"fields": fields})
        sys.exit(error.exit_code)
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    text = Text("error: ", style="bold red").append(error.what, style="default")
    if error.why:
        text.append(f": {error.why}", style="default")
    console.print(text)
    if error.todo:
        console.print(Text("  -> ", style="bold").append(error.todo, style="default"))
    sys.exit(error.exit_code)


@app.command()
def run(
    bundle: Annotated[Path, typer.Option(help="What `edge-hal export` wrote.")] = Path("bundle"),
    camera: Annotated[
        str,
        typer.Option(
            help="0, rtsp://..., http://..., gst:PIPELINE, csi:0, a video, a folder of pictures or "
            "features:FILE.npy@HZ; fault:SCRIPT:SOURCE rehearses failures."
        ),
    ] = "0",
    camera_auth: Annotated[
        Path | None, typer.Option(help="File with user:password of the address (or EDGE_HAL_CAMERA_AUTH).")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Ask the camera for 1280x720.")] = None,
    fourcc: Annotated[str | None, typer.Option(help="Ask the camera for a pixel format (MJPG).")] = None,
    stall: Annotated[str, typer.Option(help="A camera that is silent for so long is opened again.")] = "5s",
    still: Annotated[
        str, typer.Option(help="So is one that shows the same picture for so long, bit by bit; 0: never.")
    ] = "30s",
    give_up: Annotated[
        str | None, typer.Option(help="Stop when no frame came for so long (default: try for ever).")
    ] = None,
    pub: Annotated[str, typer.Option(help="Where to publish.")] = "tcp://127.0.0.1:5570",
    pace: Annotated[
        str, typer.Option(help="realtime: as a camera would; asap: wait for every frame (files).")
    ] = "realtime",
    stream: Annotated[str, typer.Option(help="The stream's name, first part of every topic.")] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a threshold: decoder.confirm_s=0.4 (repeatable)."),
    ] = None,
    decide_every: Annotated[int | None, typer.Option(min=1, help="Ticks between decisions (default: a bin).")] = None,
    engine: Annotated[str, typer.Option(help="auto (TensorRT where it can run), onnxruntime or tensorrt.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="Refuse a bundle that is not fp32, fp16 or int8.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 1,
    wait_subscribers: Annotated[int, typer.Option(min=0, help="Hold the start until so many have subscribed.")] = 0,
    max_hold_ms: Annotated[float, typer.Option(help="How long one frame may stand for the next.")] = 500.0,
    overload: Annotated[
        str | None, typer.Option(help="Too slow: cut ticks, and say so, or lag (default: cameras cut, files lag).")
    ] = None,
    selfcheck: Annotated[
        str | None, typer.Option(help="Compare the state with that of a fresh stream every so often: 10m.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Keep what the model saw, and when, in this folder: edge-hal replay FOLDER.")
    ] = None,
    record_around: Annotated[
        str | None, typer.Option(help="Of that only what is so near to a transition or gap, within a size: 2m,2GB.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second: asked of a camera, believed of a file.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so much stream time.")] = None,
    allow_uncertified: Annotated[bool, typer.Option("--allow-uncertified")] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Keep events here (default: cameras under XDG_STATE_HOME, files nowhere).")
    ] = None,
    no_journal: Annotated[bool, typer.Option("--no-journal", help="Keep nothing.")] = False,
    retention: Annotated[str, typer.Option(help="How long events are kept: an age, a size or both.")] = "30d,1GB",
    replay: Annotated[str | None, typer.Option(help="Answers about the past (default: the next port).")] = None,
    key: Annotated[Path | None, typer.Option(help="Encrypt: a .key_secret file of `edge-hal keys new`.")] = None,
    allowed: Annotated[
        Path | None, typer.Option(help="Folder of the listeners' public keys (default: allowed/ beside --key).")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Serve /metrics (Prometheus) and /health here: 127.0.0.1:9570.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Publish beyond this machine without encryption.")
    ] = False,
    log: Annotated[
        str, typer.Option(help="human, json (a line each) or auto: human on a terminal. On standard error.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line: the summary.")] = False,
) -> None:
    """Recognise a camera, file or feature stream and publish each transition as it happens."""
    from edge_hal.runtime import runner
    from edge_hal.runtime.delivery.curve_keys import server_keys
    from edge_hal.runtime.delivery.journal import Retention
    from edge_hal.runtime.sources.watchdog import Limits

    logs.set_up(log, stream)
    limits = Limits(
        stall_s=parse_duration(stall),
        still_s=parse_duration(still),
        give_up_s=None if give_up is None else parse_duration(give_up),
    )
    journal = _journal(journal, no_journal, camera, stream)
    options = runner.RunOptions(
        bundle=bundle,
        camera=camera,
        endpoint=pub,
        pace=pace,
        stream=stream,
        decoder=parse_settings(settings or []),
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
        seconds=seconds,
        allow_uncertified=allow_uncertified,
        journal=journal,
        retention=Retention.parse(retention),
        replay=replay,
        keys=None if key is None else server_keys(key, allowed),
        metrics=metrics,
        insecure=insecure,
    )
    summary = runner.run(
        options,
        on_ready=partial(_say_where, stream, journal),
        on_event=None if as_json else lambda event: print(describe(event), flush=True),
    )
    ended = {"reason": summary.reason, "counters": summary.counters}
    logs.log.info("'%s' ended: %s", stream, summary.reason, extra={"fields": ended})
    if as_json:
        print(json.dumps(summary.to_dict()), flush=True)
    else:
        print(_describe_summary(summary.to_dict()), flush=True)
    if summary.reason == "source":
        raise EdgeHalError(
            "the camera delivers no more frames", "", "check its cable or address, or run without --give-up"
        )


def _say_where(stream: str, journal: Path | None, endpoint: str) -> None:
    kept = "" if journal is None else f", events are kept in {journal}"
    fields = {"endpoint": endpoint, "journal": journal}
    logs.log.info("publishing '%s' on %s%s", stream, endpoint, kept, extra={"fields": fields})


def _journal(given: Path | None, none: bool, camera: str, stream: str) -> Path | None:
    """Where to keep events: those of a camera always, those of a file, which can be run again, on request."""
    from edge_hal.runtime.delivery.endpoint import check_stream
    from edge_hal.runtime.delivery.journal import default_path
    from edge_hal.runtime.sources.source_spec import SourceSpec

    if given is not None and none:
        raise EdgeHalError("--journal and --no-journal", "they exclude each other", exit_code=2)
    if given is not None or none or not SourceSpec.parse(camera).live:
        return given
    check_stream(stream)
    return default_path(stream)


def parse_settings(settings: list[str]) -> dict[str, float]:
    """`decoder.NAME=NUMBER` -> {NAME: number}. Raises EdgeHalError for a key or value that cannot be."""
    import difflib

    from edge_hal.decoding.hysteresis import THRESHOLDS

    known = [f"decoder.{name}" for name in THRESHOLDS]
    values: dict[str, float] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            todo = f"did you mean {near[0]}?" if near else ""
            raise EdgeHalError(f"unknown key '{key}' in --set", f"known: {', '.join(known)}", todo, exit_code=2)
        try:
            values[key.removeprefix("decoder.")] = float(text)
        except ValueError:
            raise EdgeHalError(
                f"--set {setting}", f"'{text}' is no number", f"write --set {key}=0.5", exit_code=2
            ) from None
    return values


def parse_duration(text: str) -> float:
    """`30s`, `10m`, `2h`, `500ms` or a number of seconds -> seconds. Raises EdgeHalError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text.strip())
    if match is None:
        raise EdgeHalError(f"'{text}' is no duration", "", "write 30s, 10m or 2h", exit_code=2)
    return float(match[1]) * {"ms": 0.001, "m": 60.0, "h": 3600.0}.get(match[2], 1.0)


def parse_size(text: str) -> tuple[int, int]:
    """`1280x720` -> (1280, 720). Raises EdgeHalError for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.strip())
    if match is None:
        raise EdgeHalError(f"'{text}' is no size", "", "write --size 1280x720", exit_code=2)
    return int(match[1]), int(match[2])


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


if __name__ == "__main__":
    main()
