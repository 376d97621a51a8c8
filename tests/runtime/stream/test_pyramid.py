from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.runtime.stream.ring import TIME
from edge_hal.spec import PyramidSpec
from tests.helpers.toy_pyramid import NumpyEngine, numpy_engines, toy_spec

STRIDES = [(), (4,), (4, 3), (2, 5), (3, 2, 2), (1,), (1, 3), (4, 1), (1, 1, 2)]
STEP_NS = 100_000_000


def signal(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


def times(start: int, stop: int) -> list[int]:
    return [tick * STEP_NS for tick in range(start, stop)]


def play(
    spec: PyramidSpec, x: NDArray[np.float32], cuts: list[int], settle: bool = True
) -> tuple[PyramidStream, list[NumpyEngine]]:
    """Push `x` in pieces of the given sizes, over and over."""
    engines = numpy_engines(spec)
    stream = PyramidStream(spec, engines)
    done, turn = 0, 0
    while done < len(x):
        end = min(len(x), done + cuts[turn % len(cuts)])
        if settle:
            stream.push(x[done:end], times(done, end))
        else:  # the live path without ever settling: step must do it
            while done < end:
                chunk = stream.legal_chunk(end - done)
                stream.step(x[done : done + chunk], times(done, done + chunk))
                done += chunk
        done, turn = end, turn + 1
    return stream, engines


def kept(stream: PyramidStream) -> dict[str, NDArray[Any]]:
    """All the ring holds and all the state, by name."""
    found = stream.states()
    for level in range(len(stream.spec.levels)):
        for name in [*(tensor.name for tensor in stream.spec.outputs(level)), TIME]:
            found[f"{level}.{name}"] = stream.ring.last(level, name, stream.spec.ring_capacity)
    return found


def same(a: PyramidStream, b: PyramidStream) -> None:
    left, right = kept(a), kept(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], rtol=1e-5, atol=1e-6, err_msg=name)


