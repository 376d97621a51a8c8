"""Weights of views: what is known of made up views is found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_hal.calib.fit_fusion import fit_fusion
from edge_hal.calib.held_out_file import HELD_OUT_FILE, HeldOut, read_held_out
from edge_hal.errors import EdgeHalError

ACTIONS = ("cut", "fold", "glue", "rest")
LAG = 3


def truth(seed: int = 0, videos: int = 4, ticks: int = 1500) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return {f"v{n}": np.repeat(rng.integers(0, len(ACTIONS), ticks // 10), 10) for n in range(videos)}


def view(
    labels: dict[str, NDArray[np.int64]],
    seed: int,
    sees: float,
    says: float,
    actions: tuple[str, ...] = ACTIONS,
) -> HeldOut:
    """A view whose scores tell the label with the strength `sees`; its posteriors claim `says` times as much."""
    rng, rows = np.random.default_rng(seed), {}
    for name, y in labels.items():
        seen = np.concatenate([y[:LAG], y[:-LAG]])  # rows lag behind
        scores = rng.normal(size=(len(y), len(ACTIONS)))
        scores[np.arange(len(y)), seen] += sees
        scores *= sees * says  # log likelihood ratios of unit normals that are `sees` apart
        order = [ACTIONS.index(action) for action in actions]
        rows[name] = (scores - np.log(np.exp(scores).sum(-1, keepdims=True)))[:, order].astype(np.float32)
    numbers = {name: np.array([actions.index(ACTIONS[k]) for k in y]) for name, y in labels.items()}
    return HeldOut(actions, 10.0, LAG, rows, numbers)


def test_a_view_that_claims_too_much_gets_the_weight_that_makes_its_claims_true() -> None:
    labels = truth()
    fitted = fit_fusion({"honest": view(labels, 1, 1.5, 1.0), "loud": view(labels, 2, 1.5, 2.5)})
    assert fitted.weights["honest"] / fitted.weights["loud"] == pytest.approx(2.5, rel=0.1)
    assert sum(fitted.weights.values()) == pytest.approx(2, abs=0.01)
    assert fitted.right_fitted > fitted.right_equal > max(fitted.right_alone.values())


def test_a_view_that_sees_nothing_gets_no_weight_and_three_views_work() -> None:
    labels = truth(1)
    views = {"good": view(labels, 1, 1.5, 1.0), "blind": view(labels, 2, 0.0, 1.0), "fair": view(labels, 3, 0.8, 1.0)}
    noise = np.random.default_rng(5)
    for rows in views["blind"].log_posteriors.values():
        rows[:] = np.log(noise.dirichlet(np.full(len(ACTIONS), 0.5), len(rows)))
    weights = fit_fusion(views).weights
    assert weights["blind"] < 0.05 and weights["fair"] / weights["good"] == pytest.approx(1, abs=0.2)
    assert sum(weights.values()) == pytest.approx(3, abs=0.01)


def test_the_order_of_labels_and_videos_of_one_view_only_change_nothing() -> None:
    labels = truth(2)
    first = view(labels, 1, 1.2, 1.3)
    same = fit_fusion({"a": first, "b": view(labels, 2, 1.0, 0.7)})
    turned = fit_fusion({"a": first, "b": view(labels, 2, 1.0, 0.7, ("rest", "cut", "glue", "fold"))})
    assert turned.weights == pytest.approx(same.weights, abs=1e-3)
    more = view({**labels, "other": labels["v0"]}, 1, 1.2, 1.3)
    assert fit_fusion({"a": more, "b": view(labels, 2, 1.0, 0.7)}).videos == len(labels)


def test_views_that_tell_nothing_are_refused() -> None:
    labels = truth(6)
    wrong = view({name: (y + 1) % len(ACTIONS) for name, y in labels.items()}, 1, 2.0, 1.0)
    views = {name: HeldOut(ACTIONS, 10.0, LAG, wrong.log_posteriors, labels) for name in "ab"}
    with pytest.raises(EdgeHalError, match="tell nothing"):
        fit_fusion(views)


def test_views_that_do_not_belong_together_are_refused() -> None:
    labels = truth(3, videos=1)
    one = view(labels, 1, 1.0, 1.0)
    cases = {
        "steps differ": HeldOut(("a", "b", "c", "d"), 10.0, LAG, one.log_posteriors, one.labels),
        "model_hz differ": HeldOut(ACTIONS, 5.0, LAG, one.log_posteriors, one.labels),
        "lag in ticks differ": HeldOut(ACTIONS, 10.0, 0, one.log_posteriors, one.labels),
        "same name": view({"x": labels["v0"]}, 1, 1.0, 1.0),
        "they last 150.0 and 100.0 s": view({"v0": labels["v0"][:1000]}, 1, 1.0, 1.0),
    }
    for why, other in cases.items():
        with pytest.raises(EdgeHalError) as error:
            fit_fusion({"a": one, "b": other})
        assert why in error.value.why and error.value.exit_code == 2


def test_what_training_keeps_is_read_again_and_damage_is_told(tmp_path: Path) -> None:
    kept = view(truth(4), 1, 1.0, 1.0)
    np.savez_compressed(tmp_path / HELD_OUT_FILE, allow_pickle=False, **kept.arrays())
    read = read_held_out(tmp_path)
    assert (read.actions, read.model_hz, read.lag_ticks) == (kept.actions, 10.0, LAG)
    for name, rows in kept.log_posteriors.items():
        np.testing.assert_allclose(read.log_posteriors[name], rows, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(read.labels[name], kept.labels[name])
    whole = (tmp_path / HELD_OUT_FILE).read_bytes()
    wrong = kept.arrays() | {"labels.0": np.full(1500, 9)}
    np.savez(tmp_path / "wrong.npz", allow_pickle=False, **wrong)
    for damaged in (whole[:200], b"", b"no archive", (tmp_path / "wrong.npz").read_bytes()):
        (tmp_path / HELD_OUT_FILE).write_bytes(damaged)
        with pytest.raises(EdgeHalError, match="cannot read"):
            read_held_out(tmp_path)
    (tmp_path / HELD_OUT_FILE).unlink()
    with pytest.raises(EdgeHalError, match="keeps no posteriors"):
        read_held_out(tmp_path)
