from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_hal.bundle import Bundle
from edge_hal.runtime.checks.compare import compare_encoders, compare_engines
from edge_hal.runtime.checks.selftest import VARIANTS, prove, selftest
from edge_hal.runtime.engines.choose import choose_engines
from edge_hal.runtime.engines.engine import Engines
from edge_hal.runtime.engines.onnxruntime_engine import open_engines
from tests.helpers.bundles import known_bundle
from tests.helpers.cuda_modules import Gpu, keep_plans
from tests.helpers.processes import completed as edge_hal
from tests.helpers.toy_pyramid import toy_bundle, toy_spec


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return known_bundle(tmp_path_factory.mktemp("selftest") / "bundle", model_hz=100.0, pictures=True)


class Altered:
    """An engine whose outputs are not what they should be."""

    def __init__(self, engine: Any, alter: Callable[[str, NDArray[Any]], NDArray[Any]]) -> None:
        self._engine, self._alter = engine, alter
        self.reset, self.state = engine.reset, engine.state

    def step(self, inputs: Any) -> Mapping[str, NDArray[Any]]:
        return {name: self._alter(name, value) for name, value in self._engine.step(inputs).items()}


def test_equal_engines_pass(bundle: Bundle) -> None:
    found = list(compare_engines(bundle.spec, open_engines(bundle), open_engines(bundle), 1e-6))
    assert [one.state for one in found] == ["ok"] * 4
    outputs = {tensor.name for level in range(len(bundle.spec.levels)) for tensor in bundle.spec.outputs(level)}
    assert {"frame", "change", "action"} <= outputs and all(name in found[0].found for name in outputs)


@pytest.mark.parametrize("level, name", [(0, "frame"), (0, "change"), (1, "action"), (1, "fused"), (0, "trunk")])
@pytest.mark.parametrize("wrong", ["louder", "not a number"])
def test_each_output_is_compared(bundle: Bundle, level: int, name: str, wrong: str) -> None:
    def alter(of: str, value: NDArray[Any]) -> NDArray[Any]:
        if of != name:
            return value
        return value * 1.1 if wrong == "louder" else np.full_like(value, np.nan)

    tested: list[Any] = open_engines(bundle)
    tested[level] = Altered(tested[level], alter)
    found = {one.check: one for one in compare_engines(bundle.spec, tested, open_engines(bundle), 1e-3)}
    for when in ("from a start", "after a reset"):
        one = found[f"outputs {when}"]
        assert one.state == "fail" and name in one.found and one.todo != "nothing"


def test_a_state_that_is_not_reset_is_noticed(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", toy_spec())
    tested: list[Any] = open_engines(bundle)
    for engine in tested:
        engine.reset = lambda: None
    found = compare_engines(bundle.spec, tested, open_engines(bundle), 1e-3)
    assert next(one.check for one in found if one.state != "ok") == "outputs after a reset"


def test_another_encoder_is_noticed(bundle: Bundle) -> None:
    encoder = choose_engines(bundle, "onnxruntime").encoder
    assert encoder is not None

    class Other:
        def encode(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
            return encoder.encode(255 - image)

    assert compare_encoders(bundle, encoder, encoder, 1e-6).state == "ok"
    assert compare_encoders(bundle, Other(), encoder, 1e-3).state == "fail"


@pytest.mark.slow
def test_graphs_that_were_asked_for_and_not_captured_fail(bundle: Bundle) -> None:
    captures = False

    def choose(opened: Bundle, kind: str, graphs: bool = True, report: Any = None) -> Engines:
        model: Any = SimpleNamespace(kind=kind, why="plain launches", opens_in_background=False)
        return replace(choose_engines(opened, "onnxruntime"), model=model, captured=captures)

    def failed(graphs: bool) -> list[str]:
        return [
            one["check"] for one in prove(str(bundle.path), "tensorrt", graphs, choose=choose) if one["state"] != "ok"
        ]

    assert failed(True) == ["engine"] and failed(False) == []
    captures = True
    assert failed(True) == []


MODULES = {
    "pycuda/__init__.py": "",
    "pycuda/driver.py": "from gpu_of_the_test import GPU; globals().update(vars(GPU.driver))",
    "cuda/bindings/driver.py": "from gpu_of_the_test import GPU; globals().update(vars(GPU.bindings))",
    "tensorrt.py": "from gpu_of_the_test import GPU; globals().update(vars(GPU.tensorrt))",
    "gpu_of_the_test.py": """
        import os, signal, sys
        from tests.helpers.cuda_modules import CUresult, Gpu
        GPU = Gpu()
        case = os.environ["GPU_CASE"]
        if case == "capture is refused":
            GPU.refuses["cuStreamBeginCapture"] = CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        if case == "a launch fails":
            GPU.refuses["cuGraphLaunch"] = CUresult.CUDA_ERROR_LAUNCH_FAILED
        if case == "a launch crashes":
            GPU.bindings.cuGraphLaunch = lambda graph, stream: os.kill(os.getpid(), signal.SIGSEGV)
    """,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "case, told",
    [
        ("all is well", None),
        ("capture is refused", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        ("a launch fails", "CUDA_ERROR_LAUNCH_FAILED"),
        ("a launch crashes", "killed by SIGSEGV"),
    ],
)
def test_a_variant_that_breaks_the_gpu_ends_alone(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, told: str | None
) -> None:
    """What happens with captured graphs in one process says nothing about plain launches in another."""
    for name, text in MODULES.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(textwrap.dedent(text))
    cache = tmp_path / "plans"
    cache.mkdir()
    keep_plans(Gpu(), bundle, cache)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("EDGE_HAL_CACHE", str(cache))
    monkeypatch.setenv("GPU_CASE", case)
    found = list(selftest([bundle.path]))
    failed = [one for one in found if one.state != "ok"]
    variants = {one.check.split(":")[0] for one in found}
    assert variants == {f"bundle, {variant.name}" for variant in VARIANTS}
    if told is None:
        assert not failed and len(found) == 3 * 7
    else:
        (one,) = failed
        assert "CUDA graphs" in one.check and told in one.found and one.todo != "nothing"


@pytest.mark.slow
def test_without_tensorrt_the_selftest_fails_and_says_so(bundle: Bundle) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        done = edge_hal("doctor", "--bundle", str(bundle.path), "--selftest", "--json")
        found = {one["check"]: one for one in json.loads(done.stdout)}
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert found["bundle, ONNX Runtime: outputs from a start"]["state"] == "ok"
        for variant in ("plain launches", "CUDA graphs"):
            one = found[f"bundle, TensorRT, {variant}"]
            assert (
                one["state"] == "fail" and "TensorRT is not installed" in one["found"] and "pip install" in one["todo"]
            )
    else:
        pytest.skip("TensorRT is here: `edge-hal doctor --selftest` is the test for it")
