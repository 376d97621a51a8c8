"""The file `station.yaml`: its keys are the options of `edge-hal run`, at the top for all streams, then for each.

streams:
  left: {camera: 0, bundle: b}

Each stream is read as the command line `edge-hal run --KEY VALUE ...` would be, so both know the same keys and values.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from edge_hal.commands.options.parsing import parse_duration
from edge_hal.commands.options.run_values import address_options, run_options
from edge_hal.errors import EdgeHalError
from edge_hal.files.yaml_file import Lines, line_of, read_yaml

if TYPE_CHECKING:
    from edge_hal.runtime.options import RunOptions
    from edge_hal.runtime.station.options import FusedOptions, StationOptions

Made = TypeVar("Made")
OF_STATION = ("pub", "replay", "metrics", "key", "allowed", "insecure")
"""Of the whole station: at the top only. `--KEY` of the command line replaces them."""
OF_COMMAND = ("stream", "station", "check", "log", "json", "task")
"""Options and arguments that are no keys."""
INSTEAD = {
    "stream": "names of streams in the file are the keys under `streams:`, as in `streams: {NAME: ...}`",
    "task": "write `bundle: TASK` in the file",
}
"""What a file has in place of them."""
PRIORITY = "priority"
"""Of a stream among the others, a whole number: a key that is no option of `edge-hal run`."""
FUSE, WEIGHTS, WAIT = "fuse", "weights", "wait"
"""Of a fused stream: its views, how much each counts, and how long one that is late is waited for."""
OF_FUSED = (
    *("decide", "set", "now-hz", "events", "decide-every", "resume", "max-hold-ms", "overload", "seconds"),
    *("journal", "no-journal", "retention", "wait-subscribers", PRIORITY),
)
"""Other keys of a fused stream."""
OF_VIEW = ("camera", "bundle", "pace", "allow-uncertified", "trusted")
"""Keys of its first view that hold for a fused stream as well."""
EXAMPLE = "streams: {left: {camera: 0, bundle: b}}"

Values = Mapping[str, Any]
UsageError: Any = typer.BadParameter.__base__
"""What typer raises for every wrong command line; older versions take it from another package."""


def read_station(path: Path, run: Any, given: Values) -> StationOptions:
    """The options of a station.

    Args:
        path: the file.
        run: the function of the command `edge-hal run`.
        given: options of the command line, by parameter, which replace those of the file.

    Raises:
        EdgeHalError: the file cannot be read, or a key or value is wrong; the message names the line. Exit code 2.
    """
    from edge_hal.runtime.station.options import FusedOptions, StationOptions, check_views

    values, lines = read_yaml(path, EXAMPLE)
    command = command_of(run)
    keys = {option.opts[0].removeprefix("--") for option in command.params if option.opts[0].startswith("--")}
    of_stream = [*sorted(keys - {*OF_STATION, *OF_COMMAND}), PRIORITY]
    common = {key: value for key, value in values.items() if key != "streams"}
    _check_keys(path, lines, (), common, [*OF_STATION, *of_stream, "streams"])
    streams = values.get("streams")
    if not isinstance(streams, dict) or not streams:
        at = f"{path}, line {line_of(lines, ('streams',))}"
        raise EdgeHalError(f"{at}: it has no streams", "", f"write `{EXAMPLE}`", exit_code=2)

    def parsed(words: Values, place: tuple[str, ...]) -> dict[str, Any]:
        try:
            return {**command.main(_arguments(command, words), prog_name="", standalone_mode=False)}
        except UsageError as error:
            blamed = _blamed(error, words, place)
            own = blamed if blamed in lines else blamed[-1:]  # a value may come from the top
            at = f"{path}, line {line_of(lines, own)}"
            raise EdgeHalError(f"{at}: '{blamed[-1]}'", error.format_message(), exit_code=2) from error

    def own_of(name: Any) -> dict[str, Any]:
        own = {} if streams[name] is None else streams[name]
        if not isinstance(own, dict) or not isinstance(name, str):
            at = f"{path}, line {line_of(lines, ('streams', str(name)))}"
            raise EdgeHalError(
                f"{at}: stream '{name}' has no name or holds no keys", "", f"write `{EXAMPLE}`", exit_code=2
            )
        return own

    def options_of(name: str, words: Values) -> RunOptions:
        values = {**parsed(words, ("streams", name)), "stream": name}
        return replace(run_options(values), keys=address.keys, insecure=address.insecure)  # of its preview

    def words_of(name: str) -> dict[str, Any]:
        own = own_of(name)
        _check_keys(path, lines, ("streams", name), own, of_stream)
        return {**{key: value for key, value in common.items() if key not in OF_STATION}, **own}

    def stream_of(name: str) -> RunOptions:
        words = words_of(name)
        priority[name] = _priority(words.pop(PRIORITY, None), f"{path}, line {line_of(lines, ('streams', name))}")
        return options_of(name, words)

    def fused_of(name: str) -> FusedOptions:
        own = own_of(name)
        _check_fused_keys(path, lines, name, own, of_stream)
        views, weights = _views(own[FUSE]), _weights(own.get(WEIGHTS))
        check_views(views, [other for other in streams if other not in fused])
        first = words_of(views[0])
        words = {key: first[key] for key in OF_VIEW if key in first}
        words |= {key: value for key, value in {**common, **own}.items() if key in OF_FUSED}
        priority[name] = _priority(words.pop(PRIORITY, None), f"{path}, line {line_of(lines, ('streams', name))}")
        wait = own.get(WAIT)
        waits = {} if wait is None else {"wait_s": parse_duration(wait)}
        return FusedOptions(options_of(name, words), views, weights, **waits)

    def located(make: Callable[[str], Made], name: str) -> Made:
        try:
            return make(name)
        except EdgeHalError as error:
            if error.what.startswith(f"{path}, line"):
                raise
            at = f"{path}, line {line_of(lines, ('streams', name))}"
            raise EdgeHalError(f"{at}: stream '{name}': {error.what}", error.why, error.todo, exit_code=2) from error

    priority: dict[str, int] = {}
    top = parsed({key: common[key] for key in OF_STATION if key in common}, ())
    address = address_options({**top, **given})
    fused = [name for name, own in streams.items() if isinstance(own, dict) and FUSE in own]
    plain = {name: located(stream_of, name) for name in streams if name not in fused}
    return StationOptions(plain, address, priority, {name: located(fused_of, name) for name in fused})


def _check_fused_keys(path: Path, lines: Lines, name: str, own: Values, of_stream: list[str]) -> None:
    """Raises EdgeHalError for a key that a fused stream does not know."""
    known = [FUSE, WEIGHTS, WAIT, *OF_FUSED]
    for key in own:
        if key in of_stream and key not in known:
            at = f"{path}, line {line_of(lines, ('streams', name, key))}"
            why = f"'{name}' is fused from other streams"
            raise EdgeHalError(f"{at}: '{key}' belongs to a stream with a source", why, "leave it out", exit_code=2)
    _check_keys(path, lines, ("streams", name), own, known)


def _views(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise EdgeHalError("fuse: it is a list of streams", "", "write fuse: [left, right]", exit_code=2)
    return tuple(value)


def _weights(value: Any) -> dict[str, float] | None:
    """A number for each view."""
    if value is None:
        return None
    try:
        return {view: float(weight) for view, weight in value.items()}
    except (AttributeError, TypeError, ValueError) as error:
        todo = "write weights: {left: 0.8, right: 0.6}"
        raise EdgeHalError("weights: it is a number for each view", "", todo, exit_code=2) from error


def command_of(run: Any) -> Any:
    """The command line of `run` as a command that returns the values of its parameters."""

    @functools.wraps(run)
    def values(**given: Any) -> dict[str, Any]:
        return given

    app = typer.Typer(add_completion=False)
    app.command()(values)
    return typer.main.get_command(app)


def _arguments(command: Any, words: Values) -> list[str]:
    """`{camera: 0, insecure: true}` -> `--camera=0 --insecure`. A key without a value is not given.

    Raises:
        typer.BadParameter: a value is of another kind.
    """
    options = {option.opts[0]: option for option in command.params}
    found = []
    for key, value in words.items():
        option = options[f"--{key}"]
        values = value if option.multiple and isinstance(value, list) else [value]
        if value is None or (option.is_flag and value == "false"):
            continue
        if option.is_flag and value != "true":
            raise typer.BadParameter("it is true or false", param=option)
        if not all(isinstance(each, str) for each in values):
            raise typer.BadParameter("it has one value, without keys below it", param=option)
        found += [f"--{key}" if option.is_flag else f"--{key}={each}" for each in values]
    return found


def _priority(value: Any, at: str) -> int:
    try:
        return 0 if value is None else int(value)
    except (ValueError, TypeError) as error:
        raise EdgeHalError(f"{at}: '{PRIORITY}'", "it is a whole number", "write priority: 1", exit_code=2) from error


def _blamed(error: Any, words: Values, place: tuple[str, ...]) -> tuple[str, ...]:
    """The key that an error is about."""
    option = getattr(error, "param", None)
    name = getattr(error, "option_name", None) or (option.opts[0] if option is not None else "")
    key = name.removeprefix("--")
    return (*place, key) if key in words else place or ("",)


def _check_keys(path: Path, lines: Lines, place: tuple[str, ...], found: Values, known: list[str]) -> None:
    """Raises EdgeHalError for a key that is not known here, with the nearest that is."""
    for key in found:
        if key in known:
            continue
        at = f"{path}, line {line_of(lines, (*place, key))}"
        if place and key in OF_STATION:
            raise EdgeHalError(f"{at}: '{key}' belongs to the whole station", "", "write it at the top", exit_code=2)
        near = difflib.get_close_matches(str(key).replace("_", "-"), known, n=1, cutoff=0.5)
        if key in OF_COMMAND:
            todo = INSTEAD.get(key, f"give --{key} on the command line")
        else:
            todo = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise EdgeHalError(f"{at}: unknown key '{key}'", "", todo, exit_code=2)


def given_to_station(ctx: typer.Context) -> dict[str, Any]:
    """The options of the whole station that the command line gives, by parameter.

    Raises:
        EdgeHalError: it gives an option of a stream. Exit code 2.
    """
    found = {}
    for parameter in ctx.command.params:
        name = parameter.opts[0].removeprefix("--")
        default = getattr(ctx.get_parameter_source(str(parameter.name)), "name", "DEFAULT") == "DEFAULT"
        if default or name in ("station", "check", "log", "json"):
            continue
        if name not in OF_STATION:
            what = f"{parameter.opts[0] if parameter.opts[0].startswith('--') else 'TASK'} with --station"
            todo = INSTEAD.get(name, f"write `{name}: ...` in the file")
            raise EdgeHalError(what, "it belongs to a stream", todo, exit_code=2)
        found[str(parameter.name)] = ctx.params[str(parameter.name)]
    return found
