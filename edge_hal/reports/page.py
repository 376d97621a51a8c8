"""The report as one HTML page. It stands alone: styles and charts are in it, and it loads and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from edge_hal.redaction import one_line

from . import charts
from .figures import StreamReport, Times
from .local_time import LocalTime

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
:root { --ink: #1c1f23; --quiet: #626a73; --paper: #fff; --line: #d9dde2; --fill: #0072b2; --warm: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaee; --quiet: #9aa3ad; --paper: #15181c; --line: #363c44; --fill: #56b4e9; --warm: #e69f00; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 960px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin-top: 1.75rem; }
p.quiet, td.quiet, figcaption { color: var(--quiet); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; border-bottom: 1px solid var(--line); } td { border-bottom: 1px solid var(--line); }
td.name, th.name { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
table.hours th, table.hours td { padding: .2rem .35rem; }
svg { max-width: 100%; height: auto; vertical-align: middle; font: 12px system-ui, sans-serif; }
svg text { fill: var(--quiet); }
.grid { stroke: var(--line); } .bar { fill: var(--fill); opacity: .55; } .mark { fill: var(--ink); }
.point { stroke: var(--fill); stroke-width: 5; stroke-linecap: round; opacity: .7; }
.hollow { stroke: var(--warm); stroke-width: 5; stroke-linecap: round; opacity: .8; }
.line { fill: none; stroke: var(--ink); stroke-width: 2; }
@media print { body { max-width: none; margin: 0; } }
"""


def page(reports: Sequence[StreamReport], local: LocalTime, zone: str, made_utc_ns: int) -> str:
    """
    Args:
        zone: the name of the time zone, to show.
        made_utc_ns: when the report was made, nanoseconds since 1970.
    """
    made = f"{local.at(made_utc_ns):%Y-%m-%d %H:%M}"
    body = "".join(_stream(report, local) for report in reports) or "<p>The journals hold no events.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>edge-hal report</title>'
        f"<style>{STYLE}</style></head><body><h1>Cycles, steps and deviations</h1>"
        f'<p class="quiet">Times of day: {_text(zone)}. Made {made}.</p>{body}</body></html>\n'
    )


def _stream(report: StreamReport, local: LocalTime) -> str:
    history = report.history
    span = local.span(history.first_utc_ns, history.last_utc_ns)
    notes = [f"{span}, {_count(history.runs, 'run')}"]
    if history.lost:
        notes.append(f"{_count(history.lost, 'event')} lost")
    if history.cut:
        notes.append(f"{_count(history.cut, 'step')} cut off by a gap or an end, not counted")
    return (
        f'<h2>{_text(history.stream)}</h2><p class="quiet">{". ".join(notes)}.</p>'
        f"{_cycles(report, local)}{_steps(report)}{_shifts(report)}{_deviations(report)}{_longest(report, local)}"
    )


def _cycles(report: StreamReport, local: LocalTime) -> str:
    times, more = report.cycles, []
    if report.incomplete:
        more.append(f"{report.incomplete} more were incomplete (other colour)")
    if report.trend_s is not None:
        more.append(f"Trend {report.trend_s:+.1f} s over 100 cycles")
    if report.waiting_share is not None:
        more.append(f"{report.waiting_share:.0%} of the time is waiting")
    text = f"{_count(times.count, 'complete cycle')}{_quantile_text(times)}. {'. '.join(more)}{'.' if more else ''}"
    chart = charts.cycle_times(report.history.cycles, local)
    caption = "Each point is a cycle at its end; the line is the running median of 25 complete ones."
    figure = f"<figure>{chart}<figcaption>{caption}</figcaption></figure>" if chart else ""
    return f"<h3>Cycle times</h3><p>{text}</p>{figure}"


def _steps(report: StreamReport) -> str:
    longest_s = max((step.times.p90_s or 0.0 for step in report.steps), default=0.0)
    rows = (
        [
            _name(step.action + (" (waiting)" if step.waiting else "")),
            *(_cell(text) for text in (step.times.count, *_three(step.times), f"{step.share:.0%}")),
            f"<td>{charts.quantiles(step.times, longest_s)}</td>",
        ]
        for step in report.steps
    )
    return _table("Steps", ("step", "count", "p10", "median", "p90", "share", ""), rows)


def _shifts(report: StreamReport) -> str:
    largest = max((shift.per_hour or 0.0 for shift in report.shifts), default=0.0)
    rows = []
    for shift in report.shifts:
        rate = shift.per_hour
        bar = "" if rate is None else charts.amount(rate, largest, f"{rate:.1f} an hour")
        cells = (
            f"{shift.hours:.1f}",
            shift.complete,
            shift.cycles - shift.complete,
            "" if rate is None else f"{rate:.1f}",
        )
        times = (shift.times.median_s, shift.deviations)
        shown = (*cells, "" if times[0] is None else f"{times[0]:.1f} s", times[1])
        rows.append([_name(shift.name), *map(_cell, shown), f"<td>{bar}</td>"])
    head = ("shift from", "hours", "complete", "incomplete", "an hour", "median", "deviations", "")
    return _table("Throughput by shift", head, rows)


def _deviations(report: StreamReport) -> str:
    most = max((max(counts) for counts in report.deviations_by_hour.values()), default=0)
    rows = []
    for kind, counts in report.deviations_by_hour.items():
        cells = []
        for count in counts:
            shade = round(70 * count / most)
            style = f' style="background: color-mix(in srgb, var(--warm) {shade}%, transparent)"' if count else ""
            cells.append(f"<td{style}>{count or ''}</td>")
        rows.append([_name(kind), _cell(sum(counts)), *cells])
    head = ("kind", "all", *(f"{hour:02d}" for hour in range(24)))
    return _table("Deviations by kind and hour", head, rows, ' class="hours"')


def _longest(report: StreamReport, local: LocalTime) -> str:
    rows = []
    for step, excess_s in report.longest:
        at = step.begin
        minutes, seconds = divmod(at.t_s, 60)
        where = f"{at.source}, {int(minutes):d}:{seconds:04.1f}, frame {at.frame}"
        shown = (f"{step.duration_s:.1f} s", f"+{excess_s:.1f} s", f"{local.at(at.utc_ns):%Y-%m-%d %H:%M:%S}")
        rows.append([_name(step.action), *map(_cell, shown), _name(where), _name(at.session)])
    head = ("step", "took", "over its median", "began", "place in the recording", "session")
    return _table("Longest steps", head, rows)


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """`rows` are cells with their tags."""
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    if not body:
        return f'<h3>{title}</h3><p class="quiet">None.</p>'
    names = "".join(f'<th scope="col"{" class=name" if not i else ""}>{name}</th>' for i, name in enumerate(head))
    table = f"<table{kind}><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h3>{title}</h3><div class="scroll">{table}</div>'


def _name(text: str) -> str:
    return f'<td class="name">{_text(text)}</td>'


def _text(text: str) -> str:
    """A text of unknown origin. Characters without a shape are shown as escapes."""
    return escape(one_line(text))


def _cell(value: object) -> str:
    return f"<td>{escape(str(value))}</td>"


def _three(times: Times) -> tuple[str, ...]:
    return tuple("" if value is None else f"{value:.1f} s" for value in (times.p10_s, times.median_s, times.p90_s))


def _quantile_text(times: Times) -> str:
    p10, median, p90 = _three(times)
    return f": median {median}, from {p10} (p10) to {p90} (p90)" if median else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
