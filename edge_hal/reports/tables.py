"""The figures of a report as JSON, and what they were computed from as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from .figures import ShiftFigures, StreamReport
from .history import Place
from .local_time import LocalTime

PLACE = ("begin", "source", "session", "t_s", "frame")
COLUMNS = {
    "cycles": ("stream", "end", "duration_s", "complete", "missing", "deviations", *PLACE),
    "steps": ("stream", "action", "duration_s", *PLACE),
    "deviations": ("stream", "kind", "seen", "expected", "evidence", "confidence", *PLACE),
    "shifts": (
        *("stream", "name", "hours", "cycles", "complete", "deviations"),
        *("complete_per_hour", "p10_s", "median_s", "p90_s"),
    ),
}
TABLES = tuple(f"{name}.csv" for name in COLUMNS)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula."""


def as_json(report: StreamReport, local: LocalTime) -> dict[str, Any]:
    """All figures, and no single step or cycle but the longest. Times are local, with their offset from UTC."""
    history = report.history
    first, last = history.first_utc_ns, history.last_utc_ns
    return {
        "stream": history.stream,
        "first": _iso(first, local) if first else None,
        "last": _iso(last, local) if last else None,
        "runs": history.runs,
        "lost_events": history.lost,
        "steps_cut_off": history.cut,
        "cycles": {**asdict(report.cycles), "incomplete": report.incomplete, "trend_s_over_100": report.trend_s},
        "waiting_share": report.waiting_share,
        "steps": [asdict(step) for step in report.steps],
        "shifts": [_shift(shift) for shift in report.shifts],
        "deviations_by_hour": report.deviations_by_hour,
        "longest_steps": [
            {
                "action": step.action,
                "duration_s": step.duration_s,
                "over_median_s": excess_s,
                **_place(step.begin, local),
            }
            for step, excess_s in report.longest
        ],
    }


def as_csv(reports: Sequence[StreamReport], local: LocalTime) -> dict[str, str]:
    """{name of the file: content}: a row for each cycle, step, deviation and shift. A table without rows has a head, so
    that it replaces that of an earlier report."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for report in reports:
        head = {"stream": report.history.stream}
        for cycle in report.history.cycles:
            told = {
                "end": _iso(cycle.end.utc_ns, local),
                "duration_s": cycle.duration_s,
                "complete": int(cycle.complete),
                "missing": "; ".join(cycle.missing),
                "deviations": cycle.deviations,
            }
            rows["cycles"].append({**head, **told, **_place(cycle.begin, local)})
        for step in report.history.steps:
            told = {"action": step.action, "duration_s": step.duration_s}
            rows["steps"].append({**head, **told, **_place(step.begin, local)})
        for deviation in report.history.deviations:
            told = {
                "kind": deviation.kind,
                "seen": deviation.seen or "",
                "expected": "; ".join(deviation.expected),
                "evidence": deviation.evidence,
                "confidence": deviation.confidence,
            }
            rows["deviations"].append({**head, **told, **_place(deviation.at, local)})
        rows["shifts"] += [{**head, **_shift(shift)} for shift in report.shifts]
    return {f"{name}.csv": _csv(found, COLUMNS[name]) for name, found in rows.items()}


def _shift(shift: ShiftFigures) -> dict[str, Any]:
    told = asdict(shift)
    times = told.pop("times")
    return {
        **told,
        "complete_per_hour": shift.per_hour,
        **{name: times[name] for name in ("p10_s", "median_s", "p90_s")},
    }


def _place(place: Place, local: LocalTime) -> dict[str, Any]:
    return {
        "begin": _iso(place.utc_ns, local),
        "source": place.source,
        "session": place.session,
        "t_s": place.t_s,
        "frame": place.frame,
    }


def _iso(utc_ns: int, local: LocalTime) -> str:
    return local.at(utc_ns).isoformat(timespec="milliseconds")


def _csv(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns)  # ends lines with CR LF (RFC 4180), and quotes texts that hold one
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _safe(value: Any) -> Any:
    """A text that no spreadsheet evaluates. A NUL character would end the cell."""
    if not isinstance(value, str):
        return value
    text = value.replace("\x00", "\ufffd")
    return f"'{text}" if text.startswith(FORMULA) else text
