"""Dropout of a batch: which numbers are kept, and that processes keep those that one process keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from edge_hal.learning.networks.share import LEVELS, Rows
from edge_hal.learning.networks.world import ALONE, World

SHARES = st.floats(0.01, 0.99)


@given(share=SHARES, seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_share_asked_for_is_left_out_and_the_mean_stays(share: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.ones(4, 100, 101, requires_grad=True)
    with Rows(4, ALONE):
        seen = F.dropout(x, share)
    left_out = float((seen == 0).float().mean())
    assert left_out == pytest.approx(share, abs=0.02)
    scale = float(seen.detach().max())
    assert scale == pytest.approx(1 / (1 - share), rel=0.5 / LEVELS / (1 - share) + 1e-6)
    assert float(seen.detach().mean()) == pytest.approx(1, abs=6 * (share / (1 - share) / x.numel()) ** 0.5)
    seen.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, seen.detach())


@given(share=SHARES, seed=st.integers(0, 1000), count=st.integers(1, 5), processes=st.integers(2, 3))
@settings(max_examples=30, deadline=None)
def test_processes_keep_what_one_process_keeps(share: float, seed: int, count: int, processes: int) -> None:
    whole, parts = torch.randn(2 * count, 3, 7), []
    torch.manual_seed(seed)
    with Rows(count, ALONE):
        expected = [F.dropout(whole, share) for _ in range(2)]
    for rank in range(processes):
        rows = Rows(count, World(rank, processes))
        torch.manual_seed(seed)
        with rows:
            found = [F.dropout(rows.of(whole), share) for _ in range(2)]
        if not rows.idle:
            parts.append(found)
    for number, one in enumerate(expected):
        assert torch.equal(torch.cat([part[number] for part in parts]), one)


def test_two_layers_leave_out_different_numbers_and_evaluation_none() -> None:
    x = torch.ones(2, 500)
    with Rows(2, ALONE):
        assert not torch.equal(F.dropout(x, 0.5), F.dropout(x, 0.5))
        assert torch.equal(F.dropout(x, 0.5, training=False), x) and torch.equal(F.dropout(x, 0.0), x)
