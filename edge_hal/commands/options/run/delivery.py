"""Options of `edge-hal run` about delivery: addresses, what is published, what is kept, and encryption."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

option = partial(typer.Option, rich_help_panel="Delivery")

Pub = Annotated[
    str,
    option(help="ZeroMQ address to publish events on: tcp://HOST:PORT or ipc://PATH. The port * chooses a free one."),
]

Events = Annotated[
    str,
    option(
        help="Which types of events are published. all: every type. core: only those of version 0.2 (start, "
        "transition, gap, end, heartbeat, snapshot), for older subscribers."
    ),
]

Stream = Annotated[str, option(help="Name of the stream. It is in every event and is the first part of every topic.")]

WaitSubscribers = Annotated[
    int,
    option(min=0, help="Do not start before this many subscribers are connected."),
]

Journal = Annotated[
    Path | None,
    option(
        readable=False,
        help="File in which events are kept so that subscribers can ask for past ones (default: for a camera "
        "edge-hal/STREAM.journal under XDG_STATE_HOME, for a file none).",
    ),
]

NoJournal = Annotated[
    bool,
    option("--no-journal", help="Keep no events on disk. Subscribers then cannot ask for past events."),
]

Retention = Annotated[
    str | None,
    option(
        help="Delete events from the journal that are older than an age, or when it exceeds a size, or both: "
        "7d,500MB (default: 30d,1GB)."
    ),
]

Replay = Annotated[
    str | None,
    option(
        help="ZeroMQ address on which requests for past events are answered (default: the port after that of "
        "--pub, or PATH.replay for ipc)."
    ),
]

Preview = Annotated[
    str | None,
    option(
        help="ZeroMQ address to publish small pictures of the source on, for `edge-hal view`, for example "
        "tcp://127.0.0.1:5572. Pictures are encoded only while somebody watches (default: no pictures)."
    ),
]

Key = Annotated[
    Path | None,
    option(
        readable=False,
        help="Encrypt with this secret key, a .key_secret file that `edge-hal keys new` made (default: no encryption).",
    ),
]

Allowed = Annotated[
    Path | None,
    option(
        readable=False,
        help="Folder with the public keys of the subscribers that may connect when --key is given (default: the "
        "folder allowed/ beside the key).",
    ),
]

Insecure = Annotated[
    bool,
    option(
        "--insecure",
        help="Allow addresses that other machines can reach without encryption. Use it only on a trusted network.",
    ),
]
