from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import edge_hal
from edge_hal.bundle import Bundle
from edge_hal.decoding.decode import open_decoder
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Gap, Moment, Start, Transition, encode
from edge_hal.runtime.api import EventStream
from edge_hal.runtime.model import Model
from edge_hal.runtime.stream.clock import Break
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.bundles import AT_ONCE, LABELS, STRIDE, known_bundle, vectors
from tests.helpers.toy_pyramid import NumpyModel, toy_bundle, toy_spec

HZ = 10.0
STEP_NS = 100_000_000
LABELLED = [0] * 12 + [2] * 20 + [1] * 8


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return known_bundle(tmp_path_factory.mktemp("known") / "bundle", HZ)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return known_bundle(tmp_path_factory.mktemp("pixels") / "bundle", HZ, pictures=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    decoder = DecoderConfig(smooth_s=0.2, confirm_s=0.2, min_duration_s=0.3)
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", toy_spec((4, 3)), decoder)


def moments(start: int, stop: int) -> list[Moment]:
    return [Moment(tick, 2 * tick, tick * STEP_NS) for tick in range(start, stop)]


def said(events: list[Event]) -> list[tuple[str | None, str, int]]:
    return [(e.from_, e.to, e.boundary.tick) for e in events if isinstance(e, Transition)]


# --- the Python API -----------------------------------------------------------------------------


def test_vectors_in_events_out(bundle: Bundle) -> None:
    began = 987_654_321_000
    events: list[Event] = []
    with edge_hal.open_stream(bundle.path, stream="bench") as stream:
        for tick, vector in enumerate(vectors(LABELLED)):
            events += stream.push(vector, began + tick * STEP_NS)
        assert stream.action == "green"
        events += stream.close()
        assert stream.close() == []
    assert said(events) == [(None, "blue", 0), ("blue", "red", 12), ("red", "green", 32)]
    start, end = events[0], events[-1]
    assert isinstance(start, Start) and isinstance(end, End)
    assert start.labels == LABELS and start.bundle == bundle.fingerprint
    assert [event.seq for event in events] == list(range(5))
    assert {event.stream for event in events} == {"bench"}
    assert end.last == Moment(39, 39, 39 * STEP_NS) and end.reason == "eof"
    assert end.counters["captured"] == end.counters["used"] == end.counters["fresh"] == 40
    second = events[2]
    assert isinstance(second, Transition)
    assert second.decision.tick == 15  # the end of the bin that began with the change
    assert second.boundary == Moment(12, 12, 12 * STEP_NS)
    for event in events:
        encode(event)


def test_pictures_of_any_size_give_the_same_events_as_their_colours(pixels: Bundle) -> None:
    rng = np.random.default_rng(0)
    events: list[Event] = []
    with edge_hal.open_stream(str(pixels.path)) as stream:
        buffer: NDArray[np.uint8] = np.zeros((30, 50, 3), np.uint8)
        for tick, label in enumerate(LABELLED):
            buffer[:] = rng.integers(0, 60, buffer.shape)
            buffer[..., label] = 200
            # Each frame comes before its tick, which is stepped when the next frame tells the time.
            events += stream.push(buffer, max(0, tick * STEP_NS - 30_000_000))
            buffer[:] = 0  # callers reuse their buffers
    assert said(events) == [(None, "blue", 0), ("blue", "red", 12), ("red", "green", 32)]


def test_rates_are_thinned_and_held_by_time_alone(bundle: Bundle) -> None:
    for source_hz in (5.0, 25.0):
        events: list[Event] = []
        stream = edge_hal.open_stream(bundle.path)
        for frame in range(round(6 * source_hz)):
            label = 0 if frame / source_hz < 3 else 1
            events += stream.push(vectors([label])[0], round(frame * 1e9 / source_hz))
        end = stream.close()[-1]
        assert isinstance(end, End)
        found = [event for event in events if isinstance(event, Transition)]
        assert [event.to for event in found] == ["blue", "green"]
        assert abs(found[1].boundary.t_ns - 3e9) <= STEP_NS
        counters = end.counters
        dropped = sum(counters["dropped"].values())
        assert counters["captured"] == counters["used"] + dropped + counters["in_flight"]
        assert counters["ticks"] == counters["fresh"] + counters["held"] + counters["cut"]
        assert (counters["held"] > 0) == (source_hz < HZ)
        assert (counters["dropped"]["decimated"] > 0) == (source_hz > HZ)


def test_a_slow_source_is_held_once_its_rate_is_known(bundle: Bundle) -> None:
    """One frame a second where half a second may be held: told the rate, or after five frames."""
    for source_hz, expected in ((1.0, 0), (None, 5)):
        events: list[Event] = []
        stream = edge_hal.open_stream(bundle.path, source_hz=source_hz)
        for frame in range(20):
            events += stream.push(vectors([frame // 10])[0], frame * 10**9)
        events += stream.close()
        assert sum(isinstance(event, Gap) for event in events) == expected
        assert said(events)[-1] == ("blue", "green", 100 if source_hz else 50)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(EdgeHalError, match="source_hz"):
            edge_hal.open_stream(bundle.path, source_hz=wrong)


def test_silence_is_a_gap_and_a_fresh_start(bundle: Bundle) -> None:
    events: list[Event] = []
    stream = edge_hal.open_stream(bundle.path, max_hold_ms=300)
    for tick in range(8):
        events += stream.push(vectors([2])[0], tick * STEP_NS)
    for tick in range(100, 108):
        events += stream.push(vectors([2])[0], tick * STEP_NS)
    events += stream.close()
    assert [event.type for event in events] == ["start", "transition", "gap", "transition", "end"]
    gap, after = events[2], events[3]
    assert isinstance(gap, Gap) and isinstance(after, Transition)
    assert (gap.epoch, after.epoch) == (0, 1) and gap.reset
    assert (after.from_, after.to, after.boundary.tick) == (None, "red", 0)
    assert after.boundary.t_ns == 100 * STEP_NS and gap.end.t_ns == after.boundary.t_ns


def test_an_end_after_a_gap_counts_in_the_epoch_it_names(bundle: Bundle) -> None:
    recognizer = Model(bundle).stream()
    recognizer.follow(vectors([0] * 8), moments(0, 8))
    recognizer.gap(Break("source", 0, moments(7, 8)[0], Moment(0, 9, 10**10), 92))
    end = recognizer.end("eof", {})
    assert (end.epoch, end.last) == (1, Moment(0, 9, 10**10))


def test_a_refused_frame_leaves_the_stream_as_it_was(bundle: Bundle) -> None:
    good = vectors(LABELLED)
    bad: list[tuple[NDArray[np.generic], str]] = [
        (np.zeros(4, np.float32), r"shape \(4,\)"),
        (np.array([0, np.nan, 0], np.float32), "not finite"),
        (np.array([0, np.inf, 0]), "not finite"),
        (np.array(["a", "b", "c"]), "type <U1"),
        (np.zeros((8, 8, 3), np.uint8), "no encoder"),
    ]
    clean, dirty = edge_hal.open_stream(bundle.path), edge_hal.open_stream(bundle.path)
    expected: list[Event] = []
    found: list[Event] = []
    for tick, vector in enumerate(good):
        expected += clean.push(vector, tick * STEP_NS)
        data, message = bad[tick % len(bad)]
        with pytest.raises(EdgeHalError, match=message):
            dirty.push(data, tick * STEP_NS)
        found += dirty.push(vector, tick * STEP_NS)
        with pytest.raises(EdgeHalError, match="the one before it"):
            dirty.push(vector, tick * STEP_NS - 1)
    assert found + dirty.close() == expected + clean.close()
    with pytest.raises(EdgeHalError, match="closed"):
        dirty.push(good[0], 10**12)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(pixels: Bundle, picture: NDArray[np.generic]) -> None:
    with (
        edge_hal.open_stream(pixels.path) as stream,
        pytest.raises(EdgeHalError, match="takes uint8 BGR pictures"),
    ):
        stream.push(picture, 0)


def test_a_stream_without_frames_ends_without_events(bundle: Bundle) -> None:
    with edge_hal.open_stream(bundle.path) as stream:
        assert stream.close() == []


def test_what_cannot_be_opened_is_one_clear_error(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EdgeHalError, match="no bundle"):
        edge_hal.open_stream(tmp_path)
    for name in ("", "a/b"):
        with pytest.raises(EdgeHalError, match="cannot name a stream"):
            edge_hal.open_stream(bundle.path, stream=name)
    uncertified = tmp_path / "bundle"
    known_bundle(uncertified, HZ)
    (uncertified / "certificate.json").unlink()
    with pytest.raises(EdgeHalError, match="not certified"):
        edge_hal.open_stream(uncertified)
    edge_hal.open_stream(uncertified, allow_uncertified=True).close()


def test_importing_is_light_and_running_needs_no_torch(bundle: Bundle) -> None:
    """In a process of its own: what `import edge_hal` loads, and a stream with torch blocked."""
    script = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "safetensors"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import edge_hal
heavy = {{"numpy", "onnxruntime", "cv2", "zmq", "torch", "onnx"}} & set(sys.modules)
assert not heavy, heavy
import numpy as np
with edge_hal.open_stream({str(bundle.path)!r}) as stream:
    for tick in range(8):
        for event in stream.push(np.eye(3, dtype=np.float32)[1], tick * 100_000_000):
            print(event.type)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["start", "transition"]


# --- the recogniser -----------------------------------------------------------------------------


def test_the_first_label_may_come_after_its_tick_left_the_ring(bundle: Bundle) -> None:
    decoder = DecoderConfig(smooth_s=0.0, confirm_s=1.0, min_duration_s=0.0)
    recognizer = Model(bundle).stream(decoder=decoder)
    flicker = ([0] * 4 + [1] * 4) * 60  # longer than the ring, and never confirmed
    assert len(flicker) > recognizer.pyramid.ring.capacity[0]
    x = vectors(flicker + [2] * 20)
    found = recognizer.follow(x, moments(0, len(x)))
    assert [(event.from_, event.to, event.boundary) for event in found] == [(None, "red", Moment(0, 0, 0))]
    assert found[0].decision == moments(0, len(x))[found[0].decision.tick]


def test_warm_is_told_when_a_full_receptive_field_was_seen(bundle: Bundle) -> None:
    field = bundle.spec.receptive_field
    labels = [tick // 8 % 3 for tick in range(field + 24)]
    found = Model(bundle).stream().follow(vectors(labels), moments(0, len(labels)))
    assert {event.warm for event in found} == {False, True}
    for event in found:
        assert event.warm == (event.decision.tick >= field - 1)


@pytest.mark.parametrize("every", [1, 3, STRIDE, 7, 50])
def test_decisions_come_when_they_are_due(bundle: Bundle, every: int) -> None:
    recognizer = Model(bundle).stream(decoder=AT_ONCE, decide_every=every)
    labels = [tick // 11 % 3 for tick in range(110)]
    found = recognizer.follow(vectors(labels), moments(0, 110))
    assert found and all((event.decision.tick + 1) % every == 0 for event in found)
    if every == 1:
        assert [event.boundary.tick for event in found] == list(range(0, 110, 11))
        assert all(event.boundary == event.decision for event in found)


@given(
    cuts=st.lists(st.integers(1, 13), min_size=1, max_size=5),
    every=st.sampled_from([None, 1, 3, 6]),
    seed=st.integers(0, 99),
    settle=st.booleans(),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_grouping_ticks_changes_no_event(
    toy: Bundle, cuts: list[int], every: int | None, seed: int, settle: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.normal(size=(30, 5)), 5, axis=0).astype(np.float32)
    when = moments(0, len(x))

    def recognizer() -> Recognizer:
        decoder = open_decoder(toy.decoder, toy.spec)
        return Recognizer(toy, NumpyModel(toy.spec).open_stream(), decoder, decide_every=every)

    single, grouped = recognizer(), recognizer()
    expected = [event for i, moment in enumerate(when) for event in single.follow(x[i : i + 1], (moment,))]
    found, done, turn = [], 0, 0
    while done < len(x):
        end = done + cuts[turn % len(cuts)]
        found += grouped.follow(x[done:end], when[done:end])
        if settle:
            grouped.settle()
        done, turn = end, turn + 1
    for a, b in zip(found, expected, strict=True):
        assert (a.from_, a.to, a.boundary, a.decision, a.warm, a.seq) == (
            (b.from_, b.to, b.boundary, b.decision, b.warm, b.seq)
        )
        assert a.confidence == pytest.approx(b.confidence, abs=1e-5)
    assert grouped.action == single.action and grouped.since == single.since


def test_a_tick_that_skips_is_refused(bundle: Bundle) -> None:
    recognizer = Model(bundle).stream()
    recognizer.follow(vectors([0]), moments(0, 1))
    for tick in (0, 2):
        with pytest.raises(EdgeHalError, match=f"tick {tick} came where tick 1 was due"):
            recognizer.follow(vectors([0]), moments(tick, tick + 1))


def test_numbers_come_from_whoever_keeps_them(bundle: Bundle) -> None:
    taken = iter(range(41, 99))
    recognizer = Model(bundle).stream(next_seq=lambda: next(taken))
    start = recognizer.start("file.mp4")
    found = recognizer.follow(vectors(LABELLED), moments(0, 40))
    end = recognizer.end("signal", {})
    assert [event.seq for event in (start, *found, end)] == [41, 42, 43, 44, 45]
    assert end.last == moments(39, 40)[0] and end.reason == "signal" and start.source == "file.mp4"


@pytest.mark.parametrize("make", [lambda b: Model(b).stream(decide_every=0), lambda b: Model(b).stream("")])
def test_wrong_use_exits_with_2(bundle: Bundle, make: Callable[[Bundle], Recognizer]) -> None:
    with pytest.raises(EdgeHalError) as caught:
        make(bundle)
    assert caught.value.exit_code == 2


def test_event_streams_share_nothing(bundle: Bundle) -> None:
    streams = [EventStream(Model(bundle).stream(name), max_hold_ms=500) for name in "ab"]
    events: list[list[Event]] = [[], []]
    for tick in range(40):
        for number, stream in enumerate(streams):
            label = LABELLED[tick] if number == 0 else 1
            events[number] += stream.push(vectors([label])[0], tick * STEP_NS)
    assert len(said(events[0])) == 3 and said(events[1]) == [(None, "green", 0)]


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "t_ns",
    [0.0, 5e9, np.float32(0), np.float64(1e9), True, np.bool_(1), "0", None, np.timedelta64(5, "ns"), 2**62, [1]],
)
def test_times_that_are_no_integer_nanoseconds_are_refused(bundle: Bundle, t_ns: object) -> None:
    with edge_hal.open_stream(bundle.path) as stream:
        with pytest.raises(EdgeHalError, match="t_ns"):
            stream.push(vectors([0])[0], t_ns)  # type: ignore[arg-type]
        assert stream.push(vectors([0])[0], 0), "the stream goes on"


@pytest.mark.parametrize("kind", [int, np.int64, np.uint64, np.int32])
def test_integers_of_numpy_are_times_like_any_other(bundle: Bundle, kind: Callable[[int], int]) -> None:
    with edge_hal.open_stream(bundle.path) as stream:
        events = [e for tick, v in enumerate(vectors([0] * 12)) for e in stream.push(v, kind(tick * STEP_NS))]
        events += stream.close()
    assert said(events) == [(None, "blue", 0)]
    for event in events:
        encode(event)
        assert all(type(moment.t_ns) is int for moment in vars(event).values() if isinstance(moment, Moment))


@given(
    unit_ns=st.sampled_from([1, 10**3, 10**6, 10**9]),
    hz=st.floats(2, 240),
    jitter=st.floats(0, 0.4),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_times_in_another_unit_draw_one_warning(
    bundle: Bundle, caplog: pytest.LogCaptureFixture, unit_ns: int, hz: float, jitter: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    caplog.clear()
    with edge_hal.open_stream(bundle.path) as stream:
        for frame in range(60):
            stream.push(vectors([0])[0], int((frame + jitter * rng.random()) / hz * 1e9) // unit_ns)
    assert len([r for r in caplog.records if "nanoseconds" in r.message]) == (unit_ns > 1)


def test_frames_an_hour_apart_draw_one_warning_and_one_pause_draws_none(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    hour_ns = 3600 * 10**9
    for times, expected in (
        ([2 * hour_ns * i for i in range(5)], 1),
        ([STEP_NS * i + 3 * hour_ns * (i > 20) for i in range(40)], 0),
        ([STEP_NS * (i // 8) for i in range(80)], 0),  # bursts of equal times
    ):
        caplog.clear()
        with edge_hal.open_stream(bundle.path) as stream:
            for t_ns in times:
                stream.push(vectors([0])[0], t_ns)
        assert len([r for r in caplog.records if "nanoseconds" in r.message]) == expected


@pytest.mark.parametrize(
    ("aspects", "sizes", "told"),
    [
        ([1.3333], [(640, 480), (320, 240)], None),
        ([1.7778], [(640, 400), (1280, 720)], None),  # 16:10 is near enough
        (
            [1.3333],
            [(1280, 720), (1280, 720)],
            "1280 x 720, 1.78 times as wide as high, and the nearest of training 1.33",
        ),
        ([1.7778], [(720, 1280)], "0.56 times as wide"),
        ([1.3333], [(1280, 720), (720, 1280), (1280, 720)], "1280 x 720"),
        ([1.3333, 0.75], [(1280, 720)] * 3 + [(640, 480)], "training 1.33 times"),
        ([1.7778, 0.5625], [(1280, 720), (720, 1280)], None),
        ([1.7778, 1.25], [(720, 576)], None),  # pixels that are not square, as in training
        ([1.3333], [(16, 16)], None),  # resized before, as in a recording
        (None, [(1280, 720)], None),
        *((odd, [(1280, 720)], None) for odd in ([], "1.3", 1.3, ["1.3"], [-1.0], [0.0], [1], [1.3, None], {"a": 1.3})),
    ],
)
def test_pictures_of_another_shape_than_in_training_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, aspects: object, sizes: list[tuple[int, int]], told: str | None
) -> None:
    bundle = known_bundle(tmp_path / "bundle", pictures=True, aspects=aspects)
    rng = np.random.default_rng(0)
    with edge_hal.open_stream(bundle.path) as stream:
        for number, (width, height) in enumerate(sizes):
            for _ in range(2):
                stream.push(rng.integers(0, 256, (height, width, 3), np.uint8), number * 10**8)
    found = [record.message for record in caplog.records if "squeezed" in record.message]
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


def test_vectors_with_a_large_offset_are_told_once(toy: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    for offset, dtype, expected in ((1e6, "f4", 1), (0, "f4", 0), (50, "f2", 1), (50, "f4", 0)):
        caplog.clear()
        x = (offset + 0.02 * rng.normal(size=(300, toy.spec.front_end.size))).astype(dtype)
        with edge_hal.open_stream(toy.path) as stream:
            for tick, vector in enumerate(x):
                stream.push(vector, tick * STEP_NS)
        assert len([r for r in caplog.records if "offset" in r.message]) == expected


def test_a_number_beyond_float32_is_refused(bundle: Bundle) -> None:
    vector = vectors([0])[0].astype(np.float64)
    vector[0] = 1e300
    with edge_hal.open_stream(bundle.path) as stream, pytest.raises(EdgeHalError, match="not finite in float32"):
        stream.push(vector, 0)
