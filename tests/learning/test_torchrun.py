"""Several processes of torchrun: the result of one process, one voice, and the same training after one was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.processes import REPOSITORY, call, contents, finish, until_exists
from tests.helpers.short_training import BRIEF, assert_same_run, weights
from tests.helpers.small_data import CONFIG, write_small_data

pytestmark = pytest.mark.slow

SETTINGS = [word for each in BRIEF for word in ("--set", each)]


def torchrun(processes: int, *program: str) -> subprocess.Popen[str]:
    """Real processes on this machine, of one thread each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(REPOSITORY)}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [*command, *program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("small") / "data")


def train(data: Path, out: Path, *more: str) -> tuple[str, ...]:
    return ("train", str(data), "--config", str(CONFIG), *SETTINGS, "--out", str(out), *more)


def assert_nearly_same_run(one: Path, two: Path) -> None:
    """The files, the alignment, and the weights but for rounding."""
    assert sorted(contents(one)) == sorted(contents(two))
    assert json.loads((one / "alignment.json").read_text()) == json.loads((two / "alignment.json").read_text())
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_allclose(value, second[key], rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    assert call(*train(data, out))[0] == 0
    return out


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_learn_what_one_learns_and_one_of_them_speaks(
    data: Path, alone: Path, tmp_path: Path, processes: int
) -> None:
    """Dropout, latent samples and noise included. With three, some batches leave a process without a row."""
    code, out, err = finish(torchrun(processes, "-m", "edge_hal", *train(data, tmp_path / "run")))
    assert code == 0, err
    assert out.count("trained on") == 1 and err.count("student: 3/3") == 1
    assert_nearly_same_run(alone, tmp_path / "run")
    again, _, told = finish(torchrun(processes, "-m", "edge_hal", *train(data, tmp_path / "run")))
    assert again == 1 and told.count("already holds a complete run") == 1 and told.count("error:") == 1


def test_a_killed_process_ends_all_with_one_error_and_the_training_continues(data: Path, tmp_path: Path) -> None:
    longer = ("--set", "learning.student.epochs=40")
    running = torchrun(2, "-m", "edge_hal", *train(data, tmp_path / "run", *longer))
    until_exists(tmp_path / "run" / "last" / "student.safetensors", running)
    os.kill(process_of_rank(1, running.pid), signal.SIGKILL)
    code, _, err = finish(running)
    assert code != 0 and not (tmp_path / "run" / "model.safetensors").exists()
    assert err.count("error:") == 1 and "run the same command again" in err
    code, _, err = finish(torchrun(2, "-m", "edge_hal", *train(data, tmp_path / "run", *longer)))
    assert code == 0, err
    assert finish(torchrun(2, "-m", "edge_hal", *train(data, tmp_path / "whole", *longer)))[0] == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def process_of_rank(rank: int, agent: int) -> int:
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"torchrun has no process {rank}")


ENCODER = """
import sys
from pathlib import Path
import numpy as np, torch
from edge_hal.config import load_config
from edge_hal.learning.data.recordings import SampledRecording
from edge_hal.learning.encoders.train_encoder import learn_encoder
from edge_hal.learning.networks.optimise import Stage
from edge_hal.learning.networks.world import world_of_torchrun
from edge_hal.spec import EncoderSpec
from tests.helpers.moving_dot import HZ, SIZE, moving_dot
out = Path(sys.argv[1])
rng = np.random.default_rng(0)
made = [moving_dot(rng, 83) for _ in range(3)]
recordings = [SampledRecording(str(i), (0, 1), x, np.arange(len(x)), None) for i, (x, _) in enumerate(made)]
learning = load_config("tiny", ["learning.encoder.epochs=2", "learning.encoder.batch=20"]).learning
def learn():  # the groups of processes are gone before Python ends, as after `edge-hal train`
    with world_of_torchrun() as world:
        stage = Stage("encoder", out.with_suffix(".last"), 0, lambda *told: None, world=world)
        module = learn_encoder(recordings, [y for _, y in made], EncoderSpec(SIZE, SIZE, 8), 2, HZ, learning, stage)
        if world.first:
            torch.save(module.state_dict(), out)
learn()
"""


def test_the_encoder_normalises_by_the_whole_batch(tmp_path: Path) -> None:
    script = tmp_path / "learn.py"
    script.write_text(ENCODER)
    states = []
    for name, processes in (("one", 1), ("two", 2), ("four", 4)):
        out = tmp_path / f"{name}.pt"
        code, _, err = finish(torchrun(processes, str(script), str(out)))
        assert code == 0, err
        states.append(torch.load(out))
    for other in states[1:]:
        for key, value in states[0].items():
            torch.testing.assert_close(other[key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_bad_input_is_one_error(tmp_path: Path) -> None:
    code, _, err = finish(torchrun(2, "-m", "edge_hal", *train(tmp_path / "nowhere", tmp_path / "run")))
    assert code == 1 and err.count("error:") == 1 and "nowhere" in err
    assert not (tmp_path / "run").exists()
