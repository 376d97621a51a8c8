"""Every loss against a loop written from its definition; where gradients may flow; what padding must not change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from edge_hal.learning.networks.losses import (
    CONTRAST_TEMPERATURE,
    SMOOTH_LIMIT,
    change_loss,
    contrast_loss,
    distil_loss,
    frame_loss,
    smooth_loss,
    video_loss,
)
from edge_hal.model.latents import SPARSITY_OF_SLOW, Latents, LatentTerms, sparse_transitions
from edge_hal.model.pyramid import Outputs, Pyramid
from edge_hal.spec import LevelSpec
from tests.helpers.small_models import FLAT, THREE, TWO, random_model, small_spec

Array = NDArray[np.float64]
ACTIONS, WIDTH = 4, 5
seeds = st.integers(0, 2**32 - 1)
lengths = st.lists(st.integers(1, 9), min_size=1, max_size=4)


class Batch:
    """Random rows of the given lengths, padded to the longest with what must never be looked at."""

    def __init__(self, seed: int, lengths: list[int], tail: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.lengths, count, longest = lengths, len(lengths), max(lengths) + tail
        self.exists = torch.arange(longest) < torch.tensor(lengths)[:, None]

        def draw(*shape: int) -> Tensor:
            rows = [torch.from_numpy(rng.normal(size=(n, *shape)) * 3) for n in lengths]
            filled = torch.full((count, longest, *shape), 50.0, dtype=torch.float64)
            for row, values in zip(filled, rows, strict=True):
                row[: len(values)] = values
            return filled

        self.logits, self.teacher = draw(ACTIONS), torch.log_softmax(draw(ACTIONS), -1)
        self.features, self.slow, self.fast = draw(WIDTH), draw(WIDTH), draw(WIDTH)
        self.change = draw()
        self.target = torch.from_numpy(rng.integers(0, 2, (count, longest)).astype(np.float64))
        labels = torch.from_numpy(rng.integers(0, ACTIONS, (count, longest)))
        self.labels = labels.masked_fill(~self.exists, -1)
        self.tokens = torch.from_numpy(rng.normal(size=(count, ACTIONS, WIDTH)))
        self.classes = torch.from_numpy(rng.normal(size=(count, ACTIONS)) * 3)

    def rows(self, tensor: Tensor) -> list[Array]:
        return [x[:n].numpy() for x, n in zip(tensor, self.lengths, strict=True)]


def log_softmax(x: Array) -> Array:
    return np.asarray(x - np.log(np.exp(x - x.max()).sum()) - x.max())


def bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x))


@settings(deadline=None, max_examples=40)
@given(seeds, lengths, st.integers(0, 5))
def test_losses_equal_their_definitions(seed: int, lengths: list[int], tail: int) -> None:
    b = Batch(seed, lengths, tail)
    frames = [
        -log_softmax(x)[y]
        for logits, labels in zip(b.rows(b.logits), b.rows(b.labels), strict=True)
        for x, y in zip(logits, labels, strict=True)
    ]
    assert frame_loss(b.logits, b.labels).value.item() == pytest.approx(np.mean(frames))

    divergences = [
        sum(math.exp(p) * (p - q) for p, q in zip(known, log_softmax(x), strict=True))
        for teacher, logits in zip(b.rows(b.teacher), b.rows(b.logits), strict=True)
        for known, x in zip(teacher, logits, strict=True)
    ]
    assert distil_loss(b.logits, b.teacher, b.exists).value.item() == pytest.approx(np.mean(divergences))
    assert min(divergences) > -1e-9 and distil_loss(b.teacher, b.teacher, b.exists).value.item() == pytest.approx(0)

    steps = [
        min(abs(after - before), SMOOTH_LIMIT) ** 2
        for logits in b.rows(b.logits)
        for one, two in itertools.pairwise(logits)
        for before, after in zip(log_softmax(one), log_softmax(two), strict=True)
    ]
    assert smooth_loss(b.logits, b.exists).value.item() == pytest.approx(np.mean(steps) if steps else 0.0)

    changes = [
        bce(x, y)
        for logits, targets in zip(b.rows(b.change), b.rows(b.target), strict=True)
        for x, y in zip(logits, targets, strict=True)
    ]
    assert change_loss(b.change, b.target, b.exists).value.item() == pytest.approx(np.mean(changes))

    present = (b.classes > 0).to(b.classes.dtype)
    expected = np.mean([bce(x, float(x > 0)) for x in b.classes.flatten().tolist()])
    assert video_loss(b.classes, present).value.item() == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(seeds, lengths)
def test_contrast_equals_its_definition(seed: int, lengths: list[int]) -> None:
    """For each action of a video: cross-entropy of its mean feature's cosines with all class tokens."""
    b = Batch(seed, lengths)
    videos = []
    for tokens, features, labels in zip(b.tokens.numpy(), b.rows(b.features), b.rows(b.labels), strict=True):
        terms = []
        for action in sorted(set(labels.tolist())):
            mean = features[labels == action].mean(0)
            cosines = np.array([unit(mean) @ unit(token) for token in tokens]) / CONTRAST_TEMPERATURE
            terms.append(-log_softmax(cosines)[action])
        videos.append(np.mean(terms))
    assert contrast_loss(b.tokens, b.features, b.labels).value.item() == pytest.approx(np.mean(videos))


