"""Where views meet: which ticks belong together, which are missing, and that each is counted once."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.decoding.fusion import in_order, label_order, pooled
from edge_hal.runtime.sources.frame import Frame
from edge_hal.runtime.station.fused_source import AHEAD, FusedSource
from tests.helpers.bundles import known_spec

SPEC = known_spec()
LABELS = len(SPEC.labels)
PERIOD_NS = 100_000_000
LONG_AGO_NS = 3600 * 10**9
NAMES = ("left", "right", "top")


def rows(seed: int, count: int = 1) -> NDArray[np.float32]:
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(LABELS), count)).astype(np.float32)


def source(*, live: bool, views: int = 2, wait_s: float = 0.2) -> FusedSource:
    return FusedSource(NAMES[:views], SPEC, [1.0] * views, wait_s, live=live)


def everything(made: FusedSource) -> list[Frame]:
    """The frames that can be taken now."""
    found = []
    while (taken := made.take(0)) is not None:
        found.append(taken[0])
    return found


def check_counts(made: FusedSource, frames: int) -> None:
    intake = made.intake()
    assert intake.captured == frames + intake.superseded + intake.undecodable + intake.waiting
    for counts in made.counts:
        assert counts.ticks == counts.used + counts.superseded + counts.late + counts.unfit + counts.waiting
        assert min(vars(counts).values()) >= 0
    assert sum(made.seen_by) == frames
    assert sum(n * count for n, count in enumerate(made.seen_by, 1)) == sum(each.used for each in made.counts)


@pytest.mark.parametrize(("phase_ms", "later"), [(0, 0), (30, 0), (49, 0), (50, 1), (80, 1), (-50, 0), (-51, -1)])
def test_ticks_belong_to_the_nearest_instant_whatever_the_phase(phase_ms: int, later: int) -> None:
    made, left, right = source(live=True), rows(1, 5), rows(2, 5)
    base_ns = time.monotonic_ns() - LONG_AGO_NS
    times = [base_ns + n * PERIOD_NS for n in range(5)]
    made.push(0, SPEC, times, left)
    made.push(1, SPEC, [t_ns + phase_ms * 1_000_000 for t_ns in times], right)
    frames = everything(made)
    for frame in frames[: 5 + min(0, later)]:
        n = frame.t_ns // PERIOD_NS
        own = left[n] if n < 5 else None
        other = right[n - later] if 0 <= n - later < 5 else None
        np.testing.assert_array_equal(frame.data, pooled([own, other], [1, 1], LABELS))
    assert [frame.t_ns for frame in frames] == [n * PERIOD_NS for n in range(len(frames))]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    check_counts(made, len(frames))
    assert made.counts[1].late == max(0, -later)


def test_labels_are_those_of_the_first_view_and_an_unfit_view_is_left_out() -> None:
    made = source(live=False, views=3)
    turned, other = known_spec(labels=("red", "blue", "green")), known_spec(labels=("a", "b", "c"))
    made.push(0, SPEC, [0], rows(1))
    made.push(1, turned, [0], rows(2))
    made.push(2, other, [0], rows(3))
    made.miss(2)
    [frame] = everything(made)
    expected = pooled([rows(1)[0], in_order(rows(2), label_order(SPEC.labels, turned.labels))[0]], [1, 1], LABELS)
    np.testing.assert_array_equal(frame.data, expected)
    assert made.counts[2].unfit == 1
    made.push(2, replace(SPEC, lookback_s=5.0), [0], rows(3))  # other buffers, the same labels and rate
    assert made.counts[2].unfit == 1 and made.counts[2].late == 1
    check_counts(made, 1)


def test_files_wait_for_each_other_and_cameras_only_so_long() -> None:
    files, cameras = source(live=False), source(live=True, wait_s=3600)
    now_ns = time.monotonic_ns()
    for made, zero_ns in ((files, 0), (cameras, now_ns)):
        made.push(0, SPEC, [zero_ns, zero_ns + PERIOD_NS], rows(1, 2))
        made.wake()
        assert made.take(None) is None
        made.push(1, SPEC, [zero_ns + PERIOD_NS], rows(2))  # it was missing in the first instant
        assert made.seen_by == [0, 0] and len([made.take(None), made.take(None)]) == 2
        assert made.seen_by == [1, 1]
        check_counts(made, 2)
    late = source(live=True, wait_s=0)
    late.push(0, SPEC, [now_ns - 10 * PERIOD_NS, now_ns - 9 * PERIOD_NS], rows(1, 2))
    assert len(everything(late)) == 2 and late.health()["views"]["right"]["absent"]
    late.push(1, SPEC, [now_ns], rows(2))
    assert not late.health()["views"]["right"]["absent"]


def test_a_view_that_ended_is_not_waited_for_and_all_that_ended_end_the_source() -> None:
    made = source(live=False)
    made.push(0, SPEC, [0], rows(1))
    made.miss(1, over=True)
    assert len(everything(made)) == 1 and made.ended is None
    made.expect(1)
    made.push(0, SPEC, [PERIOD_NS], rows(1))
    made.wake()
    assert made.take(None) is None  # the second view is back, and waited for
    made.miss(0, over=True)
    made.miss(1, over=True)
    assert len(everything(made)) == 1 and made.ended == "eof"


def test_a_loop_that_is_late_keeps_a_bounded_number_and_counts_the_rest() -> None:
    made, base_ns = source(live=True), time.monotonic_ns() - LONG_AGO_NS
    most = made.most_open
    for n in range(10 * most):
        made.push(0, SPEC, [base_ns + n * PERIOD_NS], rows(n))
    taken = made.take(0)
    assert taken is not None and taken[1] == 9 * most == made.intake().superseded
    assert len(everything(made)) == most - 1
    check_counts(made, most)


def test_a_file_that_is_ahead_waits_until_the_others_and_the_loop_have_followed() -> None:
    made = source(live=False)

    def waits() -> bool:
        asked: list[int] = []
        made.wait_for_room(0, lambda: bool(asked.append(0)) or len(asked) > 1)
        return bool(asked)

    assert not waits()
    made.push(0, SPEC, [n * PERIOD_NS for n in range(AHEAD + 1)], rows(1, AHEAD + 1))
    assert waits()
    made.push(1, SPEC, [0, PERIOD_NS], rows(2, 2))
    assert waits()
    assert made.take(None) is not None and not waits()
    made.push(0, SPEC, [(AHEAD + 1) * PERIOD_NS], rows(3))
    assert waits()
    made.close()
    assert not waits()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.integers(-20, 60), st.integers(1, 4)),
        st.sampled_from(["take", "miss", "expect"]),
    ),
    max_size=60,
)


@given(st.booleans(), STEPS)
def test_every_tick_of_every_view_is_counted_once(live: bool, steps: list[tuple[int, int, int] | str]) -> None:
    made, frames = source(live=live, views=3), list[Frame]()
    base_ns = time.monotonic_ns() - LONG_AGO_NS if live else 0
    for step in steps:
        if step == "take":
            made.wake()
            frames += [] if (taken := made.take(0)) is None else [taken[0]]
        elif isinstance(step, str):
            (made.miss if step == "miss" else made.expect)(0)
        else:
            view, at, count = step
            made.push(view, SPEC, [base_ns + (at + 2 * n) * PERIOD_NS // 2 for n in range(count)], rows(at + 20, count))
        check_counts(made, len(frames))
    made.close()
    check_counts(made, len(frames))
    times = [frame.t_ns for frame in frames]
    assert times == sorted(set(times))
    for frame in frames:
        assert frame.t_ns <= made.now_ns() or live
        np.testing.assert_allclose(np.exp(frame.data).sum(), 1, rtol=1e-5)