@given(
    strides=st.sampled_from(STRIDES),
    cuts=st.lists(st.integers(1, 17), min_size=1, max_size=6),
    count=st.integers(1, 150),
    settle=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_any_chunking_gives_the_same_stream(
    strides: tuple[int, ...], cuts: list[int], count: int, settle: bool
) -> None:
    spec = toy_spec(strides)
    x = signal(count)
    single, _ = play(spec, x, [1])
    chunked, engines = play(spec, x, cuts, settle)
    same(single, chunked)
    assert chunked.ticks == count
    for level in range(1, len(spec.levels)):
        assert chunked.steps[level] == single.steps[level] == count // spec.period(level)
    fed = [len(inputs["x"]) for inputs in engines[0].fed]
    assert sum(fed) == count and set(fed) <= set(spec.chunk_sizes)


@given(strides=st.sampled_from(STRIDES[1:]), cut=st.integers(1, 9), count=st.integers(30, 200))
@settings(deadline=None, max_examples=40)
def test_the_divider_is_index_arithmetic(strides: tuple[int, ...], cut: int, count: int) -> None:
    """Against lists kept outside: what every engine was fed, and what the engines gave."""
    spec = toy_spec(strides, lookback_s=60.0)  # nothing is overwritten here
    stream, engines = play(spec, signal(count), [cut])
    stream.settle()
    for level in range(1, len(spec.levels)):
        stride = spec.levels[level].stride
        trunk = stream.ring.last(level - 1, "trunk", count)
        for token, inputs in enumerate(engines[level].fed):
            np.testing.assert_array_equal(inputs["bin"], trunk[token * stride : (token + 1) * stride])
            assert stream.ring.at(level, TIME, token) == ((token + 1) * spec.period(level) - 1) * STEP_NS
    for level in range(spec.top):
        stride = spec.levels[level + 1].stride
        fused = stream.ring.last(level + 1, "fused", count)
        token = 0
        for inputs in engines[level].fed:
            seen = token // stride - 1
            expected = fused[seen] if seen >= 0 else np.zeros(spec.levels[level + 1].width)
            np.testing.assert_array_equal(inputs["held"][0], expected)
            token += len(inputs["x"]) if level == 0 else 1


def test_the_slow_part_waits_for_settle_and_serves_the_next_tick() -> None:
    spec = toy_spec((4, 3))
    engines = numpy_engines(spec)
    stream = PyramidStream(spec, engines)
    x = signal(13)
    for tick in range(12):
        stream.step(x[tick : tick + 1], times(tick, tick + 1))
        assert stream.steps[1:] == [tick // 4, 0]  # the bin that this tick completed has not run
    assert stream.action() is None
    stream.settle()
    assert stream.steps == [12, 3, 1]
    stream.settle()
    assert stream.steps == [12, 3, 1]
    action = stream.action()
    assert action is not None
    assert np.exp(action).sum() == pytest.approx(1, abs=1e-5)
    stream.step(x[12:], times(12, 13))
    np.testing.assert_array_equal(engines[0].fed[-1]["held"][0], stream.ring.at(1, "fused", 2))


@pytest.mark.parametrize("strides", STRIDES)
def test_a_reset_stream_is_a_fresh_one(strides: tuple[int, ...]) -> None:
    spec = toy_spec(strides)
    used, _ = play(spec, signal(77, seed=1), [3])
    used.reset()
    assert (used.epoch, used.ticks, used.steps) == (1, 0, [0] * len(spec.levels))
    assert used.action() is None and len(used.posterior(5)) == 0
    fresh, _ = play(spec, signal(70), [5])
    used.push(signal(70), times(0, 70))
    same(used, fresh)


def test_queries_are_of_the_newest_ticks_oldest_first() -> None:
    spec = toy_spec((4,))
    stream, _ = play(spec, signal(60), [1])
    posterior, change = stream.posterior(7), stream.change(7)
    assert posterior.shape == (7, 3) and change.shape == (7,)
    np.testing.assert_allclose(np.exp(posterior).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(posterior[-1], stream.ring.at(0, "frame", 59))
    np.testing.assert_array_equal(posterior[0], stream.ring.at(0, "frame", 53))
    assert len(stream.posterior(10_000)) == spec.ring_capacity


def test_a_flat_model_has_no_bins_but_an_action() -> None:
    spec = toy_spec(())
    stream, _ = play(spec, signal(21), [8])
    assert stream.room is None and stream.steps == [2 + 5]
    action = stream.action()
    assert action is not None
    np.testing.assert_array_equal(action, stream.posterior(1)[0])


def test_a_chunk_across_a_bin_is_refused_and_changes_nothing() -> None:
    spec = toy_spec((4,))
    stream, _ = play(spec, signal(3), [1])
    x = signal(8)
    for size in (2, 4, 3, 8):
        with pytest.raises(EdgeHalError, match=f"chunk of {size} cannot start at tick 3"):
            stream.step(x[:size], times(3, 3 + size))
    with pytest.raises(EdgeHalError, match=r"shape \(1, 4\)"):
        stream.step(x[:1, :4], times(3, 4))
    with pytest.raises(EdgeHalError, match="2 times"):
        stream.step(x[:1], times(3, 5))
    assert stream.ticks == 3
    stream.step(x[:1], times(3, 4))
    stream.step(x[:4], times(4, 8))
    assert stream.ticks == 8


def test_each_level_needs_its_engine() -> None:
    with pytest.raises(EdgeHalError, match="2 engines for 3 levels"):
        PyramidStream(toy_spec((4, 3)), numpy_engines(toy_spec((4,))))


def test_cost_and_memory_do_not_grow_with_age() -> None:
    spec = toy_spec((4, 3))
    stream, _ = play(spec, signal(24), [4])
    size = sum(value.nbytes for value in stream.states().values())
    assert size == spec.state_bytes
    for _ in range(40):
        before = list(stream.steps)
        stream.push(signal(24), times(stream.ticks, stream.ticks + 24))
        assert [now - then for now, then in zip(stream.steps, before, strict=True)] == [6, 6, 2]
    assert sum(value.nbytes for value in stream.states().values()) == size
