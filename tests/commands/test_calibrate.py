from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge_hal.bundle import load_bundle
from edge_hal.calib.calibration_set import CalibrationRecording, bounded
from edge_hal.commands.calibrate import calibrate
from edge_hal.commands.export import export
from edge_hal.errors import EdgeHalError
from edge_hal.spec import LevelSpec
from tests.helpers.processes import completed as edge_hal
from tests.helpers.small_data import CONFIG, RATE_HZ, SIZE, write_small_data
from tests.helpers.small_models import save_run, small_spec

SPEC = small_spec((LevelSpec(1, 4, 8, 2, 1), LevelSpec(2, 3, 12, 3, 1)), size=SIZE)
GENEROUS = ("--budget-f1", "60", "--budget-within", "0.4")  # a random model wavers at every tick


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    reference = np.repeat(rng.normal(size=(20, SIZE)), 30, axis=0) + 0.3 * rng.normal(size=(600, SIZE))
    return save_run(tmp_path_factory.mktemp("calibrate") / "run", SPEC, seed=6, reference=reference.astype(np.float32))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("data") / "set", train=16)


@pytest.mark.slow
def test_calibrate_and_export_have_the_same_engine_by_default(run: Path, data: Path, tmp_path: Path) -> None:
    common = ("--ckpt", run, "--split", 1, "--rate-hz", RATE_HZ, "--work", tmp_path / "w", *GENEROUS)
    assert edge_hal("calibrate", data, *common).returncode == 0
    kept = {path.name for path in (tmp_path / "w").iterdir()}
    done = edge_hal("export", *common, "--precision", "int8", "--calib", data, "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert "search.onnxruntime.json" in kept and {path.name for path in (tmp_path / "w").iterdir()} == kept


@pytest.mark.slow
def test_calibrate_then_export_takes_what_was_found(run: Path, data: Path, tmp_path: Path) -> None:
    common = ("--ckpt", run, "--split", 1, "--rate-hz", RATE_HZ, *GENEROUS)
    done = edge_hal("calibrate", data, "--target", "tensorrt", "--json", *common)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sorted(report["recordings"]) == sorted(f"video{i}" for i in range(16))  # the training part alone
    ranges = json.loads((run / "calibration" / "ranges.json").read_text())
    assert ranges["layers"].keys() == report["layers"].keys()
    assert (run / "calibration" / "search.tensorrt.json").is_file()
    int8 = ("--precision", "int8", "--target", "tensorrt", "--calib", data, "--out", tmp_path / "b")
    done = edge_hal("export", *int8, *common)
    assert done.returncode == 0, done.stderr
    assert "kept from before" in done.stderr
    bundle = load_bundle(tmp_path / "b")
    assert bundle.provenance["quantisation"] == report
    assert f"{sum(v['verdict'] == 'int8' for v in report['layers'].values())} of" in done.stdout
    unlabelled = tmp_path / "plain"
    shutil.copytree(data / "features", unlabelled / "features")  # no step list, no labels
    done = edge_hal("calibrate", unlabelled, "--ckpt", run, "--rate-hz", RATE_HZ, "--work", tmp_path / "w", *GENEROUS)
    assert done.returncode == 0 and "l0.entry" in done.stdout, done.stderr
    done = edge_hal("export", *int8, *common, "--work", tmp_path / "w")
    assert done.returncode == 0 and "kept from before" not in done.stderr  # those were of other recordings


def test_folders_that_cannot_calibrate_are_one_error_each(run: Path, data: Path, tmp_path: Path) -> None:
    def folder(name: str, *arrays: np.ndarray) -> Path:
        (tmp_path / name / "features").mkdir(parents=True)
        for number, array in enumerate(arrays):
            np.save(tmp_path / name / "features" / f"{number}.npy", array)
        return tmp_path / name

    rng = np.random.default_rng(0)
    long = rng.normal(size=(4000, SIZE)).astype(np.float32)
    cases = {
        folder("empty"): "is empty",
        folder("short", long[:100]): "too short",
        folder("wide", rng.normal(size=(4000, 9)).astype(np.float32)): "wrong size",
        folder("still", np.ones_like(long)): "constant",
        folder("hole", np.where(np.arange(24000).reshape(4000, 6) == 12, np.inf, long)): "damaged",
    }
    for path, told in cases.items():
        with pytest.raises(EdgeHalError, match=told):
            calibrate(path, run, rate_hz=RATE_HZ, work=tmp_path / "w")
    for wrong, code, told in (
        (lambda: export(run, tmp_path / "b", precision="int8"), 2, "--calib"),
        (lambda: export(run, tmp_path / "b", precision="int4"), 2, "fp32, fp16, int8"),
        (lambda: export(run, tmp_path / "b", precision="int8", target="abacus"), 2, "onnxruntime, tensorrt"),
        (lambda: calibrate(data, run), 1, "--rate-hz"),
        (lambda: calibrate(data, run, rate_hz=RATE_HZ, split=7), 1, "split7"),
        (lambda: calibrate(data, tmp_path), 1, "no checkpoint"),
    ):
        with pytest.raises(EdgeHalError, match=told) as caught:
            wrong()
        assert caught.value.exit_code == code
    assert not (tmp_path / "b").exists()


def test_the_confidence_of_a_task_folder_is_fitted_on_its_test_videos(run: Path, tmp_path: Path) -> None:
    root = write_small_data(tmp_path / "task", train=3, test=1)
    shutil.rmtree(root / "splits")
    (root / "task.yaml").write_text(f"rate_hz: {RATE_HZ}\n")
    with pytest.raises(EdgeHalError, match="no videos to fit on") as caught:
        calibrate(root, run, confidence=True)
    assert "test: [...]" in caught.value.todo and caught.value.exit_code == 2
    (root / "task.yaml").write_text(f"rate_hz: {RATE_HZ}\ntest: [video3]\n")
    shutil.copy(CONFIG, run / "config.yaml")
    with pytest.raises(EdgeHalError, match=r"confidence cannot be calibrated: there are [0-9]+ events"):
        calibrate(root, run, confidence=True)
    with pytest.raises(EdgeHalError, match="no videos to fit on") as caught:
        calibrate(write_small_data(tmp_path / "data", train=3, test=1), run, confidence=True)
    assert "--split" in caught.value.todo


def test_a_bounded_set_is_spread_over_all_of_it() -> None:
    rows = np.arange(1000 * 2, dtype=np.float32).reshape(1000, 2)
    recordings = [CalibrationRecording(f"r{i:02d}", rows + i) for i in range(16)]
    chosen = bounded(recordings, 4000)
    assert [r.name for r in chosen] == ["r00", "r04", "r08", "r12"]
    cut = bounded(recordings, 2500)
    assert sum(r.ticks for r in cut) == 2500 and {r.ticks for r in cut} == {1000, 500}
    assert [r.name for r in bounded(recordings, 10**6)] == [r.name for r in recordings]