def sparse_by_loop(slow: list[Array], fast: list[Array]) -> float:
    def rate(row: Array) -> float:
        steps = np.array([np.linalg.norm(unit(b) - unit(a)) for a, b in itertools.pairwise(row)])
        return float((np.exp(steps) / np.exp(steps).sum() * steps).sum()) if steps.size else 0.0

    return float(
        np.mean([max(0.0, rate(c) - rate(v)) + SPARSITY_OF_SLOW * rate(c) for c, v in zip(slow, fast, strict=True)])
    )


@settings(deadline=None, max_examples=60)
@given(seeds, lengths, st.integers(0, 4))
def test_sparse_transitions_equal_their_definition(seed: int, lengths: list[int], tail: int) -> None:
    b = Batch(seed, lengths, tail)
    got = sparse_transitions(b.slow, b.fast, b.exists).value.item()
    assert got == pytest.approx(sparse_by_loop(b.rows(b.slow), b.rows(b.fast)), abs=1e-5)


def test_the_sparse_term_wants_the_slow_latent_to_be_the_slower_one() -> None:
    rng = np.random.default_rng(0)
    still = torch.from_numpy(rng.normal(size=(1, 1, WIDTH))).expand(1, 20, WIDTH)
    restless = torch.from_numpy(rng.normal(size=(1, 20, WIDTH)))
    exists = torch.ones(1, 20, dtype=torch.bool)
    assert sparse_transitions(still, restless, exists).value.item() == pytest.approx(0, abs=1e-5)
    reverse, both = (
        sparse_transitions(restless, still, exists).value,
        sparse_transitions(restless, restless, exists).value,
    )
    assert reverse.item() == pytest.approx((1 + SPARSITY_OF_SLOW) / SPARSITY_OF_SLOW * both.item(), rel=1e-4)
    scaled = sparse_transitions(7 * restless, restless, exists).value  # unit norm: size is no change
    assert scaled.item() == pytest.approx(both.item())


LOSSES: dict[str, Callable[[Batch], Tensor]] = {
    "frame": lambda b: frame_loss(b.logits, b.labels).value,
    "distil": lambda b: distil_loss(b.logits, b.teacher, b.exists).value,
    "smooth": lambda b: smooth_loss(b.logits, b.exists).value,
    "change": lambda b: change_loss(b.change, b.target, b.exists).value,
    "contrast": lambda b: contrast_loss(b.tokens, b.features, b.labels).value,
    "sparse": lambda b: sparse_transitions(b.slow, b.fast, b.exists).value,
}


def learnable(b: Batch) -> list[Tensor]:
    for tensor in (b.logits, b.change, b.features, b.slow, b.fast):
        tensor.requires_grad_()
    return [b.logits, b.change, b.features, b.slow, b.fast]


@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_neither_a_loss_nor_a_gradient_and_gets_none(name: str) -> None:
    for seed in range(5):
        bare, padded = Batch(seed, [4, 1, 6]), Batch(seed, [4, 1, 6], tail=7)
        padded.target[:, :6] = bare.target
        padded.labels[:, :6] = bare.labels
        padded.tokens = bare.tokens
        results = []
        for b in (bare, padded):
            inputs = learnable(b)
            loss = LOSSES[name](b)
            loss.backward()
            for x in inputs:
                if x.grad is not None:
                    assert torch.isfinite(x.grad).all() and not x.grad[~b.exists].any()
            results.append((loss.detach(), [None if x.grad is None else x.grad[:, :6] for x in inputs]))
        (one, grads), (two, grads_padded) = results
        torch.testing.assert_close(one, two)
        assert any(g is not None and g.any() for g in grads)
        for g, h in zip(grads, grads_padded, strict=True):
            assert (g is None) == (h is None)
            if g is not None:
                torch.testing.assert_close(g, h)


@pytest.mark.parametrize("name", LOSSES)
def test_where_nothing_exists_a_loss_is_zero_and_not_nan(name: str) -> None:
    b = Batch(0, [3, 2])
    b.exists[:] = False
    b.labels[:] = -1
    inputs = learnable(b)
    loss = LOSSES[name](b) + 0 * sum(x.sum() for x in inputs)
    loss.backward()
    assert loss.item() == 0 and all(torch.isfinite(x.grad).all() for x in inputs if x.grad is not None)


def test_class_tokens_teach_and_do_not_learn_from_the_contrast() -> None:
    b = Batch(1, [6, 4])
    b.tokens.requires_grad_()
    b.features.requires_grad_()
    contrast_loss(b.tokens, b.features, b.labels).value.backward()
    assert b.tokens.grad is None and b.features.grad is not None and b.features.grad.any()


