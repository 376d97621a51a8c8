from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.commands.bench import read_figures
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.checks import readings
from edge_hal.runtime.checks.bench import PERCENTILES, measure, summary
from edge_hal.runtime.engines.choose import choose_engines
from tests.helpers.bundles import known_bundle, known_spec
from tests.helpers.processes import completed as edge_hal


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return known_bundle(tmp_path_factory.mktemp("bench") / "bundle", model_hz=100.0, pictures=True)


def test_every_level_is_measured_as_often_as_it_steps(bundle: Any) -> None:
    figures = measure(bundle, choose_engines(bundle, "onnxruntime"), 200, 0.2)
    for kind, ticks in (("back_to_back_us", 200), ("paced_us", 20)):
        parts = figures[kind]
        assert parts["tick"]["count"] == parts["level0"]["count"] == parts["encoder"]["count"] == ticks
        assert abs(parts["level1"]["count"] - ticks / 4) <= 1
        for values in parts.values():
            assert 0 < values["p50"] <= values["p90"] <= values["p99"] <= values["p99.9"]
        assert parts["tick"]["p50"] >= parts["level0"]["p50"]
    spec = known_spec(100.0, pictures=True)
    assert figures["state_bytes"] == spec.state_bytes
    used = [bundle.graph(0), bundle.graph(1), bundle.encoder]
    assert figures["weight_bytes"] == sum(path.stat().st_size for path in used)
    mean_us = figures["back_to_back_us"]["tick"]["mean"]
    assert figures["streams_per_core"] == pytest.approx(1e6 / mean_us / 100, abs=0.1)
    assert measure(bundle, choose_engines(bundle, "onnxruntime"), 10, 0.0)["paced_us"] == {}


def test_percentiles_are_of_all_steps() -> None:
    found = summary([float(i) for i in range(1, 1001)])
    assert found["count"] == 1000 and found["mean"] == 500.5
    assert [found[name] for name in PERCENTILES] == [500.5, 900.1, 990.0, 999.0]
    assert summary([]) == {"count": 0}
    assert all(np.isfinite(value) for value in readings.readings().values())


def test_a_jetsons_clocks_temperatures_and_rails_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "cpu/cpu0/cpufreq/scaling_cur_freq": "1984000\n",
        "cpu/cpufreq/policy0/scaling_cur_freq": "1\n",
        "devfreq/17000000.gpu/cur_freq": "918000000\n",
        "thermal/thermal_zone0/type": "cpu-thermal\n",
        "thermal/thermal_zone0/temp": "48250\n",
        "thermal/thermal_zone1/temp": "",  # a sensor that is off
        "thermal/thermal_zone2/type": "acpitz\n",
        "thermal/thermal_zone2/temp": "91000\n",
        "thermal/thermal_zone3/type": "acpitz\n",  # two of one type: the hotter one is not lost
        "thermal/thermal_zone3/temp": "27800\n",
        "hwmon/hwmon3/in1_label": "VDD_GPU_SOC\n",
        "hwmon/hwmon3/in1_input": "5000\n",
        "hwmon/hwmon3/curr1_input": "600\n",
        "hwmon/hwmon3/in2_input": "5000\n",  # volts without amperes
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, folder in (("CPUS", "cpu"), ("DEVFREQ", "devfreq"), ("THERMAL", "thermal"), ("HWMON", "hwmon")):
        monkeypatch.setattr(readings, name, tmp_path / folder)
    expected = {"cpu0_mhz": 1984.0, "17000000.gpu_mhz": 918.0, "cpu-thermal_c": 48.25, "VDD_GPU_SOC_w": 3.0}
    expected |= {"acpitz_c": 91.0, "acpitz_thermal_zone3_c": 27.8}
    assert readings.readings() == pytest.approx(expected)


@pytest.mark.slow
def test_the_command_compares_with_a_bundle_and_with_an_earlier_bench(bundle: Any, tmp_path: Path) -> None:
    short = ("--ticks", "20", "--paced", "0.1")
    done = edge_hal("bench", str(bundle.path), *short, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["precision"] == "fp32" and figures["engine"] == "onnxruntime" and figures["why"]
    (tmp_path / "earlier.json").write_text(done.stdout)
    done = edge_hal("bench", str(bundle.path), *short, "--json", "--compare", str(tmp_path / "earlier.json"))
    assert json.loads(done.stdout)["other"] == figures
    done = edge_hal("bench", str(bundle.path), *short, "--compare", str(bundle.path))
    assert done.returncode == 0 and "1.00 times those of" in done.stdout and "level1" in done.stdout
    assert "\u2026" not in done.stdout  # no figure is cut off, however narrow the terminal
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "older.json").write_text(json.dumps({k: v for k, v in figures.items() if k != "paced_us"}))
    for wrong in (
        ("--compare", str(tmp_path / "empty.json")),
        ("--compare", str(tmp_path / "older.json")),
        ("--engine", "abacus"),
        ("--precision", "fp16"),
    ):
        done = edge_hal("bench", str(bundle.path), *short, *wrong)
        assert done.returncode in (1, 2) and "error:" in done.stderr and "Traceback" not in done.stderr


def test_an_engine_that_cannot_be_is_one_error(bundle: Any) -> None:
    with pytest.raises(EdgeHalError, match="it is one of"):
        choose_engines(bundle, "cuda")


GOOD = {
    "bundle": "b",
    "precision": "fp32",
    "weight_bytes": 10,
    "back_to_back_us": {"tick": {"mean": 2.0, "p50": 2.0}},
    "paced_us": {},
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight_bytes": 0},
        {"weight_bytes": "many"},
        {"back_to_back_us": {"tick": {"mean": 1.0, "p50": "x"}}},
        {"back_to_back_us": {"tick": {"mean": 1.0}, "level0": 3}},
        {"paced_us": {"tick": []}},
        {"paced_us": 1},
    ],
)
def test_figures_to_compare_with_are_checked(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(GOOD))
    assert read_figures(path) == GOOD
    path.write_text(json.dumps({**GOOD, **wrong}))
    with pytest.raises(EdgeHalError, match="holds no output of edge-hal bench"):
        read_figures(path)


@pytest.mark.parametrize(
    "options",
    [("--paced", "inf"), ("--threads", "513")],
)
def test_what_no_machine_can_measure_is_refused(bundle: Any, options: tuple[str, str]) -> None:
    done = edge_hal("bench", str(bundle.path), "--ticks", "1", *options)
    assert (done.returncode, done.stderr.count("error: "), "Traceback" in done.stderr) == (2, 1, False), done.stderr
    assert "it can be at most" in " ".join(done.stderr.split())
