"""The field's benchmarks: presets, documented commands and the row they end in, on small sets of the same layout.

Features have the true width, type, axis order and rate, and the sets the true number of classes and the quirks of the
real downloads; videos are few and short. What is learnt on them says nothing about the real ones.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest

from edge_hal.commands.options.train_inputs import load_videos
from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.rates import FASTEST_ALIGN_HZ, SLOWEST_ALIGN_HZ
from edge_hal.learning.data.recordings import SampledRecording
from edge_hal.ticks import ticks_of
from tests.helpers.processes import REPOSITORY, call
from tests.helpers.small_data import write_small_data

DOCUMENT = REPOSITORY / "docs" / "benchmarks.md"
BRIEF = (
    "learning.starter=uniform",  # the HMM's covariance of 6,144 columns takes a minute to decompose
    "learning.teacher.warm_epochs=1",
    "learning.teacher.epochs=1",
    "learning.teacher.realign_every=1",
    "learning.student.epochs=1",
    "learning.student.least_steps=0",
)


@dataclass(frozen=True)
class Layout:
    """As the downloads are. `longer`: feature vectors without a label at the end of a video."""

    folder: str
    size: int
    layout: str
    rate_hz: float
    classes: int
    background: str | None
    named: bool
    seconds: tuple[int, int]
    step_s: float
    longer: int = 0
    video: str = "video{}"


SETS = {
    "breakfast": Layout("breakfast", 2048, "DT", 15, 48, "SIL", True, (30, 60), 8, video="P{:02}_cam01_P03_tea"),
    "salads50": Layout("50salads", 2048, "DT", 30, 19, None, True, (30, 60), 8, video="rgb-{:02}-1"),
    "gtea": Layout("gtea", 2048, "DT", 15, 11, "background", True, (20, 40), 2, video="S{}_Cheese_C1"),
    "hollywood": Layout("hollywood", 2048, "TD", 30, 17, "quiet", False, (10, 25), 4, longer=6, video="0{}_clip"),
    "crosstask": Layout("crosstask", 3200, "DT", 1, 81, "between", False, (60, 120), 12, video="1053{}.aB_c-9"),
}


def write_set(root: Path, name: str, *, train: int = 4, test: int = 2, seed: int = 0) -> Path:
    """A small set of the layout of `name`. Id 0 is the background, but for GTEA, where MS-TCN has it last."""
    what, rng = SETS[name], np.random.default_rng(seed)
    actions = [f"step_{i}" for i in range(what.classes)]
    quiet = what.classes - 1 if name == "gtea" else 0
    if what.background is not None:
        actions[quiet] = what.background
    for folder in ("features", "groundTruth", "splits"):
        (root / folder).mkdir(parents=True)
    (root / "mapping.txt").write_text("".join(f"{i} {action}\n" for i, action in enumerate(actions)))
    directions = rng.normal(size=(what.classes, what.size)).astype(np.float32)
    names = [what.video.format(number) for number in range(train + test)]
    for video in names:
        frames = round(rng.integers(*what.seconds) * what.rate_hz)
        steps = max(2, round(frames / what.rate_hz / what.step_s))
        order = np.where(np.arange(steps) % 2 == 0, quiet, 1 + np.arange(steps) % (min(6, what.classes) - 2))
        cuts = np.sort(rng.choice(np.arange(1, frames), steps - 1, replace=False))
        labels = np.repeat(order, np.diff([0, *cuts, frames]))
        seen = np.append(labels, np.full(what.longer, labels[-1]))
        x = directions[seen] + rng.standard_normal((len(seen), what.size), dtype=np.float32)
        np.save(root / "features" / f"{video}.npy", x.T if what.layout == "DT" else x)
        (root / "groundTruth" / f"{video}.txt").write_text("".join(f"{actions[k]}\n" for k in labels))
    for part, listed in (("train", names[:train]), ("test", names[train:])):
        (root / "splits" / f"{part}.split1.bundle").write_text("".join(f"{video}.txt\n" for video in listed))
    return root


def program(name: str) -> ModuleType:
    """A program of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def field() -> ModuleType:
    return program("field")


