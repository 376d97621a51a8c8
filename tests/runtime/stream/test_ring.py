from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.runtime.stream.ring import TIME, PyramidRing
from edge_hal.spec import PyramidSpec
from tests.helpers.toy_pyramid import toy_spec

STRIDES = [(), (4,), (4, 3), (2, 5), (1, 3), (4, 1)]


def outputs(spec: PyramidSpec, level: int, start: int, size: int) -> dict[str, np.ndarray]:
    """Rows that say which token and output they are: token + 1000 * the output's number."""
    tokens = np.arange(start, start + size, dtype=np.float32)[:, None]
    return {
        tensor.name: np.repeat(tokens + 100_000 * number, tensor.shape[1], axis=1)
        for number, tensor in enumerate(spec.outputs(level))
    }


def fill(ring: PyramidRing, spec: PyramidSpec, level: int, sizes: list[int]) -> None:
    for size in sizes:
        start = ring.count(level)
        times = [7 * token for token in range(start, start + size)]
        ring.write(level, start, outputs(spec, level, start, size), times)


@pytest.mark.parametrize("strides", STRIDES)
def test_every_bin_is_a_slice_and_the_ring_wraps_ten_times(strides: tuple[int, ...]) -> None:
    spec = toy_spec(strides)
    ring = PyramidRing(spec)
    assert ring.capacity[0] == spec.ring_capacity
    for level, capacity in enumerate(ring.capacity):
        for token in range(10 * capacity):
            fill(ring, spec, level, [1])
            oldest = max(0, token + 1 - capacity)
            assert ring.at(level, TIME, token) == 7 * token
            assert ring.at(level, TIME, oldest) == 7 * oldest
            for count in (1, 2, capacity, 2 * capacity):
                times = ring.last(level, TIME, count)
                assert times.tolist() == [7 * t for t in range(max(oldest, token + 1 - count), token + 1)]
                for number, tensor in enumerate(spec.outputs(level)):
                    rows = ring.last(level, tensor.name, count)
                    assert rows.flags.c_contiguous and not rows.flags.owndata
                    np.testing.assert_array_equal(rows[:, 0], times // 7 + 100_000 * number)
            if level < spec.top:
                stride = spec.levels[level + 1].stride
                made = (token + 1) // stride - 1
                if made >= 0 and (made + 1) * stride == token + 1:
                    rows = ring.bin(level + 1, made)
                    assert rows.shape == (stride, spec.levels[level].width)
                    assert rows[:, -1].tolist() == list(range(made * stride, token + 1))


@given(sizes=st.lists(st.integers(1, 20), max_size=40), count=st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_any_grouping_of_writes_leaves_the_same_ring(sizes: list[int], count: int) -> None:
    spec = toy_spec(())  # flat: nothing aligns a chunk to the end of the ring
    grouped, single = PyramidRing(spec), PyramidRing(spec)
    fill(grouped, spec, 0, sizes)
    fill(single, spec, 0, [1] * sum(sizes))
    for name in ("frame", "change", TIME):
        a, b = grouped.last(0, name, count), single.last(0, name, count)
        assert len(a) == min(count, sum(sizes), spec.ring_capacity)
        np.testing.assert_array_equal(a, b)


def test_what_is_gone_or_not_there_yet_is_refused_by_name() -> None:
    spec = toy_spec((4,))
    ring = PyramidRing(spec)
    capacity = ring.capacity[0]
    with pytest.raises(IndexError, match=r"level 0 has tokens 0\.\.-1 so far, asked for 0\.\.0"):
        ring.at(0, "frame", 0)
    assert ring.last(0, "frame", 5).shape == (0, 3)
    fill(ring, spec, 0, [4] * (capacity // 4) + [4])
    with pytest.raises(
        IndexError,
        match=f"token 3 of level 0 was overwritten: the ring keeps 4\\.\\.{capacity + 3}",
    ):
        ring.at(0, "frame", 3)
    assert ring.at(0, "frame", 4).shape == (3,)
    with pytest.raises(IndexError, match="so far"):
        ring.at(0, "frame", capacity + 4)
    with pytest.raises(IndexError, match="so far"):
        ring.at(0, "frame", -1)
    with pytest.raises(IndexError, match="overwritten"):
        ring.bin(1, 0)
    with pytest.raises(IndexError, match="so far"):
        ring.bin(1, capacity // 4 + 1)


def test_a_write_out_of_order_or_too_long_is_refused() -> None:
    spec = toy_spec((4,))
    ring = PyramidRing(spec)
    fill(ring, spec, 0, [3])
    for index in (2, 4):
        with pytest.raises(IndexError, match="expects token 3"):
            ring.write(0, index, outputs(spec, 0, index, 1), [0])
    size = ring.capacity[0] + 1
    with pytest.raises(IndexError, match="do not fit"):
        ring.write(0, 3, outputs(spec, 0, 3, size), range(size))
    assert ring.count(0) == 3


def test_reset_forgets_everything() -> None:
    spec = toy_spec((4,))
    ring = PyramidRing(spec)
    fill(ring, spec, 0, [1] * 50)
    ring.reset()
    assert ring.count(0) == 0 and len(ring.last(0, TIME, 9)) == 0
    with pytest.raises(IndexError):
        ring.at(0, "frame", 49)
    fill(ring, spec, 0, [2])
    assert ring.last(0, TIME, 9).tolist() == [0, 7]
