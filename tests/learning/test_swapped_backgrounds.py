"""What a training shows its encoder and its student of videos whose background is swapped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_hal.config import Config, load_config
from edge_hal.learning import training
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.train import train
from edge_hal.progress import no_progress
from tests.helpers.films import BLUE, GREEN, RED, write_film
from tests.helpers.short_training import BRIEF

SMALL = (*BRIEF, "model.encoder.height=32", "model.encoder.width=48", "learning.encoder.epochs=1", "learning.workers=1")


class Reached(Exception):
    pass


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("swap", [True, False])
def test_the_encoder_and_the_student_see_them_unless_they_are_turned_off(
    swap: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("videos", "transcripts", "splits"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mapping.txt").write_text("0 blue\n1 green\n2 red\n")
    (tmp_path / "splits" / "train.split1.bundle").write_text("v0.txt\nv1.txt\n")
    for name in ("v0", "v1"):
        write_film(tmp_path / "videos" / f"{name}.avi", [(BLUE, 60), (GREEN, 60), (RED, 60)])
        (tmp_path / "transcripts" / f"{name}.txt").write_text("blue\ngreen\nred\n")
    config = load_config("tiny", [*SMALL, *([] if swap else ["learning.swap_backgrounds=false"])])
    seen: list[int] = []
    learn_encoder = training.learn_encoder

    def watched(recordings: Sequence[Any], labels: Any, *rest: Any) -> Any:
        swapped = rest[-1]
        seen.append(len(swapped))
        for recording, pictures in zip(recordings, swapped, strict=False):
            assert len(pictures) == len(recording.inputs)
        return learn_encoder(recordings, labels, *rest)

    def reached(features: Any, labels: Any, teacher: Any, *rest: Any) -> None:
        copies = rest[3]
        seen.append(len(copies))
        for copy in copies:
            assert [x.shape for x in copy] == [x.shape for x in features]
            # the whole picture is background, so it is often one of another colour
            assert all(not torch.allclose(x, y) for x, y in zip(copy, features, strict=True))
        raise Reached

    monkeypatch.setattr(training, "learn_encoder", watched)
    monkeypatch.setattr(training, "learn_student", reached)
    with pytest.raises(Reached):
        train(load_dataset(tmp_path, split=1, part="train"), config, tmp_path / "run", 0, no_progress)
    assert seen == ([2, 1] if swap else [0, 0])


def test_they_are_for_an_encoder_that_is_trained_here_and_sees_whole_pictures() -> None:
    def swap(*given: str) -> bool:
        config: Config = load_config("tiny", given)
        settled = config.complete(8).learning.swap_backgrounds
        assert settled == config.swap_backgrounds
        return config.swap_backgrounds

    assert swap()
    assert not swap("learning.swap_backgrounds=false")
    assert not swap("model.encoder.moving_s=8")
    assert not swap("model.encoder.kind=efficientnet-lite0@160")
    assert not load_config("kinematics").swap_backgrounds
