"""`edge-hal replay`: run a recording again, and compare its events with those of then."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.events import Event


def replay(
    folder: Annotated[Path, typer.Argument(help="What `edge-hal run --record` wrote.")],
    bundle: Annotated[Path, typer.Option(help="The bundle to run; another one than then is told.")] = Path("bundle"),
    pub: Annotated[str, typer.Option(help="Where to publish.")] = "tcp://127.0.0.1:*",
    as_json: Annotated[bool, typer.Option("--json", help="One event a line, as published.")] = False,
) -> None:
    """Run a recording again: the same frames at the same times. Exit code 1 where events differ."""
    from dataclasses import replace

    from edge_hal.bundle import load_bundle
    from edge_hal.cli import describe
    from edge_hal.events import encode
    from edge_hal.runtime import loop
    from edge_hal.runtime.record import comparable, recorded_events, replay_options

    options, fingerprint = replay_options(folder, bundle)
    found: list[bytes] = []

    def tell(event: Event) -> None:
        found.append(comparable(encode(event)))
        print(encode(event).decode() if as_json else describe(event), flush=True)

    loop.run(replace(options, endpoint=pub, allow_uncertified=True), on_event=tell)
    if load_bundle(bundle, allow_uncertified=True).fingerprint != fingerprint:
        typer.echo(f"{bundle} is another bundle than the recording's: its events are its own", err=True)
        return
    pairs = itertools.zip_longest(recorded_events(folder), found)
    for number, (then, now) in enumerate(pairs):
        if then != now:
            raise EdgeHalError(
                f"event {number} differs from the recording",
                f"then {(then or b'nothing').decode()}, now {(now or b'nothing').decode()}",
                "another machine or version of ONNX Runtime may round differently; else please report it",
            )
    typer.echo(f"{len(found)} events, all as recorded", err=True)
