"""What `edge-hal correct` shows and writes: drafts apart from labels, in the formats that `train` reads."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av", reason="needs PyAV")

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.labels.folder import read_own_labels
from edge_hal.learning.data.labels.one_video import SUFFIXES
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.web.correct.found import Found, read_confidences, read_found
from edge_hal.web.correct.shown import StaleRevision
from edge_hal.web.correct.videos import TaskVideos
from tests.helpers.correction_task import LENGTH, STEPS, write_task
from tests.helpers.films import BLUE, write_film
from tests.helpers.videos import write_video

NAMES = ("one", "two")
NEW = [("open", 0), ("fill", 41), ("close", 77)]


def load(root: Path) -> VideoSet:
    own = read_own_labels(root)
    return load_dataset(root, split=None, part="train", with_labels=set(own), own_labels=own)


def opened(root: Path, format: str = "csv") -> TaskVideos:
    return TaskVideos(root, load(root), read_found(root / "runs" / "1", STEPS), format)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_task(tmp_path / "task", NAMES)


def labels_of(root: Path, name: str) -> list[str]:
    """As `train` reads them."""
    videos = load(root)
    (video,) = [video for video in videos.videos if video.name == name]
    assert video.labels is not None
    return [videos.labels[step] for step in video.labels]


def frames(begins: list[tuple[str, int]]) -> list[str]:
    stops = [*(first for _, first in begins[1:]), LENGTH]
    return [step for (step, first), stop in zip(begins, stops, strict=True) for _ in range(stop - first)]


def test_a_draft_is_kept_and_counts_for_nothing_until_it_is_accepted(root: Path) -> None:
    videos = opened(root)
    found = videos.shown("one")
    assert found.state == "found" and [each[:2] for each in found.segments] == [
        ("open", 0),
        ("fill", 30),
        ("close", 60),
    ]
    assert [each[2] for each in found.segments] == [1.0, None, None]  # not known yet
    saved = videos.save("one", found.revision, NEW)
    assert saved.state == "draft" and saved.revision != found.revision
    assert opened(root).shown("one") == saved  # after a restart
    assert all(video.labels is None for video in load(root).videos)
    accepted = videos.accept("one", saved.revision)
    assert accepted.state == "accepted" and not (root / "drafts" / "one.csv").exists()
    assert labels_of(root, "one") == frames(NEW)
    again = opened(root).shown("one")
    assert again.state == "accepted" and [each[:2] for each in again.segments] == NEW
    draft = videos.withdraw("one", accepted.revision)
    assert draft.state == "draft" and [each[:2] for each in draft.segments] == NEW
    assert list((root / "labels").iterdir()) == []
    assert videos.discard("one", draft.revision).segments == found.segments


def test_what_is_undone_leaves_no_draft(root: Path) -> None:
    videos = opened(root)
    found = videos.shown("one")
    saved = videos.save("one", found.revision, NEW)
    back = videos.save("one", saved.revision, [each[:2] for each in found.segments])
    assert back == found and not list((root / "drafts").iterdir())


def test_a_change_of_an_old_revision_is_refused(root: Path) -> None:
    videos = opened(root)
    old = videos.shown("one").revision
    videos.save("one", old, NEW)
    with pytest.raises(StaleRevision):
        videos.save("one", old, [("fill", 0)])
    with pytest.raises(StaleRevision):
        videos.accept("one", old)
    seen = videos.shown("two").revision
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels" / "two.txt").write_text("fill\n" * LENGTH)  # somebody writes labels with an editor
    with pytest.raises(StaleRevision):
        videos.accept("two", seen)
    assert videos.shown("two").state == "accepted"


@pytest.mark.parametrize(
    "begins",
    [
        [],
        [("open", 1)],
        [("open", 0), ("pour", 9)],
        [("open", 0), ("fill", 5), ("close", 5)],
        [("open", 0), ("fill", 9), ("close", 4)],
        [("open", 0), ("open", 9)],
        [("open", 0), ("fill", LENGTH)],
        [("open", -1), ("fill", 4)],
    ],
)
def test_what_are_no_segments_is_refused_and_nothing_is_written(root: Path, begins: list[tuple[str, int]]) -> None:
    videos = opened(root)
    with pytest.raises(ValueError):
        videos.save("one", videos.shown("one").revision, begins)
    assert not (root / "drafts").exists()


@pytest.mark.parametrize("format", SUFFIXES)
def test_each_format_is_read_back_to_the_frame(root: Path, format: str) -> None:
    videos = opened(root, format)
    rng = random.Random(0)
    for name in NAMES:
        firsts = [0, *sorted(rng.sample(range(1, LENGTH), 5))]
        begins = [(STEPS[place % 3], first) for place, first in enumerate(firsts)]
        saved = videos.save(name, videos.shown(name).revision, begins)
        assert videos.accept(name, saved.revision).state == "accepted"
        assert [path.suffix for path in (root / "labels").glob(f"{name}.*")] == [SUFFIXES[format]]
        assert labels_of(root, name) == frames(begins)
        later = videos.save(name, videos.shown(name).revision, NEW)
        assert later.state == "draft" and labels_of(root, name) == frames(begins)
        videos.accept(name, later.revision)
        assert labels_of(root, name) == frames(NEW) and len(list((root / "labels").glob(f"{name}.*"))) == 1


def test_rows_of_one_video_in_a_table_of_several_are_replaced(root: Path) -> None:
    (root / "labels").mkdir()
    table = root / "labels" / "all.csv"
    rows = ["video;begin_s;end_s;step;who"]
    rows += [f"{name}.mp4;0,0;{LENGTH / 10};fill;me" for name in NAMES]
    table.write_text("\n".join(rows) + "\n")
    videos = opened(root)
    saved = videos.save("one", videos.shown("one").revision, NEW)
    accepted = videos.accept("one", saved.revision)
    assert labels_of(root, "one") == frames(NEW) and labels_of(root, "two") == ["fill"] * LENGTH
    assert rows[2] in table.read_text().splitlines()
    videos.withdraw("one", accepted.revision)
    assert [video.labels is not None for video in load(root).videos] == [False, True]


def test_a_table_that_is_a_link_is_changed_where_it_lies(root: Path, tmp_path: Path) -> None:
    shared, link = tmp_path / "shared.csv", root / "labels" / "all.csv"
    shared.write_text(f"video,begin_s,end_s,step\none,0,{LENGTH / 10},fill\ntwo,0,{LENGTH / 10},fill\n")
    link.parent.mkdir()
    link.symlink_to(shared)
    videos = opened(root)
    saved = videos.save("one", videos.shown("one").revision, NEW)
    accepted = videos.accept("one", saved.revision)
    assert link.is_symlink() and "one,4.100000,7.700000,fill" in shared.read_text()
    videos.withdraw("one", accepted.revision)
    assert link.is_symlink() and "one" not in shared.read_text() and labels_of(root, "two") == ["fill"] * LENGTH


def test_an_export_of_several_videos_is_not_torn_apart(root: Path) -> None:
    (root / "labels").mkdir()
    videos = opened(root, "label-studio")
    for name in NAMES:
        videos.accept(name, videos.shown(name).revision)
    tasks = [json.loads((root / "labels" / f"{name}.json").read_text())[0] for name in NAMES]
    for name in NAMES:
        (root / "labels" / f"{name}.json").unlink()
    (root / "labels" / "export.json").write_text(json.dumps(tasks))
    before = (root / "labels" / "export.json").read_bytes()
    saved = videos.save("one", videos.shown("one").revision, NEW)
    with pytest.raises(EdgeHalError, match="cannot replace the labels of video one"):
        videos.accept("one", saved.revision)
    assert (root / "labels" / "export.json").read_bytes() == before and videos.shown("one").state == "draft"


def test_labels_of_some_frames_are_shown_beside_the_segments(root: Path) -> None:
    (root / "labels").mkdir()
    (root / "labels" / "one.csv").write_text("begin_s,end_s,step\n3.5,4.0,fill\n")
    shown = opened(root).shown("one")
    assert shown.state == "found" and shown.parts == ((35, 40, "fill"),)


def test_what_contradicts_the_step_list_is_told_as_train_tells_it(root: Path) -> None:
    videos = opened(root)
    other = [("open", 0), ("close", 50), ("fill", 70)]
    saved = videos.save("one", videos.shown("one").revision, other)
    videos.accept("one", saved.revision)
    (told,) = load(root).notes
    assert "its labels have 'close' as step 2 (frame 50, 5.00 s), its step list has 'fill'" in told
    assert videos.shown("one").note == told == saved.note
    fitting = videos.save("one", videos.shown("one").revision, NEW)
    assert fitting.note == ""


def test_labels_of_some_frames_that_contradict_the_step_list_are_told_as_train_tells_them(root: Path) -> None:
    videos = opened(root)
    (root / "labels").mkdir()
    (root / "labels" / "one.csv").write_text("begin_s,end_s,step\n3.5,4.0,close\n6.0,6.5,fill\n")
    shown = videos.shown("one")
    with pytest.raises(EdgeHalError) as refused:
        load(root)
    assert shown.note == f"{refused.value.what}: {refused.value.why}."
    assert (
        "one.csv, line 3: 'fill' at frame 60" in shown.note and len(shown.parts) == 2 and videos.shown("two").note == ""
    )
    (root / "labels" / "one.csv").write_text("begin_s,end_s,step\n3.5,4.0,fill\n6.0,6.5,close\n")
    assert videos.shown("one").note == ""


@pytest.mark.parametrize("gone", [True, False])
def test_a_video_that_was_replaced_or_removed_takes_no_change(root: Path, gone: bool) -> None:
    videos = opened(root)
    draft = videos.save("one", videos.shown("one").revision, NEW)
    (root / "videos" / "one.avi").unlink()
    if not gone:
        write_film(root / "videos" / "one.avi", [(BLUE, 10)])
    for change in (
        lambda: videos.save("one", draft.revision, [("open", 0)]),
        lambda: videos.accept("one", draft.revision),
        lambda: videos.stamp("one", draft.revision, 50, "fill"),
    ):
        with pytest.raises(EdgeHalError, match="changed or removed since edge-hal correct was started"):
            change()
    assert videos.shown("one") == draft and not (root / "labels").exists()
    assert videos.accept("two", videos.shown("two").revision).state == "accepted"


def test_a_video_that_no_run_knows_and_files_that_cannot_be_used(root: Path) -> None:
    videos = TaskVideos(root, load(root), Found(), "csv")
    guess = videos.shown("one")
    assert guess.state == "guess" and [first for _, first, _ in guess.segments] == [0, LENGTH // 3, 2 * LENGTH // 3]
    (root / "drafts").mkdir()
    (root / "drafts" / "one.csv").write_text("video,begin_s,end_s,step\none,0,2,open\n")
    assert "one.csv does not label all frames" in videos.shown("one").note
    (root / "drafts" / "one.csv").write_text("video,begin_s,end_s,step\none,0,2,pour\n")
    assert "unknown step 'pour'" in videos.shown("one").note and videos.shown("one").state == "guess"
    for content in (
        "",
        "[]",
        '{"one": {}}',
        '{"one": {"segments": [["open", 5]]}}',
        '{"one": {"segments": [["x", 0]]}}',
    ):
        (root / "runs" / "1" / "alignment.json").write_text(content)
        with pytest.raises(EdgeHalError, match="cannot read the alignment"):
            read_found(root / "runs" / "1", STEPS)


def test_the_advice_is_that_of_train(root: Path) -> None:
    """A video that shows more steps comes first; a doubtful alignment is told as long as nothing was accepted."""
    (root / "transcripts" / "two.txt").write_text("open\n")
    videos = opened(root)
    assert "may be wrong" not in videos.advice() and "steps: one and two." in videos.advice()
    gains = [{"minutes": 1.0, "frames_right": 0.874}, {"minutes": 3.0, "frames_right": 0.931}]
    worth = {"videos": ["two", "one"], "frames_right": 0.811, "gains": gains}
    (root / "runs" / "1" / "labels.json").write_text(json.dumps(worth))
    assert opened(root).advice() == (
        "When the run was trained, 81% of the frames were right (estimated); with labels of 1 min: 87%, 3 min: 93%. "
        "Accept these first: two and one."
    )
    (root / "runs" / "1" / "labels.json").write_text("{}")
    with pytest.raises(EdgeHalError, match=r"cannot read .*labels\.json"):
        opened(root)
    (root / "runs" / "1" / "labels.json").unlink()
    stored = json.loads((root / "runs" / "1" / "alignment.json").read_text())
    for entry in stored.values():
        entry.update({"agreement": 0.4, "chance": 0.4, "order": 0.0, "short_ends": 0.5})
    (root / "runs" / "1" / "alignment.json").write_text(json.dumps(stored))
    doubtful = opened(root)
    assert "CAUTION" in doubtful.advice() and "first: one and two." in doubtful.advice()
    doubtful.accept("one", doubtful.shown("one").revision)
    assert "CAUTION" not in doubtful.advice() and "steps: two." in doubtful.advice()
    doubtful.accept("two", doubtful.shown("two").revision)
    assert doubtful.advice() == ""


def test_a_boundary_that_was_moved_is_certain_and_others_keep_their_confidence(root: Path, tmp_path: Path) -> None:
    videos = opened(root)
    table = tmp_path / "boundaries.csv"
    table.write_text(
        "video,time_s,from,to,confidence,within_s\none,3.000,open,fill,0.25,0.5\none,6.000,fill,close,0.75,0.5\n"
    )
    known = read_confidences(table, {"one": 10.0})
    videos.found = replace(videos.found, confidences=known)
    found = videos.shown("one")
    assert [each[2] for each in found.segments] == [1.0, 0.25, 0.75]
    saved = videos.save("one", found.revision, [("open", 0), ("fill", 33), ("close", 60)])
    assert [each[2] for each in saved.segments] == [1.0, 1.0, 0.75]
    text = (root / "drafts" / "one.csv").read_text()
    assert text.splitlines()[1:] == [
        "one,0.000000,3.300000,open,1.00",
        "one,3.300000,6.000000,fill,0.75",
        "one,6.000000,10.000000,close,0.75",
    ]


@pytest.mark.parametrize("row", ["one,0,10,renamed", "one,0,3,fill", "one,0"])
@pytest.mark.parametrize("change", ["save", "accept"])
def test_a_draft_that_cannot_be_used_is_put_aside_and_not_lost(root: Path, row: str, change: str) -> None:
    text = f"video,begin_s,end_s,step\n{row}\n"
    draft = root / "drafts" / "one.csv"
    draft.parent.mkdir()
    draft.write_text(text)
    videos = opened(root)
    shown = videos.shown("one")
    assert shown.state == "found" and shown.note
    shown = videos.save("one", shown.revision, NEW) if change == "save" else videos.accept("one", shown.revision)
    assert shown.state == ("draft" if change == "save" else "accepted")
    assert draft.with_suffix(".csv.unusable").read_text() == text


def stamps_of(root: Path, name: str) -> list[tuple[int, str]]:
    """As `train` reads them."""
    videos = load(root)
    (video,) = [video for video in videos.videos if video.name == name]
    assert video.labels is not None
    return [(int(frame), videos.labels[video.labels[frame]]) for frame in (video.labels >= 0).nonzero()[0]]


@pytest.mark.parametrize("seed", range(5))
def test_stamps_count_at_once_and_are_taken_back(root: Path, seed: int) -> None:
    """In any order, beside what the file holds already."""
    rng = random.Random(seed)
    table = root / "labels" / ("one.tsv" if seed % 2 else "all.csv")
    table.parent.mkdir()
    comma = "\t" if seed % 2 else ","
    rows = [["video", "begin_s", "end_s", "step"], ["one", "0.2", "0.4", "open"], ["two", "0", "10", "fill"]]
    table.write_text("".join(comma.join(row) + "\n" for row in rows))
    videos = opened(root)
    shown = videos.shown("one")
    first, second = sorted(rng.sample(range(10, LENGTH), 2))
    wanted = [
        (frame, step)
        for step, (a, b) in zip(("open", "fill", "close"), ((4, first), (first, second), (second, LENGTH)), strict=True)
        for frame in rng.sample(range(a, b), min(2, b - a))
    ]
    rng.shuffle(wanted)
    shown = videos.save("one", shown.revision, [("open", 0), ("fill", first), ("close", second)])
    for frame, step in wanted:
        shown = videos.stamp("one", shown.revision, frame, step)
        assert (frame, step) in stamps_of(root, "one") and shown.state == "draft"
    before = [(2, "open"), (3, "open")]
    assert stamps_of(root, "one") == sorted(before + wanted) and shown.labelled == 3
    assert labels_of(root, "two") == ["fill"] * LENGTH
    assert videos.stamp("one", shown.revision, *wanted[0]) == shown  # it is there already
    assert opened(root).shown("one") == shown
    for frame, _ in wanted:
        shown = videos.remove_stamp("one", shown.revision, frame)
    assert stamps_of(root, "one") == before and shown.labelled == 1
    with pytest.raises(EdgeHalError, match="has no time stamp"):
        videos.remove_stamp("one", shown.revision, 2)  # a segment of the user's file
    assert videos.shown("one") == shown


def test_a_stamp_that_cannot_be_is_refused_and_nothing_is_written(root: Path) -> None:
    videos = opened(root)
    shown = videos.stamp("one", videos.shown("one").revision, 50, "fill")
    file = root / "labels" / "one.csv"
    before = file.read_bytes()
    for frame, step, why in ((20, "close", "contradicts the step list"), (50, "open", "it is labelled 'fill'")):
        with pytest.raises(EdgeHalError) as told:
            videos.stamp("one", shown.revision, frame, step)
        assert why in f"{told.value.what} {told.value.why}"
    for frame, step in ((LENGTH, "close"), (-1, "open"), (3, "pour")):
        with pytest.raises(ValueError):
            videos.stamp("one", shown.revision, frame, step)
    with pytest.raises(StaleRevision):
        videos.stamp("one", "0" * 16, 10, "open")
    assert file.read_bytes() == before and videos.shown("one") == shown
    accepted = videos.accept("one", shown.revision)
    with pytest.raises(EdgeHalError, match="takes no time stamps"):
        videos.stamp("one", accepted.revision, 10, "open")
    assert videos.withdraw("one", accepted.revision).labelled == 0


def test_labels_that_are_no_table_take_no_stamps(root: Path) -> None:
    file = root / "labels" / "one.txt"
    file.parent.mkdir()
    file.write_text("2 open\n")
    videos = opened(root)
    with pytest.raises(EdgeHalError, match="cannot add a time stamp to video one"):
        videos.stamp("one", videos.shown("one").revision, 50, "fill")
    with pytest.raises(EdgeHalError, match="cannot remove a time stamp of video one"):
        videos.remove_stamp("one", videos.shown("one").revision, 2)
    assert file.read_text() == "2 open\n" and len(list(file.parent.iterdir())) == 1


def studio_range(first: int, last: int, step: str) -> dict[str, Any]:
    value = {"ranges": [{"start": first, "end": last}], "timelinelabels": [step]}
    return {"id": "r", "type": "timelinelabels", "value": value}


WHOLE = (("open", 30), ("fill", 60), ("close", LENGTH))


@pytest.mark.parametrize(("change", "steps"), [("accept", WHOLE[:1]), ("accept", WHOLE), ("withdraw", WHOLE)])
def test_tasks_of_an_export_that_do_not_count_yet_are_kept(
    root: Path, change: str, steps: tuple[tuple[str, int], ...]
) -> None:
    begins = [1, *(stop + 1 for _, stop in steps)]
    done = [studio_range(begin, stop, step) for begin, (step, stop) in zip(begins, steps, strict=False)]
    guess = [{"result": [studio_range(1, 50, "open")]}]
    tasks = [
        {"id": 1, "data": {"name": "one"}, "annotations": [{"result": done}]},
        {
            **{"id": 2, "data": {"name": "two"}, "predictions": guess},
            "annotations": [{"result": done, "was_cancelled": True}],
        },
        {"id": 3, "data": {"name": "three"}, "annotations": [], "predictions": guess},
    ]
    export = root / "labels" / "project.json"
    export.parent.mkdir()
    export.write_text(json.dumps(tasks))
    videos = opened(root)
    shown = videos.shown("one")
    if change == "accept":
        shown = videos.save("one", shown.revision, NEW)
    with pytest.raises(EdgeHalError, match="cannot replace the labels of video one"):
        getattr(videos, change)("one", shown.revision)
    assert json.loads(export.read_text()) == tasks
    assert (root / "drafts" / "one.csv").exists() == (change == "accept")


OTHERS = "video,begin_s,end_s,step\ntwo,0,3,open\nclip one,3,6,fill\n"
UNNAMED = (
    '<ANNOTATION_DOCUMENT><TIME_ORDER><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="0"/><TIME_SLOT TIME_SLOT_ID="b" '
    'TIME_VALUE="900"/></TIME_ORDER><TIER TIER_ID="steps"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" '
    'TIME_SLOT_REF1="a" TIME_SLOT_REF2="b"><ANNOTATION_VALUE/></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>'
    "</ANNOTATION_DOCUMENT>"
)


@pytest.mark.parametrize("format", ["csv", "eaf", "label-studio"])
def test_a_file_that_is_called_like_the_video_and_holds_other_labels_is_kept(root: Path, format: str) -> None:
    other = [{"data": {"name": "two"}, "annotations": [{"result": [studio_range(1, 30, "open")]}]}]
    text = {"csv": OTHERS, "eaf": UNNAMED, "label-studio": json.dumps(other)}[format]
    file = root / "labels" / f"one{SUFFIXES[format]}"
    file.parent.mkdir()
    file.write_text(text)
    videos = opened(root, format)
    if format != "csv":
        saved = videos.save("one", videos.shown("one").revision, NEW)
        with pytest.raises(EdgeHalError, match="cannot write the labels of video one"):
            videos.accept("one", saved.revision)
        assert file.read_text() == text and videos.shown("one").state == "draft"
        return
    shown = videos.stamp("one", videos.shown("one").revision, 50, "fill")
    assert file.read_text() == f"{OTHERS}one,5.000000,,fill\n"
    videos.remove_stamp("one", shown.revision, 50)
    assert file.read_text() == OTHERS
    shown = videos.accept("one", videos.shown("one").revision)
    assert file.read_text().startswith(f"{OTHERS}one,0.000000,") and labels_of(root, "one")[50] == "fill"
    videos.withdraw("one", shown.revision)
    assert file.read_text() == OTHERS


@pytest.mark.parametrize(
    ("begin", "added", "end"),
    [
        ("begin_s;end_s;step;who\n0,5;1,0;open;me\n", "5,000000;;fill;\n", ""),
        (
            "\ufeffvideo;who;begin_s;end_s;step\r\none.avi;me;0.5;1.0;open\r\ntwo;you;0;10;fill",
            "\r\none;;5.000000;;fill\r\n",
            "",
        ),
        (
            'step,begin_s,end_s,video,note\n"fill",3.5,4,one,"a ""b"",\nc"\n\nopen,0,1,two,x\n',
            "fill,5.000000,,one,\n",
            "close,9,,one,y\n",
        ),
    ],
)
def test_a_mark_is_one_row_and_the_rest_of_the_table_stays(root: Path, begin: str, added: str, end: str) -> None:
    table = root / "labels" / "one.csv"
    table.parent.mkdir()
    table.write_bytes((begin + end).encode())
    videos = opened(root)
    shown = videos.stamp("one", videos.shown("one").revision, 50, "fill")
    assert table.read_bytes().decode() == begin + end + added
    videos.remove_stamp("one", shown.revision, 50)
    left = begin + end + (added[:2] if added.startswith("\r\n") else "")  # a last line that had no end has one
    assert table.read_bytes().decode() == left
    if end:
        videos.remove_stamp("one", videos.shown("one").revision, 90)
        assert table.read_bytes().decode() == begin


def test_a_video_that_no_table_can_name_takes_no_labels_of_another(tmp_path: Path) -> None:
    names = (" one", "a\\one", "one")
    root = write_task(tmp_path / "task", names)
    videos = opened(root)
    for name in names[:2]:
        for change in (
            lambda name=name: videos.stamp(name, videos.shown(name).revision, 50, "fill"),
            lambda name=name: videos.accept(name, videos.shown(name).revision),
            lambda name=name: videos.save(name, videos.shown(name).revision, NEW),
        ):
            with pytest.raises(EdgeHalError, match="cannot stand in a table of labels"):
                change()
    assert not [path for folder in ("labels", "drafts") for path in (root / folder).glob("*")]
    assert opened(root).stamp("one", videos.shown("one").revision, 50, "fill").parts == ((50, 51, "fill"),)


def test_a_mark_of_a_video_of_a_variable_rate_stays_where_it_was_set(root: Path) -> None:
    rng = random.Random(0)
    gaps_ms = [mean + rng.randint(-8, 8) for mean, count in ((50, 100), (150, 60)) for _ in range(count)]
    (root / "videos" / "one.avi").unlink()
    write_video(root / "videos" / "one.mp4", [0, *itertools.accumulate(gaps_ms)], rate=10)
    videos = opened(root)
    times = videos.times("one")
    assert not times.constant_rate and times.length == len(times.times_ns)
    shown = videos.shown("one")
    for frame, step in ((40, "open"), (90, "fill"), (140, "close")):
        shown = videos.stamp("one", shown.revision, frame, step)
    assert shown.parts == ((40, 41, "open"), (90, 91, "fill"), (140, 141, "close"))
    assert stamps_of(root, "one") == [(40, "open"), (90, "fill"), (140, "close")]
    shown = videos.remove_stamp("one", shown.revision, 90)
    assert shown.parts == ((40, 41, "open"), (140, 141, "close"))
