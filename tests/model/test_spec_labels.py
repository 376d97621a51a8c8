"""Labels of a spec: what is refused, so that an event that lists them all reaches its subscribers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.events import Start, encode
from edge_hal.runtime.network.endpoint import EVENT_BYTES
from edge_hal.spec_limits import LARGEST_LABELS, LARGEST_NAMES, LONGEST_LABEL
from tests.helpers.small_models import small_spec


@pytest.mark.parametrize("letter", ["a", "ä", '"', "\U0001f527"])
def test_all_labels_together_fit_into_an_event(letter: str) -> None:
    most = LARGEST_NAMES // (len(letter.encode()) * LONGEST_LABEL * 2)
    labels = tuple(f"{n:04d}{letter * (LONGEST_LABEL - 4)}" for n in range(most))
    spec = replace(small_spec(), labels=labels)
    start = Start("s", 0, seq=0, source="", labels=spec.labels, model_hz=1, bundle="", decoder="")
    assert len(encode(start)) < EVENT_BYTES
    many = tuple(f"{n:04d}{letter * (LONGEST_LABEL - 4)}" for n in range(LARGEST_LABELS))
    with pytest.raises(EdgeHalError) as told:
        replace(spec, labels=many)
    assert "bytes together" in told.value.why
