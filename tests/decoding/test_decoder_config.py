"""`decoder.json` and the settings of `--decide`: round trip, faults, and files of earlier versions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edge_hal.decoding.decoder_config import LATER_THRESHOLDS, NEW_THRESHOLDS, PATIENCE, DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.procedure.rules import Procedure, Step

PROCEDURE = Procedure({name: Step(0.5, 0.5, 2.0, 1.5, {other: 1.0}) for name, other in (("a", "b"), ("b", "a"))})
SETTINGS = {"fast": 0.6, "balanced": 0.9, "sure": 0.99}
ROW = {"decide_at": 0.9, "transition_f1": 0.8, "delay_s_median": None}
CONFIG = DecoderConfig(decide_at=0.9, procedure=PROCEDURE, patience=SETTINGS, curve=(ROW, {**ROW, "decide_at": 0.95}))


def test_a_setting_changes_the_probability_and_nothing_else() -> None:
    for name in PATIENCE:
        assert CONFIG.with_decide(name) == CONFIG.with_thresholds({"decide_at": SETTINGS[name]})
        assert CONFIG.with_decide(name).patience == SETTINGS
    assert CONFIG.with_decide(None) is CONFIG
    # Also where an older decoder is the default.
    assert CONFIG.with_thresholds({"decide_at": 0.0}).with_decide("sure").believes


@pytest.mark.parametrize(
    ("config", "name", "told"),
    [
        (CONFIG, "quick", "it has fast, balanced, sure"),
        (DecoderConfig(decide_at=0.9, procedure=PROCEDURE, patience={"balanced": 0.9}), "fast", "it has balanced"),
        (DecoderConfig(procedure=PROCEDURE), "fast", "version before 0.3"),
        (DecoderConfig(patience=SETTINGS), "fast", "there is no procedure"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(config: DecoderConfig, name: str, told: str) -> None:
    with pytest.raises(EdgeHalError, match=told) as caught:
        config.with_decide(name)
    assert caught.value.exit_code == 2 and "--decide" in str(caught.value)


def test_settings_and_curve_survive_the_file_and_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "decoder.json"
    path.write_text(CONFIG.to_json())
    assert "procedure" not in json.loads(path.read_text())
    assert DecoderConfig.from_file(path, PROCEDURE) == CONFIG
    assert DecoderConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG
    assert DecoderConfig.from_file(path, PROCEDURE).fingerprint() == CONFIG.fingerprint()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("patience", value) for value in list[Any]([None, [], "fast", 0.5, {"slow": 0.5}, {"fast": 0}, {"fast": 1}])),
        *(("patience", {"fast": value}) for value in list[Any](["0.5", True, None, [0.5], -0.1, 2, float("nan")])),
        *(("curve", value) for value in list[Any]([None, 3, "abc", [1], ["a"], [None], [[]]])),
        *(("curve", [{"f1_50": value}]) for value in list[Any](["9", True, [], float("inf")])),
        *((name, value) for name in NEW_THRESHOLDS for value in (-0.1, 1001, "1", None, True)),
        *((name, 1) for name in ("decide_at", "free_order")),
        *(("now_temperature", value) for value in (0, -1.0, 101, "1", None, True)),
    ],
)
def test_a_bad_value_in_the_file_is_one_clear_error(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "decoder.json"
    path.write_text(json.dumps({**json.loads(CONFIG.to_json()), key: value}))
    with pytest.raises(EdgeHalError) as caught:
        DecoderConfig.from_file(path, PROCEDURE)
    assert str(path) in str(caught.value)
    assert key in str(caught.value) or "not finite" in str(caught.value)  # JSON has no such number


def test_a_file_of_an_earlier_version_loads_and_keeps_its_fingerprint(tmp_path: Path) -> None:
    """Computed here as version 0.2 did."""
    old = {"smooth_s": 0.3, "confirm_s": 0.6, "margin": 0.1, "min_duration_s": 1.5, "lead_s": 0.2}
    old |= {"temperature": 1.5, "evidence_hz": 2.5}
    path = tmp_path / "decoder.json"
    path.write_text(json.dumps(old))
    for procedure in (None, PROCEDURE):
        config = DecoderConfig.from_file(path, procedure)
        assert not config.believes and config.patience == {} and config.curve == ()
        body = {**old, "procedure": None if procedure is None else procedure.to_dict()}
        expected = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]
        assert config.fingerprint() == expected
        # What an older decoder does not use is no difference.
        assert config.with_thresholds({"decide_hz": 9.0, "belief_hz": 9.0}).fingerprint() == expected


def test_the_fingerprint_tells_what_decides() -> None:
    for name in NEW_THRESHOLDS:
        assert CONFIG.with_thresholds({name: 0.5}).fingerprint() != CONFIG.fingerprint()
    assert CONFIG.with_decide("fast").fingerprint() != CONFIG.with_decide("sure").fingerprint()
    for name, unused in LATER_THRESHOLDS.items():
        assert CONFIG.with_thresholds({name: 2.0}).fingerprint() != CONFIG.fingerprint()
        assert CONFIG.with_thresholds({name: unused}).fingerprint() == CONFIG.fingerprint()
    assert DecoderConfig(decide_at=0.9, procedure=PROCEDURE).fingerprint() == CONFIG.fingerprint()


@pytest.mark.parametrize(
    ("name", "value"), [("decide_hz", 0.0), ("decide_hz", -1.0), ("decide_hz", 1001.0), ("belief_hz", -1.0)]
)
def test_a_weight_of_the_evidence_is_positive(name: str, value: float) -> None:
    with pytest.raises(EdgeHalError, match=f"decoder.{name}"):
        DecoderConfig().with_thresholds({name: value})
