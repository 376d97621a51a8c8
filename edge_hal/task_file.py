"""The file task.yaml of a task folder: its keys, and errors that name the line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_hal.config import Positive, in_words, load_config, nearest_key
from edge_hal.errors import EdgeHalError
from edge_hal.files import what_it_is
from edge_hal.files.yaml_file import Lines, line_of, read_yaml
from edge_hal.media.names import composed
from edge_hal.task_folder import TASK_FILE

ODD = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
"""Characters that a line of a step list cannot have, or a file in UTF-8."""


SETTINGS = {
    "background": "data.background",
    "rate_hz": "data.rate_hz",
    "mistakes": "data.mistakes",
    "encoder": "model.encoder.kind",
}
"""Keys of the file that are keys of the configuration too."""


class TaskFile(BaseModel):
    """The keys of `task.yaml`. All are optional.

    Attributes:
        steps: the names of all steps, in the order of their numbers; None: those of mapping.txt or of the step lists.
        background: the step that means no step.
        rate_hz: frames per second of feature files, and of video files without time stamps.
        test: videos that are not trained on; `edge-hal eval` scores them.
        mistakes: videos in which the procedure was not followed; steps are learned from them, the procedure is not.
        encoder: what turns pictures into vectors, as in `edge-hal train --encoder`, but not `auto`. Not for features.
        config: a preset, or a YAML file in the task folder; None: the preset that fits the data.
        init: the run that a training begins with, or its task folder; relative to this one.
        settings: keys of the configuration, as in `--set`, and their values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: tuple[str, ...] | None = None
    background: str | None = None
    rate_hz: Positive | None = None
    test: tuple[str, ...] = ()
    mistakes: tuple[str, ...] | None = None
    encoder: str | None = None
    config: str | None = None
    init: str | None = None
    settings: dict[str, Any] = {}


@dataclass(frozen=True)
class Task:
    """A task folder that was read."""

    root: Path
    file: TaskFile

    def overrides(self, *, pictures: bool) -> list[str]:
        """What the file replaces in the configuration of a model that reads pictures or features, as `--set` takes
        it."""
        data = {key: getattr(self.file, name) for name, key in SETTINGS.items() if pictures or name != "encoder"}
        keys = {key: value for key, value in data.items() if value is not None} | _flat(self.file.settings)
        return [f"{key}={json.dumps(value)}" for key, value in keys.items()]

    @property
    def init(self) -> Path | None:
        """The run that a training begins with, or its task folder."""
        return None if self.file.init is None else self.root / self.file.init

    def config_source(self) -> str | None:
        """The preset or file that the configuration starts from; None: that of the data."""
        given = self.file.config
        if given is None:
            return None
        return str(self.root / given) if (self.root / given).is_file() else given


def read_task(root: Path) -> Task | None:
    """The task folder `root`; None if it has no task.yaml.

    Raises:
        EdgeHalError: task.yaml is malformed. The message names the line. Exit code 2.
    """
    path = root / TASK_FILE
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise EdgeHalError(f"cannot read {path}", what_it_is(path), "put the file there", exit_code=2)
    values, lines = read_yaml(path)
    if not values:
        return Task(root, TaskFile())
    try:
        task = Task(root, TaskFile.model_validate(values))
    except ValidationError as error:
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        at = f"{path}, line {line_of(lines, first['loc'])}"
        if first["type"] == "extra_forbidden":
            todo = nearest_key(TaskFile, first["loc"])
            raise EdgeHalError(f"{at}: unknown key '{first['loc'][-1]}'", "", todo, exit_code=2) from error
        key = ".".join(map(str, first["loc"]))
        raise EdgeHalError(f"{at}: '{key}'", in_words(first["msg"]), exit_code=2) from error
    task = Task(root, _checked_names(task.file, path, lines))
    for key in ("steps", "test", "mistakes"):
        listed: Sequence[str] = getattr(task.file, key) or ()
        for index, name in enumerate(listed):
            if name in listed[:index]:
                raise EdgeHalError(f"{path}, line {line_of(lines, (key, index))}: {name!r} twice", exit_code=2)
    if task.file.steps == ():
        raise EdgeHalError(f"{path}, line {line_of(lines, ('steps',))}: no steps", "", "name them", exit_code=2)
    _check_once(task.file, path, lines)
    _check_settings(task, path, lines)
    return task


def _checked_names(file: TaskFile, path: Path, lines: Lines) -> TaskFile:
    """The file with names in the Unicode form NFC. Raises EdgeHalError for a name that no line of a step list and no
    file can be."""
    changed: dict[str, Any] = {}
    for key in ("steps", "test", "mistakes", "background", "encoder", "config", "init"):
        value = getattr(file, key)
        if value is None:
            continue
        names = (value,) if isinstance(value, str) else value
        for index, name in enumerate(names):
            if not name.strip() or name != name.strip() or ODD.search(name):
                at = line_of(lines, (key,) if isinstance(value, str) else (key, index))
                why = "it is empty, begins or ends with a space, or has a control character or half of a surrogate pair"
                raise EdgeHalError(f"{path}, line {at}: '{key}' {name!r}", why, "write it again", exit_code=2)
        made = tuple(composed(name) for name in names)
        changed[key] = made[0] if isinstance(value, str) else made
    return file.model_copy(update=changed)


def _check_once(file: TaskFile, path: Path, lines: Lines) -> None:
    """Raises EdgeHalError for a key of the configuration that is written in two ways: only one could count."""
    first: dict[str, tuple[str, ...]] = {
        key: (name,) for name, key in SETTINGS.items() if getattr(file, name) is not None
    }
    for place in _places(file.settings, ("settings",)):
        key = ".".join(place[1:])
        if key in first:
            why = f"line {line_of(lines, first[key])} sets it too"
            what = f"{path}, line {line_of(lines, place)}: '{key}' twice"
            raise EdgeHalError(what, why, "leave one of them out", exit_code=2)
        first[key] = place


def _places(settings: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Where each value is, however the parts of its key are nested."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _places(value, (*above, key))
        else:
            yield (*above, key)


def _check_settings(task: Task, path: Path, lines: Lines) -> None:
    """Raises EdgeHalError for a preset or a setting that is not valid, with its line."""
    source, overrides = task.config_source() or "tiny", task.overrides(pictures=True)
    try:
        load_config(source)
    except EdgeHalError as error:
        raise EdgeHalError(f"{path}, line {line_of(lines, ('config',))}: {error}", exit_code=2) from error
    places = [("settings", *key.split(".")) for key in _flat(task.file.settings)]
    places = [(key,) for key in SETTINGS if getattr(task.file, key) is not None] + places
    try:
        load_config(source, overrides)
    except EdgeHalError:
        for n, place in enumerate(places, 1):
            try:
                load_config(source, overrides[:n])
            except EdgeHalError as error:
                what = error.what.removeprefix(f"{source} with --set: ")
                at = line_of(lines, _written(lines, place))
                raise EdgeHalError(f"{path}, line {at}: {what}", error.why, error.todo, exit_code=2) from error


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`{a: {b: 1}}` and `{a.b: 1}` -> `{a.b: 1}`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return flat


def _written(lines: Lines, place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The key of `lines` that stands for the dotted key `place`, however its parts were nested."""
    dotted = ".".join(map(str, place))
    return next((key for key in lines if ".".join(map(str, key)) == dotted), place)
