"""Files are whole or not there, whatever fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable, file_error, replacing, write_file, write_files


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_file(path, "old")
    write_file(path, b"new \xff")
    assert path.read_bytes() == b"new \xff" and list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_file(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeHalError, match=r"cannot write .*a\.json: the disk is full(.|\n)*choose another folder"):
        write_file(path, "new", todo="choose another folder")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_path_to_write_to_keeps_the_suffix_and_goes_if_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(ValueError, match="no array"), replacing(path) as beside:
        assert beside.suffix == ".npz" and beside.parent == tmp_path
        beside.write_text("half")
        raise ValueError("no array")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeHalError, match="cannot write the cursor"):
        write_file(tmp_path / "none" / "cursor", "", what="cannot write the cursor")


def test_what_is_missing_or_of_another_kind_is_not_called_denied(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "link", tmp_path / "loop", tmp_path / "file" / "manifest.json"):
        check_readable(path)
        with pytest.raises(OSError) as caught:
            path.read_bytes()
        told = str(file_error("cannot read it", caught.value, path=path))
        assert "denied" not in told and "cannot read it: " in told


def test_a_file_in_another_encoding_is_told_in_plain_words(tmp_path: Path) -> None:
    for encoding in ("utf-16", "latin-1"):
        with pytest.raises(UnicodeDecodeError) as caught:
            "\u00e9\u00e8".encode(encoding).decode()
        told = file_error("cannot read it", caught.value)
        assert "no text in UTF-8" in told.why and "save it as UTF-8" in told.todo


def test_several_files_are_written_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").write_text("old")
    calls: list[int] = []

    def full(_descriptor: int) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeHalError, match="the disk is full"):
        write_files(tmp_path, {"a": "1", "b": "2", "c": "3"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"] and (tmp_path / "b").read_text() == "old"
    monkeypatch.undo()
    write_files(tmp_path, {"a": "1", "b": "\u00e9"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "\u00e9"}


def test_files_with_the_longest_names_are_written(tmp_path: Path) -> None:
    """Names that differ at their end only, which temporary files must not have in common."""
    files = {f"{'ü' * 120}{number:03}.frames.txt": str(number) for number in range(3)}
    assert all(len(os.fsencode(name)) == 254 for name in files)
    write_files(tmp_path, files)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_an_error_is_no_longer_than_a_page() -> None:
    error = EdgeHalError("x" * 10**7, "y" * 10**7, "z" * 10**7)
    assert len(str(error)) < 13_000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_can_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o300)
    try:
        write_file(tmp_path / "a", "new")
    finally:
        tmp_path.chmod(0o700)
    assert (tmp_path / "a").read_text() == "new"
