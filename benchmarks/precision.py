"""What a lower precision costs: which parts need float32, whether float16 drifts, and bundles side by side.

    python benchmarks/precision.py parts   --ckpt RUN
    python benchmarks/precision.py drift   --ckpt RUN [--ticks 100000]
    python benchmarks/precision.py bundles --data DIR --split 1 [--rate-hz HZ] BUNDLE BUNDLE ...
    python benchmarks/precision.py levels  --preset jetson

`parts` steps the checkpoint in torch with every operation rounded to float16 and says what each part in float32
gains, also for a sensor whose readings lie 1000 beside zero. `drift` streams float16 graphs and compares with one
float64 pass, by tenths of the stream, and with a fresh stream, bit for bit. `bundles` scores them on labelled test
videos, streamed, against the first of them, and times a tick in turns. `levels` times a live step of each level of a
preset, random weights, in every form, in turns: what a precision saves on this machine depends on the width.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_hal.bundle import graph_name, load_bundle
from edge_hal.calib.sensitivity import compare_events
from edge_hal.config import load_config
from edge_hal.decoding.decode import decode_posteriors
from edge_hal.decoding.timeline import timeline_of
from edge_hal.evaluation.checkpoint_scores import stream_posteriors
from edge_hal.evaluation.scores import frame_labels, frame_rates_hz, scores_of
from edge_hal.export.graphs import export_level
from edge_hal.export.precision import FrontEndInFloat32, half_step
from edge_hal.export.quantise import layers_of, quantise_dynamic, quantise_static
from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.recordings import read_recordings
from edge_hal.learning.data.video_set import with_labels_of
from edge_hal.model.front_end import FrontEnd
from edge_hal.model.model_file import Checkpoint, load_checkpoint
from edge_hal.model.one_pass import one_pass
from edge_hal.model.pyramid import Pyramid
from edge_hal.model.step import LevelStep, TorchEngine
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.runtime.checks.bench import weight_bytes
from edge_hal.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine, open_engines
from edge_hal.runtime.stream.pyramid import PyramidStream

FORMS = ("fp32", "fp16", "int8 onnxruntime", "int8 tensorrt")


class HalfEngine(TorchEngine):
    """`TorchEngine` on modules that mix float16 and float32."""

    def __init__(
        self, checkpoint: Checkpoint, level: int, make: Callable[[int, int], LevelStep], x: torch.dtype
    ) -> None:
        super().__init__(checkpoint.pyramid, checkpoint.front_end, level, torch.float16)
        self.steps = {chunk: make(level, chunk) for chunk in self.spec.chunks(level)}
        self.x = x

    @torch.inference_mode()
    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        values = [
            torch.as_tensor(np.asarray(inputs[t.name])).to(self.x if t.name == "x" else torch.float16)
            for t in self.spec.inputs(self.level)
        ]
        chunk = values[0].shape[0] if self.level == 0 else 1
        results = self.steps[chunk](*values, *self._state)
        outputs = self.spec.outputs(self.level, chunk)
        self._state = list(results[len(outputs) :])
        return {t.name: value.numpy() for t, value in zip(outputs, results, strict=False)}


class NormInFloat32(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(norm).float()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x.float())
        return result.half()


SOFTMAX = torch.softmax


def softmax_in_float32(x: Tensor, dim: int) -> Tensor:
    return SOFTMAX(x.float(), dim).to(x.dtype)


def parts(checkpoint: Checkpoint, ticks: int) -> None:
    spec, x = checkpoint.spec, reference(checkpoint, ticks)

    def everything(level: int, chunk: int) -> LevelStep:
        return copy.deepcopy(LevelStep(checkpoint.pyramid, checkpoint.front_end, level, chunk)).half().eval()

    def front_end(level: int, chunk: int) -> LevelStep:
        step = everything(level, chunk)
        if step.front_end is not None:
            step.add_module("front_end", FrontEndInFloat32(checkpoint.front_end))
        return step

    def ours(level: int, chunk: int) -> LevelStep:
        return half_step(checkpoint.pyramid, checkpoint.front_end, level, chunk)

    def norms(level: int, chunk: int) -> LevelStep:
        step: Any = ours(level, chunk)
        step.level.norm = NormInFloat32(step.level.norm)
        for block in step.level.blocks:
            block.norm1, block.norm2 = NormInFloat32(block.norm1), NormInFloat32(block.norm2)
        return cast(LevelStep, step)

    def softmax(level: int, chunk: int) -> LevelStep:
        return ours(level, chunk)

    exact = one_pass(checkpoint.pyramid, checkpoint.front_end, x).outputs[0]["frame"]
    print(f"{'in float32':34s} {'offset':>7s} {'max |dp|':>10s} {'RMS of log p':>13s} {'frames that agree':>18s}")
    for offset in (0.0, 1000.0):
        checkpoint.front_end.mean += offset
        for name, make in (
            ("nothing", everything),
            ("front end", front_end),
            ("front end, heads (ours)", ours),
            ("front end, heads, norms", norms),
            ("front end, heads, softmax", softmax),
        ):
            kind = torch.float16 if make is everything else torch.float32
            engines = [HalfEngine(checkpoint, level, make, kind) for level in range(len(spec.levels))]
            torch.softmax = softmax_in_float32 if make is softmax else SOFTMAX  # type: ignore[assignment]
            found = frames(PyramidStream(spec, engines), x + np.float32(offset))
            wanted = exact[: len(found)]
            rms = np.sqrt(((found - wanted) ** 2).mean() / (wanted**2).mean())
            agree = (found.argmax(1) == wanted.argmax(1)).mean()
            largest = np.abs(np.exp(found) - np.exp(wanted)).max()
            print(f"{name:34s} {offset:7g} {largest:10.5f} {rms:13.2e} {100 * agree:17.2f}%")
        checkpoint.front_end.mean -= offset


def drift(checkpoint: Checkpoint, ticks: int) -> None:
    spec, chunk = checkpoint.spec, checkpoint.spec.chunk_sizes[-1]
    ticks -= ticks % spec.period(spec.top)
    x = reference(checkpoint, ticks)
    with tempfile.TemporaryDirectory() as folder:
        for level in range(len(spec.levels)):
            size = spec.chunks(level)[-1]
            export_level(checkpoint.pyramid, checkpoint.front_end, level, size, "fp16", Path(folder))

        def stream() -> PyramidStream:
            sizes = [spec.chunks(level)[-1] for level in range(len(spec.levels))]
            paths = [{c: Path(folder) / graph_name(i, c, "fp16")} for i, c in enumerate(sizes)]
            return PyramidStream(spec, [OnnxRuntimeEngine.open(path, spec, i) for i, path in enumerate(paths)])

        old, fresh = stream(), stream()
        found = frames(old, x)
        start = ticks - (2 * spec.receptive_field // spec.period(spec.top) + 2) * spec.period(spec.top)
        frames(fresh, x[start:])
    exact = one_pass(checkpoint.pyramid, checkpoint.front_end, x).outputs[0]["frame"]
    states = fresh.states()
    same = all(np.array_equal(value, states[name]) for name, value in old.states().items())
    error = (np.exp(found) - np.exp(exact)) ** 2
    tenths = [f"{np.sqrt(part.mean()):.2e}" for part in np.array_split(error, 10)]
    print(f"{ticks} ticks in steps of {chunk}; RMS error of probabilities by tenths: {' '.join(tenths)}")
    print(f"every state then = a fresh stream's after {ticks - start} ticks: {'bit for bit' if same else 'NO'}")


def bundles(paths: list[Path], data: Path, split: int, rate_hz: float | None, rounds: int) -> None:
    opened = [load_bundle(path) for path in paths]
    spec = opened[0].spec
    found = load_dataset(data, split=split, part="test", with_labels=True, rate_hz=rate_hz)
    videos = with_labels_of(found, spec.labels, f"the bundle {paths[0]}")
    recordings = read_recordings(videos, spec.model_hz, spec.encoder)
    rows: list[dict[str, Any]] = []
    expected: list[Any] = []
    for number, bundle in enumerate(opened):
        stream = PyramidStream(spec, open_engines(bundle))
        posteriors, timelines = [], []
        for recording, video in zip(recordings, videos.videos, strict=True):
            seen = np.asarray(recording.inputs)
            if bundle.encoder is not None:
                seen = encode_pictures(bundle.encoder, seen.astype(np.uint8, copy=False))
            vectors: NDArray[np.float32] = np.asarray(seen, np.float32)
            decisions = decode_posteriors(stream_posteriors(stream, vectors), bundle.decoder, spec)
            assert video.labels is not None
            rate = video.rate_hz or spec.model_hz
            timelines.append(timeline_of(decisions, spec.model_hz, len(vectors), len(video.labels), rate))
            stream.reset()
            posteriors.append(frames(stream, vectors))
        scores = scores_of(timelines, frame_labels(videos), frame_rates_hz(videos), videos.background)
        expected = expected or posteriors
        shift = compare_events(posteriors, expected, bundle.decoder, spec)
        rows.append({"scores": scores, "shift": shift, "bytes": weight_bytes(bundle), "us": [], "number": number})
    timed = [PyramidStream(spec, open_engines(bundle)) for bundle in opened]
    x = np.random.default_rng(0).normal(size=(1, spec.front_end.size)).astype(np.float32)
    for _ in range(rounds):
        for row, stream in zip(rows, timed, strict=True):
            for _ in range(10 * spec.period(spec.top)):
                began_ns = time.perf_counter_ns()
                stream.step(x, (0,))
                stream.settle()
                row["us"].append((time.perf_counter_ns() - began_ns) / 1e3)
    print(f"{len(videos)} test videos; moved: transitions more than a tick from the first bundle's")
    print(f"{'':24s} {'MoF':>6s} {'F1@50':>6s} {'tr. F1':>6s} {'moved':>10s} {'F1@50 to first':>14s} "
          f"{'KiB':>6s} {'of first':>8s} {'tick p50 us':>11s} {'of first':>8s}")  # fmt: skip
    for bundle, row in zip(opened, rows, strict=True):
        scores, shift = row["scores"], row["shift"]
        name = f"{bundle.precision} {bundle.target}"
        p50, base = np.median(row["us"]), np.median(rows[0]["us"])
        print(f"{name:24s} {scores['mof']:6.2f} {scores['f1_50']:6.2f} {scores['transition_f1']:6.3f} "
              f"{shift.moved:4d}/{shift.transitions:<5d} {shift.f1_50:14.2f} {row['bytes'] / 1024:6.0f} "
              f"{row['bytes'] / rows[0]['bytes']:8.2f} {p50:11.1f} {p50 / base:8.2f}")  # fmt: skip


def levels(preset: str, rounds: int) -> None:
    model = load_config(preset).model
    spec = model.spec(tuple(f"step{i}" for i in range(8)), None, 36)
    torch.manual_seed(0)
    pyramid, front_end = Pyramid(spec).eval(), FrontEnd(spec.front_end)
    print(f"{'level':6s} {'width':>5s} {'form':18s} {'KiB':>6s} {'of fp32':>8s} {'step p50 us':>11s} {'of fp32':>8s}")
    for level, table in enumerate(spec.levels):
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder) / f"{name}.onnx" for name in FORMS}
            for precision in ("fp32", "fp16"):
                export_level(pyramid, front_end, level, 1, precision, Path(folder))
                paths[precision] = Path(folder) / graph_name(level, 1, precision)
            plain, half = (onnx.load(paths[precision]) for precision in ("fp32", "fp16"))
            layers = layers_of(plain, "l")
            onnx.save(quantise_dynamic(plain, "l", layers), paths["int8 onnxruntime"])
            onnx.save(quantise_static(half, "l", dict.fromkeys(layers, 4.0)), paths["int8 tensorrt"])
            engines = {name: OnnxRuntimeEngine.open({1: path}, spec, level) for name, path in paths.items()}
            rng = np.random.default_rng(0)
            inputs = {t.name: rng.normal(size=t.shape).astype(np.float32) for t in spec.inputs(level, 1)}
            spent_us: dict[str, list[float]] = {name: [] for name in engines}
            for _ in range(rounds):
                for name, engine in engines.items():
                    for _ in range(50):
                        began_ns = time.perf_counter_ns()
                        engine.step(inputs)
                        spent_us[name].append((time.perf_counter_ns() - began_ns) / 1e3)
            p50 = {name: float(np.median(us)) for name, us in spent_us.items()}
            kib = {name: path.stat().st_size / 1024 for name, path in paths.items()}
        for name in FORMS:
            print(f"{level:<6d} {table.width:5d} {name:18s} {kib[name]:6.0f} {kib[name] / kib['fp32']:8.2f} "
                  f"{p50[name]:11.1f} {p50[name] / p50['fp32']:8.2f}")  # fmt: skip


def reference(checkpoint: Checkpoint, ticks: int) -> Any:
    """The checkpoint's real input, repeated."""
    real = checkpoint.reference["x"]
    return np.asarray(real, np.float32)[np.arange(ticks) % len(real)]


def frames(stream: PyramidStream, x: Any) -> Any:
    """(T, K) log posteriors, in the longest steps."""
    chunk = stream.spec.chunk_sizes[-1]
    rows = []
    for start in range(0, len(x) - len(x) % chunk, chunk):
        stream.push(x[start : start + chunk], range(start, start + chunk))
        rows.append(stream.ring.last(0, "frame", chunk).copy())
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("parts", "drift", "bundles", "levels"))
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--ckpt", type=Path)
    parser.add_argument("--ticks", type=int)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", type=int, default=1)
    parser.add_argument("--rate-hz", type=float)
    parser.add_argument("--preset", default="jetson")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    if given.what == "bundles":
        bundles(given.bundles, given.data, given.split, given.rate_hz, given.rounds)
    elif given.what == "levels":
        levels(given.preset, given.rounds)
    elif given.what == "parts":
        parts(load_checkpoint(given.ckpt), given.ticks or 1500)
    else:
        drift(load_checkpoint(given.ckpt), given.ticks or 100_000)


if __name__ == "__main__":
    main()