def test_every_benchmark_has_a_preset_a_row_of_facts_and_its_commands(field: ModuleType) -> None:
    assert set(field.BENCHMARKS) == set(SETS)
    text = DOCUMENT.read_text()
    for name, what in SETS.items():
        data = load_config(name).data
        assert (data.rate_hz, data.layout) == (what.rate_hz, what.layout)
        assert data.background == (what.background if what.named else None)
        assert field.BENCHMARKS[name].silence == (what.background is not None and not what.named)
        (facts,) = re.findall(rf"^\| `{name}` \|(.*(?:\(D, T\)|\(T, D\)).*)\|$", text, re.MULTILINE)
        _, features, arrays, rate, classes, background, splits, model = [cell.strip() for cell in facts.split("|")]
        assert features.endswith(f"{what.size}") and arrays == f"({what.layout[0]}, {what.layout[1]})"
        assert float(rate) == what.rate_hz and classes in (str(what.classes), "as in mapping.txt")
        assert background == (f"`{data.background}`" if data.background else "id 0" if what.background else "none")
        assert int(splits) == field.BENCHMARKS[name].splits
        assert model == f"{load_config(name).model.model_hz:g} Hz"
        assert f"edge-hal train data/{what.folder} --config {name} --split 1" in text


@pytest.mark.parametrize("name", SETS)
def test_the_preset_fits_features_rate_and_memory_of_its_set(name: str) -> None:
    what, config = SETS[name], load_config(name)
    model = config.model
    spec = model.spec(tuple(f"step{i}" for i in range(what.classes)), None, what.size)
    assert spec.receptive_field / spec.model_hz < 60
    # No frame is seen twice, and every tick sees a fresh one.
    frames = ticks_of(1000, what.rate_hz, model.hz)
    assert len(np.unique(np.diff(frames))) == 1 and frames[1] - frames[0] == what.rate_hz / model.hz
    assert spec.front_end.window >= 2, "a window of one tick has no deviation"
    assert model.change_window_s * model.hz >= 2, "a change is on for a tick or two, at least"
    assert config.learning.student.crop_s > 2 * spec.receptive_field / spec.model_hz
    assert model.lookback_s > spec.receptive_field / spec.model_hz
    assert min(model.hz, SLOWEST_ALIGN_HZ) <= FASTEST_ALIGN_HZ


@pytest.mark.parametrize("name", SETS)
def test_the_layout_is_read_as_the_field_means_it(name: str, tmp_path: Path, field: ModuleType) -> None:
    what, root = SETS[name], write_set(tmp_path / name, name)
    config = load_config(name)
    background = config.data.background
    if field.BENCHMARKS[name].silence:
        background = field.background_of(root)
    assert background == what.background
    config = config.model_copy(update={"data": config.data.model_copy(update={"background": background})})
    parts: tuple[tuple[Literal["train", "test"], int], ...] = (("train", 4), ("test", 2))
    for part, count in parts:
        videos = load_videos(root, config, 1, part, with_labels=True)
        assert len(videos) == count and len(videos.labels) == what.classes
        assert (None if videos.background is None else videos.labels[videos.background]) == what.background
        for video in videos.videos:
            assert video.read().shape == (video.length, what.size)
            assert video.labels is not None and len(video.labels) == video.length
            assert what.seconds[0] <= video.length / what.rate_hz <= what.seconds[1]


def test_a_background_of_another_name_is_told_at_once(tmp_path: Path) -> None:
    root = write_set(tmp_path / "data", "breakfast", train=1, test=1)
    (root / "mapping.txt").write_text((root / "mapping.txt").read_text().replace("SIL", "silence"))
    with pytest.raises(EdgeHalError, match="background 'SIL' is no step"):
        load_videos(root, load_config("breakfast"), 1, "train", with_labels=False)


