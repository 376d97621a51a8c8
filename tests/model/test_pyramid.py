from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.model.attention import Block
from edge_hal.model.encoder import FrameEncoder, augmentation, augmented
from edge_hal.model.front_end import STILL, FrontEnd
from edge_hal.model.one_pass import one_pass
from edge_hal.model.step import TorchEngine
from edge_hal.runtime.stream.pyramid import PyramidStream
from edge_hal.spec import MASKED, EncoderSpec, FrontEndSpec, LevelSpec, PyramidSpec
from tests.helpers.small_models import FLAT, THREE, TWO, random_input, random_model, small_spec

EVEN = (LevelSpec(1, 4, 8, 2, 1), LevelSpec(1, 3, 12, 3, 1), LevelSpec(3, 3, 8, 2, 1), LevelSpec(1, 2, 8, 2, 1))
"""Levels that keep the rate of the one below."""
LAGGED = dataclasses.replace(small_spec(TWO), lag_s=0.3, other_lags_s=(0.0, 0.6))
SPECS = {"flat": small_spec(FLAT), "two": small_spec(TWO), "three": small_spec(THREE), "even": small_spec(EVEN),
         "lagged": LAGGED, "baseline": small_spec(TWO, baseline=9)}  # fmt: skip
LONG = 10_000
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def torch_stream(spec: PyramidSpec, seed: int = 0, dtype: torch.dtype = torch.float64) -> PyramidStream:
    pyramid, front_end = random_model(spec, seed)
    engines = [TorchEngine(pyramid, front_end, level, dtype) for level in range(len(spec.levels))]
    return PyramidStream(spec, engines, np.float64 if dtype == torch.float64 else np.float32)


def close(found: Any, expected: Any, name: str = "", atol: float = 1e-9) -> None:
    assert found.shape == expected.shape, name
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)


def assert_kept_outputs_equal(stream: PyramidStream, expected: Any) -> None:
    """Whatever the ring still holds of every level is what the one pass gave there."""
    for level, outputs in enumerate(expected.outputs):
        for name, value in outputs.items():
            kept = stream.ring.last(level, name, 10**6)
            tokens = stream.ring.count(level)
            close(kept, value[tokens - len(kept) : tokens], f"level {level} {name}")


# --- (a) causality ------------------------------------------------------------------------------


@each_spec
def test_future_input_changes_no_past_output(spec: Any) -> None:
    model, x = random_model(spec), random_input(150)
    before = one_pass(*model, x)
    for cut in (1, 7, 48, 101):
        changed = x.copy()
        changed[cut:] = 50 * np.random.default_rng(cut).normal(size=changed[cut:].shape)
        after = one_pass(*model, changed)
        assert np.abs(after.outputs[0]["frame"] - before.outputs[0]["frame"])[cut:].max() > 1e-3
        for level, outputs in enumerate(before.outputs):
            tokens = cut // spec.period(level)
            for name, value in outputs.items():
                np.testing.assert_array_equal(after.outputs[level][name][:tokens], value[:tokens])


# --- (b) any chunking equals the one pass ----------------------------------------------------------


@each_spec
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_chunking_equals_the_one_pass(spec: Any, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 5))
    pieces = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    total = sum(pieces)
    x = random_input(total, seed=seed)
    expected = one_pass(*random_model(spec, seed), x)
    stream, done = torch_stream(spec, seed), 0
    for piece in pieces:
        stream.push(x[done : done + piece].astype(np.float64), range(done, done + piece))
        done += piece
        for name, value in expected.states(done).items():
            close(stream.states()[name], value, f"{name} after {done}")
        assert_kept_outputs_equal(stream, expected)


def test_a_stream_of_ten_thousand_ticks_equals_the_one_pass() -> None:
    spec = SPECS["two"]
    x = random_input(LONG + 3, seed=4)
    expected = one_pass(*random_model(spec, 4), x)
    stream = torch_stream(spec, 4)
    for start in range(0, len(x), 32):
        stream.push(x[start : start + 32].astype(np.float64), range(start, min(start + 32, len(x))))
        if start % (32 * 20) == 0:
            assert_kept_outputs_equal(stream, expected)
    assert_kept_outputs_equal(stream, expected)
    states = stream.states()
    for name, value in expected.states(len(x)).items():
        close(states[name], value, name)


