"""`edge-hal replay`: run a recording again and compare the events with the recorded ones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_hal import __version__
from edge_hal.errors import EdgeHalError

if TYPE_CHECKING:
    from edge_hal.events import Event
    from edge_hal.runtime.recording.reader import Recording


def replay(
    folder: Annotated[
        Path, typer.Argument(readable=False, help="Folder that `edge-hal run --record` wrote, or one piece in it.")
    ],
    bundle: Annotated[
        Path,
        typer.Option(
            readable=False,
            help="Bundle to run, or a task folder. With another bundle than the recorded one, the events are printed "
            "and not compared.",
        ),
    ] = Path("bundle"),
    pub: Annotated[
        str,
        typer.Option(help="ZeroMQ address of this machine to publish the events on. The port * chooses a free one."),
    ] = "tcp://127.0.0.1:*",
    stream: Annotated[str, typer.Option(help="Name of the stream in the events and topics.")] = "default",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line of JSON, as it is published.")
    ] = False,
) -> None:
    """Run a recording again, with the same frames at the same times. The exit code is 1 if an event differs."""
    from edge_hal.bundle import load_bundle
    from edge_hal.runtime.network.endpoint import check_local
    from edge_hal.runtime.recording.reader import read_recording, recordings
    from edge_hal.task_folder import newest_bundle

    check_local(pub)
    first, *others = recordings(folder)
    found = itertools.chain([read_recording(first)], map(read_recording, others))  # one at a time in memory
    bundle = newest_bundle(bundle)
    fingerprint = load_bundle(bundle, allow_uncertified=True).fingerprint
    count, foreign = 0, 0
    for recording in found:
        if recording.ended is None:
            why = "its run was killed, had no room, or the files were cut off"
            typer.echo(f"{recording.folder} has no end: {why}", err=True)
        events, same = _replay(recording, bundle, fingerprint, pub, stream, as_json)
        count += events
        foreign += not same
    if foreign:
        typer.echo(f"{bundle} is not the bundle of the recording: the events were not compared", err=True)
    else:
        typer.echo(f"{count} events, all as recorded", err=True)


def _replay(
    recording: Recording, bundle: Path, fingerprint: str, pub: str, stream: str, as_json: bool
) -> tuple[int, bool]:
    """(durable events compared, whether the recording was made with this bundle)."""
    from dataclasses import replace

    from edge_hal.commands.listen import describe
    from edge_hal.events import encode
    from edge_hal.runtime import runner
    from edge_hal.runtime.recording.reader import comparable
    from edge_hal.runtime.recording.writer import EVENTS

    folder = recording.folder
    found: list[bytes] = []

    def show(event: Event) -> None:
        found.append(comparable(encode(event)))
        print(encode(event).decode() if as_json else describe(event), flush=True)

    if recording.state is not None and recording.bundle != fingerprint:
        todo = "give --bundle the bundle of the recording"
        raise EdgeHalError(
            f"{folder} begins in the middle of a run", "its saved state fits only the bundle it was made with", todo
        )
    runner.run(replace(recording.options(bundle), endpoint=pub, stream=stream, allow_uncertified=True), on_event=show)
    if recording.bundle != fingerprint:
        return 0, False
    difference = recording.difference(found)
    if difference is not None:
        number, *sides = difference
        then, now = ("no event" if each is None else each.decode() for each in sides)
        todo = "another machine or version of ONNX Runtime may round differently; on the same ones please report it"
        if recording.version != __version__:
            todo = (
                f"edge-hal {recording.version} recorded it, and {__version__} may decide differently: see CHANGELOG.md"
            )
        elif _edited(recording.events(), found):
            todo = f"decoder.json or procedure.json of {bundle} was edited since: put it back as it was"
        raise EdgeHalError(
            f"event {number} of {folder} differs from the recording",
            f"recorded: {then}, now: {now}",
            todo,
        )
    count = len(recording.compared(found)[0])
    if recording.events_cut_off:
        why = f"its log has the end of the run, {EVENTS} has not; its first {count} events are as recorded"
        raise EdgeHalError(f"{folder} was cut off", why, "copy the whole recording again")
    return count, True


def _edited(then: Sequence[bytes], now: Sequence[bytes]) -> bool:
    """Whether the recorded events were decided by other thresholds, or by another procedure."""
    before, after = ({json.loads(each).get("decoder") for each in events} - {None} for events in (then, now))
    return bool(before) and not before & after