def test_a_row_averages_the_splits_by_the_protocol_of_its_set(field: ModuleType) -> None:
    keys = [*field.FRAMES.values(), *field.SEGMENTS.values(), *(f"{key}_bg" for key in field.SEGMENTS.values())]
    results = [{key: 10.0 * i + 2 * split for i, key in enumerate(keys)} for split in range(2)]
    plain, without = (field.row(name, results).splitlines()[-1].split(" | ")[1:] for name in ("breakfast", "gtea"))
    assert plain[0] == without[0] == "1.0 +- 1.4" and len(plain) == 8
    assert plain[4].startswith("41.0") and without[4].startswith("81.0"), "Edit with and without background"
    assert field.row("crosstask", results[:1]).splitlines()[-1].startswith("| edge-hal, streamed | 0.0 | 10.0")
    assert "2 of 4 splits" in field.row("gtea", results)


def shares_right(text: str) -> list[float]:
    return [float(share) for share in re.findall(r"([0-9.]+) % (?:of (?:the others|all) )?right", text)]


@pytest.mark.usefixtures("one_thread")
def test_the_starter_is_measured_three_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    root, starter = write_small_data(tmp_path / "data"), program("starter")
    for name in ("LOOK_AHEAD_WINDOWS", "LABELLED_ITERATIONS"):  # which it sets
        monkeypatch.setattr(starter.first_alignment, name, getattr(starter.first_alignment, name))

    def printed(*arguments: str) -> list[str]:
        common = ["starter.py", str(root), "--split", "1", "--rate-hz", "20", "--restarts", "3"]
        monkeypatch.setattr(sys, "argv", [*common, *arguments])
        starter.main()
        return capsys.readouterr().out.splitlines()

    looks = printed("--look", "0,1")
    late_s = [float(re.findall(r"boundaries (-?[0-9.]+) s late", line)[0]) for line in looks]
    assert [line.split(":")[0] for line in looks] == ["look-ahead 0 windows", "look-ahead 1 windows"]
    assert late_s[0] >= late_s[1] and min(shares_right("".join(looks))) > 85
    known = printed("--labelled", "2", "--iterations", "0,3")
    assert [line.split(":")[0] for line in known] == ["2 labelled, 0 iterations", "2 labelled, 3 iterations"]
    (begun, begun_all), (refined, _) = map(shares_right, known)
    assert begun > 80 and refined > max(85, begun)  # two videos say where to begin, all of them where to end
    assert begun_all > begun  # the labelled ones are right
    (stamped,) = printed("--labelled", "6", "--iterations", "2", "--stamps", "anywhere")
    assert stamped.startswith("6 stamped, 2 iterations") and len(shares_right(stamped)) == 1
    assert shares_right(stamped)[0] > 85  # nothing but a frame of each segment was told
    basin = printed("--basin", "4")
    names = ["guess 0", "guess 1", "guess 2", "searched", "from the truth"]
    assert [line.split(":")[0] for line in basin] == names
    likelihood = [float(re.findall(r"log-likelihood (-?[0-9.]+)", line)[0]) for line in basin]
    assert likelihood[3] >= max(likelihood[:3])  # EM goes on from the best of them
    assert len(shares_right("".join(basin))) == 5 and min(shares_right("".join(basin))) > 85


