"""Charts: the numbers in them by hand, and pictures that hostile labels do not break."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_hal.decoding.decode import beliefs_of
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.evaluation.checkpoint_scores import Streamed
from edge_hal.evaluation.drawings import draw_confusion, draw_delays, draw_reliability, draw_timelines
from edge_hal.evaluation.plot_data import StreamedVideo, confusion, delays_s, now_confidence, transition_confidence
from edge_hal.learning.data.video_set import Video, VideoSet
from edge_hal.metrics import TransitionPoint
from edge_hal.plotting import COLOURS, colours, shown
from edge_hal.procedure.rules import Procedure, Step
from tests.helpers.processes import called_here
from tests.helpers.small_data import CONFIG, write_small_data
from tests.helpers.small_models import save_run, small_spec

pytest.importorskip("matplotlib")

HOSTILE = [
    "$\\frac$ {x",
    "</text><script>alert(1)</script>",
    "a\x00\x1b[31m\n",
    "\u6b65\u9aa4 \U0001f600",
    "x" * 300,
    "",
]


def video(now: bool = True) -> StreamedVideo:
    """Ten seconds at 10 Hz: 0 until 3 s, 1 until 7 s, then 2. The first change is found, the second is called 3."""
    truth = np.repeat([0, 1, 2], [30, 40, 30])
    streamed = np.repeat([0, 1, 3], [32, 38, 30])
    points = (TransitionPoint(1, 3.2, 4.5), TransitionPoint(3, 7.0, 8.0))
    segments = ((0.0, 3.2, 0.5), (3.2, 7.0, 0.9), (7.0, 10.0, 0.6))
    return StreamedVideo("v", 10.0, truth, streamed, truth if now else None, segments, points, (0.9, 0.6))


def test_confusion_is_seconds_of_truth_by_what_was_streamed() -> None:
    seconds = confusion([video(), video()], 4)
    expected = np.zeros((4, 4))
    expected[0, 0], expected[1, 0], expected[1, 1], expected[2, 3] = 6.0, 0.4, 7.6, 6.0
    assert seconds == pytest.approx(expected)


def test_delays_and_confidence_are_of_transitions_that_match() -> None:
    assert delays_s([video()]) == pytest.approx([1.5])
    confidence, right = transition_confidence([video(), video()])
    assert confidence.tolist() == [0.9, 0.6, 0.9, 0.6] and right.tolist() == [True, False, True, False]
    assert delays_s([]) == [] and len(transition_confidence([])[0]) == 0


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_every_chart_is_drawn_whatever_the_labels_are(tmp_path: Path, suffix: str) -> None:
    named = [tmp_path / f"{name}{suffix}" for name in ("timelines", "confusion", "delays", "reliability")]
    for _ in range(2):  # the same picture, the same file
        before = [path.read_bytes() if path.exists() else b"" for path in named]
        draw_timelines(named[0], [video(), video(now=False)], HOSTILE)
        draw_confusion(named[1], confusion([video()], len(HOSTILE)), HOSTILE)
        draw_delays(named[2], delays_s([video()]))
        draw_reliability(named[3], {HOSTILE[1]: [(0.5, 0.4, 10), (0.9, 0.8, 10)]})
    assert [path.read_bytes() for path in named] == before
    for path in named:
        if suffix == ".svg":
            assert "script" not in {node.tag.rpartition("}")[2] for node in ElementTree.parse(path).iter()}
        else:
            picture = cv2.imread(str(path))
            assert picture is not None and min(picture.shape[:2]) > 200 and picture.std() > 10


def test_nothing_to_draw_is_drawn(tmp_path: Path) -> None:
    empty = StreamedVideo("v", 10.0, np.zeros(5, int), np.zeros(5, int))
    draw_timelines(tmp_path / "t.svg", [empty], ["a"])
    draw_confusion(tmp_path / "c.svg", np.zeros((2, 2)), ["a", "b"])
    draw_delays(tmp_path / "d.svg", [])
    draw_reliability(tmp_path / "r.svg", {})
    assert len(list(tmp_path.iterdir())) == 4


def test_wrong_use_of_the_command_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    data = write_small_data(tmp_path / "data", train=1, test=1)
    save_run(tmp_path / "run", small_spec(size=6))
    shutil.copy(CONFIG, tmp_path / "run" / "config.yaml")
    (tmp_path / "file").write_text("in the way")
    run = ("--ckpt", str(tmp_path / "run"), "--split", "1")
    cases = {
        ("--kinds", "nonsense"): (2, "timelines, confusion"),
        ("--format", "jpg"): (2, "png, svg"),
        ("--part", "all"): (2, "train, valid, test"),
        ("--set", "model.model_hz=3"): (2, "only data.* and decoder.*"),
        (*run, "--kinds", "curve", "--out", str(tmp_path / "new")): (2, "has no curve"),
        (*run, "--kinds", "delays", "--out", str(tmp_path / "file")): (1, "cannot write to"),
    }
    for arguments, (expected, told) in cases.items():
        code, _, err = called_here(monkeypatch, capsys, "plot", str(data), *arguments)
        assert (code, err.count("error: "), "Traceback" in err) == (expected, 1, False), (arguments, err)
        assert told in " ".join(err.split()), (arguments, err)
    assert not (tmp_path / "new").exists()


def test_a_curve_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.png").mkdir()
    for place, told in {
        "none/c.png": "there is no folder",
        "folder.png": "a folder is there",
        "file/c.png": "",
    }.items():
        # There are no data either, which only the work would notice.
        arguments = ("eval", str(tmp_path / "nowhere"), "--curve", str(tmp_path / place))
        code, out, err = called_here(monkeypatch, capsys, *arguments)
        assert (code, out, err.count("error: ")) == (1, "", 1), err
        assert "cannot write" in err and told in " ".join(err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_colours_differ_and_labels_are_short() -> None:
    many = colours(24)
    assert len(set(many)) == 24 and all(0 <= part <= 1 for colour in many for part in colour)
    assert tuple(round(part * 255) for part in many[0]) == tuple(int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    assert shown("a\x00b") == "a\\x00b" and len(shown("x" * 300)) == 40


@pytest.mark.parametrize("rate_hz", [25.0, 30.0])
def test_the_confidence_of_a_tick_is_judged_by_the_frame_that_it_sees(rate_hz: float) -> None:
    """Each frame has another label than the one before it, so a frame too early or too late is seen."""
    spec, ticks = small_spec(), 400
    frames = np.arange(ticks, dtype=np.int64) * int(rate_hz) // int(spec.model_hz)
    truth = np.arange(frames[-1] + 1) % 2
    steps = {name: Step(0.25, 0.25, 5.0, 1.5, {}) for name in spec.labels}
    decoder = DecoderConfig(procedure=Procedure(steps), decide_at=0.9)
    rows = np.log(np.full((ticks, len(spec.labels)), [0.97, 0.01, 0.01, 0.01], np.float32))
    video = Video("v", Path("v"), "features", (0,), len(truth), rate_hz, labels=truth)
    told = now_confidence(Streamed(spec, [rows], decoder), VideoSet(spec.labels, (video,), rate_hz))
    assert told is not None
    labels = [belief.now.label for belief in beliefs_of(rows, decoder, spec)]
    np.testing.assert_array_equal(told[1], truth[frames[: len(labels)]] == labels)
