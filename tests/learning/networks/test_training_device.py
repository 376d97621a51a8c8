"""Networks are trained on the device of their stage, and end on the CPU as they would have there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.baselines.causal import causal_network, learn_network
from benchmarks.baselines.harness import Data, read_data
from edge_hal.config import load_config
from edge_hal.learning.data.recordings import SampledRecording
from edge_hal.learning.encoders import train_encoder
from edge_hal.learning.networks.optimise import Stage, training_device
from edge_hal.learning.networks.student import learn_student
from edge_hal.learning.networks.teacher import learn_alignment
from edge_hal.spec import EncoderSpec
from tests.helpers.moving_dot import HZ, SIZE, moving_dot
from tests.helpers.pretended_device import Elsewhere, pretended_device
from tests.helpers.small_data import CONFIG, write_small_data

SETTINGS = ["learning.student.epochs=2", "learning.teacher.warm_epochs=1", "learning.teacher.epochs=2"]
SETTINGS += ["learning.teacher.realign_every=1", "learning.student.least_steps=1", "learning.encoder.epochs=1"]
Learns = Callable[[Stage], nn.Module]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    config = load_config(str(CONFIG), SETTINGS)
    return read_data(write_small_data(tmp_path_factory.mktemp("data") / "small"), config, 1, with_labels=True)


def student(data: Data) -> Learns:
    labels = [recording.labels for recording in data.recordings if recording.labels is not None]
    posteriors = [np.log(np.full((len(y), len(data.spec.labels)), 0.25, np.float32)) for y in labels]
    weights = data.config.learning.weights.model_copy(update={"distil": 0.5})
    learning = data.config.learning.model_copy(update={"weights": weights})
    return lambda stage: learn_student(data.features, labels, posteriors, data.spec, learning, stage)


def teacher(data: Data) -> Learns:
    labels = [recording.labels for recording in data.recordings if recording.labels is not None]
    transcripts = [recording.transcript for recording in data.recordings]
    learning = data.config.learning
    return lambda stage: learn_alignment(data.features, transcripts, labels, data.spec, learning, stage).teacher


def encoder(data: Data) -> Learns:
    rng = np.random.default_rng(0)
    made = [moving_dot(rng, 80) for _ in range(3)]
    recordings = [SampledRecording(str(i), (0, 1), x, np.arange(len(x)), None) for i, (x, _) in enumerate(made)]
    spec, learning = EncoderSpec(SIZE, SIZE, 8), data.config.learning
    return lambda stage: train_encoder.learn_encoder(recordings, [way for _, way in made], spec, 2, HZ, learning, stage)


def baseline(data: Data) -> Learns:
    def learn(stage: Stage) -> nn.Module:
        torch.manual_seed(0)
        network = causal_network("tcn-full", data)
        labels = [recording.labels for recording in data.recordings if recording.labels is not None]
        learn_network(network, data, list(labels), stage, 2)
        return network

    return learn


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", [student, teacher, encoder, baseline])
def test_a_network_learns_on_the_device_of_its_stage_and_ends_on_the_cpu(
    kind: Callable[[Data], Learns], data: Data, tmp_path: Path
) -> None:
    learn = kind(data)
    expected = learn(Stage("here", tmp_path / "here", 0, lambda *told: None, torch.device("cpu")))
    seen: list[torch.device] = []

    def looked(module: nn.Module, given: tuple[object, ...]) -> None:
        if module.training:
            seen.extend(each.device for each in module.parameters())

    with nn.modules.module.register_module_forward_pre_hook(looked), pretended_device() as device:
        found = learn(Stage("here", tmp_path / "there", 0, lambda *told: None, device))
    assert set(seen) == {device}
    for (name, mine), theirs in zip(found.state_dict().items(), expected.state_dict().values(), strict=True):
        assert mine.device.type == "cpu" and not isinstance(mine, Elsewhere), name
        if not name.endswith("qkv.bias"):  # a key's bias has no gradient but rounding, of which Adam makes whole steps
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.usefixtures("one_thread")
def test_what_was_interrupted_on_one_device_goes_on_on_another(data: Data, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(name: str, done: int, total: int, remark: str) -> None:
        raise Interrupted

    learn = student(data)
    expected = learn(Stage("s", tmp_path / "whole", 0, lambda *told: None, torch.device("cpu")))
    with pretended_device() as device, pytest.raises(Interrupted):
        learn(Stage("s", tmp_path / "cut", 0, stop, device))
    found = learn(Stage("s", tmp_path / "cut", 0, lambda *told: None, torch.device("cpu")))
    for name, mine in found.state_dict().items():
        if not name.endswith("qkv.bias"):
            torch.testing.assert_close(mine, expected.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_pretended_device_refuses_what_a_gpu_would() -> None:
    with pretended_device() as device:
        there, here = torch.ones(3).to(device), torch.ones(3)
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        assert (there + here.to(device)).cpu().tolist() == [2, 2, 2] and (there * torch.tensor(2.0)).sum().item() == 6


def test_cuda_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert training_device().type == expected
        assert Stage("s", tmp_path, 0, lambda *told: None).device.type == expected
