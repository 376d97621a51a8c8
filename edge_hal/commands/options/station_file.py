"""The file `station.yaml`: its keys are the options of `edge-hal run`, at the top for all streams, then for each.

streams:
  left: {camera: 0, bundle: b}

Each stream is read as the command line `edge-hal run --KEY VALUE ...` would be, so both know the same keys and values.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from edge_hal.commands.options.command_words import UsageError, blamed_key, command_of, words_of
from edge_hal.commands.options.parsing import parse_duration
from edge_hal.commands.options.run_values import address_options, run_options
from edge_hal.errors import EdgeHalError
from edge_hal.files.yaml_file import Lines, line_of, read_yaml

if TYPE_CHECKING:
    from edge_hal.runtime.options import RunOptions
    from edge_hal.runtime.station.options import AddressOptions, FusedOptions, StationOptions

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
    file = _StationFile(path, values, lines, command_of(run))
    file.check_top()
    address = address_options({**file.parsed_top(), **given})
    plain = {name: file.located(file.stream, name, address) for name in file.plain}
    fused = {name: file.located(file.fused, name, address) for name in file.fused_names}
    return StationOptions(plain, address, {name: file.priority(name) for name in file.streams}, fused)


@dataclass(frozen=True)
class _StationFile:
    """What the file holds. Errors name its lines.

    Attributes:
        values: of the keys at the top.
        command: the command line of `edge-hal run`, see `command_of`.
    """

    path: Path
    values: Values
    lines: Lines
    command: Any

    @property
    def streams(self) -> dict[str, Any]:
        """{name: its keys, None for a stream without any}"""
        found: dict[str, Any] = self.values["streams"]
        return found

    @property
    def fused_names(self) -> list[str]:
        return [name for name, own in self.streams.items() if isinstance(own, dict) and FUSE in own]

    @property
    def plain(self) -> list[str]:
        """The names of the streams with a source of their own."""
        return [name for name in self.streams if name not in self.fused_names]

    @property
    def common(self) -> dict[str, Any]:
        """What the top says for the station and for all streams."""
        return {key: value for key, value in self.values.items() if key != "streams"}

    @property
    def of_stream(self) -> list[str]:
        """The keys of a stream."""
        options = (option.opts[0] for option in self.command.params)
        keys = {option.removeprefix("--") for option in options if option.startswith("--")}
        return [*sorted(keys - {*OF_STATION, *OF_COMMAND}), PRIORITY]

    def at(self, *place: str) -> str:
        return f"{self.path}, line {line_of(self.lines, place)}"

    def located(self, make: Callable[[str, AddressOptions], Made], name: str, address: AddressOptions) -> Made:
        """What `make` makes of a stream. Its errors get the line of the stream, if they name none."""
        try:
            return make(name, address)
        except EdgeHalError as error:
            if error.what.startswith(f"{self.path}, line"):
                raise
            what = f"{self.at('streams', name)}: stream '{name}': {error.what}"
            raise EdgeHalError(what, error.why, error.todo, exit_code=2) from error

    def check_top(self) -> None:
        """Raises EdgeHalError for a key that no station has, and if there are no streams."""
        self._check_keys((), self.common, [*OF_STATION, *self.of_stream, "streams"])
        streams = self.values.get("streams")
        if not isinstance(streams, dict) or not streams:
            raise EdgeHalError(f"{self.at('streams')}: it has no streams", "", f"write `{EXAMPLE}`", exit_code=2)

    def parsed_top(self) -> dict[str, Any]:
        """The options of the whole station, by parameter."""
        return self._parsed({key: self.common[key] for key in OF_STATION if key in self.common}, ())

    def stream(self, name: str, address: AddressOptions) -> RunOptions:
        words = self._words(name)
        del words[PRIORITY]
        return self._options(name, words, address)

    def fused(self, name: str, address: AddressOptions) -> FusedOptions:
        from edge_hal.runtime.station.options import FusedOptions, check_views

        own = self._own(name)
        self._check_fused_keys(name, own)
        views, weights = _views(own[FUSE]), _weights(own.get(WEIGHTS))
        check_views(views, self.plain)
        first = self._words(views[0])
        words = {key: first[key] for key in OF_VIEW if key in first}
        words |= {key: value for key, value in {**self.common, **own}.items() if key in OF_FUSED and key != PRIORITY}
        wait = own.get(WAIT)
        waits = {} if wait is None else {"wait_s": parse_duration(wait)}
        return FusedOptions(self._options(name, words, address), views, weights, **waits)

    def priority(self, name: str) -> int:
        value = {**self.common, **self._own(name)}.get(PRIORITY)
        try:
            return 0 if value is None else int(value)
        except (ValueError, TypeError) as error:
            what, why = f"{self.at('streams', name)}: '{PRIORITY}'", "it is a whole number"
            raise EdgeHalError(what, why, "write priority: 1", exit_code=2) from error

    def _own(self, name: Any) -> dict[str, Any]:
        """The keys of a stream."""
        own = {} if self.streams[name] is None else self.streams[name]
        if not isinstance(own, dict) or not isinstance(name, str):
            what = f"{self.at('streams', str(name))}: stream '{name}' has no name or holds no keys"
            raise EdgeHalError(what, "", f"write `{EXAMPLE}`", exit_code=2)
        return own

    def _words(self, name: str) -> dict[str, Any]:
        """The keys of a stream with a source, and those at the top that hold for it."""
        own = self._own(name)
        self._check_keys(("streams", name), own, self.of_stream)
        return {PRIORITY: None, **{key: value for key, value in self.common.items() if key not in OF_STATION}, **own}

    def _options(self, name: str, words: Values, address: AddressOptions) -> RunOptions:
        values = {**self._parsed(words, ("streams", name)), "stream": name}
        return replace(run_options(values), keys=address.keys, insecure=address.insecure)  # of its preview

    def _parsed(self, words: Values, place: tuple[str, ...]) -> dict[str, Any]:
        """The values of a command line with these words."""
        try:
            return {**self.command.main(words_of(self.command, words), prog_name="", standalone_mode=False)}
        except UsageError as error:
            blamed = blamed_key(error, words, place)
            own = blamed if blamed in self.lines else blamed[-1:]  # a value may come from the top
            what = f"{self.at(*own)}: '{blamed[-1]}'"
            raise EdgeHalError(what, error.format_message(), exit_code=2) from error

    def _check_fused_keys(self, name: str, own: Values) -> None:
        """Raises EdgeHalError for a key that a fused stream does not know."""
        known = [FUSE, WEIGHTS, WAIT, *OF_FUSED]
        for key in own:
            if key in self.of_stream and key not in known:
                what = f"{self.at('streams', name, key)}: '{key}' belongs to a stream with a source"
                raise EdgeHalError(what, f"'{name}' is fused from other streams", "leave it out", exit_code=2)
        self._check_keys(("streams", name), own, known)

    def _check_keys(self, place: tuple[str, ...], found: Values, known: list[str]) -> None:
        """Raises EdgeHalError for a key that is not known here, with the nearest that is."""
        for key in found:
            if key in known:
                continue
            at = self.at(*place, key)
            if place and key in OF_STATION:
                raise EdgeHalError(
                    f"{at}: '{key}' belongs to the whole station", "", "write it at the top", exit_code=2
                )
            near = difflib.get_close_matches(str(key).replace("_", "-"), known, n=1, cutoff=0.5)
            if key in OF_COMMAND:
                todo = INSTEAD.get(key, f"give --{key} on the command line")
            else:
                todo = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise EdgeHalError(f"{at}: unknown key '{key}'", "", todo, exit_code=2)


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
