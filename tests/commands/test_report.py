"""`edge-hal report` over real journals: several, old ones, damaged ones, one that is being written."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_hal.commands.report import read_events
from edge_hal.errors import EdgeHalError
from edge_hal.events import Lost, encode
from edge_hal.reports.tables import TABLES
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.retention import Retention
from tests.helpers.processes import called_here, contents
from tests.helpers.shift_work import Bench, utc_ns

OLD = Path(__file__).parents[1] / "data" / "0.1.0" / "journal"


def work(day: str, cycles: int = 10, **how: Any) -> Bench:
    bench = Bench(utc_ns(f"{day}T05:00"), **how)
    for _ in range(cycles):
        bench.cycle([("reach", 10), ("wait", 5), ("turn", 20)])
    return bench


def journal(path: Path, *benches: Bench) -> Path:
    """All of them in one journal, numbered on."""
    with Journal(path, benches[0].stream, Retention(float("inf"), 2**63)) as opened:
        for event in (event for bench in benches for event in bench):
            opened.append(
                [(opened.next_seq, encode(event).replace(b'"seq":', b'"seq":%d,"was":' % opened.next_seq, 1))]
            )
    return path


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    return lambda *arguments: called_here(monkeypatch, capsys, "report", *map(str, arguments))


def test_a_report_in_all_forms(called: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    first = journal(tmp_path / "a", work("2026-05-01"), work("2026-05-02", session="s2"))
    second = journal(tmp_path / "b", work("2026-05-01", stream="left <b>"))
    out = ("--html", tmp_path / "r.html", "--csv", tmp_path / "tables")
    code, text, err = called(first, second, *out, "--timezone", "Europe/Berlin", "--waiting", "wait")
    assert (code, err) == (0, ""), err
    assert (
        "complete cycles: 20, median 35.0 s" in text and "14% waiting" in text and "2026-05-02 06:00: 10 of 10" in text
    )
    page = (tmp_path / "r.html").read_text()
    assert "left &lt;b&gt;" in page and "<b>" not in page
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == sorted(TABLES)
    code, text, err = called(first, second, "--json", "--since", "2026-05-02T00:00Z", "--until", "2026-05-03T00:00Z")
    bench, left = json.loads(text)["streams"]
    assert (bench["cycles"]["count"], left["cycles"]["count"], bench["runs"]) == (10, 0, 2)


def test_a_journal_that_is_being_written_is_read_and_left_alone(tmp_path: Path) -> None:
    bench = work("2026-05-01", 100)
    events = [encode(event) for event in bench]
    with Journal(tmp_path / "j", "bench", Retention(float("inf"), 2**63)) as opened:
        opened.append(list(enumerate(events[:300])))
        before = contents(tmp_path)
        read = read_events(tmp_path / "j")
        assert encode(next(read)) == events[0]
        opened.append(list(enumerate(events[300:], 300)))
        assert [encode(event) for event in [*read]] == events[1:]
        assert [encode(event) for event in read_events(tmp_path / "j")] == events
        assert set(contents(tmp_path)) == set(before)


def test_pages_join_without_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_hal.commands import report

    path = journal(tmp_path / "j", work("2026-05-01", 20))
    whole = list(read_events(path))
    monkeypatch.setattr(report, "PAGE_EVENTS", 7)
    assert list(read_events(path)) == whole and not any(isinstance(event, Lost) for event in whole)


def test_what_is_missing_or_damaged_is_lost(tmp_path: Path) -> None:
    path = journal(tmp_path / "j", work("2026-05-01", 20))
    whole = list(read_events(path))
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM event WHERE seq < 5 OR seq IN (20, 21)")
        database.execute("UPDATE event SET body = '{\"schema\": 1}' WHERE seq = 30")
        database.execute("UPDATE event SET body = NULL WHERE 0")
    found = list(read_events(path))
    lost = [(event.from_, event.to) for event in found if isinstance(event, Lost)]
    assert lost == [(20, 21), (30, 30)]  # what retention has removed before the first is not counted
    kept = [event for event in found if not isinstance(event, Lost)]
    assert kept == [event for event in whole if event.seq >= 5 and event.seq not in (20, 21, 30)]


def test_what_cannot_be_read_at_the_end_is_lost(tmp_path: Path) -> None:
    path = journal(tmp_path / "j", work("2026-05-01", 20))
    whole = list(read_events(path))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE event SET body = zeroblob(1073741) WHERE seq >= 70")
    assert list(read_events(path)) == [*whole[:70], Lost("bench", 0, 70, len(whole) - 1)]


def test_a_cycle_whose_steps_have_no_name_is_counted(
    called: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    bench = work("2026-05-01", 19)
    bench.gap(3)
    bench.cycle([("reach", 10), ("wait", 5), ("turn", 20)], before=())
    path = journal(tmp_path / "j", bench)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE event SET body = replace(body, '\"action\"', '\"acton\"')")
    code, text, err = called(path, "--json")
    assert code == 0, err
    assert json.loads(text)["streams"][0]["cycles"]["count"] == 20


@pytest.mark.parametrize("name", ["clean", "killed"])
def test_a_journal_of_0_1_0_is_read(called: Callable[..., tuple[int, str, str]], tmp_path: Path, name: str) -> None:
    """`killed` has events in its write-ahead log alone."""
    shutil.copytree(OLD, tmp_path / "old")
    code, text, err = called(tmp_path / "old" / f"{name}.journal", "--timezone", "UTC", "--json")
    assert code == 0, err
    [stream] = json.loads(text)["streams"]
    assert stream["runs"] >= 1 and stream["steps"] and stream["lost_events"] == 0


def test_a_background_step_of_a_procedure_is_waiting(
    called: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = journal(tmp_path / "j", work("2026-05-01"))
    common = {"first": 0.3, "share": 0.3, "median_s": 10.0, "spread": 1.5, "optional": True, "repeatable": True}
    order = {"reach": "wait", "wait": "turn", "turn": "reach"}
    text = {name: {**common, "then": {to: 1.0}, "background": name == "wait"} for name, to in order.items()}
    (tmp_path / "procedure.json").write_text(json.dumps(text))
    code, out, err = called(path, "--bundle", tmp_path / "procedure.json", "--json")
    assert code == 0, err
    assert json.loads(out)["streams"][0]["waiting_share"] == pytest.approx(5 / 35)


def test_a_journal_and_a_copy_of_it_count_once(called: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    whole = journal(tmp_path / "a", work("2026-05-01"), work("2026-05-02", session="s2"))
    shutil.copy(whole, tmp_path / "copy")
    code, alone, err = called(whole, "--json", "--timezone", "UTC")
    assert code == 0, err
    for others in ((whole,), (tmp_path / "copy",), (tmp_path / "." / "a", tmp_path / "copy")):
        assert called(whole, *others, "--json", "--timezone", "UTC") == (0, alone, ""), others


def test_what_a_copy_lacks_is_lost_once_and_not_where_the_other_holds_it(
    called: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    def lost(*paths: Path) -> int:
        code, out, err = called(*paths, "--json")
        assert code == 0, err
        count: int = json.loads(out)["streams"][0]["lost_events"]
        return count

    whole = journal(tmp_path / "whole", work("2026-05-01", 20), work("2026-05-02", 20, session="s2"))
    begin = next(n for n, event in enumerate(read_events(whole)) if n and event.type == "start")
    holes = {"one": (10, 11, 30), "copy": (10, 11, 30), "other": (11, 12, begin)}
    for name, gone in holes.items():
        shutil.copy(whole, tmp_path / name)
        with sqlite3.connect(tmp_path / name) as database:
            database.execute(f"DELETE FROM event WHERE seq IN {gone}")
    one, copy, other = (tmp_path / name for name in holes)
    assert (lost(one), lost(one, copy, one), lost(one, other)) == (3, 3, 1)  # 11 is in neither
    assert lost(one, whole) == lost(whole, other) == 0
    stranger = journal(tmp_path / "stranger", work("2026-05-03", 20, session="s3"))
    assert lost(one, stranger) == 3  # it gave the same numbers to other events


def test_a_time_without_events_has_no_span(called: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path, page = journal(tmp_path / "a", work("2026-05-01")), tmp_path / "page.html"
    for given in (("--since", "2026-05-03T00:00"), ("--until", "2026-04-03T00:00")):
        code, out, err = called(path, *given, "--timezone", "UTC", "--html", page)
        assert code == 0 and out.startswith("bench: no events in this time, 1 run"), (out, err)
        assert "no events in this time, 1 run" in page.read_text()
        [stream] = json.loads(called(path, *given, "--json")[1])["streams"]
        assert (stream["first"], stream["last"], stream["cycles"]["count"]) == (None, None, 0)


def test_tables_of_an_earlier_report_do_not_stay(called: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in TABLES:
        (tables / name).write_text("stream\nof an earlier report\n")
    code, _, err = called(journal(tmp_path / "j", work("2026-05-01")), "--csv", tables, "--until", "2026-01-01")
    assert code == 0, err
    assert [(tables / name).read_text().count("\n") for name in TABLES] == [1] * len(TABLES)


def test_a_report_never_replaces_its_journal(called: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path = journal(tmp_path / "cycles.csv", work("2026-05-01"))
    (tmp_path / "link.html").symlink_to(path)
    data = path.read_bytes()
    for option in (("--html", path), ("--html", tmp_path / "link.html"), ("--csv", tmp_path)):
        code, _, err = called(path, *option)
        assert (code, err.count("error: "), path.read_bytes()) == (2, 1, data), err
        assert "which is read" in " ".join(err.split())


def test_wrong_use_is_one_error_and_leaves_nothing(called: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path = journal(tmp_path / "j", work("2026-05-01", 2))
    (tmp_path / "text").write_text("no journal" * 500)
    with sqlite3.connect(tmp_path / "foreign") as database:
        database.execute("CREATE TABLE other (x)")
    (tmp_path / "file").write_text("in the way")
    before = set(contents(tmp_path))
    cases = {
        ("none",): (1, "no such file"),
        (tmp_path,): (1, "it is a folder"),
        (tmp_path / "text",): (1, "not a database"),
        (tmp_path / "foreign",): (1, "no such table"),
        (path, "--timezone", "Nowhere"): (2, "no such time zone"),
        (path, "--shifts", "6"): (2, "no time of day"),
        (path, "--since", "soon"): (2, "not a time"),
        (path, "--until", "later"): (2, "--until later"),
        (path, "--bundle", tmp_path / "text"): (1, "text"),
        (path, "--html", tmp_path / "no" / "r.html"): (1, "there is no folder"),
        (path, "--csv", tmp_path / "file"): (1, "cannot write to"),
    }
    for arguments, (expected, told) in cases.items():
        code, _, err = called(*arguments)
        assert (code, err.count("error: "), "Traceback" in err) == (expected, 1, False), (arguments, err)
        assert told in " ".join(err.split()), (arguments, err)
    assert {name for name in contents(tmp_path) if not name.endswith(("-wal", "-shm"))} == before
    with pytest.raises(EdgeHalError):
        list(read_events(tmp_path / "foreign"))