# --- (c) nothing drifts -----------------------------------------------------------------------------


@each_spec
def test_after_a_receptive_field_a_fresh_stream_agrees_with_an_old_one(spec: Any) -> None:
    period, reach = spec.period(spec.top), spec.receptive_field
    start = 9 * period
    x: Any = random_input(start + reach + 3 * period).astype(np.float64)
    old, fresh = torch_stream(spec), torch_stream(spec)
    old.push(x, range(len(x)))
    fresh.push(x[start:], range(start, len(x)))
    newest = 3 * period + 1  # ticks whose receptive field begins at `start` or later
    for name in ("frame", "change"):
        close(fresh.ring.last(0, name, newest), old.ring.last(0, name, newest), name)
    for name, value in old.states().items():
        close(fresh.states()[name], value, name)


@each_spec
def test_the_receptive_field_is_not_one_tick_longer_than_said(spec: Any) -> None:
    """And not shorter: some output still feels the oldest tick it may feel."""
    period, reach = spec.period(spec.top), spec.receptive_field
    model = random_model(spec)
    x = random_input(reach + 3 * period)
    felt = set()
    for moved in range(2 * period):
        changed = x.copy()
        changed[moved] += 100
        difference = np.abs(
            one_pass(*model, changed).outputs[0]["frame"] - one_pass(*model, x).outputs[0]["frame"]
        ).max(axis=1)
        last = int(np.flatnonzero(difference).max())
        assert last - moved < reach
        felt.add(last - moved)
    assert max(felt) >= reach - spec.front_end.window  # the oldest ticks weigh little, but something is left


# --- (d) constant work --------------------------------------------------------------------------------


@each_spec
def test_work_and_state_are_constant(spec: Any) -> None:
    stream = torch_stream(spec)
    x: Any = random_input(4 * spec.period(spec.top) * 5).astype(np.float64)
    shapes = {name: value.shape for name, value in stream.states().items()}
    assert shapes == {t.name: t.shape for level in range(len(spec.levels)) for t in spec.states(level)}
    assert 4 * sum(math.prod(shape) for shape in shapes.values()) == spec.state_bytes
    done = 0
    for _ in range(5):
        before = list(stream.steps)
        for _ in range(4 * spec.period(spec.top)):
            stream.push(x[done : done + 1], [done])
            done += 1
        spent = [now - then for now, then in zip(stream.steps, before, strict=True)]
        assert spent == [4 * spec.period(spec.top) // spec.period(level) for level in range(len(spec.levels))]
        assert {name: value.shape for name, value in stream.states().items()} == shapes


# --- attention ------------------------------------------------------------------------------------------


def naive_attention(
    block: Block, x: torch.Tensor, valid: torch.Tensor, classes: torch.Tensor | None
) -> tuple[Any, Any]:
    """The same with one full T x T mask and explicit loops over heads."""
    batch, length, width = x.shape
    depth = width // block.heads
    tokens = x if classes is None else torch.cat([x, classes], 1)
    q, k, v = block.qkv(block.norm1(tokens)).split(width, -1)
    count = tokens.shape[1]
    bias = torch.zeros(batch, block.heads, count, count, dtype=x.dtype)
    for i in range(length):
        for j in range(length):
            age = i - j
            low = 0 if block.causal else 1 - block.window
            inside = low <= age < block.window
            bias[:, :, i, j] = block.age_bias[:, age - low] if inside else float("-inf")
    for b in range(batch):
        bias[b, :, :, :length].masked_fill_(~valid[b], float("-inf"))
    mixed = torch.zeros_like(tokens)
    for head in range(block.heads):
        part = slice(head * depth, (head + 1) * depth)
        weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / depth**0.5 + bias[:, head], -1)
        mixed[..., part] = weights @ v[..., part]
    tokens = tokens + block.out(mixed)
    tokens = tokens + block.mlp(block.norm2(tokens))
    return tokens[:, :length], tokens[:, length:]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 4, 5, 13, 20])
