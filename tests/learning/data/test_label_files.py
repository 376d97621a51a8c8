"""Labels written in the format of a tool, read back, and opened by the tool's own parser; broken ones are named."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.labels.csv_file import write_csv
from edge_hal.learning.data.labels.eaf import write_eaf
from edge_hal.learning.data.labels.folder import (
    labels_in,
    read_given_labels,
    read_label_folder,
    read_own_labels,
    without_video,
)
from edge_hal.learning.data.labels.frames import write_frames
from edge_hal.learning.data.labels.label_studio import write_label_studio
from edge_hal.learning.data.labels.order import check_order
from edge_hal.learning.data.labels.segments import SegmentedVideo, segments_of_labels
from edge_hal.learning.data.media_files import VideoTimes
from edge_hal.learning.data.video_set import VideoSet
from edge_hal.media.names import composed
from edge_hal.media.stamps import Missing
from edge_hal.metrics import transcript_of
from tests.helpers.small_data import ACTIONS, RATE_HZ, write_small_data

Write = Callable[[Sequence[SegmentedVideo]], dict[str, str]]
WRITERS: dict[str, Write] = {
    "frames": write_frames,
    "csv": write_csv,
    "eaf": write_eaf,
    "label-studio": write_label_studio,
}
RATES = (1.0, 6.4, 10.0, 15.0, 24000 / 1001, 25.0, 30000 / 1001, 60.0, 100.0, 500.0)
ROW = "video,begin_s,end_s,step\n"
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12).filter(
    lambda text: text == composed(text.strip()) and text.isprintable()
)


def segmented(
    labels: NDArray[np.int64],
    steps: Sequence[str] = ACTIONS,
    name: str = "video0",
    rate_hz: float = RATE_HZ,
    video: bool = False,
) -> SegmentedVideo:
    segments = segments_of_labels(labels, steps)
    path = Path("videos" if video else "features") / (name + (".mp4" if video else ".npy"))
    confidences = tuple(np.linspace(0, 1, len(segments) - 1).tolist())
    return SegmentedVideo(name, path, "video" if video else "features", len(labels), rate_hz, segments, confidences)


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


@st.composite
def frame_labels(draw: st.DrawFn) -> NDArray[np.int64]:
    order = draw(st.lists(st.integers(0, len(ACTIONS) - 1), min_size=1, max_size=8))
    return np.repeat(order, draw(st.lists(st.integers(1, 400), min_size=len(order), max_size=len(order))))


@pytest.mark.parametrize("format", WRITERS)
@given(
    labels=frame_labels(),
    rate_hz=st.sampled_from(RATES),
    video=st.booleans(),
    steps=st.lists(NAMES, min_size=len(ACTIONS), max_size=len(ACTIONS), unique=True),
)
@settings(deadline=None, max_examples=40)
def test_what_was_written_is_read_back_to_the_frame(
    format: str,
    labels: NDArray[np.int64],
    rate_hz: float,
    video: bool,
    steps: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    written = segmented(labels, steps, rate_hz=rate_hz, video=video)
    (found,) = read_label_folder(write(folder, WRITERS[format]([written]))).items()
    assert found[0] == "video0"
    ids = {step: number for number, step in enumerate(steps)}
    read = labels_in(found[1], "video0", ids, len(labels), rate_hz, None)
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("name", ["GOPR1.MOV", "clip.mp4", "list.txt", "recording ", "a.npy.txt", "take 2.final"])
@pytest.mark.parametrize("format", WRITERS)
def test_a_video_whose_name_ends_like_a_file_keeps_its_labels(format: str, name: str, tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [5, 7, 9])
    written = segmented(labels, name=name, video=True)
    assert set(read_label_folder(write(tmp_path / "labels", WRITERS[format]([written])))) == {name}


@pytest.mark.parametrize("name", ["a\\b", " a", "a/ b.mp4"])
def test_a_video_that_no_table_can_name_is_refused(name: str) -> None:
    """Else its labels would become those of another video."""
    with pytest.raises(EdgeHalError, match="cannot stand in a table of labels") as caught:
        write_csv([segmented(np.repeat([0, 1], [5, 7]), name=name, video=True)])
    assert "rename the video file" in caught.value.todo


@pytest.mark.parametrize("name", ["video0.csv", "video0.eaf", "video0.txt", "all.json"])
@pytest.mark.parametrize("kind", ["dangling", "loop", "folder", "pipe"])
def test_labels_that_cannot_be_read_are_not_passed_over(tmp_path: Path, name: str, kind: str) -> None:
    path = write(tmp_path / "labels", {"video1.txt": "reach\n"}) / name
    match kind:
        case "dangling":
            path.symlink_to(tmp_path / "not mounted")
        case "loop":
            path.symlink_to(name)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    with pytest.raises(EdgeHalError, match=r"cannot read the labels .*: it is a (link|folder|pipe)"):
        read_label_folder(tmp_path / "labels")


def test_a_folder_of_labels_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert read_own_labels(tmp_path) == {}
    (tmp_path / "labels").symlink_to(tmp_path / "not mounted")
    with pytest.raises(EdgeHalError, match="leads nowhere"):
        read_own_labels(tmp_path)


def test_labels_of_a_video_that_is_not_there_are_told(tmp_path: Path) -> None:
    found = read_label_folder(write(tmp_path / "labels", {"video7.txt": "reach\n", "video1.txt": "reach\n"}))
    (note,) = without_video(found, ["video1", "video70"])
    assert "video7.txt has labels of video video7, which is not there" in note and "'video70'" in note


def test_steps_that_are_written_in_another_unicode_form_are_the_same(tmp_path: Path) -> None:
    labels, steps = np.repeat([0, 1], [5, 7]), ["de\u0301visser", "poser"]
    for format, writer in WRITERS.items():
        folder = write(tmp_path / format, writer([segmented(labels, steps)]))
        (found,) = read_label_folder(folder).values()
        ids = {"d\u00e9visser": 0, "poser": 1}
        np.testing.assert_array_equal(labels_in(found, "video0", ids, len(labels), RATE_HZ, None), labels)


def test_elan_reads_the_steps_and_their_confidences(tmp_path: Path) -> None:
    pympi = pytest.importorskip("pympi", reason="pympi-ling is not installed")
    labels = np.repeat([0, 2, 1], [31, 7, 50])
    write(tmp_path, write_eaf([segmented(labels, rate_hz=30.0, video=True)]))
    eaf = pympi.Elan.Eaf(tmp_path / "video0.eaf")
    assert eaf.get_annotation_data_for_tier("steps") == [
        (0, 1033, "reach"),
        (1033, 1267, "turn"),
        (1267, 2933, "grasp"),
    ]
    confidences = {(begin, value) for begin, _, value, *_ in eaf.get_ref_annotation_data_for_tier("confidence")}
    assert confidences == {(0, "0.00"), (1033, "0.00"), (1267, "1.00")}
    (medium,) = eaf.get_linked_files()
    assert medium["MEDIA_URL"].startswith("file:///") and medium["MEDIA_URL"].endswith("/videos/video0.mp4")
    # What ELAN's users do: move a boundary, and save.
    eaf.timeslots["ts2"] = 1200
    eaf.to_file(tmp_path / "video0.eaf")
    (found,) = read_label_folder(tmp_path).values()
    read = labels_in(found, "video0", {name: n for n, name in enumerate(ACTIONS)}, len(labels), 30.0, None)
    np.testing.assert_array_equal(read, np.repeat([0, 2, 1], [36, 2, 50]))


@pytest.mark.skipif(importlib.util.find_spec("label_studio_sdk") is None, reason="label-studio-sdk is not installed")
@pytest.mark.parametrize("video", [True, False])
def test_label_studio_accepts_the_configuration_and_the_predictions(video: bool) -> None:
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.objects import TaskValue

    files = write_label_studio([segmented(np.repeat([0, 2, 1], [31, 7, 50]), video=video)])
    interface = LabelInterface(files["label-studio.xml"])
    interface.validate()
    (task,) = json.loads(files["label-studio.json"])
    TaskValue(**task)
    assert interface.validate_task({"data": task["data"]})  # of predictions it calls its own method wrongly
    (prediction,) = task["predictions"]
    assert interface.validate_prediction(prediction, return_errors=True) == []
    prediction["result"][0]["value"]["timelinelabels" if video else "timeserieslabels"] = ["other"]
    assert interface.validate_prediction(prediction, return_errors=True) != []


def studio_task(name: str, **kinds: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": 7, "data": {"video": f"/data/upload/1/0a1b2c3d-{name}.mp4"}, **kinds}


def studio_range(first: int, last: int, step: str) -> dict[str, Any]:
    value = {"ranges": [{"start": first, "end": last}], "timelinelabels": [step]}
    return {"id": "r", "type": "timelinelabels", "from_name": "l", "to_name": "v", "value": value}


def test_of_label_studio_annotations_count_and_predictions_do_not(tmp_path: Path) -> None:
    guess = [{"result": [studio_range(1, 9, "turn")]}]
    done: list[dict[str, Any]] = [
        {"result": [studio_range(1, 3, "grasp")]},
        {"result": [studio_range(1, 4, "reach"), {"type": "choices", "value": {"choices": ["good"]}}]},
        {"result": [studio_range(1, 5, "turn")], "was_cancelled": True},
    ]
    tasks = [studio_task("video0", annotations=done, predictions=guess), studio_task("video1", predictions=guess)]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    found = read_label_folder(tmp_path)
    assert list(found) == ["video0"]
    ids = {name: number for number, name in enumerate(ACTIONS)}
    assert labels_in(found["video0"], "video0", ids, 6, 20.0, None).tolist() == [0, 0, 0, 0, -1, -1]


def test_a_spreadsheet_may_use_semicolons_and_decimal_commas_and_stamps_have_no_end(tmp_path: Path) -> None:
    (tmp_path / "sheet.csv").write_text(
        "\ufeffvideo;begin_s;end_s;step\r\nvideo0.mp4;0,5;1,25;turn\r\nvideo0;2;;place\r\n"
    )
    (found,) = read_label_folder(tmp_path).values()
    labels = labels_in(found, "video0", {name: number for number, name in enumerate(ACTIONS)}, 60, 20.0, None)
    assert np.flatnonzero(labels == 2).tolist() == list(range(10, 25))
    assert np.flatnonzero(labels == 3).tolist() == [40]
    assert (labels >= 0).sum() == 16


def test_a_stamp_within_a_segment_of_its_step_is_no_overlap(tmp_path: Path) -> None:
    ids = {name: number for number, name in enumerate(ACTIONS)}
    for rows in ("video0,0,1,turn\nvideo0,0.5,,turn\n", "video0,0.5,,turn\nvideo0,0,1,turn\n"):
        (tmp_path / "a.csv").write_text(f"{ROW}{rows}")
        (found,) = read_label_folder(tmp_path).values()
        labels = labels_in(found, "video0", ids, 30, 20.0, None)
        assert labels.tolist() == [2] * 20 + [-1] * 10
    (tmp_path / "a.csv").write_text(f"{ROW}video0,0,1,turn\nvideo0,0.5,,place\n")
    (found,) = read_label_folder(tmp_path).values()
    with pytest.raises(EdgeHalError, match="line 3: 'place' overlaps"):
        labels_in(found, "video0", ids, 30, 20.0, None)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("video0,0,0.5,reach\nvideo0,0.512,0.52,turn\n", [0] * 10 + [2] + [-1] * 19),
        ("video0,1.5,,turn\n", [-1] * 29 + [2]),  # at the end of the video
        ("video0,1.5,1.51,turn\n", [-1] * 29 + [2]),
        ("video0,1,1.5,turn\nvideo0,1.5,,turn\n", [-1] * 20 + [2] * 10),
        (
            "video0,0,0.5,reach\nvideo0,0.512,0.52,turn\nvideo0,0.52,1,place\n",
            "line 4: 'place' overlaps another segment",
        ),
        ("video0,1,1.5,reach\nvideo0,1.5,,turn\n", "line 3: 'turn' overlaps"),
        ("video0,1.55,,turn\n", "lies outside of video video0"),
    ],
)
def test_each_mark_labels_a_frame_that_is_its_own(tmp_path: Path, rows: str, expected: list[int] | str) -> None:
    """Also a segment that is shorter than a frame, and a stamp at the end of the video."""
    ids = {name: number for number, name in enumerate(ACTIONS)}
    (tmp_path / "a.csv").write_text(f"{ROW}{rows}")
    (found,) = read_label_folder(tmp_path).values()
    if isinstance(expected, str):
        with pytest.raises(EdgeHalError, match=expected):
            labels_in(found, "video0", ids, 30, 20.0, None)
    else:
        assert labels_in(found, "video0", ids, 30, 20.0, None).tolist() == expected


# --- in a data set


def load(root: Path, folder: Path, **more: Any) -> VideoSet:
    files = {path.stem: path for path in (root / "features").iterdir()}
    own = read_given_labels(folder, files)
    return load_dataset(root, split=1, part="train", rate_hz=RATE_HZ, with_labels=set(own), own_labels=own, **more)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_small_data(tmp_path / "data", train=4, test=1)


def truth(root: Path, name: str) -> NDArray[np.int64]:
    return np.array([ACTIONS.index(step) for step in (root / "groundTruth" / f"{name}.txt").read_text().split()])


def test_formats_are_mixed_freely_and_replace_the_frame_labels(tmp_path: Path, data: Path) -> None:
    known = [truth(data, f"video{n}") for n in range(4)]
    folder = write(tmp_path / "labels", write_eaf([segmented(known[0])]))
    write(folder, write_csv([segmented(known[1], name="video1")]))
    listed = transcript_of(known[2])
    begins = [int(np.flatnonzero(np.append(True, np.diff(known[2]) != 0))[m]) for m in range(len(listed))]
    (folder / "video2.txt").write_text("".join(f"{b + 3} {ACTIONS[k]}\n" for b, k in zip(begins, listed, strict=True)))
    part = segmented(known[3], name="video3")
    table = write_csv([part])["segments.csv"].splitlines()
    (folder / "part.csv").write_text("\n".join([table[0], table[2]]))
    (folder / "boundaries.csv").write_text("video,time_s,from,to,confidence,within_s\nvideo0,1,a,b,0.1,0.5\n")
    (folder / "label-studio.xml").write_text("<View/>")
    videos = load(data, folder).videos
    for video, expected in zip(videos[:2], known[:2], strict=True):
        np.testing.assert_array_equal(video.labels, expected)
    stamps = videos[2].labels
    assert stamps is not None and (stamps >= 0).sum() == len(listed)
    assert stamps[np.array(begins) + 3].tolist() == list(listed)
    some = videos[3].labels
    assert some is not None and 0 < (some >= 0).sum() < len(some)
    at = some >= 0
    np.testing.assert_array_equal(some[at], known[3][at])
    assert np.flatnonzero(at).tolist() == list(range(part.segments[1].first, part.segments[1].stop))


EAF = (
    '<ANNOTATION_DOCUMENT><TIME_ORDER><TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="0"/>'
    '<TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="%s"/></TIME_ORDER><TIER TIER_ID="steps"><ANNOTATION>'
    '<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="a" TIME_SLOT_REF2="b">'
    "<ANNOTATION_VALUE>reach</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>"
)
TASK_JSON = '[{"data": {"video": "video0.mp4"}, "predictions": [{"result": [{"type": "%s", "value": %s}]}]}]'
FRAMES_JSON = TASK_JSON % ("timelinelabels", '{"ranges": [{"start": 1, "end": %s}], "timelinelabels": ["reach"]}')
SECONDS_JSON = TASK_JSON % ("timeserieslabels", '{"start": 0, "end": %s, "timeserieslabels": ["reach"]}')


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", f"{ROW}video0,0,1,raech\n", ["a.csv, line 2", "unknown step 'raech'", "'reach'"]),
        ("a.csv", f"{ROW}video0,0,2,reach\nvideo0,1.5,3,turn\n", ["a.csv, line 3", "overlaps", "line 2", "1.50 s"]),
        ("a.csv", f"{ROW}vidoe0,0,1,reach\n", ["video vidoe0", "not there", "'video0'"]),
        (
            "a.csv",
            f"{ROW}video0,0,1,reach\nvideo0,9000,9001,turn\n",
            ["line 3", "outside of video video0", "another video"],
        ),
        ("a.csv", f"{ROW}video0,2,1,reach\n", ["line 2", "ends before it begins"]),
        ("a.csv", f"{ROW}video0,soon,1,reach\n", ["line 2", "begin_s is 'soon'"]),
        ("a.csv", f"{ROW}video0,0,1\n", ["line 2", "3 columns instead of 4"]),
        ("a.csv", "video,start,end,step\nvideo0,0,1,reach\n", ["no column 'begin_s'", "video, start, end, step"]),
        ("a.csv", "", ["no column 'begin_s'", "it is empty"]),
        ("video0.eaf", "<ANNOTATION_DOCUMENT><TIER", ["cannot read the labels", "video0.eaf"]),
        ("video0.eaf", '<!DOCTYPE a [<!ENTITY b "c">]><ANNOTATION_DOCUMENT/>', ["document type"]),
        ("video0.eaf", '<!DOCTYPE a [<!ENTITY b "c">]><ANNOTATION_DOCUMENT/>'.encode("utf-16"), ["document type"]),
        ("video0.eaf", '<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="PAL-frames"/></ANNOTATION_DOCUMENT>', ["PAL-frames"]),
        ("video0.eaf", "<svg/>", ["it is a document svg"]),
        ("video0.eaf", '<?xml version="1.0" encoding="UTF8-BOM"?><ANNOTATION_DOCUMENT/>', ["unknown encoding"]),
        ("video0.eaf", (EAF % "9").replace("<TIER T", '<TIER TIER_ID="steps"/><TIER T'), ["two tiers of one name"]),
        ("a.json", '{"tasks": []}', ["no list of tasks"]),
        ("a.json", '[{"data": {"video": "video0.mp4"}, "predictions": [{"result": [{}]}]}]', ["cannot read", "type"]),
        ("a.json", "[", ["cannot read the labels"]),
        *(
            ("video0.eaf", EAF % value, ["cannot read the labels", "a time cannot be"])
            for value in ("9" * 400, "9" * 30)
        ),
        *(
            ("a.json", text % value, ["cannot read the labels", "a time cannot be"])
            for text in (FRAMES_JSON, SECONDS_JSON)
            for value in ("1e15", '"inf"', '"nan"')
        ),
        ("video0.txt", "reach\nraech\n", ["line 2", "unknown step 'raech'"]),
        ("video0.txt", "reach\n" * 9, ["9 frame labels"]),
        ("video0.txt", "100 reach\n10 turn\n", ["line 2", "frame 10 after frame 100", "must rise"]),
        ("video0.txt", "10 reach\n\n10 turn\n", ["line 3", "frame 10 after frame 10", "must rise"]),
        ("notes.md", "later", ["holds no labels"]),
    ],
)
def test_a_broken_file_of_labels_is_one_error_that_names_the_place(
    tmp_path: Path, data: Path, name: str, text: str | bytes, expected: list[str]
) -> None:
    folder = write(tmp_path / "labels", {name: text})
    with pytest.raises(EdgeHalError) as caught:
        load(data, folder)
    assert [part for part in expected if part not in str(caught.value)] == [], str(caught.value)


def test_an_annotation_without_a_name_labels_nothing(tmp_path: Path, data: Path) -> None:
    whole = write_eaf([segmented(truth(data, "video0"))])
    first = truth(data, "video0")[0]
    emptied = whole["video0.eaf"].replace(f"<ANNOTATION_VALUE>{ACTIONS[first]}<", "<ANNOTATION_VALUE> <", 1)
    labels = load(data, write(tmp_path / "labels", {"video0.eaf": emptied})).videos[0].labels
    assert labels is not None and labels[0] == -1 and (labels >= 0).sum() > 0


def test_two_files_for_one_video_are_refused(tmp_path: Path, data: Path) -> None:
    labels = [segmented(truth(data, "video0"))]
    folder = write(tmp_path / "labels", {**write_eaf(labels), **write_csv(labels)})
    with pytest.raises(EdgeHalError, match="video video0 twice") as caught:
        load(data, folder)
    assert "segments.csv" in str(caught.value) and "video0.eaf" in str(caught.value)


def test_labels_of_parts_that_contradict_the_step_list_are_named_with_file_and_time(tmp_path: Path, data: Path) -> None:
    listed = (data / "transcripts" / "video0.txt").read_text().split()
    last, first = listed[-1], listed[0]
    if last == first:  # the list of this seed begins and ends with other steps
        pytest.fail("choose another seed")
    missing = [step for step in ACTIONS if step not in listed[1:]]
    wrong = missing[0] if missing else first
    folder = write(
        tmp_path / "labels", {"a.csv": f"{ROW}video0,0,0.5,{first}\nvideo0,2,3,{last}\nvideo0,4,5,{wrong}\n"}
    )
    with pytest.raises(EdgeHalError) as caught:
        load(data, folder)
    text = str(caught.value)
    assert "a.csv, line" in text and "contradicts the step list of video video0" in text
    assert ", ".join(listed) in text and "transcripts/video0.txt" in text


def test_the_list_of_a_video_of_which_some_frames_are_labelled_comes_from_its_frame_labels(
    tmp_path: Path, data: Path
) -> None:
    (data / "transcripts" / "video0.txt").unlink()
    known = truth(data, "video0")
    folder = write(tmp_path / "labels", {"video0.txt": f"{len(known) // 2} {ACTIONS[known[len(known) // 2]]}\n"})
    video = load(data, folder).videos[0]
    assert video.transcript == transcript_of(known) and video.labels is not None
    assert np.flatnonzero(video.labels >= 0).tolist() == [len(known) // 2]  # and no other label is taken from there
    (data / "groundTruth" / "video0.txt").unlink()
    with pytest.raises(EdgeHalError, match=r"video0 has no step list.*labels \d+% of its frames"):
        load(data, folder)


def test_labels_of_all_frames_replace_the_step_list_and_say_where_it_differs(tmp_path: Path, data: Path) -> None:
    known = truth(data, "video0")
    begin = int(np.flatnonzero(np.diff(known))[0]) + 1
    known[begin:] = (known[0] + 1) % len(ACTIONS)
    second = ACTIONS[known[-1]]
    videos = load(data, write(tmp_path / "labels", write_frames([segmented(known)])))
    np.testing.assert_array_equal(videos.videos[0].labels, known)
    (note,) = [note for note in videos.notes if "video0" in note]
    assert f"line {begin + 1} of video0.txt" in note or f"'{second}'" in note
    assert "its step list has" in note and "transcripts/video0.txt" in note


def test_without_a_rate_times_are_refused_and_frames_are_not(tmp_path: Path, data: Path) -> None:
    labels = [segmented(truth(data, "video0"))]
    for format, writer in WRITERS.items():
        folder = write(tmp_path / format, writer(labels))
        own = read_label_folder(folder)
        arguments: dict[str, Any] = {"split": 1, "part": "train", "with_labels": {"video0"}, "own_labels": own}
        if format == "frames":
            assert load_dataset(data, **arguments).videos[0].labels is not None
        else:
            with pytest.raises(EdgeHalError, match="rate of video video0 is not known"):
                load_dataset(data, **arguments)


def test_a_video_file_of_a_variable_rate_has_a_line_for_each_of_its_frames(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    from edge_hal.learning.data.media_files import read_times
    from tests.helpers.videos import write_video

    root = tmp_path / "data"
    (root / "videos").mkdir(parents=True)
    (root / "transcripts").mkdir()
    gaps = np.random.default_rng(0).choice([40, 60, 150], 60)
    path = write_video(root / "videos" / "video0.mkv", np.cumsum(gaps).tolist(), rate=10)
    (root / "transcripts" / "video0.txt").write_text("reach\nturn\n")
    times = read_times(path, None)
    assert not times.constant_rate and len(times.times_ns) != times.length
    numbered = times.file_frames
    assert numbered is not None
    labels = np.where(np.arange(times.length) < numbered[30], 0, 1)  # a boundary at a frame that the file has
    video = SegmentedVideo(
        *("video0", path, "video", times.length, times.rate_hz, segments_of_labels(labels, ("reach", "turn")), (0.5,)),
        file_frames=numbered,
    )
    for format, writer in WRITERS.items():
        folder = write(tmp_path / format, writer([video]))
        if format == "frames":
            assert (folder / "video0.txt").read_text().split() == ["reach"] * 30 + ["turn"] * 30
        own = read_given_labels(folder, {"video0": path})
        (read,) = load_dataset(root, split=None, part="train", with_labels={"video0"}, own_labels=own).videos
        np.testing.assert_array_equal(read.labels, labels, format)


def test_stamps_of_frames_that_follow_at_once_keep_their_order(tmp_path: Path) -> None:
    """The file has three frames within a period of the constant rate, of which one is seen there."""
    pytest.importorskip("av", reason="PyAV is not installed")
    from tests.helpers.videos import write_video

    root = tmp_path / "data"
    for folder in ("videos", "transcripts", "labels"):
        (root / folder).mkdir(parents=True)
    times_ms = [*range(0, 4000, 100), 4001, 4002, 4003, *range(4100, 8000, 130)]
    write_video(root / "videos" / "video0.mkv", times_ms, rate=10)
    steps = ("reach", "turn", "press")
    (root / "transcripts" / "video0.txt").write_text("".join(f"{step}\n" for step in steps))
    (root / "labels" / "video0.txt").write_text("".join(f"{n} {step}\n" for n, step in enumerate(steps, 40)))
    own = read_own_labels(root)
    (video,) = load_dataset(root, split=None, part="train", with_labels={"video0"}, own_labels=own).videos
    assert video.labels is not None
    known = np.flatnonzero(video.labels >= 0)
    assert video.labels[known].tolist() == list(video.transcript) and len(known) == 3


def test_marks_in_seconds_stay_where_they_are_in_a_video_of_a_variable_rate(tmp_path: Path) -> None:
    """It has as many frames as the constant rate gives it: their number does not say which of them labels count."""
    pytest.importorskip("av", reason="PyAV is not installed")
    from edge_hal.learning.data.media_files import read_times
    from tests.helpers.videos import write_video

    root = tmp_path / "data"
    for folder in ("videos", "transcripts", "timestamps"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    times_ms = np.cumsum([0, *(50 + rng.integers(-8, 9, 100)), *(150 + rng.integers(-8, 9, 60))])
    path = write_video(root / "videos" / "video0.mp4", times_ms.tolist(), rate=10)
    (root / "transcripts" / "video0.txt").write_text("reach\nturn\n")
    times = read_times(path, None)
    assert not times.constant_rate and times.length == len(times_ms)
    boundary_s, end_s = times_ms[100] / 1000, times.length / times.rate_hz
    boundary = round(boundary_s * times.rate_hz)
    assert abs(boundary - 100) > 20  # frame 100 of the file is not frame 100 of the constant rate
    segments = segments_of_labels(np.where(np.arange(times.length) < boundary, 0, 1), ("reach", "turn"))
    video = SegmentedVideo("video0", path, "video", times.length, times.rate_hz, segments, (1.0,))
    stamp_s = f"{times_ms[120] / 1000}"
    for number, files in enumerate(
        [
            {"video0.csv": f"begin_s,end_s,step\n0,{boundary_s},reach\n{boundary_s},{end_s},turn\n"},
            {"video0.csv": f"begin_s,end_s,step\n0,{boundary_s},reach\n{stamp_s},,turn\n"},
            write_eaf([video]),
            write_label_studio([video]),
            {"video0.txt": "reach\n" * 100 + "turn\n" * (len(times_ms) - 100)},
            {"video0.txt": "99 reach\n120 turn\n"},
        ]
    ):
        own = read_given_labels(write(tmp_path / str(number), files), {"video0": path})
        (read,) = load_dataset(root, split=None, part="train", with_labels={"video0"}, own_labels=own).videos
        assert read.labels is not None and len(read.labels) == times.length
        last = int(np.flatnonzero(read.labels == 0)[-1])
        first = int(np.flatnonzero(read.labels == 1)[0])
        assert abs(last + 1 - boundary) <= 1, files
        assert abs(first - (boundary if (read.labels >= 0).all() else times_ms[120] / 1000 * times.rate_hz)) <= 1, files
    (root / "timestamps" / "video0.txt").write_text("99 reach\n120 turn\n")
    (read,) = load_dataset(root, split=None, part="train", with_labels=True, timestamps=True).videos
    assert read.labels is not None
    assert abs(int(np.flatnonzero(read.labels == 1)[0]) - times_ms[120] / 1000 * times.rate_hz) <= 1


GAPS_NS = st.one_of(
    st.integers(1, 300_000_000),
    st.sampled_from([16_666_667, 16_683_333, 33_333_333, 33_333_334, 33_366_667, 66_666_667, 66_733_333]),
)


def variable(gaps_ns: list[int], rate: Fraction) -> VideoTimes:
    times_ns = np.cumsum([0, *gaps_ns]).astype(np.int64)
    return VideoTimes(rate, times_ns, Missing(len(times_ns), 0, 0), False, [])


@given(st.lists(GAPS_NS, min_size=1, max_size=60), st.sampled_from([10, 15, 30, Fraction(30000, 1001)]), st.data())
@settings(deadline=None)
def test_labels_of_the_frames_of_a_file_give_the_same_boundaries_again(
    gaps_ns: list[int], rate: Fraction | int, data: st.DataObject
) -> None:
    times = variable(gaps_ns, Fraction(rate))
    seen = times.file_frames
    assert seen is not None
    cuts = sorted(data.draw(st.sets(st.sampled_from(seen.tolist()), max_size=4)))
    labels = np.searchsorted([cut for cut in cuts if cut > 0], np.arange(times.length), "right")
    steps = [f"s{number}" for number in range(5)]
    segments = segments_of_labels(labels, steps)
    sure = (1.0,) * (len(segments) - 1)
    path = Path("video0.mkv")
    video = SegmentedVideo("video0", path, "video", times.length, times.rate_hz, segments, sure, file_frames=seen)
    written = write_frames([video])["video0.txt"].split()
    of_file = np.array([steps.index(step) for step in written])
    np.testing.assert_array_equal(times.at_rate(of_file, ()), labels)


def test_a_stamp_that_was_rounded_up_is_the_frame_of_its_time() -> None:
    found = variable([66_666_667, 33_333_333], Fraction(30)).file_frames
    assert found is not None and found.tolist() == [0, 2, 3]


@given(
    st.lists(st.sampled_from([1, 5, 10, 33, 40, 66, 100, 300]), min_size=3, max_size=40),
    st.sampled_from([10, 15, 25, 30]),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=300)
def test_labels_that_follow_the_list_in_a_burst_follow_it_at_the_constant_rate(
    gaps_ms: list[int], hz: int, random: Random
) -> None:
    times = variable([gap * 10**6 for gap in gaps_ms], Fraction(hz))
    frames = len(gaps_ms) + 1
    transcript = transcript_of(np.array([random.randrange(3) for _ in range(random.randint(1, min(frames, 8)))]))
    cuts = sorted(random.sample(range(1, frames), len(transcript) - 1))
    labels = np.repeat(transcript, np.diff([0, *cuts, frames]))
    labels[[random.random() < 0.6 for _ in labels]] = -1
    if times.length < len(transcript) or (labels >= 0).all():
        return
    found = times.at_rate(labels, transcript)
    assert check_order(found, transcript) is None and len(found) == times.length
    assert set(found.tolist()) - {-1} == set(labels.tolist()) - {-1}  # and no step is left out


def test_labels_that_contradict_the_list_in_a_burst_contradict_it_at_the_constant_rate() -> None:
    times = variable([100_000_000] * 20 + [1_000_000] * 3 + [100_000_000] * 20, Fraction(10))
    labels = np.full(44, -1)
    labels[[21, 22]] = [1, 0]
    assert check_order(labels, (0, 1)) is not None
    assert check_order(times.at_rate(labels, (0, 1)), (0, 1)) is not None
