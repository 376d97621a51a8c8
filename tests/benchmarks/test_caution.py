"""The benchmark of the caution: its sets, its shares, and its tables against the runs that they come from."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import numpy as np
import pytest

from edge_hal.learning.hmm.trust import LEAST_SCORE
from edge_hal.metrics import transcript_of
from tests.helpers.processes import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"


@pytest.fixture(scope="module")
def caution() -> ModuleType:
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "benchmarks"))
        return importlib.import_module("caution")


def test_every_set_follows_its_lists_and_its_seed(caution: ModuleType) -> None:
    kinds = caution.KINDS | caution.UNSEEN
    assert len({key for _, key, _, _ in caution.generated()}) >= 60
    for name, kind in kinds.items():
        made, again, other = (caution.draw(name, kind, seed) for seed in (0, 0, 1))
        assert len(made.features) == kind.videos == len(made.lists)
        assert [x.tolist() for x in made.truth] == [x.tolist() for x in again.truth]
        np.testing.assert_array_equal(made.features[0], again.features[0])
        assert made.features[0].shape != other.features[0].shape or (made.features[0] != other.features[0]).any()
        assert [len(x) for x in made.features] == [len(y) for y in made.truth]
        follows = [transcript_of(y) == tuple(steps) for y, steps in zip(made.truth, made.lists, strict=True)]
        assert all(follows) == (not kind.wrong and not kind.shuffled), name
        share = np.mean(np.concatenate(made.truth) == 0)
        assert kind.idle_share is None or abs(share - kind.idle_share) < 0.1, name


def row(right: float, agreement: float = 0.9, order: float = 0.9, short_ends: float = 0.0) -> dict[str, float]:
    return {"right": right, "agreement": agreement, "order": order, "short_ends": short_ends}


def test_shares_count_the_wrong_and_the_right_runs_below_a_limit(caution: ModuleType) -> None:
    rows = [row(0.3, 0.2, 0.1), row(0.4, 0.4, 0.1), row(0.4, 0.6, 0.1), row(0.4, 0.8, 0.5, 0.9), row(0.2)]
    rows += [row(0.6, 0.1), row(0.8), row(0.9, 0.4, 0.5)]
    assert caution.shares(rows, 0.71) == (0.8, 0.5)
    assert caution.shares(rows, 0.68) == (0.8, 0.0)
    assert caution.fit(rows) == 0.7


def test_the_limit_and_the_tables_come_from_the_runs(caution: ModuleType) -> None:
    kept = json.loads((RESULTS / "caution.json").read_text())
    fitted = [run for key, run in kept.items() if run["half"] == caution.FIRST or key in caution.FITTED]
    assert caution.fit(fitted) == LEAST_SCORE
    assert (RESULTS / "caution.md").read_text() == caution.table(kept) + "\n"
