"""`edge-hal replay`: run a recording again, and compare its events with those of then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal import __version__
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.events import Event


def replay(
    folder: Annotated[Path, typer.Argument(help="What `edge-hal run --record` wrote, or one piece of it.")],
    bundle: Annotated[Path, typer.Option(help="The bundle to run; another one than then is told.")] = Path("bundle"),
    pub: Annotated[str, typer.Option(help="Where to publish.")] = "tcp://127.0.0.1:*",
    as_json: Annotated[bool, typer.Option("--json", help="One event a line, as published.")] = False,
) -> None:
    """Run a recording again: the same frames at the same times. Exit code 1 where events differ."""
    from edge_hal.bundle import load_bundle
    from edge_hal.runtime.recording.reader import recordings

    fingerprint = load_bundle(bundle, allow_uncertified=True).fingerprint
    count, foreign = 0, 0
    for piece in recordings(folder):
        events, same = _replay(piece, bundle, fingerprint, pub, as_json)
        count += events
        foreign += not same
    if foreign:
        typer.echo(f"{bundle} is another bundle than the recording's: its events are its own", err=True)
    else:
        typer.echo(f"{count} events, all as recorded", err=True)


def _replay(folder: Path, bundle: Path, fingerprint: str, pub: str, as_json: bool) -> tuple[int, bool]:
    """(durable events compared, whether the recording was made with this bundle)."""
    from dataclasses import replace

    from edge_hal.commands.listen import describe
    from edge_hal.events import encode
    from edge_hal.runtime import runner
    from edge_hal.runtime.recording.reader import comparable, read_recording

    recording = read_recording(folder)
    found: list[bytes] = []

    def tell(event: Event) -> None:
        found.append(comparable(encode(event)))
        print(encode(event).decode() if as_json else describe(event), flush=True)

    if recording.state is not None and recording.bundle != fingerprint:
        todo = "give --bundle the one of then"
        raise EdgeHalError(f"{folder} begins in the midst of a run", "another bundle has another state", todo)
    runner.run(replace(recording.options(bundle), endpoint=pub, allow_uncertified=True), on_event=tell)
    if recording.bundle != fingerprint:
        return 0, False
    difference = recording.difference(found)
    if difference is not None:
        number, then, now = difference
        todo = "another machine or version of ONNX Runtime may round differently; else please report it"
        if recording.version != __version__:
            todo = (
                f"edge-hal {recording.version} recorded it, and {__version__} may decide differently: see CHANGELOG.md"
            )
        raise EdgeHalError(
            f"event {number} of {folder} differs from the recording",
            f"then {then.decode()}, now {now.decode()}",
            todo,
        )
    return len(recording.events()), True
