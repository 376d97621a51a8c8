"""The learning benchmark: baselines that cannot look ahead or at labels, and a runner that goes on where it
stopped."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import Bench, Cell, commands_of, write_stamps
from methods import METHODS, flat_level, multiply_adds
from torch import nn

from benchmarks.baselines.causal import CausalGRU, CausalTCN, learn_supervised
from benchmarks.baselines.harness import aligned_scores, read_data, streamed_scores
from benchmarks.baselines.offline import held, learn_offline, windowed
from benchmarks.baselines.weak import forward_loss, learn_viterbi_em
from edge_hal.config import load_config
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.hmm.alignment_file import first_alignment_from
from edge_hal.learning.networks.optimise import Stage
from edge_hal.model.pyramid import Pyramid
from edge_hal.spec import FrontEndSpec
from tests.helpers.processes import REPOSITORY, TIMEOUT_S, contents
from tests.helpers.small_data import CONFIG, scramble_boundaries, write_small_data

pytestmark = pytest.mark.usefixtures("one_thread")

ONE_EPOCH = ("--set", "learning.student.epochs=1", "--set", "learning.teacher.epochs=1", "--set", "learning.restarts=2")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("bench") / "data")


def stage(folder: Path, seed: int = 0) -> Stage:
    return Stage("baseline", folder, seed, lambda *told: None)


def started(*arguments: str, temporary: Path | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    if temporary is not None:
        environment["TMPDIR"] = str(temporary)
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "benchmarks" / arguments[0]), *arguments[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def ended(*arguments: str) -> tuple[int, str, str]:
    process = started(*arguments)
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


# Networks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [CausalGRU(5, 3), CausalTCN(5, 3, memory=40)], ids=["gru", "tcn"])
def test_the_future_changes_no_past_output(network: nn.Module) -> None:
    network.double().eval()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 90, 5, generator=generator, dtype=torch.float64)
    other = x.clone()
    other[:, 60:] = torch.randn(2, 30, 5, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        one, two = network(x), network(other)
    assert torch.equal(one[:, :60], two[:, :60])
    assert (one[:, 60:] - two[:, 60:]).abs().amin() > 0


@given(memory=st.integers(2, 600))
def test_a_tcn_sees_at_least_its_memory_and_less_than_twice_that(memory: int) -> None:
    seen = 1 + 2 * sum(CausalTCN(1, 2, memory).dilations)
    assert memory <= seen <= 2 * memory + 1


def test_a_tcn_sees_its_memory_and_no_further() -> None:
    network = CausalTCN(2, 3, memory=15).double().eval()
    x = torch.randn(1, 40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    network(x)[0, 39].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(1) > 0
    assert reached[40 - 15 :].all() and not reached[: 40 - 15].any()


def test_a_window_is_a_pass_of_its_own_over_the_newest_tokens() -> None:
    levels = load_config(str(CONFIG)).learning.teacher.levels
    spec = load_config(str(CONFIG)).model.spec(("a", "b", "c"), None, 4)
    spec = replace(spec, levels=tuple(level.spec() for level in levels), front_end=FrontEndSpec(4, 1))
    torch.manual_seed(0)
    pyramid = Pyramid(spec, causal=False).eval()
    tokens = torch.randn(80, 12)
    rows = windowed(pyramid, tokens, window=9)
    assert np.allclose(np.exp(rows).sum(1), 1, atol=1e-5)
    with torch.inference_mode():
        for j in (0, 3, 8, 9, 40, 79):
            alone = pyramid(tokens[max(0, j - 8) : j + 1][None]).frame[0, -1]
            assert np.allclose(rows[j], torch.log_softmax(alone, -1), atol=1e-5)
    changed = tokens.clone()
    changed[41:] += 1.0
    assert np.allclose(windowed(pyramid, changed, window=9)[:41], rows[:41], atol=1e-5)


@given(period=st.integers(1, 9), ticks=st.integers(1, 60))
def test_a_tick_sees_only_tokens_that_are_complete(period: int, ticks: int) -> None:
    tokens = -(-ticks // period)
    log_p = np.arange(tokens, dtype=np.float32)[:, None] + np.zeros((1, 2), np.float32)
    seen = held(log_p, period, ticks)
    for tick in range(ticks):
        complete = [j for j in range(tokens) if (j + 1) * period - 1 <= tick]
        assert np.allclose(seen[tick], complete[-1] if complete else np.log(0.5))


@settings(max_examples=40)
@given(data=st.data())
def test_the_forward_loss_is_the_share_of_the_paths_that_the_list_allows(data: st.DataObject) -> None:
    labels = data.draw(st.integers(2, 3))
    lengths = data.draw(st.lists(st.integers(3, 6), min_size=1, max_size=3))
    lists = [data.draw(st.lists(st.integers(0, labels - 1), min_size=1, max_size=3)) for _ in lengths]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scores = torch.randn(len(lengths), max(lengths), labels, generator=generator, dtype=torch.float64)
    expected = 0.0
    for row, ticks, steps in zip(scores, lengths, lists, strict=True):
        paths = list(itertools.product(range(labels), repeat=ticks))
        weight = np.array([np.exp(sum(float(row[t, k]) for t, k in enumerate(path))) for path in paths])
        wanted = [k for k, _ in itertools.groupby(steps)]
        allowed = np.array([[k for k, _ in itertools.groupby(path)] == wanted for path in paths])
        expected -= np.log(weight[allowed].sum() / weight.sum())
    scores.requires_grad_()
    loss = forward_loss(scores, torch.tensor(lengths), lists)
    loss.backward()
    assert loss.item() == pytest.approx(expected / sum(lengths), abs=1e-9)
    assert scores.grad is not None and scores.grad.isfinite().all()


# Learning ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_labels_beat_the_floor_streamed(small: Path, tmp_path: Path) -> None:
    config = load_config(str(CONFIG), ["learning.student.epochs=12"])
    data = read_data(small, config, 1, with_labels=True)
    learnt = learn_supervised("tcn-full", data, stage(tmp_path))
    test = load_dataset(small, split=1, part="test", with_labels=True, rate_hz=20.0)
    scores = streamed_scores(learnt.look, learnt.decoder, data, test)
    assert learnt.labels is None and scores["mof"] is not None and scores["mof"] > 88
    assert scores["delay_s_median"] is not None and scores["delay_s_median"] > 0


@pytest.mark.parametrize(
    "discriminative", [pytest.param(False, marks=pytest.mark.slow, id="viterbi-em"), pytest.param(True, id="cdfl")]
)
def test_hard_em_never_sees_a_frame_label_and_keeps_the_order(
    discriminative: bool, small: Path, tmp_path: Path
) -> None:
    config = load_config(str(CONFIG), ["learning.student.epochs=1", "learning.teacher.epochs=2"])
    scrambled = shutil.copytree(small, tmp_path / "scrambled")
    assert scramble_boundaries(scrambled, seed=1) > 0.1
    found = []
    for number, root in enumerate((small, scrambled)):
        torch.manual_seed(0)
        data = read_data(root, config, 1, with_labels=False)
        assert all(recording.labels is None for recording in data.recordings)
        learnt = learn_viterbi_em(data, stage(tmp_path / str(number)), discriminative=discriminative)
        assert learnt.labels is not None
        for labels, recording in zip(learnt.labels, data.recordings, strict=True):
            runs = labels[np.flatnonzero(np.diff(labels, prepend=-1))]
            assert tuple(runs) == recording.transcript
        found.append(learnt)
    assert all(np.array_equal(a, b) for a, b in zip(found[0].labels or [], found[1].labels or [], strict=True))
    assert found[0].decoder == found[1].decoder


@pytest.mark.slow
def test_the_offline_model_learns_the_alignment_of_a_run(tmp_path: Path) -> None:
    small = write_small_data(tmp_path / "data", test=8)
    config = load_config(str(CONFIG), ["learning.teacher.epochs=30"])
    data = read_data(small, config, 1, with_labels=False)
    truth = load_dataset(small, split=1, part="train", with_labels=True, rate_hz=20.0)
    segments = {}
    for video in truth.videos:
        assert video.labels is not None
        starts = np.flatnonzero(np.diff(video.labels, prepend=-1))
        named = [[truth.labels[video.labels[s]], int(s)] for s in starts]
        frames = next(int(r.frames[-1]) + 1 for r in data.recordings if r.name == video.name)
        segments[video.name] = {"frames": frames, "segments": named}
    (tmp_path / "alignment.json").write_text(json.dumps(segments))
    labels = first_alignment_from(segments, data.recordings, truth.labels).labels
    scores = aligned_scores(labels, data.spec.model_hz, truth)
    assert scores["mof"] is not None and scores["mof"] > 99 and scores["f1_50"] == 100

    torch.manual_seed(0)
    learnt = learn_offline(data, stage(tmp_path), tmp_path)
    assert learnt.offline is not None
    test = load_dataset(small, split=1, part="test", with_labels=True, rate_hz=20.0)
    live = streamed_scores(learnt.look, learnt.decoder, data, test)
    whole = streamed_scores(*learnt.offline, data, test)
    assert live["mof"] is not None and whole["mof"] is not None
    assert whole["mof"] > 85 and whole["mof"] > live["mof"] - 2
    # What a device would get: no row may change with what comes after it.
    x = data.features[0]
    changed = x.clone()
    changed[60:] += 1.0
    assert np.allclose(learnt.look(x)[:55], learnt.look(changed)[:55], atol=1e-5)


# Methods ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["kinematics", "tiny", "jetson"])
def test_the_flat_model_costs_what_the_pyramid_costs(preset: str) -> None:
    levels = load_config(preset).model.levels
    flat = flat_level(levels)
    assert flat.stride == 1 and flat.width == levels[0].width
    assert multiply_adds((flat,)) == pytest.approx(multiply_adds(levels), rel=0.01)


@pytest.mark.parametrize("preset", ["kinematics", "tiny", "jetson"])
def test_multiply_adds_are_those_of_the_layers(preset: str) -> None:
    config = load_config(preset)
    size = 8 if config.model.encoder is None else config.model.encoder.size
    spec = config.model.spec(("a", "b"), None, size)
    heads = ("frame", "change", "lagged", "action", "levels.0.entry")
    counted = 0.0
    for name, module in Pyramid(spec).named_modules():
        if isinstance(module, nn.Linear) and not name.endswith(heads):
            counted += module.weight.numel() / spec.period(int(name.split(".")[1]))
    for index, level in enumerate(spec.levels):
        counted += 2 * level.blocks * level.window * level.width / spec.period(index)
    assert multiply_adds(config.model.levels) == pytest.approx(counted)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_is_a_configuration_that_exists(name: str) -> None:
    ours, config = load_config("kinematics"), load_config("kinematics", METHODS[name].settings)
    assert (config == ours) == (not METHODS[name].settings)
    if name.startswith("ablation-"):
        kept = {"recon": "reconstruction"}.get(name.split("-")[1], name.split("-")[1])
        for term in ("reconstruction", "sparse", "kl"):
            wanted = getattr(ours.learning.weights, term) if term == kept else 0
            assert getattr(config.learning.weights, term) == wanted


@pytest.mark.parametrize("name", list(METHODS))
def test_the_commands_of_a_cell_say_which_cell_and_the_method_has_the_last_word(name: str, small: Path) -> None:
    method, bench = METHODS[name], Bench(small, "small", Path("out"), None, ("learning.starter=hmm",))
    commands = commands_of(Cell(method, 3, 7), bench, Path("run"))
    assert ("train" in commands) == method.trained and ("baseline" in commands) != ("test" in commands)
    for command in commands.values():
        assert command[command.index("--split") + 1] == "3" and str(small) in command
        assert "eval" in command or command[command.index("--seed") + 1] == "7"
    train = commands.get("train", [])
    settings = [word for before, word in itertools.pairwise(train) if before == "--set"]
    assert settings[: len(bench.settings)] == list(bench.settings) or not method.trained
    if name == "atba":
        learning = load_config("kinematics", settings).learning
        assert learning.starter == "uniform" and learning.teacher.realign_every == 2
    assert ("--labelled" in train) == (name in ("ours-k1", "ours-k3", "ours-k10"))
    assert ("alignment" in commands) == (method.labelled is not None and not method.baseline)


def test_the_labels_of_a_stamped_cell_are_a_frame_of_each_segment(small: Path, tmp_path: Path) -> None:
    bench, cells = (
        Bench(small, "small", tmp_path, None, ()),
        [Cell(METHODS["ours-stamps"], 1, seed) for seed in (0, 0, 1)],
    )
    written = []
    for number, cell in enumerate(cells):
        write_stamps(small, cell, tmp_path / str(number))
        written.append({path.stem: path.read_text() for path in (tmp_path / str(number)).iterdir()})
    assert written[0] == written[1] != written[2]
    for name, text in written[2].items():
        truth = (small / "groundTruth" / f"{name}.txt").read_text().split()
        stamps = [line.split() for line in text.splitlines()]
        assert all(truth[int(frame)] == step for frame, step in stamps)
        assert [step for _, step in stamps] == [step for step, _ in itertools.groupby(truth)]
    train = commands_of(cells[0], bench, tmp_path / "run")["train"]
    assert train[train.index("--labels") + 1] == str(tmp_path / "stamps")


# The runner -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_runner_fills_what_is_missing_and_a_failed_cell_stops_nothing(tmp_path: Path) -> None:
    data = write_small_data(tmp_path / "data", train=2, test=1)
    out = tmp_path / "results"
    asked = ["learning.py", str(data), "--out", str(out), "--config", str(CONFIG), "--methods", "uniform"]
    asked += ["--splits", "2,1", "--seeds", "4,5"]
    rc, told, _ = ended(*asked, "--dry-run")
    assert rc == 0 and not out.exists()
    # The uniform split knows no chance: one seed.
    assert [line for line in told.splitlines() if line.startswith("missing")] == [
        "missing: uniform.split2.seed4",
        "missing: uniform.split1.seed4",
    ]
    rc, _, errors = ended(*asked)
    assert rc == 1 and "failed: uniform.split2.seed4" in errors and "Traceback" not in errors
    assert [path.name for path in out.iterdir()] == ["uniform.split1.seed4.json"]
    first = contents(out)
    run = json.loads((out / "uniform.split1.seed4.json").read_text())
    assert run["test"] == run["floor"] and run["test"]["edit"] == 100 and run["alignment"]["mof"] < 100
    assert run["peak_mb"] > 20 and run["data"] == "data" and run["commands"][0].startswith("python -m benchmarks")
    # A reader types the command on another machine: no path of this one.
    assert "/" not in json.dumps(run["commands"]) and run["options"] == "--name data --config small.yaml"
    for part in ("train", "test"):
        shutil.copy(data / "splits" / f"{part}.split1.bundle", data / "splits" / f"{part}.split2.bundle")
    rc, told, _ = ended(*asked)
    assert rc == 0 and told.startswith("1 of 2 cells are there") and len(list(out.iterdir())) == 2
    assert contents(out) | first == contents(out)


def test_a_method_that_is_none_is_named_with_the_nearest(tmp_path: Path) -> None:
    rc, _, errors = ended("learning.py", str(tmp_path), "--out", str(tmp_path / "out"), "--methods", "gru-ful")
    assert rc == 2 and "gru-ful" in errors and "did you mean 'gru-full'" in errors and "Traceback" not in errors


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the child in /proc")
def test_a_terminated_runner_takes_its_child_along_and_leaves_nothing(small: Path, tmp_path: Path) -> None:
    out, temporary = tmp_path / "results", tmp_path / "temporary"
    temporary.mkdir()
    asked = ("learning.py", str(small), "--out", str(out), "--config", str(CONFIG), "--methods", "ours")
    process = started(*asked, temporary=temporary)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert process.stdout is not None
        while "ours.split1.seed0 ..." not in process.stdout.readline():
            assert process.poll() is None
        child = 0
        while not child:  # between the line and the start of the child there is nothing to wait for
            assert process.poll() is None
            child = next((int(pid) for pid in children.read_text().split() if _is_train(pid)), 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=TIMEOUT_S) == 143
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert not out.exists() and list(temporary.iterdir()) == []


def _is_train(pid: str) -> bool:
    return b"edge_hal" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


@pytest.mark.slow
def test_every_kind_of_cell_leaves_its_scores(small: Path, tmp_path: Path) -> None:
    kinds = ("uniform", "viterbi-em", "cdfl", "atba", "ours", "offline-window", "flat", "ours-full", "gru-full")
    asked = ["learning.py", str(small), "--out", str(tmp_path / "out"), "--config", str(CONFIG), *ONE_EPOCH]
    asked += ["--alignments", str(tmp_path / "found")]
    rc, _, errors = ended(*asked, "--methods", ",".join(kinds))
    assert rc == 0, errors
    runs = {path.name.split(".")[0]: json.loads(path.read_text()) for path in (tmp_path / "out").iterdir()}
    assert sorted(runs) == sorted(kinds)
    for name, run in runs.items():
        assert 0 <= run["test"]["mof"] <= 100 and run["floor"] == runs["uniform"]["test"], name
        assert (run["alignment"] is None) == (METHODS[name].labelled is None), name
        assert ("offline" in run) == (name == "offline-window")
        compared = METHODS[name].trained and METHODS[name].labelled == 0 and name != "atba"
        assert (run["agreement"] is not None) == compared, name
        assert run["wall_s"] >= 0 and run["score_s"] > 0 and run["machine"] and run["versions"]["torch"]
    assert "model.levels=" in runs["flat"]["commands"][0]
    # What differs in the student alone begins from what ours found.
    assert "--alignment ALIGNMENT" in runs["flat"]["commands"][0] and "ALIGNMENT" not in runs["ours"]["commands"][0]
    assert runs["flat"]["alignment"] == runs["ours"]["alignment"]
