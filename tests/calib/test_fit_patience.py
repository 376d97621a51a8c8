"""The settings of `--decide`: none that another one beats, slower and surer from `fast` to `sure`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.calib import fit_patience
from edge_hal.calib.fit_patience import COST, DECIDE_HZ, TOLERANCE, USUAL, Curve, choose
from edge_hal.decoding.decision_scores import COLUMNS, DECIDE_AT, Row
from edge_hal.decoding.decode import decode_posteriors
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.procedure.rules import Procedure, Step
from tests.helpers.small_models import small_spec

SPEC = small_spec()
PROCEDURE = Procedure(
    {name: Step(0.25, 0.25, 2.0, 1.5, {SPEC.labels[i - 1]: 1.0}) for i, name in enumerate(SPEC.labels)}
)
CONFIG = DecoderConfig(min_duration_s=0.0, procedure=PROCEDURE)

share = st.floats(0, 1).map(lambda value: round(value, 2))
delay_s = st.none() | st.floats(0, 5).map(lambda value: round(value, 1))


@st.composite
def rows(draw: st.DrawFn) -> Row:
    f1 = draw(share)
    return {
        "transition_f1": f1,
        "f1_50": 100 * draw(share),
        "mof_live": 100 * draw(share),
        "changes_per_min": draw(st.floats(0, 9)),
        "delay_s_median": draw(delay_s),
        "delay_s_p90": draw(delay_s),
        "false_per_min": draw(st.none() | st.floats(0, 3).map(lambda value: round(value, 1))),
    }


curves = st.lists(rows(), min_size=len(DECIDE_AT), max_size=len(DECIDE_AT)).map(
    lambda found: Curve(2.5, DECIDE_AT, tuple(found))
)


def better(a: Row, b: Row) -> bool:
    """Whether `a` beats `b`: nowhere worse, somewhere better. A column without a value is the worst."""

    def cost(row: Row, key: str, sign: int) -> float:
        value = row[key]
        return np.inf if value is None and sign < 0 else -sign * (value or 0.0)

    pairs = [tuple(cost(row, column.key, column.better) for row in (a, b)) for column in COLUMNS if column.better]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def chosen_rows(monkeypatch: pytest.MonkeyPatch, rows_of: dict[tuple[float, float], Row]) -> tuple[Curve, int]:
    """`fit_curve`, where each setting (decide_hz, decide_at) has the scores given here."""
    monkeypatch.setattr(fit_patience, "decide_all", lambda _, configs, __: [[config] for config in configs])
    monkeypatch.setattr(
        fit_patience, "label_scores", lambda each, *_: rows_of[each[0][0].decide_hz, each[0][0].decide_at]
    )
    return fit_patience.fit_curve([np.zeros((9, 4), np.float32)], [np.zeros(9, np.int64)], SPEC, CONFIG, {})


@settings(deadline=None)
@given(curves)
def test_no_setting_is_beaten_and_the_order_holds(curve: Curve) -> None:
    unbeaten = [i for i, row in enumerate(curve.rows) if not any(better(other, row) for other in curve.rows)]
    for balanced in unbeaten:
        found = choose(curve, balanced)
        picked = [curve.decide_at.index(found[name]) for name in ("fast", "balanced", "sure")]
        assert picked[1] == balanced and picked == sorted(picked) and set(picked) <= set(unbeaten)
        for a, b in itertools.pairwise(curve.rows[i] for i in picked):
            delays = [np.inf if row["delay_s_median"] is None else row["delay_s_median"] for row in (a, b)]
            false = [np.inf if row["false_per_min"] is None else row["false_per_min"] for row in (a, b)]
            assert delays[0] <= delays[1] and false[0] >= false[1]
        least = curve.events_quality(balanced) - COST
        assert all(curve.events_quality(i) >= least for i in picked)


@settings(deadline=None)
@given(st.lists(curves, min_size=len(DECIDE_HZ), max_size=len(DECIDE_HZ)))
def test_balanced_is_nearly_the_best_and_not_beaten_by_its_curve(found: list[Curve]) -> None:
    of = {(hz, at): row for hz, curve in zip(DECIDE_HZ, found, strict=True)
          for at, row in zip(DECIDE_AT, curve.rows, strict=True)}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        curve, balanced = chosen_rows(patch, of)
    assert curve.rows == tuple(of[curve.decide_hz, at] for at in DECIDE_AT)
    best = max(each.quality(i) for each in found for i in range(len(DECIDE_AT)))
    assert curve.quality(balanced) >= best - TOLERANCE
    assert not any(better(other, curve.rows[balanced]) for other in curve.rows)


def graded(at: float) -> Row:
    """Slower and surer with `at`; no setting beats another."""
    return {"transition_f1": 0.8, "f1_50": 80.0, "mof_live": 75.0, "changes_per_min": 5.0,
            "delay_s_median": at, "delay_s_p90": 2 * at, "false_per_min": 1 - at}  # fmt: skip


def test_settings_that_are_nearly_as_good_as_the_best_stay_at_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for gain, usual in ((0.8 * TOLERANCE, True), (3 * TOLERANCE, False)):
        of = {(hz, at): graded(at) for hz in DECIDE_HZ for at in DECIDE_AT}
        others = [setting for setting in of if setting != USUAL]
        best = others[int(rng.integers(len(others)))]
        of[best] = {**of[best], "transition_f1": 0.8 + gain, "f1_50": 80 + 100 * gain}
        # Only settings of other curves: within its own curve it may beat the usual one.
        if best[0] == USUAL[0]:
            of[best] |= {"delay_s_p90": 9.0}
        curve, balanced = chosen_rows(monkeypatch, of)
        assert ((curve.decide_hz, curve.decide_at[balanced]) == USUAL) == usual
        if not usual:
            assert (curve.decide_hz, curve.decide_at[balanced]) == best


def test_a_setting_that_finds_nothing_is_not_the_fastest() -> None:
    nothing: Row = {**graded(0.5), "transition_f1": 0.0, "f1_50": 1.0, "delay_s_median": None, "delay_s_p90": None}
    poor: Row = {**graded(0.9), "transition_f1": 0.01, "f1_50": 2.0}
    curve = Curve(2.5, (0.5, 0.9), ({**nothing, "mof_live": 90.0}, poor))
    assert choose(curve, 1)["fast"] == 0.9


def test_decisions_of_many_settings_at_once_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(1)
    for lag_s, others in ((0.0, ()), (0.6, (0.0, 0.3))):
        spec = small_spec()
        spec = type(spec)(**{**vars(spec), "lag_s": lag_s, "other_lags_s": others})
        logits = np.repeat(rng.normal(size=(16, spec.heads_width)), 15, axis=0) * 2
        logits += rng.normal(size=logits.shape)
        heads = logits.reshape(len(logits), -1, len(spec.labels))
        log_p = heads - np.log(np.exp(heads).sum(-1, keepdims=True))
        posteriors = log_p.reshape(len(logits), -1).astype(np.float32)
        many = [
            CONFIG.with_thresholds({"decide_hz": hz, "decide_at": at}) for hz in (1.2, 2.5, 5.0) for at in (0.5, 0.9)
        ]
        found = fit_patience.decide_all(posteriors, many, spec)
        assert found == [decode_posteriors(posteriors, config, spec) for config in many]
        assert sum(map(len, found)) > 30
