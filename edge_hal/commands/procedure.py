"""`edge-hal procedure`: show, check, draw and compare the procedure of a bundle, or a file that was edited by hand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError
from edge_hal.redaction import one_line

if TYPE_CHECKING:
    from edge_hal.procedure.check import Problem
    from edge_hal.procedure.rules import Procedure

FILE = "procedure.json"

procedure = typer.Typer(
    no_args_is_help=True,
    help="Show, check, draw or compare procedures: which steps follow, precede and repeat, and how long they last.",
)
Source = Annotated[Path, typer.Argument(readable=False, help=f"Bundle, task folder, or a {FILE}.")]


@procedure.command()
def show(
    bundle: Source,
    as_json: Annotated[bool, typer.Option("--json", help="Print all fields of all steps as one JSON object.")] = False,
) -> None:
    """Print the procedure as a table: durations, what must come before each step, what follows it."""
    found = read(bundle)
    if as_json:
        print(json.dumps(_all_fields(found)))
        require_written()
        return
    rows = [("step", "median", "overdue", "kind", "after", "followed by")]
    reduced = reduced_requires(found)
    for name, step in found.steps.items():
        marks = {
            "begins": step.begins_cycle,
            "ends": step.ends_cycle,
            "optional": step.optional and not step.background,
            "repeatable": step.repeatable and not step.background,
            "background": step.background,
        }
        then = sorted(step.then.items(), key=lambda pair: -pair[1])[:3]
        rows.append(
            (
                one_line(name),
                f"{step.median_s:.1f} s",
                "-" if step.overdue_s is None or step.background else f"{step.overdue_s:.1f} s",
                ", ".join(mark for mark, holds in marks.items() if holds) or "once",
                ", ".join(map(one_line, reduced[name])) or "-",
                ", ".join(f"{one_line(to)} {chance:.0%}" for to, chance in then) or "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row[:-1], widths, strict=True)), row[-1]]))
    closed = [(name, sorted(step.not_after)) for name, step in found.steps.items() if step.not_after]
    for name, after in closed:
        print(f"{one_line(name)}: not again after {', '.join(map(one_line, after))}")
    require_written()


@procedure.command()
def check(bundle: Source) -> None:
    """Report every fault of the file with its line. The exit code is 1 if there is one."""
    from edge_hal.procedure.check import unused_fields

    path = file_of(bundle)
    text, found, problems = _checked(path)
    for problem in problems:
        line = "" if problem.line is None else f":{problem.line}"
        print(f"{path}{line}: {one_line(f'{problem.where}: {problem.why}')}")
    require_written()
    if problems:
        raise EdgeHalError(
            f"{path} has {len(problems)} fault{'s' * (len(problems) > 1)}", "", "correct each line above"
        )
    for problem in unused_fields(text, found):
        print(f"{path}:{problem.line}: {one_line(f'{problem.where}: {problem.why}')}")
    rules = sum(len(step.get("requires", {})) + len(step.get("not_after", {})) for step in found.values())
    print(f"{path}: {len(found)} steps, {rules} rules of order, no fault")
    require_written()


@procedure.command()
def plot(
    bundle: Source,
    out: Annotated[Path, typer.Option(readable=False, help="Picture to write, .svg or .png.")] = Path("procedure.svg"),
) -> None:
    """Draw the procedure as a graph: solid arrows must, dashed arrows may follow."""
    from edge_hal.commands.extras import require

    if out.suffix.lower() not in (".svg", ".png"):
        raise EdgeHalError(f"--out {out}", "the picture is .svg or .png", exit_code=2)
    found = read(bundle)
    require("matplotlib")
    from edge_hal.commands.draw_procedure import draw
    from edge_hal.files import replacing

    with replacing(out, what=f"cannot write {out}", todo="choose another --out") as beside:
        draw(found, reduced_requires(found), beside)
    print(f"{out}: {len(found.steps)} steps")


@procedure.command()
def diff(
    before: Source,
    after: Source,
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as one JSON array.")] = False,
) -> None:
    """Print what differs between two procedures, one line for each field."""
    found = list(differences(read(before), read(after)))
    if as_json:
        print(json.dumps([{"step": s, "field": field, "before": a, "after": b} for s, field, a, b in found]))
    for step, field, a, b in [] if as_json else found:
        print(f"{one_line(step)}: {one_line(field)} {_text(a)} -> {_text(b)}")
    if not found and not as_json:
        print("no difference")
    require_written()


def file_of(bundle: Path) -> Path:
    """The file of a bundle (see `newest_bundle`), or the file itself. Raises EdgeHalError if there is none."""
    from edge_hal.files import check_readable
    from edge_hal.task_folder import newest_bundle

    bundle = newest_bundle(bundle)
    path = bundle / FILE if bundle.is_dir() else bundle
    check_readable(path)
    if not path.exists():
        why = f"it has no {FILE}" if bundle.is_dir() else "there is no such file or folder"
        todo = "name a bundle of `edge-hal export`, or a task folder"
        raise EdgeHalError(f"{bundle} has no procedure", why, todo, exit_code=2)
    return path


def read(bundle: Path) -> Procedure:
    """The procedure of a bundle or of a file; in a bundle its steps must be the labels of the model."""
    from edge_hal.procedure.rules import Procedure

    path = file_of(bundle)
    _, data, problems = _checked(path)
    if problems:
        first = problems[0]
        line = "" if first.line is None else f", line {first.line}"
        todo = f"edge-hal procedure check {shlex.quote(str(bundle))}"
        raise EdgeHalError(f"cannot use {path}{line}", one_line(f"{first.where}: {first.why}"), todo)
    return Procedure.from_dict(data)


def differences(before: Procedure, after: Procedure) -> Iterator[tuple[str, str, Any, Any]]:
    """(step, field, before, after) for each field that differs; of a table of names, each name. None: not there."""
    old, new = _all_fields(before), _all_fields(after)
    for step in [*old, *(name for name in new if name not in old)]:
        if step not in old or step not in new:
            yield step, "step", True if step in old else None, True if step in new else None
            continue
        for field, value in old[step].items():
            other = new[step][field]
            if not isinstance(value, dict):
                if value != other:
                    yield step, field, value, other
                continue
            for name in [*value, *(name for name in other if name not in value)]:
                if value.get(name) != other.get(name):
                    yield step, f"{field}.{name}", value.get(name), other.get(name)


def reduced_requires(procedure: Procedure) -> dict[str, list[str]]:
    """What each step requires, without what follows from the others: a for c is left out if c requires b and b
    requires a."""
    needs = {name: step.requires for name, step in procedure.steps.items()}
    return {name: [a for a in own if not any(a in needs[b] for b in own)] for name, own in needs.items()}


def _checked(path: Path) -> tuple[str, dict[str, Any], list[Problem]]:
    """The text of the file, its data and the faults."""
    from edge_hal.files import file_error
    from edge_hal.files.untrusted import read_json, read_regular
    from edge_hal.procedure.check import check_text

    manifest = path.with_name("manifest.json")
    try:
        labels = tuple(read_json(manifest)["spec"]["labels"]) if manifest.is_file() else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise file_error(f"cannot read {manifest}", error, "export again", path=manifest) from error
    try:
        text = read_regular(path).decode("utf-8-sig")
        return text, *check_text(text, labels)
    except (OSError, ValueError) as error:
        raise file_error(f"cannot read {path}", error, f"correct {path.name}", path=path) from error


def _all_fields(procedure: Procedure) -> dict[str, dict[str, Any]]:
    from edge_hal.procedure.rules import DEFAULTS

    return {name: {**DEFAULTS, **step} for name, step in procedure.to_dict().items()}


def _text(value: Any) -> str:
    return "none" if value is None else json.dumps(value)
