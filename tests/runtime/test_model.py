"""What streams of one bundle share, and that they do not influence each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.bundle import expected_graphs, load_bundle
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Moment
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime.api import EventStream, open_model, open_stream
from edge_hal.runtime.engines import onnxruntime_engine
from tests.helpers.bundles import LABELS, known_bundle
from tests.helpers.toy_pyramid import toy_bundle, toy_spec

STEP_NS = 100_000_000
CALM = DecoderConfig(smooth_s=1.0, confirm_s=1.0, min_duration_s=1.0)
PROCEDURE = Procedure(
    {name: Step(1 / 3, 1 / 3, 1.0, 1.5, {other: 0.5 for other in LABELS if other != name}) for name in LABELS}
)


@pytest.fixture(scope="module")
def vectors_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pyramid whose output depends on all of its state."""
    decoder = DecoderConfig(smooth_s=0.1, confirm_s=0.0, min_duration_s=0.2)
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", toy_spec((4, 3)), decoder).path


@pytest.fixture(scope="module")
def pictures_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a frame encoder, and with a filter over a procedure."""
    decoder = DecoderConfig(0.0, 0.3, 0.0, 0.2, evidence_hz=5.0, procedure=PROCEDURE)
    return known_bundle(tmp_path_factory.mktemp("known") / "bundle", pictures=True, decoder=decoder).path


def signal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(400, 5)).astype(np.float32)


def pictures(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    colours = np.repeat(rng.integers(0, 256, (60, 1, 1, 3)), rng.integers(4, 12, 60), axis=0)
    return np.broadcast_to(colours, (len(colours), 20, 24, 3)).astype(np.uint8)


def pushed(stream: EventStream, frames: np.ndarray, before_each: Callable[[], Any] = lambda: None) -> list[Event]:
    events: list[Event] = []
    for number, frame in enumerate(frames):
        before_each()
        events += stream.push(frame, number * STEP_NS)
    return [*events, *stream.close()]


@pytest.mark.parametrize("kind", ["vectors", "pictures"])
def test_three_streams_of_a_model_in_three_threads_give_the_events_of_three_models(
    kind: str, vectors_bundle: Path, pictures_bundle: Path
) -> None:
    path, make = (vectors_bundle, signal) if kind == "vectors" else (pictures_bundle, pictures)
    frames = {name: make(seed) for seed, name in enumerate(("left", "middle", "right"))}
    count = min(map(len, frames.values()))
    frames = {name: rows[:count] for name, rows in frames.items()}
    expected = {name: pushed(open_stream(path, stream=name), rows) for name, rows in frames.items()}
    model, found, step = open_model(path), dict[str, list[Event]](), threading.Barrier(3, timeout=60)

    def run(name: str) -> None:
        stream = open_stream(model, stream=name)
        found[name] = pushed(stream, frames[name], step.wait)  # three frames are pushed at the same time

    threads = [threading.Thread(target=run, args=(name,)) for name in frames]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    assert all(len(events) > 20 for events in expected.values()) and expected["left"][1:] != expected["right"][1:]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files of which a session was opened."""
    real, paths = onnxruntime_engine.ort.InferenceSession, []

    def session(path: str, *arguments: Any, **how: Any) -> Any:
        paths.append(Path(path).name)
        return real(path, *arguments, **how)

    monkeypatch.setattr(onnxruntime_engine.ort, "InferenceSession", session)
    yield paths


def test_streams_share_sessions_and_tables_and_nothing_that_changes(
    pictures_bundle: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tables = Procedure.tables, []
    monkeypatch.setattr(Procedure, "tables", lambda self, hz: tables.append(hz) or real(self, hz))
    model = open_model(pictures_bundle)
    bundle = model.bundle
    assert sorted(opened) == sorted(expected_graphs(bundle.spec, bundle.precision))
    streams = [model.stream(name) for name in "abc"]
    assert len(opened) == len(expected_graphs(bundle.spec, bundle.precision))
    assert len(tables) == 2  # of the decoder, and of the belief
    fresh = [stream.state() for stream in streams]
    pushed(EventStream(streams[0], max_hold_ms=500), pictures(3))
    after = [stream.state() for stream in streams]
    np.testing.assert_equal(after[1:], fresh[1:])
    assert after[0]["decoder"]["columns"] > 0 == fresh[0]["decoder"]["columns"]
    arrays = [
        [
            buffer
            for level in stream.engines.levels
            for sets in vars(level)["_bindings"].values()
            for binding in sets
            for buffer in (*binding.inputs.values(), *binding.outputs.values())
        ]
        for stream in streams
    ]
    assert not any(np.shares_memory(one, other) for one in arrays[0] for other in arrays[1])


def test_a_stream_has_thresholds_of_its_own(vectors_bundle: Path) -> None:
    model = open_model(vectors_bundle)
    own, other = model.stream("own"), model.stream("other", decoder=CALM)
    assert own.start("x").decoder == load_bundle(vectors_bundle).decoder.fingerprint()
    assert other.start("x").decoder == CALM.fingerprint() != own.start("x").decoder
    moments = [Moment(tick, tick, tick * STEP_NS) for tick in range(400)]
    transitions = [stream.follow(signal(0), moments) for stream in (own, other)]
    assert len(transitions[0]) > len(transitions[1]) > 0


def test_what_a_model_was_opened_with_cannot_be_given_to_a_stream(vectors_bundle: Path) -> None:
    model = open_model(vectors_bundle, engine="onnxruntime", threads=2)
    for how in ({"threads": 2}, {"allow_uncertified": True}):
        with pytest.raises(EdgeHalError, match="open_model") as caught:
            open_stream(model, **how)
        assert caught.value.exit_code == 2
    with pytest.raises(EdgeHalError, match="abacus"):
        open_model(vectors_bundle, engine="abacus")
