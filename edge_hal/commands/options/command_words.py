"""Keys of a file as the words of a command line, so that a file and a command know the same keys and values."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import typer

Values = Mapping[str, Any]
UsageError: Any = typer.BadParameter.__base__
"""What typer raises for every wrong command line; older versions take it from another package."""

NO_WORD = re.compile(r"[\0\ud800-\udc7f\udd00-\udfff]")
"""What no command line can hold. Bytes that are not UTF-8 are U+DC80 to U+DCFF."""


def command_of(run: Any) -> Any:
    """The command line of `run` as a command that returns the values of its parameters."""

    @functools.wraps(run)
    def values(**given: Any) -> dict[str, Any]:
        return given

    app = typer.Typer(add_completion=False)
    app.command()(values)
    return typer.main.get_command(app)


def words_of(command: Any, values: Values) -> list[str]:
    """`{camera: 0, insecure: true}` -> `--camera=0 --insecure`. A key without a value is not given.

    Raises:
        typer.BadParameter: a value is of another kind, or has a character that no command line can hold.
    """
    options = {option.opts[0]: option for option in command.params}
    found = []
    for key, value in values.items():
        option = options[f"--{key}"]
        given = value if option.multiple and isinstance(value, list) else [value]
        if value is None or (option.is_flag and value == "false"):
            continue
        if option.is_flag and value != "true":
            raise typer.BadParameter("it is true or false", param=option)
        if not all(isinstance(each, str) for each in given):
            raise typer.BadParameter("it has one value, without keys below it", param=option)
        for each in given:
            if odd := NO_WORD.search(each):
                raise typer.BadParameter(f"it has the character U+{ord(odd[0]):04X}", param=option)
        found += [f"--{key}" if option.is_flag else f"--{key}={each}" for each in given]
    return found


def blamed_key(error: Any, values: Values, place: tuple[str, ...]) -> tuple[str, ...]:
    """The key that an error is about: `place` and the key; `place` itself if no value is to blame."""
    option = getattr(error, "param", None)
    name = getattr(error, "option_name", None) or (option.opts[0] if option is not None else "")
    key = name.removeprefix("--")
    return (*place, key) if key in values else place or ("",)