@pytest.mark.parametrize("with_classes", [False, True])
def test_banded_attention_equals_the_full_mask(causal: bool, length: int, with_classes: bool) -> None:
    torch.manual_seed(length)
    block = Block(LevelSpec(1, 5, 12, 3, 1), causal=causal).double().eval()
    torch.nn.init.normal_(block.age_bias)
    x = torch.randn(2, length, 12, dtype=torch.float64)
    valid = torch.arange(length) < torch.tensor([[length], [max(1, length - 3)]])
    classes = torch.randn(2, 4, 12, dtype=torch.float64) if with_classes else None
    with torch.no_grad():
        found, found_classes = block(x, valid, classes)
        expected, expected_classes = naive_attention(block, x, valid, classes)
    torch.testing.assert_close(found[valid], expected[valid], rtol=0, atol=1e-12)
    if with_classes:
        torch.testing.assert_close(found_classes, expected_classes, rtol=0, atol=1e-12)


def test_the_mask_is_the_one_of_the_state() -> None:
    block = Block(LevelSpec(1, 5, 12, 3, 1), causal=True)
    band = block.step_bias(3)
    assert band.shape == (3, 3, 7) and (band == MASKED).sum() == 3 * (0 + 1 + 2 + 2 + 1 + 0)


# --- batches and the teacher ----------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
@each_spec
def test_padding_a_batch_changes_nothing(spec: Any, causal: bool) -> None:
    pyramid, _ = random_model(spec, causal=causal)
    pyramid = pyramid.double()
    lengths = [61, 37, spec.period(spec.top)]
    rows = [torch.randn(n, spec.front_end.features, dtype=torch.float64) for n in lengths]
    x = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=7.0)
    valid = torch.arange(x.shape[1]) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        together = pyramid(x, valid)
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            alone = pyramid(row[None])
            close(together.frame[index, :length].numpy(), alone.frame[0].numpy())
            close(together.change[index, :length].numpy(), alone.change[0].numpy())
            if alone.action is not None:
                count = alone.action.shape[1]
                close(together.action[index, :count].numpy(), alone.action[0].numpy())
            if not causal:
                close(together.classes[index].numpy(), alone.classes[0].numpy())


