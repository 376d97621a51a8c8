from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_hal.bundle import load_bundle
from edge_hal.calib import confidence as confidence_of_events
from edge_hal.calib.confidence import (
    BINS,
    TEMPERATURES,
    Evidence,
    calibration_error,
    collect,
    collect_now,
    fit_confidence,
    reliability,
)
from edge_hal.calib.fit_decoder import procedure_of
from edge_hal.decoding.decode import beliefs_of, decode_posteriors
from edge_hal.decoding.decoder import mean_posterior
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.export.bundle import calibrated_decoder
from edge_hal.model.model_file import load_checkpoint
from tests.helpers.lagging import lagging
from tests.helpers.processes import called_here, completed
from tests.helpers.small_data import CONFIG, RATE_HZ, write_small_data
from tests.helpers.small_models import TWO, random_input, save_run, small_spec

SPEC = small_spec(TWO)
AT_ONCE = DecoderConfig(smooth_s=0.0, confirm_s=0.0, min_duration_s=0.0)


def events(count: int, sharpness: float, seed: int) -> list[Evidence]:
    """Decisions of one row each, right as often as their posterior says before it was sharpened."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        logits = 1.5 * rng.normal(size=4)
        honest = np.exp(logits) / np.exp(logits).sum()
        shown = sharpness * logits
        shown = shown - np.log(np.exp(shown).sum())
        label = int(shown.argmax())
        found.append(Evidence(shown[None].astype(np.float32), label, bool(rng.choice(4, p=honest) == label)))
    return found


@pytest.mark.parametrize("sharpness", [pytest.param(0.5, marks=pytest.mark.slow), 4.0])
def test_the_temperature_undoes_what_made_posteriors_too_sure(
    sharpness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confidence_of_events, "TEMPERATURES", TEMPERATURES[::4])  # steps of 10 % decide it too
    found = fit_confidence(events(4000, sharpness, 1))
    assert found.temperature == pytest.approx(sharpness, rel=0.15)
    assert found.ece_after < 0.03 and found.ece_after <= found.ece_before + 0.005
    if sharpness in (2.0, 4.0):
        assert found.ece_before > 3 * found.ece_after
    fresh = events(4000, sharpness, 2)  # events the temperature was not fitted on
    right = np.array([event.right for event in fresh])
    confidence = np.array([event.confidence(found.temperature) for event in fresh])
    assert calibration_error(confidence, right) < 0.04


def test_a_reliability_diagram_counts_every_event_once() -> None:
    rng = np.random.default_rng(0)
    confidence, right = rng.random(137), rng.random(137) < 0.5
    rows = reliability(confidence, right)
    assert len(rows) == BINS and sum(count for *_, count in rows) == 137
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert sum(share * count for _, share, count in rows) == pytest.approx(right.sum())
    assert calibration_error(np.full(50, 0.8), np.arange(50) < 40) == pytest.approx(0.0, abs=0.45)
    assert calibration_error(np.ones(20), np.zeros(20, bool)) == 1.0


def test_a_temperature_changes_confidences_and_no_decision() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.integers(0, 4, 40), 12)
    logits = 3.0 * np.eye(4)[labels] + rng.normal(size=(len(labels), 4))
    posterior = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    cold = decode_posteriors(posterior, AT_ONCE, SPEC)
    hot = decode_posteriors(posterior, DecoderConfig(0.0, 0.0, 0.0, 0.0, temperature=3.0), SPEC)
    assert [(d.label, d.boundary_tick, d.decision_tick) for d in cold] == [
        (d.label, d.boundary_tick, d.decision_tick) for d in hot
    ]
    assert all(b.confidence < a.confidence for a, b in zip(cold, hot, strict=True))
    evidence = collect([posterior], [labels], AT_ONCE, SPEC)
    assert [e.confidence(1.0) for e in evidence] == pytest.approx([d.confidence for d in cold])
    assert [e.right for e in evidence] == [labels[d.decision_tick] == d.label for d in cold]
    lagged, spec = lagging(posterior, 10), replace(SPEC, lag_s=1.0)
    right = [e.right for e in collect([lagged], [labels], AT_ONCE, spec)]
    decided = decode_posteriors(lagged, AT_ONCE, spec)
    assert right == [labels[max(0, d.decision_tick - 10)] == d.label for d in decided]
    assert right != [labels[d.decision_tick] == d.label for d in decided]  # else this test could not tell
    np.testing.assert_allclose(mean_posterior(posterior[:5], 1.0), np.exp(posterior[:5]).mean(0), rtol=1e-5)


def test_the_temperature_of_the_reports_undoes_a_belief_that_is_too_certain() -> None:
    """Labels are drawn from a chain, and each tick's posterior is repeated, so the belief counts it several times."""
    rng, hz = np.random.default_rng(5), SPEC.model_hz
    labels = np.repeat(rng.permuted(np.tile(np.arange(4), (60, 1)), axis=1).ravel(), 20)
    noise = np.repeat(rng.normal(size=(len(labels) // 5, 4)), 5, axis=0)  # the same error for five ticks
    logits = 1.2 * np.eye(4)[labels] + noise
    posterior = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    config = DecoderConfig(procedure=procedure_of([labels], SPEC), decide_at=0.9, belief_hz=hz)
    evidence = collect_now([posterior], [labels], config, SPEC)
    hotter = collect_now(
        [posterior], [labels], replace(config, now_temperature=2.0), SPEC
    )  # as a run that is fitted again
    assert [e.confidence(1.0) for e in hotter] == [e.confidence(1.0) for e in evidence]
    assert len(evidence) == len(labels) // round(hz)
    found = fit_confidence(evidence)
    assert found.temperature > 1.2 and found.ece_after < 0.6 * found.ece_before
    told = [b.now for b in beliefs_of(posterior, replace(config, now_temperature=found.temperature), SPEC)]
    at_one = [b.now for b in beliefs_of(posterior, config, SPEC)]
    assert [b.label for b in told] == [b.label for b in at_one]
    seen = np.array([b.probability[b.label] for b in told])[:: round(hz)]
    assert seen == pytest.approx([e.confidence(found.temperature) for e in evidence], abs=1e-3)
    assert decode_posteriors(posterior, config, SPEC) == decode_posteriors(
        posterior, replace(config, now_temperature=found.temperature), SPEC
    )
    assert collect_now([posterior], [labels], AT_ONCE, SPEC) == []  # without a procedure there are no reports


def test_too_few_events_are_refused() -> None:
    with pytest.raises(EdgeHalError, match="at least 30"):
        fit_confidence(events(12, 1.0, 0))


def test_an_export_takes_the_temperature_and_refuses_a_damaged_file(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", SPEC, reference=random_input(50))
    checkpoint = load_checkpoint(run)
    assert calibrated_decoder(checkpoint) == checkpoint.decoder
    (run / "confidence.json").write_text(json.dumps({"temperature": 2.5}))
    assert calibrated_decoder(checkpoint) == replace(checkpoint.decoder, temperature=2.5)
    (run / "confidence.json").write_text(json.dumps({"temperature": 2.5, "now": {"temperature": 1.75}}))
    assert calibrated_decoder(checkpoint) == replace(checkpoint.decoder, temperature=2.5, now_temperature=1.75)
    bad_now = '{"temperature": 2, "now": {"temperature": -1}}'
    for text in (
        "",
        "{}",
        '{"temperature": 0}',
        '{"temperature": "hot"}',
        "[]",
        bad_now,
        '{"temperature": 2, "now": 3}',
    ):
        (run / "confidence.json").write_text(text)
        with pytest.raises(EdgeHalError, match=r"calibrate DATA_DIR --confidence"):
            calibrated_decoder(checkpoint)


@pytest.mark.slow
def test_the_command_fits_on_labelled_videos_and_the_next_export_uses_it(tmp_path: Path) -> None:
    data = write_small_data(tmp_path / "data", test=12)
    command = ("train", data, "--config", CONFIG, "--split", 1, "--set", f"data.rate_hz={RATE_HZ}")
    done = completed(*command, "--supervision", "frames", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    common = ("--ckpt", tmp_path / "run", "--split", 1, "--confidence")
    done = completed("calibrate", data, *common, "--part", "test", "--check", "test", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["events"] >= 30 and 0 <= told["ece_after"] <= told["ece_before"] + 0.02 and len(told["videos"]) == 12
    now = told["now"]
    assert 0 <= now["ece_after"] <= now["ece_before"] + 0.02 and now["events"] > told["events"]
    same = {"part": "test", "events": told["events"], "ece_before": told["ece_before"]}
    again = {"ece_before": now["ece_before"], "ece_after": pytest.approx(now["ece_after"], abs=0.01)}
    assert told["check"] == {  # temperatures are rounded
        **same,
        "ece_after": pytest.approx(told["ece_after"], abs=0.01),
        "now": again,
    }
    kept = json.loads((tmp_path / "run" / "confidence.json").read_text())
    assert kept == told
    if importlib.util.find_spec("matplotlib") is not None:
        assert (tmp_path / "run" / "confidence.png").read_bytes().startswith(b"\x89PNG")
    done = completed("export", "--ckpt", tmp_path / "run", "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    decoder = load_bundle(tmp_path / "bundle").decoder
    assert (decoder.temperature, decoder.now_temperature) == (told["temperature"], now["temperature"])
    done = completed("calibrate", data, *common)
    assert done.returncode == 1 and "no valid part" in done.stderr and "Traceback" not in done.stderr


def test_the_command_asks_for_a_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path)
    code, _, err = called_here(monkeypatch, capsys, "calibrate", folder, "--ckpt", folder, "--confidence")
    assert code == 2 and "--split" in err
