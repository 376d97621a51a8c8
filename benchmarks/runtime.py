"""What the runtime costs beside engine and decoding, and how fast an event is out, against a straight script.

    python benchmarks/runtime.py [--preset tiny] [--frames 3000] [--paced-s 60]

Random weights, a 640 x 480 MJPG video at 30 frames a second, the model at 30 Hz: every frame is stepped and decided
on, and every decision is made to send an event, so that the whole path is measured for every frame.

The straight script is what one writes by hand: OpenCV read, resize, session.run with arrays for encoder and levels
(states handed back by name), argmax, zmq send. Engine and decoding are timed inside both: every call into ONNX
Runtime, cv2.resize and the reader of the video. The rest is overhead, on the wall and as processor time of the loop's
thread, which other programs on the machine disturb less.

    overhead  the video as fast as it goes, per frame: all of it, and less engine and decoding
    latency   paced at 30 frames a second: from a frame's capture to the event in a subscriber's hands (a thread of
              this process). `file` is read in process, `camera` by the reading process, as a device is
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import onnxruntime as ort
import zmq
from bundles import noise_video, random_bundle

from edge_hal.bundle import Bundle
from edge_hal.decoding.decoder import Decision, Decoder
from edge_hal.decoding.hysteresis import HysteresisDecoder
from edge_hal.runtime import runner
from edge_hal.runtime.engines.onnxruntime_engine import open_session
from edge_hal.runtime.open_source import open_source
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.file_readers import VideoReader
from edge_hal.runtime.sources.frame import Frame

HZ = 30
BLOCK = 50
"""Frames; a multiple of what is stepped at once."""
EVENTFUL = "an event each frame"
DEFAULT = "a decision each bin"
"""As `edge-hal run` does unless told: the frames of a file are stepped together up to the next decision."""


class Inside:
    """Nanoseconds spent in engine and decoding so far: on the wall, and of this thread's processor time."""

    def __init__(self) -> None:
        self.ns = self.cpu_ns = 0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            begun_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            try:
                return call(*args, **kwargs)
            finally:
                self.ns += time.perf_counter_ns() - begun_ns
                self.cpu_ns += time.thread_time_ns() - cpu_ns

        return wrapper

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Every call of ONNX Runtime, cv2.resize and the two video readers is added up."""
        inside, real, session = self, cv2.VideoCapture, ort.InferenceSession

        class Capture:
            def __init__(self, *args: Any) -> None:
                self._inner = real(*args)
                self.read = inside.timed(self._inner.read)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inner, name)

        with (
            patch.object(cv2, "VideoCapture", Capture),
            patch.object(cv2, "resize", self.timed(cv2.resize)),
            patch.object(VideoReader, "read", self.timed(VideoReader.read)),
            patch.object(session, "run", self.timed(session.run)),
            patch.object(session, "run_with_iobinding", self.timed(session.run_with_iobinding)),
        ):
            yield


class Always(Decoder):
    """Decides for another label each time it is asked."""

    def decide(self, tick: int, log_posterior: Any, belief: Any = None) -> Decision:
        previous, self.label = self.label, tick % 8
        return Decision(tick % 8, None if previous is None else (tick + 7) % 8, tick, tick, 0.5)


@contextmanager
def deciding(decoder: type[Decoder]) -> Iterator[None]:
    """Models opened meanwhile decide with another decoder."""
    from edge_hal.runtime import model

    with patch.object(model, "open_decoder", lambda config, spec: decoder(config, spec.model_hz, spec.lag_ticks)):
        yield


def send_on(socket: zmq.Socket[bytes], _frame: int, data: bytes) -> None:
    socket.send(data)


def straight(bundle: Bundle, video: Path, send: Callable[[int, bytes], None], pace: bool, count: int) -> Iterator[int]:
    """The script. Yields after each frame when it was captured, ns."""
    spec = bundle.spec
    assert spec.encoder is not None and bundle.encoder is not None
    encoder = open_session(bundle.encoder)
    levels = [open_session(bundle.graph(level)) for level in range(len(spec.levels))]
    states = [{t.name: np.full(t.shape, t.fill, np.float32) for t in spec.states(i)} for i in range(len(levels))]
    held = [np.zeros((1, level.width), np.float32) for level in spec.levels[1:]]
    bins: list[list[Any]] = [[] for _ in levels]
    names = [[output.name for output in session.get_outputs()] for session in levels]
    capture, due = cv2.VideoCapture(str(video)), time.monotonic()
    for index in range(count):
        if pace:
            due += 1 / HZ
            time.sleep(max(0.0, due - time.monotonic()))  # paced as a camera
        ok, picture = capture.read()
        captured_ns = time.monotonic_ns()
        if not ok:
            return
        small = cv2.resize(picture, (spec.encoder.width, spec.encoder.height), interpolation=cv2.INTER_AREA)
        inputs: dict[str, Any] = {"x": encoder.run(None, {"image": small})[0]}
        for level, session in enumerate(levels):
            if level < spec.top:
                inputs["held"] = held[level]
            result = dict(zip(names[level], session.run(None, {**inputs, **states[level]}), strict=True))
            states[level] = {name: result[f"{name}.next"] for name in states[level]}
            if level == 0:
                label = spec.labels[int(result["frame"][0].argmax())]
                send(index, json.dumps({"frame": index, "label": label, "captured_ns": captured_ns}).encode())
            else:
                held[level - 1] = result["fused"]
            if level == spec.top:
                break
            bins[level].append(result["trunk"])
            if len(bins[level]) < spec.levels[level + 1].stride:
                break
            inputs, bins[level] = {"bin": np.concatenate(bins[level])}, []
        yield captured_ns


def ours(bundle: Bundle, camera: str, pace: str, endpoint: str, on_frame: Callable[[Frame], None], **how: Any) -> Any:
    """`edge-hal run`, told of each frame it takes."""

    def opened(*args: Any, **kwargs: Any) -> Source:
        source = open_source(*args, **kwargs)
        take = source.take

        def taking(due_ns: int | None) -> Any:
            got = take(due_ns)
            if got is not None:
                on_frame(got[0])
            return got

        source.take = taking  # type: ignore[method-assign,assignment]
        return source

    with patch.object(runner, "open_source", opened):
        return runner.run(runner.RunOptions(bundle.path, camera, endpoint, pace, **{"decide_every": 1, **how}))


Costs = list[tuple[float, float, float, float]]


def overhead(bundle: Bundle, video: Path, count: int) -> dict[str, Costs]:
    """{who: [(all of a frame, less engine and decoding, processor time of that, processor time of all threads for all
    of a frame)]} in us; three turns each."""
    rows: dict[str, Costs] = {"edge-hal run": [], "straight script": [], EVENTFUL: [], DEFAULT: []}
    for _ in range(3):
        for who in rows:
            inside, marks = Inside(), list[Any]()

            def mark(_frame: Any = None, inside: Inside = inside, marks: list[Any] = marks) -> None:
                cpu_ns = time.thread_time_ns(), inside.cpu_ns, time.process_time_ns()
                marks.append((time.perf_counter_ns(), inside.ns, *cpu_ns))

            with inside.measured():
                if who != "straight script":
                    with deciding(Always if who == EVENTFUL else HysteresisDecoder):
                        every = None if who == DEFAULT else 1
                        ours(bundle, str(video), "asap", "tcp://127.0.0.1:*", mark, decide_every=every)
                else:
                    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
                        socket.bind("tcp://127.0.0.1:*")
                        for _captured in straight(bundle, video, lambda _i, data: socket.send(data), False, count):
                            mark()
            steps = np.diff(np.array(marks[10:]), axis=0) / 1e3
            rows[who] += [(float(a), float(a - b), float(c - d), float(e)) for a, b, c, d, e in steps]
    return rows


def latency(bundle: Bundle, video: Path, count: int) -> dict[str, list[float]]:
    """{who: [capture to the subscriber's hands]} in milliseconds."""
    found: dict[str, list[float]] = {}
    for who in ("straight script", "edge-hal run, file", "edge-hal run, camera"):
        captured: dict[int, int] = {}
        received: dict[int, int] = {}
        with zmq.Context() as context, tempfile.TemporaryDirectory() as folder:
            endpoint = f"ipc://{folder}/s"
            subscriber = context.socket(zmq.SUB)
            subscriber.setsockopt(zmq.SUBSCRIBE, b"")
            subscriber.setsockopt(zmq.LINGER, 0)
            subscriber.connect(endpoint)

            def listen(subscriber: Any = subscriber, received: dict[int, int] = received) -> None:
                while True:
                    body = json.loads(subscriber.recv_multipart()[-1])
                    now_ns = time.monotonic_ns()
                    if body.get("type", "transition") == "transition":
                        received.setdefault(body["decision"]["frame"] if "type" in body else body["frame"], now_ns)
                    elif body["type"] == "end":
                        return
                    if body.get("last"):
                        return

            listener = threading.Thread(target=listen)
            listener.start()
            if who == "straight script":
                with context.socket(zmq.XPUB) as socket:
                    socket.bind(endpoint)
                    socket.recv()  # the subscription
                    frames = straight(bundle, video, partial(send_on, socket), True, count)
                    for index, captured_ns in enumerate(frames):
                        captured[index] = captured_ns
                    socket.send(json.dumps({"frame": -1, "last": True}).encode())
                    listener.join()
            else:
                camera = str(video) if who.endswith("file") else f"fault:drop=0%:{video}"

                def note(frame: Frame, captured: dict[int, int] = captured) -> None:
                    captured[frame.index] = frame.captured_ns

                with deciding(Always):
                    ours(bundle, camera, "realtime", endpoint, note, wait_subscribers=1, seconds=count / HZ)
                listener.join()
            subscriber.close()
        warm = sorted(set(captured) & set(received))[HZ:]
        found[who] = [(received[index] - captured[index]) / 1e6 for index in warm]
    return found


def typical(values: Costs, column: int) -> float:
    """Microseconds a frame: what others do on this machine disturbs some blocks, and not the median."""
    totals = np.array(values)[:, column]
    return float(np.median(totals[: len(totals) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--paced-s", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = random_bundle(Path(folder) / "bundle", arguments.preset, HZ)
        video = noise_video(Path(folder) / "v.avi", max(arguments.frames, HZ * arguments.paced_s), HZ)
        print(f"{arguments.preset} at {HZ} Hz, 640 x 480 MJPG; microseconds a frame, as fast as it goes")
        rows = overhead(bundle, video, arguments.frames)
        for who, values in rows.items():
            total, host, cpu, _ = np.array(values).T
            text = f"  {who:20s} all {total.mean():7.0f}"
            for name, part in (("host", host), ("processor time of it", cpu)):
                text += f" | {name} p50 {np.percentile(part, 50):6.0f} p99 {np.percentile(part, 99):6.0f}"
            print(text)
        for who in ("edge-hal run", DEFAULT):
            wall, cpu = (typical(rows[who], column) / typical(rows["straight script"], column) for column in (0, 3))
            how = f"all of a frame, median of blocks of {BLOCK}"
            print(f"  {who} / straight script: {wall:.2f} on the wall, {cpu:.2f} of processor time ({how})")
        print(f"capture to subscriber, paced at {HZ} frames a second, milliseconds")
        for who, times in latency(bundle, video, HZ * arguments.paced_s).items():
            p50, p99, p999 = np.percentile(times, [50, 99, 99.9])
            print(f"  {who:22s} {len(times):5d} events  p50 {p50:6.2f}  p99 {p99:6.2f}  p99.9 {p999:6.2f}")


if __name__ == "__main__":
    main()
