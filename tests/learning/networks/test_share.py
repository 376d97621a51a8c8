"""Dropout of a batch: several processes keep the numbers that one process keeps."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from edge_hal.learning.networks.share import Rows
from edge_hal.learning.networks.world import World

SHARES = st.floats(0.01, 0.99)


@given(share=SHARES, seed=st.integers(0, 1000), count=st.integers(1, 5), processes=st.integers(2, 3))
@settings(max_examples=30, deadline=None)
def test_processes_keep_what_one_process_keeps(share: float, seed: int, count: int, processes: int) -> None:
    whole, parts = torch.randn(2 * count, 3, 7), []
    torch.manual_seed(seed)
    expected = [F.dropout(whole, share) for _ in range(2)]
    for rank in range(processes):
        rows = Rows(count, World(rank, processes))
        torch.manual_seed(seed)
        with rows:
            found = [F.dropout(rows.of(whole), share) for _ in range(2)]
        if not rows.idle:
            parts.append(found)
    for number, one in enumerate(expected):
        torch.testing.assert_close(torch.cat([part[number] for part in parts]), one)