@pytest.mark.parametrize("name", ["two", "three"])
def test_the_teacher_sees_its_own_bin_and_what_comes_after(name: str) -> None:
    spec = SPECS[name]
    pyramid, _ = random_model(spec, causal=False)
    x = torch.randn(1, 60, spec.front_end.features)
    with torch.no_grad():
        before = pyramid(x)
        assert before.classes.shape == (1, len(spec.labels))
        assert before.action.shape[1] == -(-60 // spec.period(spec.top))
        stride = spec.first_stride
        for token in range(0, 40, 7):
            end = (token // stride + 1) * stride - 1  # of the bin that `token` lies in
            far = x.clone()
            far[0, max(end, token + spec.levels[0].window)] += 30
            assert not torch.equal(pyramid(far).frame[0, token], before.frame[0, token])


def test_a_causal_model_has_neither_class_tokens_nor_an_unfinished_bin() -> None:
    pyramid, _ = random_model(SPECS["three"])
    made = pyramid(torch.randn(1, 35, SPECS["three"].front_end.features))
    assert made.classes is None and made.action.shape[1] == 35 // 12


# --- engine, front end, encoder ---------------------------------------------------------------------------


def test_a_torch_engine_leaves_the_model_as_it_was() -> None:
    spec = SPECS["two"]
    pyramid, front_end = random_model(spec)
    before = {key: value.clone() for key, value in pyramid.state_dict().items()}
    engine = TorchEngine(pyramid, front_end, 0, torch.float64)
    inputs = {tensor.name: np.ones(tensor.shape) for tensor in spec.inputs(0, 1)}
    first = engine.step(inputs)["frame"].copy()
    assert front_end.mean.dtype == torch.float32
    for key, value in pyramid.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[key])
    with torch.no_grad():
        for parameter in pyramid.parameters():
            parameter.zero_()
    engine.reset()
    np.testing.assert_array_equal(engine.step(inputs)["frame"], first)


@pytest.mark.parametrize(("window", "baseline"), [(1, 0), (4, 0), (1, 2), (4, 11), (4, 90)])
def test_the_front_end_is_what_it_says_in_one_pass_and_in_blocks(window: int, baseline: int) -> None:
    front_end = FrontEnd(FrontEndSpec(3, window, clip=2.0, baseline=baseline)).double()
    front_end.fit(torch.tensor([0.5, -1.0, 0.0]), torch.tensor([2.0, 0.5, 0.0]))
    x = torch.from_numpy(random_input(150, seed=1)).double()
    z = ((x - front_end.mean) * front_end.scale).clamp(-2, 2)
    assert front_end.scale[2] == 0  # a constant input is ignored
    if baseline:
        past = [z[max(0, t - baseline + 1) : t + 1] for t in range(len(z))]
        relative = [(z[t] - p.mean(0)) / torch.sqrt(p.var(0, correction=0) + STILL) for t, p in enumerate(past)]
        z = torch.stack(relative).clamp(-2, 2)
        assert not z[0].any()
    expected = []
    for t in range(len(x)):
        recent, before = z[max(0, t - window + 1) : t + 1], z[max(0, t - 2 * window + 1) : max(0, t - window + 1)]
        mean = recent.mean(0)
        change = mean - before.mean(0) if len(before) else torch.zeros(3)
        deviation = torch.sqrt(((recent - mean) ** 2).mean(0) + 1e-2)
        expected.append(torch.cat([mean, change, deviation]))
    for block in (1, 7, 64, 150):
        torch.testing.assert_close(front_end(x, block), torch.stack(expected), rtol=0, atol=1e-6)
    assert front_end(x[:0]).shape == (0, 9)


def test_a_baseline_takes_off_what_does_not_change() -> None:
    """Another bench and another light, on the average: an offset of the vectors, and a factor. The offset has no
    influence once it fills the window, a factor has little."""
    front_end = FrontEnd(FrontEndSpec(6, 5, clip=1e3, baseline=40))
    x = torch.from_numpy(random_input(400, 6, seed=2))
    offset = torch.from_numpy(np.random.default_rng(3).normal(0, 20, 6).astype(np.float32))
    plain = front_end(x)
    torch.testing.assert_close(front_end(x + offset), plain, rtol=0, atol=2e-2)
    jump = torch.cat([x[:200], x[200:] + offset])
    settled = 200 + front_end.spec.history + front_end.spec.baseline
    torch.testing.assert_close(front_end(jump)[settled:], plain[settled:], rtol=0, atol=2e-2)
    assert (front_end(jump)[200:210] - plain[200:210]).abs().max() > 1
    assert (front_end(2 * x) - plain)[40:].abs().mean() < 0.2 * plain[40:].abs().mean()


def test_a_picture_that_stands_still_has_no_features() -> None:
    front_end = FrontEnd(FrontEndSpec(4, 5, baseline=40))
    still = torch.from_numpy(0.02 * np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)) + 3
    mean, change, deviation = front_end(still)[60:].chunk(3, 1)
    assert max(part.abs().max() for part in (mean, change, deviation - 0.1)) < 0.2


@pytest.mark.parametrize(("baseline", "good"), [(0, True), (1, False), (2, True), (-1, False), (5000, False)])
def test_a_table_says_which_baselines_there_are(baseline: int, good: bool) -> None:
    if good:
        spec = small_spec(TWO, baseline=baseline)
        assert PyramidSpec.from_dict(spec.to_dict()) == spec
        assert ("baseline" in spec.to_dict()["front_end"]) == (baseline > 0)  # fingerprints of before stay
        return
    with pytest.raises(EdgeHalError, match=r"front_end\.baseline"):
        small_spec(TWO, baseline=baseline)


def test_the_encoder_gives_each_picture_its_vector_whatever_the_batch() -> None:
    torch.manual_seed(0)
    spec = EncoderSpec(height=21, width=30, size=5)
    encoder = FrameEncoder(spec)
    pictures = torch.randint(0, 256, (4, 21, 30, 3), dtype=torch.uint8)
    encoder.train()
    encoder(pictures)  # running statistics move
    encoder.eval()
    with torch.no_grad():
        together = encoder(pictures)
        for picture, vector in zip(pictures, together, strict=True):
            torch.testing.assert_close(encoder(picture)[0], vector, rtol=0, atol=1e-5)
        assert not torch.allclose(together[0], together[1], atol=1e-3)
    moved = []
    for _ in range(2):
        torch.manual_seed(1)
        moved.append(augmented(pictures, *augmentation(pictures, torch.Generator().manual_seed(1))))
    assert moved[0].shape == pictures.shape and moved[0].dtype == torch.uint8 and torch.equal(*moved)
    assert (moved[0].float() - pictures.float()).abs().mean() > 1


