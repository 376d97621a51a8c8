"""The page and the tables: whatever the labels are, they are text, and nothing is loaded from anywhere."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.reports.figures import StreamReport, report_of
from edge_hal.reports.history import histories
from edge_hal.reports.local_time import LocalTime, ShiftPlan
from edge_hal.reports.page import page
from edge_hal.reports.tables import as_csv, as_json
from tests.helpers.shift_work import Bench, utc_ns

LOCAL = LocalTime.named("Europe/Berlin")
PLAN = ShiftPlan.parse("06:00,14:00,22:00", LOCAL)
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>\x00\x1b[2J\u202e=1+1"
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "figure", "figcaption"),
    *("table", "thead", "tbody", "tr", "th", "td", "svg", "path", "rect", "text"),
}


class Reader(HTMLParser):
    """Tags, attributes and texts of a page. Fails on anything that could load or run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attributes:
            assert not name.startswith("on") and name not in ("href", "src", "srcset"), (tag, name, value)
            assert name != "style" or re.fullmatch(r"background: color-mix\([\w\s,%()-]+\)", value or "")
        if tag != "meta" and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def report(label: str = "turn", cycles: int = 40) -> StreamReport:
    bench = Bench(utc_ns("2026-05-01T05:00"), source=label)
    for number in range(cycles):
        bench.cycle([("reach", 10), (label, 5 + number % 7), ("wait", 4)], complete=number % 9 > 0, missing=[label])
        if number % 5 == 0:
            bench.deviation(label if number % 10 else "skipped", seen=label)
    bench.stream = label
    [history] = histories([bench])
    history.stream = label
    return report_of(history, PLAN, {"wait"})


def test_the_page_shows_the_figures_and_stands_alone() -> None:
    text = page([report()], LOCAL, "Europe/Berlin", utc_ns("2026-05-02T05:00"))
    shown = " ".join(Reader(text).texts)
    for part in ("Cycle times", "35 complete cycles", "5 more were incomplete", "wait (waiting)", "2026-05-01 06:00"):
        assert part in shown, part
    assert "Made 2026-05-02 07:00" in shown and re.search(r"turn, \d+:\d\d\.\d, frame \d+", shown)
    assert "default-src 'none'" in text and "http:" not in text and "https:" not in text and "url(" not in text
    assert len(text) < 40_000
    assert "hold no events" in page([], LOCAL, "UTC", 0)


def test_hostile_labels_are_text() -> None:
    text = page([report(HOSTILE)], LOCAL, HOSTILE, 0)
    shown = "".join(Reader(text).texts)
    assert "<script>alert(1)</script>" in shown and "<script>" not in text
    assert "\x00" not in text and "\x1b" not in text


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=30))
def test_no_label_breaks_page_or_tables(label: str) -> None:
    made = report(label, cycles=3)
    Reader(page([made], LOCAL, label, 0))
    json.dumps(as_json(made, LOCAL)).encode()
    for name, text in as_csv([made], LOCAL).items():
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert len(rows) > 1 and {len(row) for row in rows} == {len(rows[0])}, name


def test_a_page_of_many_cycles_stays_small() -> None:
    text = page([report(cycles=3000)], LOCAL, "UTC", 0)
    Reader(text)
    assert len(text) < 150_000


def test_the_chart_of_a_single_cycle_has_a_place_for_it() -> None:
    text = page([report(cycles=1)], LOCAL, "UTC", 0)
    assert "nan" not in text and 'class="hollow"' in text


def test_no_cell_is_a_formula() -> None:
    for start in ("=", "+", "-", "@", "\t", "\r"):
        for text in as_csv([report(f"{start}1+1", cycles=6)], LOCAL).values():
            for row in csv.DictReader(io.StringIO(text, newline="")):
                for name, cell in row.items():
                    assert not cell.startswith(start) or re.fullmatch(r"-?[\d.e-]+", cell), (name, cell)


def test_tables_have_a_row_for_each_and_the_json_all_figures() -> None:
    made = report()
    tables = {name: list(csv.DictReader(io.StringIO(text, newline=""))) for name, text in as_csv([made], LOCAL).items()}
    assert {name: len(rows) for name, rows in tables.items()} == {
        **{"cycles.csv": 40, "steps.csv": len(made.history.steps), "deviations.csv": 8, "shifts.csv": 1}
    }
    assert tables["cycles.csv"][0]["end"] == "2026-05-01T07:00:19.000+02:00"
    assert float(tables["cycles.csv"][1]["duration_s"]) == 20.0
    told = as_json(made, LOCAL)
    assert told["cycles"]["count"] == 35 and told["shifts"][0]["complete"] == 35
    assert told["longest_steps"][0]["source"] == "turn" and told["first"].endswith("+02:00")
    assert [text.count("\n") for text in as_csv([], LOCAL).values()] == [1, 1, 1, 1]  # the heads
