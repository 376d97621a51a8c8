"""`edge-hal report`: cycle times, durations of steps, deviations and throughput, out of journals."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_hal.commands.options.parsing import parse_time
from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError
from edge_hal.redaction import one_line

if TYPE_CHECKING:
    from edge_hal.events import Event
    from edge_hal.reports.figures import StreamReport
    from edge_hal.reports.local_time import LocalTime

PAGE_EVENTS, PAGE_BYTES = 5000, 1 << 24


def report(
    journals: Annotated[
        list[Path],
        typer.Argument(
            readable=False,
            help="Journals of `edge-hal run`; a run may be writing them. Those of one stream are joined.",
        ),
    ],
    html: Annotated[
        Path | None, typer.Option(readable=False, help="Write the report as one HTML page that stands alone.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Folder to write cycles.csv, steps.csv, deviations.csv and shifts.csv into, one row each.",
        ),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Time zone of days and shifts, such as Europe/Berlin (default: of this machine).")
    ] = None,
    shifts: Annotated[str, typer.Option(help="When shifts begin, each day.")] = "06:00,14:00,22:00",
    waiting: Annotated[
        str | None, typer.Option(help="Steps that count as waiting, for example idle,wait (default: none).")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Bundle or procedure.json: its background steps count as waiting, besides --waiting."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Leave out what is older: a time, for example 2026-05-01T06:00, or an age: 24h, 7d."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Leave out what is newer; written as --since.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
) -> None:
    """Report cycle times, durations of steps, deviations and throughput by shift."""
    from edge_hal.files import check_place, check_writable, write_file
    from edge_hal.reports.figures import report_of
    from edge_hal.reports.history import histories, within
    from edge_hal.reports.local_time import LocalTime, ShiftPlan
    from edge_hal.reports.page import page
    from edge_hal.reports.tables import TABLES, as_csv
    from edge_hal.reports.tables import as_json as report_json

    local = LocalTime.named(timezone)
    plan = ShiftPlan.parse(shifts, local)
    now_ns = time.time_ns()
    from_ns = 0 if since is None else parse_time(since, now_ns)
    until_ns = 2**62 if until is None else parse_time(until, now_ns, "--until")
    names = _waiting(waiting, bundle)
    if html is not None:
        check_place(html, todo="choose another --html", inputs=journals)
    if csv is not None:
        check_writable(csv, f"cannot write {csv}", "choose another --csv")
        if csv.is_dir():
            for name in TABLES:
                check_place(csv / name, todo="choose another --csv", inputs=journals)
    found = histories(read_events(path) for path in journals)
    reports = [report_of(within(history, from_ns, until_ns), plan, names) for history in found]
    if html is not None:
        zone = timezone or "of the machine that made the report"
        text = page(reports, local, zone, now_ns)
        write_file(html, text, what=f"cannot write {html}", todo="choose another --html")
    if csv is not None:
        _write_all(csv, as_csv(reports, local))
    if as_json:
        print(json.dumps({"timezone": timezone, "streams": [report_json(each, local) for each in reports]}))
    else:
        for each in reports:
            print("\n".join(one_line(line) for line in _summary(each, local)))
    require_written()


def read_events(path: Path) -> Iterator[Event]:
    """The events of a journal, in order. What is missing or cannot be read is `Lost`.

    Raises:
        EdgeHalError: the file is missing, cannot be read, or is no journal.
    """
    from edge_hal.events import Lost, decode
    from edge_hal.files import check_readable
    from edge_hal.runtime.delivery.journal_reader import JournalReader

    check_readable(path)
    if not path.is_file():
        from edge_hal.runtime.delivery.journal import default_path

        why = "it is a folder" if path.is_dir() else "there is no such file"
        todo = f"give the --journal of edge-hal run (of a camera, without the option: {default_path('default')})"
        raise EdgeHalError(f"cannot read the journal {path}", why, todo)
    try:
        reader = JournalReader(path)
        try:
            stream, position, first = "", -1, True
            while True:
                got = reader.page(max(0, position), PAGE_EVENTS, PAGE_BYTES)
                begin = got.first if first else position
                first = False
                if not got.bodies:
                    if begin < got.next:  # nothing from here on can be read
                        yield Lost(stream, 0, begin, got.next - 1)
                    return
                events: list[Event] = []
                for seq, body in enumerate(got.bodies, got.begin):
                    try:
                        event = decode(body)
                    except EdgeHalError:
                        event = Lost(stream, 0, seq, seq)
                    events.append(event)
                stream = stream or next((each.stream for each in events if not isinstance(each, Lost)), "")
                if got.begin > begin:
                    yield Lost(stream, 0, begin, got.begin - 1)
                yield from events
                position = got.begin + len(got.bodies)
        finally:
            reader.close()
    except sqlite3.Error as error:
        todo = "give the file of --journal, with the files -wal and -shm beside it if it has them"
        raise EdgeHalError(f"cannot read the journal {path}", str(error), todo) from error


def _waiting(names: str | None, bundle: Path | None) -> set[str]:
    from edge_hal.commands.procedure import read

    found = set() if names is None else {name.strip() for name in names.split(",")}
    if bundle is not None:
        found |= {name for name, step in read(bundle).steps.items() if step.background}
    return found


def _write_all(folder: Path, texts: dict[str, str]) -> None:
    from edge_hal.files import file_error, write_file

    what, todo = f"cannot write to {folder}", "choose another --csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(what, error, todo, path=folder) from error
    for name, text in texts.items():
        write_file(folder / name, text, what=what, todo=todo)


def _summary(report: StreamReport, local: LocalTime) -> Iterator[str]:
    history = report.history
    span = local.span(history.first_utc_ns, history.last_utc_ns)
    lost = f", {history.lost} events lost" if history.lost else ""
    yield f"{history.stream}: {span}, {history.runs} run{'s' * (history.runs != 1)}{lost}"
    times = report.cycles
    more = "" if report.trend_s is None else f", trend {report.trend_s:+.1f} s over 100 cycles"
    more += "" if report.waiting_share is None else f", {report.waiting_share:.0%} waiting"
    yield f"  complete cycles: {times.count}{_quantiles(times)}; incomplete: {report.incomplete}{more}"
    width = max((len(step.action) for step in report.steps), default=0)
    for step in report.steps:
        mark = ", waiting" if step.waiting else ""
        yield f"  {step.action.ljust(width)}  {step.times.count:5d}{_quantiles(step.times)}, {step.share:.0%}{mark}"
    for shift in report.shifts:
        rate = "" if shift.per_hour is None else f", {shift.per_hour:.1f} an hour"
        yield f"  shift {shift.name}: {shift.complete} of {shift.cycles} complete{rate}, {shift.deviations} deviations"
    for kind, counts in report.deviations_by_hour.items():
        yield f"  {kind}: {sum(counts)}"
    for step_run, excess_s in report.longest[:3]:
        at = step_run.begin
        where = f"{at.source} at {at.t_s:.1f} s, frame {at.frame}"
        yield f"  longest: {step_run.action} {step_run.duration_s:.1f} s (+{excess_s:.1f}), {where}"


def _quantiles(times: Any) -> str:
    if times.median_s is None:
        return ""
    return f", median {times.median_s:.1f} s ({times.p10_s:.1f} to {times.p90_s:.1f})"