@pytest.mark.parametrize(("height", "width", "coarse", "cells"), [(21, 30, 4, (4, 6)), (48, 20, 6, (6, 2))])
def test_a_coarse_copy_follows_what_the_encoder_learned(
    height: int, width: int, coarse: int, cells: tuple[int, int]
) -> None:
    spec = EncoderSpec(height, width, 5, coarse=coarse)
    torch.manual_seed(0)
    encoder = FrameEncoder(spec).eval()
    pictures = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8)
    with torch.no_grad():
        vectors = encoder(pictures)
        pooled = torch.nn.functional.adaptive_avg_pool2d(pictures.permute(0, 3, 1, 2) / 127.5 - 1, cells)
    assert vectors.shape == (3, spec.vector_size) == (3, 5 + 3 * cells[0] * cells[1])
    torch.testing.assert_close(vectors[:, 5:], pooled.flatten(1))
    plain = FrameEncoder(dataclasses.replace(spec, coarse=0))
    plain.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(plain.eval()(pictures), vectors[:, :5])


def test_the_model_leaves_out_the_numbers_that_it_does_not_read() -> None:
    """They are not even scaled, so no number that the model computes depends on them."""
    read = FrontEndSpec(4, 3)
    spec = dataclasses.replace(read, size=7, unread=3)
    assert spec.states == read.states and spec.features == read.features
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32))
    assert torch.equal(FrontEnd(spec)(rows), FrontEnd(read)(rows[:, :4]))


def test_a_table_without_a_coarse_copy_is_that_of_earlier_versions() -> None:
    plain = small_spec(size=4, encoder=EncoderSpec(8, 12, 4))
    assert "coarse" not in plain.to_dict()["encoder"] and "unread" not in plain.to_dict()["front_end"]
    seen = dataclasses.replace(plain.front_end, size=4 + 3 * 2 * 3, unread=3 * 2 * 3)
    spec = dataclasses.replace(plain, front_end=seen, encoder=EncoderSpec(8, 12, 4, coarse=2))
    assert PyramidSpec.from_dict(spec.to_dict()) == spec and spec.fingerprint() != plain.fingerprint()
    for wrong in (dataclasses.replace(seen, size=4, unread=0), dataclasses.replace(seen, unread=21)):
        with pytest.raises(EdgeHalError, match=r"size|unread"):
            dataclasses.replace(plain, front_end=wrong, encoder=spec.encoder)


def test_presets_fit_the_table_and_keep_their_promises() -> None:
    from edge_hal.config import load_config

    for preset, limit_s in (("tiny", 15), ("kinematics", 60), ("jetson", 60)):
        model = load_config(preset).model
        spec = model.spec(("a", "b"), None, 8)
        assert spec.warm_s < limit_s
        assert PyramidSpec.from_dict(spec.to_dict()) == spec
        assert dataclasses.replace(spec, lookback_s=2.0).fingerprint() != spec.fingerprint()


@pytest.mark.parametrize("spec", [small_spec(), LAGGED], ids=["one", "three"])
@pytest.mark.parametrize("block", [40, 97, 1000])
def test_log_posteriors_block_by_block_are_those_of_the_whole(
    block: int, spec: PyramidSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_hal.learning.networks import held_out

    monkeypatch.setattr(held_out, "BLOCK_TICKS", block)
    pyramid, front_end = random_model(spec, 3)
    x = front_end(torch.from_numpy(random_input(411, seed=4))).detach()
    (got,) = held_out.streamed_posteriors(pyramid, [x])
    whole = one_pass(pyramid, front_end, random_input(411, seed=4)).heads()
    assert got.shape == (411, spec.heads_width)
    np.testing.assert_allclose(got, whole, atol=1e-5 if got.dtype == np.float32 else 1e-9)
