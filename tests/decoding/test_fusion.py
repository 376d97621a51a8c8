"""The product of experts: what it is by hand, and what may not change it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_hal.decoding.fusion import check_fusable, fused_fingerprint, fused_spec, in_order, label_order, pooled
from edge_hal.errors import EdgeHalError
from edge_hal.spec import PyramidSpec
from tests.helpers.bundles import known_spec

Rows = NDArray[np.float32]
LABELS, HEADS, TICKS = 4, 2, 3
WEIGHT = st.floats(0, 3)


def posteriors(seed: int) -> Rows:
    """(T, H K) of a view that is sure of some labels."""
    scores = np.random.default_rng(seed).normal(0, 4, (TICKS, HEADS, LABELS))
    rows = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    return rows.reshape(TICKS, HEADS * LABELS).astype(np.float32)


VIEWS = st.lists(st.tuples(st.integers(0, 1000).map(posteriors), WEIGHT), min_size=1, max_size=4)


@given(VIEWS)
def test_it_is_the_product_by_hand_normalised_for_each_head(views: list[tuple[Rows, float]]) -> None:
    product = np.ones((TICKS, HEADS, LABELS))
    for rows, weight in views:
        product *= np.exp(rows.astype(np.float64)).reshape(product.shape) ** weight
    product /= product.sum(-1, keepdims=True)
    found = np.exp(pooled([rows for rows, _ in views], [weight for _, weight in views], LABELS))
    np.testing.assert_allclose(found.reshape(product.shape), product, atol=1e-5)


@given(VIEWS, st.randoms(use_true_random=False))
def test_the_order_of_the_views_changes_nothing(views: list[tuple[Rows, float]], random: object) -> None:
    shuffled = list(views)
    random.shuffle(shuffled)
    one, other = (pooled([r for r, _ in each], [w for _, w in each], LABELS) for each in (views, shuffled))
    np.testing.assert_allclose(one, other, atol=1e-5)


@given(VIEWS, st.integers(0, 1000), WEIGHT)
def test_a_missing_view_counts_as_one_with_the_weight_zero(
    views: list[tuple[Rows, float]], seed: int, weight: float
) -> None:
    rows, weights = [each for each, _ in views], [each for _, each in views]
    without = pooled(rows, weights, LABELS)
    np.testing.assert_array_equal(pooled([None, *rows], [weight, *weights], LABELS), without)
    np.testing.assert_allclose(pooled([posteriors(seed), *rows], [0.0, *weights], LABELS), without, atol=1e-6)


def test_one_view_with_the_weight_one_is_itself_and_weights_of_zero_tell_nothing() -> None:
    rows = posteriors(1)
    np.testing.assert_allclose(pooled([rows, None], [1.0, 1.0], LABELS), rows, atol=1e-6)
    np.testing.assert_allclose(np.exp(pooled([rows, rows], [0.0, 0.0], LABELS)), 1 / LABELS, rtol=1e-6)


def test_two_views_that_agree_are_surer_and_an_unsure_one_gives_way() -> None:
    sure, unsure = np.log([[0.7, 0.3]]).astype(np.float32), np.log([[0.5, 0.5]]).astype(np.float32)
    both = np.exp(pooled([sure, sure], [1.0, 1.0], 2))
    assert both[0, 0] == pytest.approx(0.49 / 0.58)
    np.testing.assert_allclose(pooled([sure, unsure], [1.0, 1.0], 2), sure, atol=1e-6)


@given(st.permutations(["a", "b", "c", "d"]), st.integers(0, 1000))
def test_labels_in_another_order_are_brought_into_that_of_the_first_view(labels: list[str], seed: int) -> None:
    first, rows = ["a", "b", "c", "d"], posteriors(seed)
    turned = in_order(rows, label_order(first, labels)).reshape(TICKS, HEADS, LABELS)
    for number, label in enumerate(first):
        expected = rows.reshape(TICKS, HEADS, LABELS)[..., labels.index(label)]
        np.testing.assert_array_equal(turned[..., number], expected)


def test_what_cannot_be_fused_is_refused_and_says_why() -> None:
    spec = known_spec()
    check_fusable("ab", [spec, known_spec(labels=("red", "green", "blue"))])
    cases = {
        "only 'a' knows red; only 'b' knows pink": known_spec(labels=("blue", "green", "pink")),
        "10 and 5 Hz": known_spec(5.0),
        "(0,) and (3,) ticks": known_spec(lag_s=0.3),
        "(0,) and (0, 2) ticks": replace(spec, other_lags_s=(0.2,)),
    }
    for why, other in cases.items():
        with pytest.raises(EdgeHalError) as error:
            check_fusable(("a", "b"), [spec, other])
        assert why in error.value.why and error.value.exit_code == 2


@given(st.integers(2, 4096), st.integers(2, 64), st.integers(1, 8))
def test_a_fused_stream_is_warm_when_its_views_are(window: int, upper: int, blocks: int) -> None:
    spec = known_spec()
    lower, top = spec.levels
    deep = replace(spec, levels=(replace(lower, window=window), replace(top, window=upper, blocks=blocks)))
    made: PyramidSpec = fused_spec([spec, deep])
    assert 0 <= made.receptive_field - deep.receptive_field <= len(made.levels) * made.levels[0].blocks
    assert made.labels == spec.labels and made.front_end.size == spec.heads_width and made.first_stride == 1


def test_the_bundle_of_a_fused_stream_names_its_views_and_weights() -> None:
    told = {fused_fingerprint(*each) for each in (("ab", (1, 1)), ("ba", (1, 1)), ("ab", (1, 0.5)), ("ac", (1, 1)))}
    assert len(told) == 4 and fused_fingerprint("ab", (1, 1)) == fused_fingerprint("ab", (1.0, 1.0))