def test_smoothing_pulls_a_tick_to_the_one_before_it_and_not_back() -> None:
    logits = torch.randn(1, 2, ACTIONS, dtype=torch.float64, requires_grad=True)
    smooth_loss(logits, torch.ones(1, 2, dtype=torch.bool)).value.backward()
    assert logits.grad is not None and not logits.grad[:, 0].any() and logits.grad[:, 1].any()
    far = torch.tensor([[[90.0, 0.0], [0.0, 90.0]]], requires_grad=True)  # a jump beyond the limit
    smooth_loss(far, torch.ones(1, 2, dtype=torch.bool)).value.backward()
    assert far.grad is not None and not far.grad.any()


# Latents -------------------------------------------------------------------------------------


def outputs_of(pyramid: Pyramid, rows: list[Tensor]) -> Outputs:
    x = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=9.0)
    exists = torch.arange(x.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    outputs: Outputs = pyramid(x, exists)
    return outputs


def total(terms: LatentTerms) -> Tensor:
    return sum((mean.value for mean in (*terms.reconstruction, *terms.kl, terms.sparse)), torch.zeros(()))


def test_the_latents_equal_their_definition() -> None:
    """Reconstruction and KL as means over tokens; the fast latent averaged over the slow one's bins."""
    torch.manual_seed(0)
    spec = small_spec(TWO)
    pyramid, _ = random_model(spec)
    latents = Latents(spec, size=6).eval()
    with torch.no_grad():
        outputs = outputs_of(pyramid, [torch.randn(40, 9), torch.randn(24, 9)])
        terms = latents(outputs)
        error = kl = 0.0
        means = []
        for part, level in ((latents.fast, 0), (latents.slow, 1)):
            rows, errors, kls = [], [], []
            for i, ticks in enumerate((40, 24)):
                n = ticks // spec.period(level)
                mu, logvar = part.posterior(outputs.trunks[level][i, :n]).chunk(2, -1)
                errors += ((part.decoder(mu) - outputs.entries[level][i, :n]) ** 2).mean(-1).tolist()
                kls += (0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(-1)).tolist()
                rows.append(mu.double().numpy())
            error, kl = error + np.mean(errors), kl + np.mean(kls)
            means.append(rows)
        fast = [row.reshape(-1, spec.period(1), 6).mean(1) for row in means[0]]
    assert sum(mean.value.item() for mean in terms.reconstruction) == pytest.approx(error, rel=1e-4)
    assert sum(mean.value.item() for mean in terms.kl) == pytest.approx(kl, rel=1e-4)
    assert terms.sparse.value.item() == pytest.approx(sparse_by_loop(means[1], fast), abs=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("levels", [FLAT, TWO, THREE], ids=["flat", "two", "three"])
def test_the_sparse_term_of_a_row_does_not_depend_on_the_batch(levels: tuple[LevelSpec, ...], causal: bool) -> None:
    """Rows end inside a bin: neither that bin nor the padding after it may have a say."""
    torch.manual_seed(1)
    spec = small_spec(levels)
    pyramid, _ = random_model(spec, causal=causal)
    latents = Latents(spec, size=6).eval()
    rows = [torch.randn(n, 9) for n in (31, 50, 74, 13)]
    with torch.no_grad():
        together = latents(outputs_of(pyramid, rows)).sparse.value
        alone = [latents(outputs_of(pyramid, [row])).sparse.value for row in rows]
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-4, atol=1e-6)


def test_targets_are_not_pulled_towards_their_reconstruction() -> None:
    spec = small_spec(TWO)
    torch.manual_seed(2)
    latents = Latents(spec)
    trunks = tuple(torch.randn(2, n, w, requires_grad=True) for n, w in ((16, 8), (4, 12)))
    entries = tuple(torch.randn(2, n, w, requires_grad=True) for n, w in ((16, 8), (4, 12)))
    valid = tuple(torch.ones(2, n, dtype=torch.bool) for n in (16, 4))
    nothing = torch.zeros(0)
    outputs = Outputs(nothing, nothing, None, None, None, None, (), trunks, entries, valid)
    terms = latents(outputs)
    total(terms).backward()
    assert all(x.grad is None for x in entries)
    assert all(x.grad is not None and x.grad.any() for x in trunks)


@pytest.mark.parametrize("levels", [TWO, THREE], ids=["two", "three"])
def test_a_piece_shorter_than_a_bin_gives_no_nan(levels: tuple[LevelSpec, ...]) -> None:
    """A crop at the end of a video may be that short, alone in the last batch of an epoch."""
    spec = small_spec(levels)
    pyramid, _ = random_model(spec)
    latents = Latents(spec)
    outputs = outputs_of(pyramid, [torch.randn(1, 9)])
    terms = latents(outputs)
    assert outputs.action is not None and outputs.action.shape[1] == 0
    loss = total(terms) + frame_loss(outputs.action, torch.zeros(1, 0).long()).value
    loss = loss + smooth_loss(outputs.frame, torch.ones(1, 1, dtype=torch.bool)).value
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in pyramid.parameters() if p.grad is not None)
