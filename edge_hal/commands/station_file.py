"""The file `station.yaml`: its keys are the options of `edge-hal run`, at the top for all streams, then for each.

streams:
  left: {camera: 0, bundle: b}

Each stream is read as the command line `edge-hal run --KEY VALUE ...` would be, so both know the same keys and values.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edge_hal.commands.run_values import address_options, run_options
from edge_hal.errors import EdgeHalError
from edge_hal.yaml_file import Lines, line_of, read_yaml

if TYPE_CHECKING:
    from edge_hal.runtime.station.options import StationOptions

OF_STATION = ("pub", "replay", "metrics", "key", "allowed", "insecure")
"""Of the whole station: at the top only. `--KEY` of the command line replaces them."""
OF_COMMAND = ("stream", "station", "check", "log", "json", "task")
"""Options and arguments that are no keys."""
PRIORITY = "priority"
"""Of a stream among the others, a whole number: the only key that is no option of `edge-hal run`."""
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
    from edge_hal.runtime.station.options import StationOptions

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

    def of(name: str) -> Any:
        own = {} if streams[name] is None else streams[name]
        if not isinstance(own, dict) or not isinstance(name, str):
            at = f"{path}, line {line_of(lines, ('streams', str(name)))}"
            raise EdgeHalError(
                f"{at}: stream '{name}' has no name or holds no keys", "", f"write `{EXAMPLE}`", exit_code=2
            )
        _check_keys(path, lines, ("streams", name), own, of_stream)
        words = {**{key: value for key, value in common.items() if key not in OF_STATION}, **own}
        priority[name] = _priority(words.pop(PRIORITY, None), f"{path}, line {line_of(lines, ('streams', name))}")
        values = {**parsed(words, ("streams", name)), "stream": name}
        try:
            return replace(run_options(values), keys=address.keys, insecure=address.insecure)  # of its preview
        except EdgeHalError as error:
            at = f"{path}, line {line_of(lines, ('streams', name))}"
            raise EdgeHalError(f"{at}: stream '{name}': {error.what}", error.why, error.todo, exit_code=2) from error

    priority: dict[str, int] = {}
    top = parsed({key: common[key] for key in OF_STATION if key in common}, ())
    address = address_options({**top, **given})
    return StationOptions({name: of(name) for name in streams}, address, priority)


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
            raise EdgeHalError(what, "it belongs to a stream", f"write `{name}: ...` in the file", exit_code=2)
        found[str(parameter.name)] = ctx.params[str(parameter.name)]
    return found
