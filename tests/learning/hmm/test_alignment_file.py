"""Training that begins from an alignment: the same run without the search, or a clear refusal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.recordings import SampledRecording, read_recordings
from edge_hal.learning.hmm.alignment_file import alignment_entries, first_alignment_from, read_alignment
from edge_hal.learning.hmm.trust import Evidence
from edge_hal.learning.train import train
from edge_hal.metrics import transcript_of
from tests.helpers.processes import call, contents
from tests.helpers.short_training import BRIEF, assert_same_run
from tests.helpers.small_data import CONFIG, RATE_HZ, write_small_data

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("small") / "data")


def recording(labels: np.ndarray, stride: int = 3) -> SampledRecording:
    frames = np.arange(len(labels)) * stride
    return SampledRecording("v", transcript_of(labels), np.zeros((len(labels), 2), np.float32), frames, None)


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=40),
    st.integers(1, 5),
    st.builds(Evidence, *[st.integers(0, 1000).map(lambda n: n / 1000)] * 4),
)
def test_what_is_written_is_read(labels: list[int], stride: int, evidence: Evidence) -> None:
    truth = np.array(labels)
    one = recording(truth, stride)
    told = json.loads(json.dumps(alignment_entries([one], [truth], NAMES, [evidence])))
    found = first_alignment_from(told, [one], NAMES)
    np.testing.assert_array_equal(found.labels[0], truth)
    assert found.evidence == [evidence]


def test_an_entry_of_an_earlier_version_has_less_evidence() -> None:
    labels = np.repeat([0, 1], 5)
    entry = alignment_entries([recording(labels)], [labels], NAMES, [Evidence(0.3, 0.2, 0.1, 1.0)])["v"]
    for name in ("chance", "order", "short_ends"):
        del entry[name]
    assert first_alignment_from({"v": entry}, [recording(labels)], NAMES).evidence == [Evidence(agreement=0.3)]


@pytest.mark.parametrize(
    "change, why",
    [
        ({"segments": []}, "in order"),
        ({"segments": [["a", 3], ["b", 9]]}, "in order"),
        ({"segments": [["a", 0], ["b", 9], ["c", 9]]}, "in order"),
        ({"segments": [["a", 0], ["b", 999]]}, "within 28 frames"),
        ({"segments": [["a", 0], ["z", 9]]}, "unknown step 'z'"),
        ({"segments": [["a"]]}, "unpack"),
        ({"segments": None}, "None"),
        ({"frames": 29}, "29 frames, not of 28"),
        ({"frames": None}, "NoneType"),
    ],
)
def test_an_unusable_alignment_names_the_video(change: dict[str, Any], why: str) -> None:
    one = recording(np.repeat([0, 1], 5))
    told = alignment_entries([one], [np.repeat([0, 1], 5)], NAMES, [Evidence()])
    with pytest.raises(EdgeHalError, match="alignment of video v") as error:
        first_alignment_from({"v": {**told["v"], **change}}, [one], NAMES)
    assert re.search(why, error.value.why)
    with pytest.raises(EdgeHalError, match="knows no video v"):
        first_alignment_from({}, [one], NAMES)


@pytest.mark.slow
def test_begun_from_its_alignment_a_run_ends_as_before(data: Path, tmp_path: Path) -> None:
    # Without a teacher: it would align again.
    config = load_config(str(CONFIG), [*BRIEF, "learning.teacher.epochs=0", "learning.teacher.warm_epochs=0"])
    videos = load_dataset(data, split=1, part="train", rate_hz=RATE_HZ)
    searched = train(videos, config, tmp_path / "searched", 0, lambda *told: None)
    stages: set[str] = set()
    known = read_alignment(searched / "alignment.json")
    again = train(videos, config, tmp_path / "again", 0, lambda stage, *told: stages.add(stage), known)
    assert_same_run(searched, again)
    assert "starter" not in stages and "student" in stages
    # What was corrected by hand is kept.
    name = videos.videos[0].name
    corrected = {**known, name: {**known[name], "segments": [[videos.labels[0], 0], [videos.labels[1], 11]]}}
    kept = train(videos, config, tmp_path / "kept", 0, lambda *told: None, corrected)
    assert read_alignment(kept / "alignment.json")[name]["segments"][0] == [videos.labels[0], 0]
    assert len(read_alignment(kept / "alignment.json")[name]["segments"]) == 2


def test_a_run_is_not_resumed_from_another_alignment(data: Path, tmp_path: Path) -> None:
    config = load_config(str(CONFIG), BRIEF)
    videos = load_dataset(data, split=1, part="train", rate_hz=RATE_HZ)

    def alignment(boundary: int) -> dict[str, Any]:
        segments = [[videos.labels[0], 0], [videos.labels[1], boundary]]
        recorded = read_recordings(videos, config.model.hz, None)
        return {each.name: {"frames": int(each.frames[-1]) + 1, "segments": segments} for each in recorded}

    def stop(stage: str, *told: Any) -> None:
        if stage == "student":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(videos, config, tmp_path / "run", 0, stop, alignment(10))
    before = contents(tmp_path / "run")
    with pytest.raises(EdgeHalError, match="unfinished run"):
        train(videos, config, tmp_path / "run", 0, stop, alignment(12))
    assert contents(tmp_path / "run") == before
    train(videos, config, tmp_path / "run", 0, lambda *told: None, alignment(10))
    assert (tmp_path / "run" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_command_refuses_what_is_no_alignment(data: Path, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "cut.json").write_text('{"v": ')
    (tmp_path / "other.json").write_text('{"v": {}}')
    command = ("train", str(data), "--config", str(CONFIG), "--out", str(tmp_path / "run"), "--set", "data.rate_hz=20")
    for name, text in (
        ("list.json", "it is not a JSON object"),
        ("cut.json", "cannot read the alignment"),
        ("none.json", "cannot read the alignment"),
    ):
        with pytest.raises(EdgeHalError, match=text) as caught:
            read_alignment(tmp_path / name, exit_code=2)
        assert caught.value.exit_code == 2
    for name, text in (("none.json", "cannot read the alignment"), ("other.json", "knows no video")):
        code, _, err = call(*command, "--alignment", str(tmp_path / name))
        assert code == 2 and text in err and "Traceback" not in err, err
    code, _, err = call(*command, "--supervision", "frames", "--alignment", str(tmp_path / "other.json"))
    assert code == 2 and "the frame labels already give the alignment" in err
    assert contents(tmp_path / "run") == {}
