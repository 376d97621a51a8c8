"""Pictures of several videos for several threads: a slow file holds only those who want it."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import pytest

pytest.importorskip("av", reason="needs PyAV")

from edge_hal.media.frame_reader import FrameReader
from edge_hal.web.correct.frames import OPEN_FILES, Frames
from tests.helpers.films import BLUE, GREEN, write_film

NAMES = tuple(f"video{number}" for number in range(OPEN_FILES + 1))
SLOW = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in NAMES:
        write_film(folder / f"{name}.avi", [(BLUE, 5), (GREEN, 5)])
    return folder


def test_a_slow_file_holds_nobody_who_wants_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, begun, go_on = Frames(), threading.Event(), threading.Event()
    real = FrameReader.picture

    def slow(self: FrameReader, number: int) -> object:
        if number == SLOW:
            begun.set()
            assert go_on.wait(60)
        return real(self, number)

    def picture(name: str, number: int) -> bytes:
        return frames.jpeg(name, folder / f"{name}.avi", Fraction(10), None, number)

    monkeypatch.setattr(FrameReader, "picture", slow)
    got: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda: got.update({NAMES[0]: picture(NAMES[0], SLOW)})),
        # The last file takes the place of the slow one, so this thread waits.
        threading.Thread(target=lambda: got.update({name: picture(name, 3) for name in NAMES[1:]})),
    ]
    try:
        threads[0].start()
        assert begun.wait(60)
        threads[1].start()
        for _ in range(20):
            for name in NAMES[1:-1]:
                assert picture(name, 4)
        assert NAMES[0] not in got
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
    assert set(got) == set(NAMES)
    assert got[NAMES[0]] == picture(NAMES[0], SLOW) and all(got[name] == picture(name, 3) for name in NAMES[1:])