def test_a_stamped_video_tells_one_frame_of_each_segment() -> None:
    pytest.importorskip("torch")
    starter, rng = program("starter"), np.random.default_rng(0)
    labels = np.repeat([2, 0, 1, 0, 2], rng.integers(1, 30, 5))
    recording = SampledRecording(
        "v", (2, 0, 1, 0, 2), np.zeros((len(labels), 1), np.float32), np.arange(len(labels)), labels
    )
    for _ in range(50):
        told = starter.stamped(recording, rng).labels
        known = np.flatnonzero(told >= 0)
        assert told[known].tolist() == [2, 0, 1, 0, 2] and (told[known] == labels[known]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_documented_commands_end_in_scores(name: str, tmp_path: Path, field: ModuleType) -> None:
    """The two lines of the document, word for word but for the paths and the name it asks for."""
    what, root, run = SETS[name], write_set(tmp_path / "data", name), tmp_path / "run"
    lines = [line.strip() for line in DOCUMENT.read_text().splitlines() if f" data/{what.folder} " in line]
    train, evaluate = (line for line in lines if line.startswith("edge-hal "))
    places = {f"data/{what.folder}": str(root), f"runs/{name}.1": str(run)}
    places |= {"data.background=NAME": f"data.background={what.background}"}
    words = [[places.get(word, word) for word in shlex.split(line)] for line in (train, evaluate)]
    brief = [part for setting in BRIEF for part in ("--set", setting)]
    code, _, err = call(*words[0][1:], *brief)
    assert code == 0, err
    code, out, err = call(*words[1][1:])
    assert code == 0, err
    scores = json.loads(out)
    assert set(scores) == {"floor", "ours"}
    for key in (*field.FRAMES.values(), *field.SEGMENTS.values(), *(f"{k}_bg" for k in field.SEGMENTS.values())):
        assert 0 <= scores["ours"][key] <= 100, key
    assert scores["floor"]["edit"] == 100
    if what.background is not None:
        assert scores["floor"]["mof"] != scores["floor"]["mof_bg"]


@pytest.mark.slow
def test_one_command_makes_the_row_and_goes_on_where_it_stopped(tmp_path: Path, field: ModuleType) -> None:
    root = write_set(tmp_path / "data", "gtea")
    for part in ("train", "test"):
        bundle = (root / "splits" / f"{part}.split1.bundle").read_text()
        (root / "splits" / f"{part}.split2.bundle").write_text(bundle)
    path = str(REPOSITORY / "benchmarks" / "field.py")
    brief = [part for setting in BRIEF for part in ("--set", setting)]
    runs = tmp_path / "runs"
    arguments = ["gtea", str(root), "--runs", str(runs), *brief]
    code = f"import runpy, sys; sys.argv = ['field.py', *sys.argv[1:]]; runpy.run_path({path!r}, run_name='__main__')"
    status, out, err = call(*arguments, "--splits", "1", code=code)
    assert status == 0, err
    assert out.count("$ edge-hal train") == 1 and "| gtea, 1 of 4 splits |" in out
    first = (runs / "gtea.transcripts.seed0.split1.json").read_text()
    status, out, err = call(*arguments, "--splits", "1,2", code=code)
    assert status == 0, err
    assert out.count("$ edge-hal train") == 1 and "split2" in out and "| gtea, 2 of 4 splits |" in out
    assert (runs / "gtea.transcripts.seed0.split1.json").read_text() == first
    # The two splits are the same here, and a seed decides all: so are their scores.
    assert first == (runs / "gtea.transcripts.seed0.split2.json").read_text() and "+- 0.0" in out
    status, out, err = call(*arguments, "--splits", "3", code=code)
    assert status == 1 and "train.split3.bundle is missing" in err and "Traceback" not in err


@pytest.mark.slow
def test_peak_memory_is_that_of_the_child_and_a_run_over_the_limit_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    long_video = program("long_video")
    found = long_video.measure(1, "uniform", 8.0)
    assert "failed" not in found and 0.1 < found["peak_gb"] < 3
    peaks = [found["stages"][name] for name in ("read", "teacher", "student", "decoder")]
    assert peaks == sorted(peaks) and peaks[-1] <= found["peak_gb"] + 1e-3
    small = long_video.measure(1, "uniform", 0.05)
    assert "0.05 GB" in small["failed"]
    text = long_video.table([found, small])
    assert small["failed"] in text and f"{found['peak_gb']:.2f}" in text
