"""Lags of further heads in the spec: what is refused, and that specs without them are those of earlier versions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.spec import EncoderSpec, PyramidSpec
from tests.helpers.small_models import small_spec

SPEC = replace(small_spec(), lag_s=0.6)


@pytest.mark.parametrize(
    "lags_s",
    [
        (0.3, 0.0),  # not ascending
        (0.0, 0.0),
        (0.3, 0.34),  # the same tick
        (0.6,),  # that of the head `frame`
        (0.56,),
        (0.0, 0.01, 0.1),  # what is above 0 is one tick at least
        (-0.1,),
        (2.51,),  # more than half of lookback_s
        (float("nan"),),
        (float("inf"),),
        (True,),
        ("0.3",),
        (None,),
        tuple(0.1 * n for n in (0, 1, 2, 3, 4, 5, 7, 8, 9)),  # too many
    ],
)
def test_lags_that_cannot_be_are_one_error_that_names_the_field(lags_s: tuple[Any, ...]) -> None:
    with pytest.raises(EdgeHalError, match="other_lags_s"):
        replace(SPEC, other_lags_s=lags_s)
    body = json.loads(json.dumps({**SPEC.to_dict(), "other_lags_s": list(lags_s)}, allow_nan=True))
    with pytest.raises(EdgeHalError, match="other_lags_s"):
        PyramidSpec.from_dict(body)


@pytest.mark.parametrize("lags_s", [None, 3, "ab", {"a": 1}, [[0.1]]])
def test_lags_of_another_type_are_one_error(lags_s: Any) -> None:
    with pytest.raises(EdgeHalError):
        PyramidSpec.from_dict({**SPEC.to_dict(), "other_lags_s": lags_s})


def test_lags_widen_one_output_and_nothing_else() -> None:
    spec = replace(SPEC, other_lags_s=(0.0, 0.3, 1.2))
    assert (spec.lag_ticks, spec.other_lags_ticks, spec.heads_width) == (6, (0, 3, 12), 16)
    assert PyramidSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    added = set(spec.outputs(0, 2)) - set(SPEC.outputs(0, 2))
    assert [(tensor.name, tensor.shape) for tensor in added] == [("lagged", (2, 12))]
    assert spec.outputs(1) == SPEC.outputs(1) and spec.states(0) == SPEC.states(0)
    assert spec.ring_capacity == SPEC.ring_capacity and spec.receptive_field == SPEC.receptive_field


def test_a_spec_without_them_is_written_as_before() -> None:
    assert "other_lags_s" not in SPEC.to_dict()
    assert PyramidSpec.from_dict(SPEC.to_dict()) == SPEC and SPEC.heads_width == len(SPEC.labels)
    assert list(SPEC.to_dict()) == [
        *("model_hz", "labels", "front_end", "levels", "encoder", "background", "change_window_s"),
        *("lookback_s", "lag_s"),
    ]
    seeing = replace(SPEC, front_end=replace(SPEC.front_end, size=4), encoder=EncoderSpec(8, 8, 4))
    assert seeing.to_dict()["encoder"] == {"height": 8, "width": 8, "size": 4}
    assert list(seeing.to_dict()["front_end"]) == ["size", "window", "clip"]
    greyed = replace(seeing, encoder=EncoderSpec(8, 8, 4, moving=80))
    assert PyramidSpec.from_dict(json.loads(json.dumps(greyed.to_dict()))) == greyed
    assert greyed.fingerprint() != seeing.fingerprint()
    for moving in (-1, 7, 5000, 8.5, None):
        with pytest.raises(EdgeHalError):
            PyramidSpec.from_dict({**seeing.to_dict(), "encoder": {**seeing.to_dict()["encoder"], "moving": moving}})
