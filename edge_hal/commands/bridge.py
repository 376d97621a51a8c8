"""`edge-hal bridge`: carry the events of a publisher to an MQTT broker, a database or a web address."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal import logs
from edge_hal.commands.extras import require
from edge_hal.commands.options.subscriber import Key, ServerKey, subscriber_keys
from edge_hal.errors import EdgeHalError
from edge_hal.files.secret_file import read_secret_line
from edge_hal.files.user_folders import state_folder

if TYPE_CHECKING:
    from edge_hal.runtime.bridges.bridge import Source

bridge = typer.Typer(
    no_args_is_help=True,
    help="Carry events to an MQTT broker, a database or a web address. None is lost when either side stops or is "
    "killed.",
)

Connect = Annotated[str, typer.Option(help="ZeroMQ address of the publisher, the --pub of `edge-hal run`.")]
Stream = Annotated[str | None, typer.Option(help="Name of the stream (default: what is published at the address).")]
Replay = Annotated[
    str | None,
    typer.Option(
        help="ZeroMQ address that past events are requested from (default: the port after that of --connect, or "
        "PATH.replay for ipc)."
    ),
]
Cursor = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        help="File that keeps the position: events up to it were confirmed by the target. Without the file the bridge "
        "begins with the oldest event (default: a file for these addresses under XDG_STATE_HOME).",
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option(readable=False, help="PEM file of the certificates to trust (default: those of the system)."),
]
Log = Annotated[
    str, typer.Option(help="Log format: human, json, or auto (human if standard error is a terminal, else json).")
]
PUBLISHER = "tcp://127.0.0.1:5570"


@bridge.command()
def mqtt(
    broker: Annotated[str, typer.Argument(metavar="URL", help="mqtt://host[:port], or mqtts:// for TLS.")],
    station: Annotated[
        str | None,
        typer.Option(help="Second level of the topics, edge-hal/STATION/... (default: the name of this machine)."),
    ] = None,
    auth: Annotated[
        Path | None,
        typer.Option(readable=False, help="File with one line USER:PASSWORD for the broker, mode 0600."),
    ] = None,
    ca: Ca = None,
    cert: Annotated[
        Path | None, typer.Option(readable=False, help="PEM file of our certificate, for a broker that asks for one.")
    ] = None,
    cert_key: Annotated[
        Path | None, typer.Option(readable=False, help="PEM file of the key of --cert (default: in the same file).")
    ] = None,
    connect: Connect = PUBLISHER,
    stream: Stream = None,
    replay: Replay = None,
    cursor: Cursor = None,
    key: Key = None,
    server_key: ServerKey = None,
    log: Log = "auto",
) -> None:
    """Publish events to an MQTT broker, as edge-hal/STATION/STREAM/TYPE, and the state of each stream, retained."""
    require("paho.mqtt", extra="mqtt")
    from edge_hal.runtime.bridges.bridge import bridge
    from edge_hal.runtime.bridges.mqtt import MqttBroker
    from edge_hal.runtime.stop import early_stop

    logs.set_up(log)
    station = station or socket.gethostname().partition(".")[0]
    secret = None if auth is None else read_secret_line(auth, "credentials", "user:password")
    stop = early_stop()
    target = MqttBroker(broker, station, secret, ca, cert, cert_key, stop)
    bridge(
        _source("mqtt", f"{target.shown} as {station}", connect, stream, replay, cursor, key, server_key), target, stop
    )


@bridge.command()
def sql(
    database: Annotated[
        str, typer.Argument(metavar="URL", help="sqlite:///file.db, or postgresql://user@host[:port]/database.")
    ],
    password_file: Annotated[
        Path | None,
        typer.Option(readable=False, help="File with one line, the password for the database, mode 0600."),
    ] = None,
    connect: Connect = PUBLISHER,
    stream: Stream = None,
    replay: Replay = None,
    cursor: Cursor = None,
    key: Key = None,
    server_key: ServerKey = None,
    log: Log = "auto",
) -> None:
    """Write events into tables of SQLite or PostgreSQL, each event once: events, transitions, deviations and cycles.

    Missing tables are created. A password can also be in PGPASSWORD or ~/.pgpass, as for every program of PostgreSQL.
    """
    require("sqlalchemy", extra="sql")
    from edge_hal.runtime.bridges.bridge import bridge
    from edge_hal.runtime.bridges.sql import SqlDatabase
    from edge_hal.runtime.stop import early_stop

    logs.set_up(log)
    password = None if password_file is None else read_secret_line(password_file, "password", "the password")
    target = SqlDatabase(database, password)
    bridge(_source("sql", target.shown, connect, stream, replay, cursor, key, server_key), target, early_stop())


@bridge.command()
def webhook(
    url: Annotated[str, typer.Argument(metavar="URL", help="https://host/path, or http://.")],
    secret_file: Annotated[
        Path, typer.Option(readable=False, help="File with one line, the secret that signs each request, mode 0600.")
    ],
    types: Annotated[
        str | None, typer.Option(help="Post only these types of events, for example deviation,cycle (default: all).")
    ] = None,
    skip_refused: Annotated[
        bool,
        typer.Option(
            "--skip-refused",
            help="Leave out an event that the receiver refuses (4xx other than 408, 425 and 429), with a warning "
            "(default: stop with an error).",
        ),
    ] = False,
    ca: Ca = None,
    connect: Connect = PUBLISHER,
    stream: Stream = None,
    replay: Replay = None,
    cursor: Cursor = None,
    key: Key = None,
    server_key: ServerKey = None,
    log: Log = "auto",
) -> None:
    """Post each event as JSON to a web address, signed with HMAC-SHA256. Repeated until the receiver confirms it."""
    from edge_hal.events import TYPES
    from edge_hal.runtime.bridges.bridge import bridge
    from edge_hal.runtime.bridges.webhook import Webhook
    from edge_hal.runtime.stop import early_stop

    logs.set_up(log)
    names = None if types is None else tuple(name.strip() for name in types.split(","))
    known = [name for name, kind in TYPES.items() if kind.durable or name == "lost"]
    for name in names or ():
        if name not in known:
            raise EdgeHalError(f"--types {types}", f"'{name}' is none of {', '.join(known)}", exit_code=2)
    secret = read_secret_line(secret_file, "secret", "the secret")
    target = Webhook(url, secret, ca, names, skip_refused)
    source = _source("webhook", target.shown, connect, stream, replay, cursor, key, server_key)
    bridge(source, target, early_stop(), largest_batch=1)  # after a kill one event comes again


def _source(
    kind: str,
    target: str,
    connect: str,
    stream: str | None,
    replay: str | None,
    cursor: Path | None,
    key: Path | None,
    server_key: Path | None,
) -> Source:
    from edge_hal.files import check_readable, check_writable
    from edge_hal.runtime.bridges.bridge import Source

    keys = subscriber_keys(key, server_key)
    if cursor is None:
        named = hashlib.sha256(f"{connect} {stream or ''} {target}".encode()).hexdigest()[:12]
        cursor = state_folder() / f"bridge-{kind}-{named}.cursor"
    check_readable(cursor)
    check_writable(cursor.parent, f"cannot write the cursor {cursor}", "choose another --cursor")
    fields = {"endpoint": connect, "target": target, "cursor": cursor}
    logs.log.info("from %s to %s, position in %s", connect, target, cursor, extra={"fields": fields})
    return Source(cursor, connect, stream, replay, keys)
