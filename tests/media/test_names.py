"""Names of files: their order, their form, and which of them count."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_hal.media.names import PICTURE_SUFFIXES, VIDEO_SUFFIXES, composed, natural_key, printable, with_suffix


@settings(suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(
    st.lists(st.integers(0, 10**7), unique=True), st.sampled_from(["f_{}.jpg", "{}", "a{}b2.png", "Bild {} (3).png"])
)
def test_numbers_in_names_are_sorted_as_numbers(numbers: list[int], pattern: str) -> None:
    names = [pattern.format(number) for number in numbers]
    assert sorted(names, key=natural_key) == [pattern.format(number) for number in sorted(numbers)]


@given(st.lists(st.text(max_size=12)))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(sorted(names, key=natural_key), key=natural_key) == sorted(names, key=natural_key)


def test_hidden_and_other_files_are_left_out() -> None:
    paths = [Path(name) for name in ("f10.JPG", "f2.jpg", "._f2.jpg", ".DS_Store", "notes.txt", "v.mp4")]
    chosen, others = with_suffix(paths, PICTURE_SUFFIXES)
    assert [path.name for path in chosen] == ["f2.jpg", "f10.JPG"]
    assert [path.name for path in others] == ["notes.txt", "v.mp4"]
    assert with_suffix(paths, VIDEO_SUFFIXES)[0] == [Path("v.mp4")]


@given(st.text())
def test_both_unicode_forms_are_one_name(name: str) -> None:
    assert composed(unicodedata.normalize("NFD", name)) == composed(unicodedata.normalize("NFC", name))


@given(st.binary())
def test_any_name_can_be_printed(raw: bytes) -> None:
    assert printable(os.fsdecode(raw)).encode() == raw.decode("utf-8", "replace").encode()
