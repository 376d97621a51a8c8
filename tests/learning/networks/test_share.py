"""What several processes do to a batch is what one process does: dropout, and batch normalisation with its gradient."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from edge_hal.learning.networks.share import Rows
from edge_hal.learning.networks.world import ALONE, World

SHARES = st.floats(0.01, 0.99)


@given(share=SHARES, seed=st.integers(0, 1000), count=st.integers(1, 5), processes=st.integers(2, 3))
@settings(max_examples=30, deadline=None)
def test_processes_keep_what_one_process_keeps(share: float, seed: int, count: int, processes: int) -> None:
    whole, parts = torch.randn(2 * count, 3, 7, generator=torch.Generator().manual_seed(seed)), []
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


@given(seed=st.integers(0, 1000), count=st.integers(2, 4), channels=st.integers(1, 5), height=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_batch_normalisation_and_its_gradient_are_those_of_torch(
    seed: int, count: int, channels: int, height: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return 1 + 2 * torch.randn(*shape, generator=generator)

    x, upstream = drawn(count, channels, height, 5), drawn(count, channels, height, 5)
    weight, bias, results = drawn(channels), drawn(channels), []
    for shared in (False, True):
        leaves = [each.clone().requires_grad_() for each in (x, weight, bias)]
        running = [torch.zeros(channels), torch.ones(channels)]
        with Rows(count, ALONE) if shared else nullcontext():
            seen = F.batch_norm(leaves[0], running[0], running[1], leaves[1], leaves[2], True, 0.1, 1e-5)
        (seen * upstream).sum().backward()
        results.append([seen.detach(), *running, *(leaf.grad for leaf in leaves)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
