"""The recorded pictures that a segment of `edge-hal view` plays: which are found, and by whom they are read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")
pytest.importorskip("wsproto", reason="needs the extra web")

from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.log_file import Entry, EntryParser
from edge_hal.web.view.recorded import Recorded
from tests.helpers.browser import opened
from tests.helpers.films import BLUE, GREEN, RED, write_film
from tests.helpers.loops import recorded
from tests.helpers.viewer import Viewer

SECOND = 10**9
FILM = [(BLUE, 60), (GREEN, 60), (RED, 60)]


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory, picture_bundle: Path) -> dict[str, str]:
    """Recordings of three runs, by the folder: the session of the run's events."""
    root = tmp_path_factory.mktemp("tapes")
    film = write_film(root / "film.avi", FILM)
    options = RunOptions(picture_bundle, str(film), pace="asap", record=root / "tape", record_pictures="source")
    found = {}
    for each in (
        options,
        replace(options, record=root / "ring", record_around=Retention(4.0, 10**9)),
        replace(options, record=root / "small", record_pictures="encoder", journal=root / "journal"),
    ):
        _, events = recorded(each)
        found[str(each.record)] = str(events[0].run["session"])
    return found


def colour(data: bytes | None) -> int:
    assert data is not None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return int(picture.mean(axis=(0, 1)).argmax())


def test_pictures_are_those_of_the_run_at_its_stream_time(tapes: dict[str, str]) -> None:
    every = Recorded([Path(folder) for folder in tapes])
    for folder, session in tapes.items():
        found = every.listed(session, 0, 18 * SECOND)
        assert found["of_source"] == (Path(folder).name != "small")
        assert found["times"] == sorted(set(found["times"])) and all(0 <= t_ns < 18 * SECOND for t_ns in found["times"])
        if Path(folder).name != "ring":
            assert len(found["times"]) > 150
        for t_ns in found["times"][::20]:
            assert colour(every.picture(session, t_ns)) == t_ns // (6 * SECOND), (folder, t_ns)
    part = every.listed(next(iter(tapes.values())), 6 * SECOND, 7 * SECOND)["times"]
    assert len(part) == 10 and part[0] == 6 * SECOND
    assert every.listed("another run", 0, 18 * SECOND)["times"] == []
    assert every.picture("another run", 0) is None and every.picture(next(iter(tapes.values())), 5) is None


def test_pieces_that_are_broken_or_gone_leave_the_others(tapes: dict[str, str], tmp_path: Path) -> None:
    folder, session = next((Path(folder), session) for folder, session in tapes.items() if folder.endswith("ring"))
    ring = Path(shutil.copytree(folder, tmp_path / "ring"))
    reader = Recorded([ring, tmp_path / "nothing"])
    before = reader.listed(session, 0, 18 * SECOND)["times"]
    assert len(pieces(ring)) > 1
    (pieces(ring)[0] / "log.jsonl").write_text("nonsense\n")
    shutil.rmtree(pieces(ring)[-1])
    left = reader.listed(session, 0, 18 * SECOND)["times"]
    assert set(left) <= set(before) and len(left) < len(before)


def test_of_a_recording_that_is_being_written_only_what_was_appended_is_read(
    tapes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, session = next((Path(folder), session) for folder, session in tapes.items() if folder.endswith("small"))
    tape = Path(shutil.copytree(small, tmp_path / "tape"))
    log, real, parsed = tape / "log.jsonl", EntryParser.parse, list[str]()
    whole = log.read_text().splitlines(keepends=True)

    def counted(self: EntryParser, line: str) -> Entry:
        parsed.append(line)
        return real(self, line)

    def times(reader: Recorded) -> list[int]:
        return list(reader.listed(session, 0, 18 * SECOND)["times"])

    monkeypatch.setattr(EntryParser, "parse", counted)
    every = times(Recorded([small]))
    reader = Recorded([tape])
    log.write_text("".join(whole[:150]) + whole[150][:7])
    first = times(reader)
    assert 0 < len(first) < len(every) and first == every[: len(first)]
    parsed.clear()
    with log.open("a") as file:
        file.write(whole[150][7:] + "".join(whole[151:]))
    assert times(reader) == every and parsed == whole[150:]
    assert colour(reader.picture(session, every[-1])) == every[-1] // (6 * SECOND)
    parsed.clear()
    assert times(reader) == every and parsed == []
    log.write_text("".join(whole[:150]))  # another recording, which is shorter
    assert times(reader) == first
    later = [json.loads(line) for line in whole[1:]]
    for entry in later:
        entry |= {key: entry[key] + SECOND for key in ("t_ns", "passed") if key in entry}
    log.write_text(whole[0] + "".join(json.dumps(entry) + "\n" for entry in later))  # another one, which is longer
    assert times(reader) == [t_ns + SECOND for t_ns in every if t_ns < 17 * SECOND]


@pytest.mark.slow
def test_a_click_on_a_segment_plays_its_pictures(tapes: dict[str, str], tmp_path: Path) -> None:
    small, session = next((Path(folder), session) for folder, session in tapes.items() if folder.endswith("small"))
    arguments: list[str | Path] = ["--journal", small.parent / "journal", "--recording", small]
    with Viewer(tmp_path, *arguments) as viewer, opened(tmp_path / "profile", viewer.address) as page:
        for path in ("/data/recorded", "/data/recorded/picture"):
            assert viewer.get(path)[0] == 401
        query = f"session={session}&begin=0&end={18 * SECOND}"
        found = json.loads(viewer.get(f"/data/recorded?{query}", viewer.token)[2])
        at = f"/data/recorded/picture?session={session}&at="
        assert colour(viewer.get(f"{at}{found['times'][0]}", viewer.token)[2]) == 0
        for wrong in ("/data/recorded?begin=x", "/data/recorded?begin=-1&end=5", "/data/recorded?begin=0&end=1e99"):
            assert viewer.get(wrong, viewer.token)[0] == 400
        assert viewer.get(f"{at}1", viewer.token)[0] == viewer.get(f"{at}../x", viewer.token)[0] == 404
        page.until("document.querySelector('section')?.dataset.events > 2")
        page.press("1", "a")
        page.run(
            """
            const canvas = document.querySelector("canvas"), at = canvas.clientWidth / 2;
            for (const type of ["pointerdown", "pointerup"]) {
                const box = canvas.getBoundingClientRect();
                canvas.dispatchEvent(new PointerEvent(type, {
                    pointerId: 1, clientX: box.left + at, clientY: box.top + 45, bubbles: true}));
            }
            """
        )
        page.until("document.querySelector('.playback img').naturalWidth > 0")
        page.until("document.querySelector('.playback').dataset.shown > 2")
        assert "the small pictures" in page.text(".playback figcaption")
        page.run("document.querySelector('.playback button').click()")
        page.until("document.querySelector('.playback').hidden")
        page.press("1", "\ue013", "p")
        page.until("!document.querySelector('.playback').hidden")
        assert page.errors() == []
