"""Scores of the reports `now`: as a subscriber receives them, and computed from posteriors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_hal.decoding.decode import open_tracker
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.evaluation.live_scores import now_reports, reported_error
from edge_hal.evaluation.subscribed_run import of_type, reported_labels, reported_probability, watch_run
from edge_hal.events import Now
from edge_hal.procedure.rules import Procedure, Step
from tests.helpers.bundles import LABELS, SHARP, known_bundle
from tests.helpers.small_models import small_spec


def test_the_error_is_how_far_probabilities_are_from_the_share_that_is_right() -> None:
    shown, truth = np.zeros(40, np.int64), np.tile([0, 0, 0, 1], 10)  # each bin of four frames is right in three
    for said, error in ((0.75, 0.0), (0.95, 20.0), (0.5, 25.0)):
        assert reported_error([shown], [np.full(40, said)], [truth]) == pytest.approx(error)
    halves = [np.full(20, 0.75), np.full(20, 0.95)]
    assert reported_error([shown[:20], shown[20:]], halves, [truth[:20], truth[20:]]) == pytest.approx(10.0)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_subscriber_receives_what_is_scored(tmp_path: Path, temperature: float) -> None:
    """Through a bundle whose posteriors can be written down, and a real run."""
    rng = np.random.default_rng(4)
    vectors = rng.random((300, len(LABELS))).astype(np.float32) * 0.2
    for start in range(0, 300, 60):
        vectors[start : start + 60, rng.integers(len(LABELS))] += 0.1
    steps = {name: Step(0.3, 0.3, 6.0, 1.5, {LABELS[i - 1]: 1.0}) for i, name in enumerate(LABELS)}
    decoder = DecoderConfig(decide_at=0.9, procedure=Procedure(steps), now_temperature=temperature)
    bundle = known_bundle(tmp_path / "bundle", decoder=decoder)
    np.save(tmp_path / "v.npy", vectors)
    camera = f"features:{tmp_path / 'v.npy'}@{bundle.spec.model_hz:g}"
    reports = of_type(watch_run(bundle.path, camera, tmp_path / "e", "toy"), Now)
    log_p = torch.log_softmax(torch.from_numpy(vectors * SHARP), -1).numpy()
    labels, probability = now_reports(log_p, decoder, bundle.spec)
    assert len(set(labels.tolist())) > 2 and len(reports) > 10
    np.testing.assert_array_equal(reported_labels(reports, 300, LABELS), labels)
    np.testing.assert_allclose(reported_probability(reports, 300), probability, atol=1e-3)
    hotter, _ = now_reports(log_p, replace(decoder, now_temperature=1.0), bundle.spec)
    assert (hotter == labels).mean() > 0.98  # a report may be sent a tick later, where the probability moves less
    later = reports[1:]  # nothing is known before the first one
    assert reported_probability(later, 300)[0] == later[0].probability


def test_a_tracker_for_another_stream_is_as_certain() -> None:
    steps = {name: Step(0.3, 0.3, 6.0, 1.5, {}) for name in LABELS}
    config = DecoderConfig(decide_at=0.9, procedure=Procedure(steps), now_temperature=2.0)
    tracker = open_tracker(config, replace(small_spec(), labels=LABELS))
    assert tracker is not None
    rows = {
        lag: np.log(np.array([[0.6, *[0.4 / (len(LABELS) - 1)] * (len(LABELS) - 1)]])) for lag in tracker.lags_ticks
    }
    first, second = tracker.follow(0, rows), tracker.another().follow(0, rows)
    np.testing.assert_array_equal(first.now.probability, second.now.probability)
    assert first.now.probability.max() < first.steady.probability.max()
