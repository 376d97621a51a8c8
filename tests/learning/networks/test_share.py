"""What several processes do to a batch is what one process does: dropout, and batch normalisation with its gradient."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from edge_hal.learning.networks.share import Rows
from edge_hal.learning.networks.world import ALONE, World

CPU = torch.device("cpu")
SHARES = st.floats(0.01, 0.99)


@given(share=SHARES, seed=st.integers(0, 1000), count=st.integers(1, 5), processes=st.integers(2, 3))
@settings(max_examples=30, deadline=None)
def test_processes_keep_what_one_process_keeps(share: float, seed: int, count: int, processes: int) -> None:
    whole, parts = torch.randn(2 * count, 3, 7, generator=torch.Generator().manual_seed(seed)), []
    for world in (ALONE, *(World(rank, processes) for rank in range(processes))):
        torch.manual_seed(seed)
        rows = Rows(count, world, CPU)
        with rows:
            found = [F.dropout(rows.of(whole), share) for _ in range(2)] + [torch.randn_like(rows.of(whole))]
        if not rows.idle:
            parts.append(found)
    for one, *shares in zip(*parts, strict=True):
        assert torch.equal(torch.cat(shares), one)


def test_dropout_keeps_its_share_and_the_mean_and_no_two_rows_alike() -> None:
    ones = torch.ones(8, 50, 50)
    torch.manual_seed(0)
    with Rows(len(ones), ALONE, CPU):
        first, second = F.dropout(ones, 0.3), F.dropout(ones, 0.3)
        assert torch.equal(F.dropout(ones, 0.3, training=False), ones)
    for kept in (first, second):
        assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
        assert abs(float((kept == 0).float().mean()) - 0.3) < 0.01
    masks = torch.cat([first, second]).flatten(1)
    assert len(masks.unique(dim=0)) == len(masks)


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
        normalised = Rows(count, ALONE, CPU)._normalised if shared else F.batch_norm
        seen = normalised(leaves[0], running[0], running[1], leaves[1], leaves[2], True, 0.1, 1e-5)
        (seen * upstream).sum().backward()
        results.append([seen.detach(), *running, *(leaf.grad for leaf in leaves)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
