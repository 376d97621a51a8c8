"""The values of the options of `edge-hal run` as the options of a run, or of the address of a station."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_hal import logs
from edge_hal.commands.options.parsing import only_with, parse_duration, parse_settings, parse_size
from edge_hal.errors import EdgeHalError
from edge_hal.task_folder import TASK_FILE, is_task, newest_bundle

if TYPE_CHECKING:
    from edge_hal.runtime.network.curve_keys import ServerKeys
    from edge_hal.runtime.options import RunOptions
    from edge_hal.runtime.station.options import AddressOptions

AS_GIVEN = (
    *("camera", "pace", "stream", "decide", "now_hz", "events", "decide_every", "engine", "precision", "threads"),
    *("wait_subscribers", "max_hold_ms", "fps", "fourcc", "camera_auth", "overload", "record", "record_pictures"),
    *("seconds", "allow_uncertified", "trusted", "preview"),
)
"""Parameters of the command that are fields of `RunOptions`."""


def run_options(given: Mapping[str, Any]) -> RunOptions:
    """What a stream is told. What concerns its address has the values of a run of one stream.

    Args:
        given: the parameters of the command, by name.

    Raises:
        EdgeHalError: a value is wrong, or has no effect. Exit code 2.
    """
    from edge_hal.runtime.delivery.retention import Retention
    from edge_hal.runtime.options import RunOptions
    from edge_hal.runtime.sources.watchdog import Limits

    journal = _journal(given["journal"], given["no_journal"], given["camera"], given["stream"])
    retention, around, size = given["retention"], given["record_around"], given["size"]
    selfcheck, give_up = given["selfcheck"], given["give_up"]
    if journal is None:
        only_with("--journal", {"--retention": retention is not None})
    return RunOptions(
        bundle=_bundle(given["task"], given["bundle"]),
        decoder=parse_settings(given["settings"] or []),
        resume_s=parse_duration(given["resume"]),
        size=None if size is None else parse_size(size),
        limits=Limits(
            stall_s=parse_duration(given["stall"]),
            still_s=parse_duration(given["still"]),
            give_up_s=None if give_up is None else parse_duration(give_up),
        ),
        selfcheck_s=None if selfcheck is None else parse_duration(selfcheck),
        record_around=None if around is None else Retention.parse(around, "--record-around"),
        journal=journal,
        retention=None if retention is None else Retention.parse(retention),
        **{name: given[name] for name in AS_GIVEN},
    )


def address_options(given: Mapping[str, Any]) -> AddressOptions:
    """What the streams of a station share. Raises EdgeHalError as `run_options`."""
    from edge_hal.runtime.station.options import AddressOptions

    keys = publisher_keys(given)
    return AddressOptions(given["pub"], given["replay"], keys, given["insecure"], given["metrics"])


def publisher_keys(given: Mapping[str, Any]) -> ServerKeys | None:
    """The keys of --key and --allowed. Raises EdgeHalError if they cannot be used."""
    from edge_hal.runtime.network.curve_keys import server_keys

    key, allowed = given["key"], given["allowed"]
    only_with("--key", {"--allowed": key is None and allowed is not None})
    return None if key is None else server_keys(key, allowed)


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


def _journal(given: Path | None, none: bool, camera: str, stream: str) -> Path | None:
    """The journal file: always one for a camera, for a file only on request, since a file can be run again."""
    from edge_hal.runtime.delivery.journal import default_path
    from edge_hal.runtime.network.endpoint import check_stream
    from edge_hal.runtime.sources.source_spec import SourceSpec

    if given is not None and none:
        raise EdgeHalError("--journal and --no-journal", "they exclude each other", exit_code=2)
    if given is not None or none or not SourceSpec.parse(camera).live:
        return given
    check_stream(stream)
    return default_path(stream)
