"""The model file: what is saved is what is loaded, and everything else is one clear error."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from edge_hal.commands.evaluate import run_config
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.model.model_file import MODEL_FILE, REFERENCE_FILE, load_checkpoint, save_model
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.spec import EncoderSpec
from tests.helpers.familiar import familiar_input
from tests.helpers.small_models import FLAT, THREE, TWO, random_input, random_model, save_run, small_spec

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_run(tmp_path / "run", small_spec(), reference=random_input(50))


def rewrite(file: Path, change: Change) -> None:
    """The same file with its metadata or tensors changed."""
    with safe_open(file, "pt") as stored:
        metadata = json.loads(stored.metadata()["edge_hal"])
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    change(metadata, tensors)
    save_file(tensors, file, {"edge_hal": json.dumps(metadata)})


def refused(path: Path) -> EdgeHalError:
    with pytest.raises(EdgeHalError) as caught:
        load_checkpoint(path)
    error = caught.value
    assert error.exit_code in (1, 2) and error.why and error.todo and "\n" not in error.what + error.why
    return error


def test_a_model_of_the_input_is_saved_and_checked(tmp_path: Path) -> None:
    spec = small_spec(size=5)
    for size in (5, 4):
        model = familiar_input(np.eye(size), limit_times=2.5)
        save_model(tmp_path / MODEL_FILE, *random_model(spec, seed=3), DecoderConfig(), {}, model)
        if size == 5:
            loaded = load_checkpoint(tmp_path).familiarity
            assert loaded is not None and loaded.to_json() == model.to_json()
            rewrite(tmp_path / MODEL_FILE, lambda _, tensors: tensors.pop("familiarity.tail"))
            assert "tail" in refused(tmp_path).why
        else:
            assert "another size" in refused(tmp_path).why


@pytest.mark.parametrize("levels", [FLAT, TWO, THREE], ids=["flat", "two", "three"])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, levels: Any) -> None:
    spec = small_spec(levels, size=5)
    pyramid, front_end = random_model(spec, seed=3)
    steps = {name: Step(0.25, 0.25, 2.0, 1.5, {spec.labels[i - 1]: 1.0}) for i, name in enumerate(spec.labels)}
    decoder = DecoderConfig(0.3, 1.5, 0.25, 2, evidence_hz=2.5, procedure=Procedure(steps))
    save_model(tmp_path / MODEL_FILE, pyramid, front_end, decoder, {"seed": 3, "by": {"tests": [1, "é"]}})
    for path in (tmp_path, tmp_path / MODEL_FILE):
        loaded = load_checkpoint(path)
        assert loaded.spec == spec and loaded.decoder == decoder and loaded.path == tmp_path
        assert loaded.provenance == {"seed": 3, "by": {"tests": [1, "é"]}}
        assert loaded.encoder is None and not loaded.reference and not loaded.pyramid.training
        for one, two in ((pyramid, loaded.pyramid), (front_end, loaded.front_end)):
            assert one.state_dict().keys() == two.state_dict().keys()
            assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
        x = torch.from_numpy(random_input(60, 5))
        with torch.no_grad():
            assert torch.equal(
                loaded.pyramid(loaded.front_end(x)[None]).frame, pyramid.eval()(front_end(x)[None]).frame
            )


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_run(tmp_path / name, small_spec(), seed=1)
    assert (tmp_path / "a" / MODEL_FILE).read_bytes() == (tmp_path / "b" / MODEL_FILE).read_bytes()


def test_the_reference_is_read_back_and_a_damaged_one_named(run: Path) -> None:
    assert np.array_equal(load_checkpoint(run).reference["x"], random_input(50))
    whole = (run / REFERENCE_FILE).read_bytes()
    for damaged in (b"", b"no", whole[: len(whole) // 2], whole[:-40], whole.replace(b"NUMPY", b"NUMBY")):
        (run / REFERENCE_FILE).write_bytes(damaged)
        assert REFERENCE_FILE in refused(run).what
    np.save(run / "one.npy", np.ones(3))
    os.replace(run / "one.npy", run / REFERENCE_FILE)
    assert REFERENCE_FILE in refused(run).what
    np.savez(run / REFERENCE_FILE, x=np.array([{}], dtype=object))
    assert REFERENCE_FILE in refused(run).what


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    assert "no model.safetensors" in refused(tmp_path).why
    assert "no such file" in refused(tmp_path / "none").why
    (tmp_path / "last").mkdir()
    error = refused(tmp_path)
    assert "not complete" in error.why and "resume" in error.todo
    other = tmp_path / "other.safetensors"
    for content in (b"", b"PK\x03\x04", b"\x80\x02}q\x00.", os.urandom(4096), struct.pack("<Q", 2**62) + b"{}"):
        other.write_bytes(content)
        assert "other.safetensors is no edge-hal checkpoint" in refused(other).what
    torch.save({"w": torch.ones(3)}, other)
    assert "no edge-hal checkpoint" in refused(other).what
    save_file({"w": torch.ones(3)}, other)
    assert "another program" in refused(other).why
    save_file({"w": torch.ones(3)}, other, {"edge_hal": "{"})
    assert "no edge-hal checkpoint" in refused(other).what


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_truncated_file_is_refused_wherever_it_ends(run: Path, data: st.DataObject) -> None:
    whole = (run / MODEL_FILE).read_bytes()
    cut = run.parent / "cut.safetensors"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert "no edge-hal checkpoint" in refused(cut).what


def test_without_the_encoder_the_model_is_of_no_use(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", small_spec(size=7, encoder=EncoderSpec(16, 16, 7)))
    assert "encoder.onnx is missing" in refused(run).why


def test_the_encoder_is_the_one_of_training_if_the_run_names_it(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", small_spec(size=7, encoder=EncoderSpec(16, 16, 7)))
    (run / "encoder.onnx").write_bytes(b"a graph")
    load_checkpoint(run)  # earlier versions did not name it
    made_by = {"encoder": {"kind": "own", "sha256": hashlib.sha256(b"a graph").hexdigest()}}
    rewrite(run / MODEL_FILE, lambda metadata, _: metadata["provenance"].update(made_by))
    assert load_checkpoint(run).encoder == run / "encoder.onnx"
    (run / "encoder.onnx").write_bytes(b"a gra")
    assert "encoder.onnx is not the frame encoder of this run" in refused(run).what


def test_without_its_configuration_a_run_cannot_be_scored(run: Path) -> None:
    with pytest.raises(EdgeHalError, match=r"config\.yaml is missing"):
        run_config(run, [])
    (run / "config.yaml").write_text("model: {levels: [{window: 4, wdth: 8}]}")
    with pytest.raises(EdgeHalError, match="'width'"):
        run_config(run / MODEL_FILE, [])


FAULTS: dict[str, tuple[Change, str]] = {
    "schema": (lambda m, t: m.update(schema=2), "schema 2"),
    "no schema": (lambda m, t: m.pop("schema"), "'schema'"),
    "no spec": (lambda m, t: m.pop("spec"), "'spec'"),
    "no decoder": (lambda m, t: m.pop("decoder"), "'decoder'"),
    "no provenance": (lambda m, t: m.pop("provenance"), "'provenance'"),
    "odd provenance": (lambda m, t: m.update(provenance=3), "int"),
    "threshold": (lambda m, t: m["decoder"].update(margin=2), "margin"),
    "odd threshold": (lambda m, t: m["decoder"].update(patience=2), "patience"),
    "odd chance": (lambda m, t: m["decoder"].update(procedure={"reach": {"first": 2}}), "procedure"),
    "odd procedure": (lambda m, t: m["decoder"].update(procedure=[3]), "procedure"),
    "table of a list": (lambda m, t: m.update(spec=[]), "table"),
    "level lost": (lambda m, t: m["spec"]["levels"].pop(), "strange tensor pyramid.levels.0.above"),
    "more labels": (lambda m, t: m["spec"]["labels"].append("fifth"), "its table says"),
    "other width": (lambda m, t: m["spec"]["levels"][0].update(width=16), "its table says"),
    "odd width": (lambda m, t: m["spec"]["levels"][0].update(width=7), "width"),
    "other window": (lambda m, t: m["spec"]["levels"][0].update(window=9), "age_bias"),
    "tensor lost": (lambda m, t: t.pop("pyramid.levels.0.frame.bias"), "lacks tensor pyramid.levels.0.frame.bias"),
    "tensor too many": (lambda m, t: t.update(extra=torch.ones(1)), "strange tensor extra"),
    "other size": (lambda m, t: t.update({"front_end.mean": torch.ones(4)}), "front_end.mean has shape (4,)"),
    "other rank": (lambda m, t: t.update({"front_end.mean": torch.ones(3, 1)}), "front_end.mean has shape (3, 1)"),
    "not finite": (lambda m, t: t["front_end.scale"].fill_(float("nan")), "front_end.scale"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_contradiction_inside_is_named(run: Path, fault: str) -> None:
    change, named = FAULTS[fault]
    rewrite(run / MODEL_FILE, change)
    error = refused(run)
    assert "no edge-hal checkpoint" in error.what and named in error.why, error


def test_an_absurd_table_is_refused_before_anything_of_its_size_is_made(run: Path) -> None:
    """The table asks for a terabyte; the file has a few kB. Memory must not follow the table."""
    level = {"window": 4096, "width": 8192, "heads": 1, "blocks": 64}
    levels = [{"stride": 1 if index == 0 else 2, **level} for index in range(8)]
    rewrite(run / MODEL_FILE, lambda m, t: m["spec"].update(levels=levels))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "no edge-hal checkpoint" in refused(run).what
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200_000


def test_a_complete_run_is_not_overwritten_and_loading_changes_nothing(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    load_checkpoint(run)
    shutil.copytree(run, run.parent / "copy")
    load_checkpoint(run.parent / "copy" / MODEL_FILE)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
