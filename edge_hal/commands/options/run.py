"""The options of `edge-hal run`: type, name and help text of each, in the help panels of the command.

An option is an alias that `run.py` gives to a parameter, beside its default.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

# One kind of option for each help panel.
source = partial(typer.Option, rich_help_panel="Source")
decisions = partial(typer.Option, rich_help_panel="Decisions")
delivery = partial(typer.Option, rich_help_panel="Delivery")
recording = partial(typer.Option, rich_help_panel="Recording")
engine = partial(typer.Option, rich_help_panel="Engine")
service = partial(typer.Option, rich_help_panel="Service")

Task = Annotated[
    Path | None, typer.Argument(readable=False, help="Task folder: run its newest bundle, instead of --bundle.")
]

# --- Source ------------------------------------------------------------------------------------

Camera = Annotated[
    str,
    source(
        help="The source of frames: a camera index (0), rtsp://..., http://..., gst:PIPELINE, csi:0, a video file, "
        "a folder of pictures, or feature vectors as features:FILE.npy@HZ. fault:SCRIPT:SOURCE simulates failures "
        "of a source."
    ),
]

CameraAuth = Annotated[
    Path | None,
    source(
        readable=False,
        help="File with one line USER:PASSWORD for the camera's address. Without it the environment variable "
        "EDGE_HAL_CAMERA_AUTH is read.",
    ),
]

Size = Annotated[
    str | None,
    source(help="Request this frame size in pixels from the camera, for example 1280x720 (default: the camera's own)."),
]

Fps = Annotated[
    float | None,
    source(
        help="Frames per second. It is requested from a camera, and replaces the rate written in a video file "
        "(default: the source's own)."
    ),
]

Fourcc = Annotated[
    str | None, source(help="Request this pixel format from the camera, for example MJPG (default: the camera's own).")
]

Pace = Annotated[
    str,
    source(
        help="How fast a file is read. realtime: at its own frame rate, frames that come too fast are dropped. "
        "asap: as fast as possible, no frame is dropped."
    ),
]

MaxHoldMs = Annotated[
    float,
    source(
        help="Longest time in milliseconds for which the last frame is repeated when no new one comes. After it a "
        "gap is published and the model starts afresh."
    ),
]

Stall = Annotated[
    str, source(help="Open the camera again when it has delivered no frame for this long, for example 5s or 500ms.")
]

Still = Annotated[
    str,
    source(
        help="Open the camera again when its picture has not changed in any bit for this long. 0 disables the check."
    ),
]

Resume = Annotated[
    str,
    source(
        help="After a pause of a camera that is no longer than this, go on with what was believed before it, and with "
        "the steps that were done: after a gap, and after a restart with the same journal. At most 10m; 0 resumes "
        "nothing."
    ),
]

GiveUp = Annotated[
    str | None,
    source(
        help="Stop with exit code 1 when the camera has delivered no frame for this long, for example 10m "
        "(default: try for ever)."
    ),
]

Seconds = Annotated[
    float | None,
    source(help="Stop after this many seconds of the stream (default: run until the source ends or a signal comes)."),
]

# --- Decisions ---------------------------------------------------------------------------------

Set = Annotated[
    list[str] | None,
    decisions(
        "--set",
        help="Replace a threshold of the bundle's decoder.json, for example decoder.decide_at=0.8. Repeat the "
        "option for several thresholds.",
    ),
]

Decide = Annotated[
    str | None,
    decisions(
        help="How sure a transition must be: fast, balanced or sure. `edge-hal export` prints what each costs "
        "(default: balanced)."
    ),
]

NowHz = Annotated[
    float,
    decisions(
        min=0,
        help="Most `now` reports per second of the stream: what most likely goes on at this moment. 0 sends none.",
    ),
]

DecideEvery = Annotated[
    int | None,
    decisions(
        min=1,
        help="Number of model ticks between two decisions (default: 1; in bundles before 0.3, the stride of the "
        "second level).",
    ),
]

# --- Delivery ----------------------------------------------------------------------------------

Pub = Annotated[
    str,
    delivery(help="ZeroMQ address to publish events on: tcp://HOST:PORT or ipc://PATH. The port * chooses a free one."),
]

Events = Annotated[
    str,
    delivery(
        help="Which types of events are published. all: every type. core: only those of version 0.2 (start, "
        "transition, gap, end, heartbeat, snapshot), for older subscribers."
    ),
]

Stream = Annotated[str, delivery(help="Name of the stream. It is in every event and is the first part of every topic.")]

WaitSubscribers = Annotated[
    int,
    delivery(min=0, help="Do not start before this many subscribers are connected."),
]

Journal = Annotated[
    Path | None,
    delivery(
        readable=False,
        help="File in which events are kept so that subscribers can ask for past ones (default: for a camera "
        "edge-hal/STREAM.journal under XDG_STATE_HOME, for a file none).",
    ),
]

NoJournal = Annotated[
    bool,
    delivery("--no-journal", help="Keep no events on disk. Subscribers then cannot ask for past events."),
]

Retention = Annotated[
    str | None,
    delivery(
        help="Delete events from the journal that are older than an age, or when it exceeds a size, or both: "
        "7d,500MB (default: 30d,1GB)."
    ),
]

Replay = Annotated[
    str | None,
    delivery(
        help="ZeroMQ address on which requests for past events are answered (default: the port after that of "
        "--pub, or PATH.replay for ipc)."
    ),
]

Preview = Annotated[
    str | None,
    delivery(
        help="ZeroMQ address to publish small pictures of the source on, for `edge-hal view`, for example "
        "tcp://127.0.0.1:5572. Pictures are encoded only while somebody watches (default: no pictures)."
    ),
]

Key = Annotated[
    Path | None,
    delivery(
        readable=False,
        help="Encrypt with this secret key, a .key_secret file that `edge-hal keys new` made (default: no encryption).",
    ),
]

Allowed = Annotated[
    Path | None,
    delivery(
        readable=False,
        help="Folder with the public keys of the subscribers that may connect when --key is given (default: the "
        "folder allowed/ beside the key).",
    ),
]

Insecure = Annotated[
    bool,
    delivery(
        "--insecure",
        help="Allow addresses that other machines can reach without encryption. Use it only on a trusted network.",
    ),
]

# --- Recording ---------------------------------------------------------------------------------

Record = Annotated[
    Path | None,
    recording(
        readable=False,
        help="Record the frames that the model sees, and their times, in this new folder. `edge-hal replay FOLDER` "
        "runs them again.",
    ),
]

RecordAround = Annotated[
    str | None,
    recording(
        help="Keep only recordings this close to a transition, deviation or gap, within a total size: 2m,2GB "
        "(default: the whole run is recorded)."
    ),
]

RecordPictures = Annotated[
    str,
    recording(
        help="encoder: record pictures at the size that the model sees. source: also those of the source, as JPEG, so "
        "that `edge-hal harvest` can make training videos of them. They show people as the camera does."
    ),
]

# --- Engine ------------------------------------------------------------------------------------

Bundle = Annotated[
    Path | None,
    engine(readable=False, help="Folder that `edge-hal export` wrote, or a task folder (default: bundle)."),
]

Engine = Annotated[
    str,
    engine(
        help="Engine that computes the model: onnxruntime, tensorrt, or auto (TensorRT if this machine can run it, "
        "else ONNX Runtime)."
    ),
]

Precision = Annotated[
    str | None,
    engine(help="Stop with an error if the bundle is not of this precision: fp32, fp16 or int8 (default: accept any)."),
]

Threads = Annotated[
    int,
    engine(min=1, help="Number of threads that ONNX Runtime computes with."),
]

Overload = Annotated[
    str | None,
    engine(
        help="What happens when the machine is too slow. cut: skip ticks and publish a gap. lag: compute every "
        "tick, results come late (default: cut for cameras, lag for files)."
    ),
]

Selfcheck = Annotated[
    str | None,
    engine(
        help="At this interval, for example 10m, compute the state of the model anew from recent frames and "
        "compare; on a difference the model is reset (default: never)."
    ),
]

AllowUncertified = Annotated[
    bool,
    engine(
        "--allow-uncertified",
        help="Run a bundle although its certificate is missing, failed, or belongs to another manifest.",
    ),
]

Trusted = Annotated[
    Path | None,
    engine(
        help="Folder of public signing keys (*.signer). A bundle that none of them signed, or that was changed "
        "since, is refused, also at a reload (default: signatures are not asked for)."
    ),
]

# --- Service -----------------------------------------------------------------------------------

Metrics = Annotated[
    str | None,
    service(
        help="Serve /metrics for Prometheus and /health over HTTP on this address, for example 127.0.0.1:9570 "
        "(default: not served)."
    ),
]

Log = Annotated[
    str,
    service(
        help="Format of the log on standard error: human, json (one object per line), or auto (human on a "
        "terminal, else json)."
    ),
]

Json = Annotated[
    bool,
    service("--json", help="Print nothing but the summary, as one JSON object, when the run ends."),
]

Station = Annotated[
    Path | None,
    service(
        readable=False,
        help="Run several streams in one process, as this YAML file says (docs/stations.md). --pub, --replay, "
        "--metrics, --key, --allowed and --insecure replace its keys; other options belong in the file.",
    ),
]

Check = Annotated[
    bool,
    service(
        "--check", help="Check the options, or the file of --station, the bundles and video files, and run nothing."
    ),
]
