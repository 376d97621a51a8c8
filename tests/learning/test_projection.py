"""Principal components in the front end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_hal.config import load_config
from edge_hal.errors import EdgeHalError
from edge_hal.learning.projection import discriminants, fitted_front_end, leading_components
from edge_hal.spec import FrontEndSpec, PyramidSpec
from tests.helpers.small_models import TWO, small_spec

SPEC = FrontEndSpec(40, 3, projected=6)


def recordings(seed: int = 0) -> list[NDArray[np.float32]]:
    """Six strong directions among 40, and weak noise."""
    rng = np.random.default_rng(seed)
    mixture = rng.normal(size=(6, 40)) * np.arange(6, 0, -1)[:, None]
    return [(rng.normal(size=(n, 6)) @ mixture + 0.1 * rng.normal(size=(n, 40)) + 7).astype(np.float32)
            for n in (150, 300)]  # fmt: skip


def scores(spec: FrontEndSpec, x: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    front_end = fitted_front_end(spec, x)
    return np.concatenate([front_end.z_scores(torch.from_numpy(each)).numpy() for each in x])


def test_components_are_whitened_and_carry_what_varies_most() -> None:
    x = recordings()
    z = scores(FrontEndSpec(40, 3, 1e6, 6), x)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(6), atol=1e-3)
    pooled = np.concatenate(x).astype(np.float64)
    centred = pooled - pooled.mean(0)
    explained = z @ np.linalg.lstsq(z, centred, rcond=None)[0]
    assert ((centred - explained) ** 2).sum() < 0.01 * (centred**2).sum()


def test_a_scaled_or_rotated_input_gives_the_same_components() -> None:
    x = recordings()
    plain = scores(SPEC, x)
    np.testing.assert_allclose(scores(SPEC, [1000 * each for each in x]), plain, atol=2e-3)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(40, 40)))[0].astype(np.float32)
    turned = scores(SPEC, [each @ turn for each in x])
    signs = np.sign((turned * plain).sum(0))
    np.testing.assert_allclose(turned * signs, plain, atol=5e-3)


def test_directions_without_variance_are_ignored() -> None:
    x = [np.repeat(each[:, :2], 20, 1) for each in recordings()]  # rank 2
    z = scores(SPEC, x)
    assert np.isfinite(z).all() and z[:, :2].std(0) == pytest.approx(1, abs=0.05) and not z[:, 2:].any()


def test_a_stream_of_projected_vectors_is_one_pass() -> None:
    x = recordings()
    front_end = fitted_front_end(SPEC, x)
    whole = front_end(torch.from_numpy(x[1]))
    z, n = torch.zeros(SPEC.history, SPEC.projected), torch.zeros(SPEC.history, 1)
    rows = []
    for row in x[1]:
        features, z, n = front_end.step(torch.from_numpy(row)[None], z, n)
        rows.append(features)
    assert whole.shape == (300, 3 * 6)
    torch.testing.assert_close(torch.cat(rows), whole, atol=1e-4, rtol=1e-4)


def test_a_table_without_projection_is_that_of_earlier_versions() -> None:
    plain = small_spec(TWO)
    assert "projected" not in plain.to_dict()["front_end"]
    assert PyramidSpec.from_dict(plain.to_dict()) == plain
    spec = load_config("tiny", ["model.projected=16"]).model.spec(("a", "b"), None)
    assert PyramidSpec.from_dict(spec.to_dict()) == spec and spec.front_end.features == 48
    assert spec.fingerprint() != load_config("tiny").model.spec(("a", "b"), None).fingerprint()


def test_more_components_than_numbers_are_refused() -> None:
    with pytest.raises(EdgeHalError, match="65 components of a vector of 64"):
        load_config("tiny", ["model.projected=65"])


def test_vectors_that_never_change_within_a_segment_have_discriminants() -> None:
    labels = np.repeat([0, 1, 2], 20)
    still = [np.eye(3, 8, dtype=np.float32)[labels], np.eye(3, 8, dtype=np.float32)[labels[::-1]]]
    found = discriminants(still, [labels, labels[::-1]])
    assert all(x.shape == (60, 2) and np.isfinite(x).all() for x in found)
    assert np.isfinite(discriminants([np.ones((60, 8), np.float32)] * 2, [labels] * 2)).all()


def test_discriminants_find_the_weak_direction_that_separates_the_labels() -> None:
    rng = np.random.default_rng(1)
    made, truth = [], []
    for _ in range(4):
        labels = np.repeat(rng.permutation(3), 60)
        x = rng.normal(size=(180, 40)) * np.linspace(6, 1, 40)  # the strong directions say nothing
        x[:, 30:33] += 5 * np.eye(3)[labels]
        made.append((x + 100 * rng.normal(size=40)).astype(np.float32))  # each recording has an offset of its own
        truth.append(labels)
    noisy = [np.where(rng.random(180) < 0.2, rng.integers(0, 3, 180), y) for y in truth]
    found, y = np.concatenate(discriminants(made, noisy)), np.concatenate(truth)
    assert found.shape == (4 * 180, 2)

    def right(x: NDArray[np.float32]) -> float:
        centres = np.stack([x[y == k].mean(0) for k in range(3)])
        return float((np.linalg.norm(x[:, None] - centres, axis=2).argmin(1) == y).mean())

    assert right(found) > 0.8
    assert right(np.concatenate([each[:, :2] for each in leading_components(made, 2)])) < 0.5


def test_one_label_has_no_discriminant_and_keeps_the_components() -> None:
    x = recordings()
    found = discriminants(x, [np.zeros(len(each), np.int64) for each in x])
    assert [each.shape for each in found] == [(150, 40), (300, 40)] and all(np.isfinite(each).all() for each in found)
