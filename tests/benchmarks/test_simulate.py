"""The simulated world and the measures of recovery, each against what is known by construction."""

from __future__ import annotations

import importlib
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulate import Process, World, block_r2, mean_correlation
from edge_hal.errors import EdgeHalError
from tests.helpers.processes import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"
seeds = st.integers(0, 2**31 - 1)
processes = st.builds(
    Process,
    states=st.integers(3, 8),
    fast_size=st.integers(1, 5),
    size=st.integers(5, 16),
    dwell=st.floats(2, 100),
    memory=st.floats(0.2, 30),
    coupling=st.floats(0.1, 3),
)


def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b, c = np.array_split(x, 3)
    return a, b, c


# The world ----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(processes, seeds)
def test_the_mixing_is_invertible_and_does_mix(process: Process, seed: int) -> None:
    world = World(process, seed)
    made = world.recording(50, seed)
    assert made.x.shape == (50, process.size)
    np.testing.assert_allclose(world.unmix(made.x), made.fast, atol=1e-9)
    if process.fast_size == 1:
        return  # g may be straight after all: two layers bend a single line, each the other way
    # On both sides of the origin: fast latents may keep to one for a whole recording, where g is straight.
    wide = np.random.default_rng(seed).normal(size=(50, process.fast_size))
    wide = np.vstack([wide, -wide])
    columns = np.c_[wide, np.ones(100)]
    straight = np.linalg.lstsq(columns, world.mix(wide), rcond=None)[0]
    assert np.abs(columns @ straight - world.mix(wide)).max() > 1e-3, "a linear map would do"


@settings(max_examples=20, deadline=None)
@given(processes, seeds)
def test_the_seed_decides_everything(process: Process, seed: int) -> None:
    one, again, other = World(process, seed), World(process, seed), World(process, seed + 1)
    a, b = one.recording(40, 7), again.recording(40, 7)
    for name in ("states", "slow", "fast", "x"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert not np.allclose(a.x, other.recording(40, 7).x)
    assert not np.allclose(a.fast, one.recording(40, 8).fast)


@settings(max_examples=20, deadline=None)
@given(processes, seeds)
def test_the_slow_latent_is_a_function_of_the_state_and_states_differ(process: Process, seed: int) -> None:
    world = World(process, seed)
    made = world.recording(300, seed)
    assert np.array_equal(made.slow, world.points[made.states])
    assert made.states.min() >= 0 and made.states.max() < process.states
    assert len(np.unique(world.points.round(6), axis=0)) == process.states
    np.testing.assert_allclose(world.points.mean(0), 0, atol=1e-9)


@pytest.mark.parametrize("dwell", [1.0, 5.0, 40.0])
def test_the_slow_latent_stays_as_long_as_it_was_told(dwell: float) -> None:
    states = World(Process(dwell=dwell), 0).recording(40_000, 1).states
    changes = np.count_nonzero(np.diff(states))
    assert changes == pytest.approx(40_000 / dwell, rel=0.1)
    if dwell == 1:
        assert changes == 39_999, "a jump always leads to another state"


def step(x: np.ndarray) -> float:
    """Change from tick to tick, in units of its own spread."""
    return float(np.mean(np.diff(x, axis=0) ** 2) / x.var(0).mean())


@pytest.mark.parametrize("seed", range(3))
def test_slow_is_slower_than_fast_until_the_gap_is_closed(seed: int) -> None:
    made = World(Process(), seed).recording(5000, 0)
    assert step(made.slow) < step(made.fast) / 5
    assert step(made.slow) < step(made.x) / 5
    violated = World(Process(dwell=2, memory=100, coupling=0), seed).recording(5000, 0)
    assert step(violated.slow) > step(violated.fast)


@pytest.mark.parametrize("memory", [1.5, 20.0])
def test_fast_latents_forget_as_told_and_scatter_about_the_mean_of_their_state(memory: float) -> None:
    """With one endless state v is an AR(1) of variance 1 about that state's mean."""
    world = World(Process(dwell=1e12, memory=memory, coupling=2.0), 3)
    made = world.recording(60_000, 0)
    noise = made.fast - world.means[made.states[0]]
    assert np.abs(noise.mean(0)).max() < 6 * np.sqrt(2 * memory / 60_000) + 0.02
    np.testing.assert_allclose(noise.var(0), 1, atol=0.15)
    after = [np.mean(noise[round(memory) :, i] * noise[: -round(memory), i]) for i in range(noise.shape[1])]
    np.testing.assert_allclose(after, np.exp(-round(memory) / memory), atol=0.12)


def test_without_coupling_the_signals_say_nothing_of_the_slow_latent() -> None:
    free, bound = (World(replace(Process(), coupling=c), 0) for c in (0.0, 2.0))
    told = []
    for world in (free, bound):
        made = world.recording(1500, 0)
        told.append(block_r2(split(made.x), split(made.slow)))
    assert told[0] < 0.1 and told[1] > 0.6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stride", [1, 2, 3, 6])
def test_the_optimal_posterior_is_the_sum_over_all_paths(seed: int, stride: int) -> None:
    """Against brute force: every path of states, weighed by its chance and by the density of what was drawn."""
    process = Process(states=3, dwell=3.0, memory=2.0)
    world = World(process, seed)
    fast, rho = world.recording(6, seed).fast, np.exp(-1 / 2.0)
    found = world.posterior(fast, stride)
    for end in range(stride, 7, stride):
        chance = np.zeros((end, 3))
        for path in itertools.product(range(3), repeat=end):
            log_p = -0.5 * ((fast[0] - world.means[path[0]]) ** 2).sum()
            for t in range(1, end):
                log_p += np.log(2 / 3 if path[t] == path[t - 1] else 1 / 6)
                away = fast[t] - rho * fast[t - 1] - (1 - rho) * world.means[path[t]]
                log_p -= 0.5 * (away**2).sum() / (1 - rho**2)
            chance[np.arange(end), path] += np.exp(log_p)
        last = slice(end - stride, end)
        np.testing.assert_allclose(found[last], chance[last] / chance.sum(1)[last, None], rtol=1e-9)


def test_the_optimal_posterior_knows_more_than_one_look_and_more_by_the_end_of_the_bin() -> None:
    world = World(Process(), 0)
    made = world.recording(5000, 0)
    near = np.linalg.norm(made.fast[:, None] - world.means, axis=-1).argmin(1)
    right = [np.mean(world.posterior(made.fast, stride).argmax(1) == made.states) for stride in (1, 5, 5000)]
    assert np.mean(near == made.states) + 0.1 < right[0] < right[1] < right[2] < 1


@pytest.mark.parametrize(
    "wrong", [{"states": 1}, {"size": 3}, {"fast_size": 0}, {"dwell": 0.5}, {"memory": 0.0}, {"coupling": -1.0}]
)
def test_impossible_worlds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(EdgeHalError, match="no such world"):
        Process(**wrong)


# Recovery -----------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(1, 3))
def test_r2_of_an_invertible_map_is_near_one_both_ways_and_of_noise_near_zero(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-2, 2, size=(600, size))
    turned = truth @ np.linalg.qr(rng.normal(size=(size, size)))[0]
    learnt = np.c_[turned**3, 5 + 100 * turned]  # bent, shifted, scaled, and of more columns
    for one, other in ((truth, learnt), (learnt, truth)):
        assert block_r2(split(one), split(other)) > 0.9
    noise = rng.normal(size=(600, 2))
    assert abs(block_r2(split(noise), split(truth))) < 0.2
    assert abs(block_r2(split(truth), split(noise))) < 0.2


def test_r2_tells_lost_from_added() -> None:
    """c alone of (c, d): all of c is there, but c does not tell the whole; and the reverse."""
    rng = np.random.default_rng(0)
    c, d = rng.uniform(-2, 2, size=(900, 1)), rng.uniform(-2, 2, size=(900, 1))
    both = np.c_[c, d]
    assert block_r2(split(both), split(c)) > 0.95
    assert block_r2(split(c), split(both)) == pytest.approx(0.5, abs=0.1)


def test_r2_knows_the_share_of_noise() -> None:
    """y = x + noise of equal variance: no regression can say more than half of y."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3000, 1))
    assert block_r2(split(x), split(x + rng.normal(size=x.shape))) == pytest.approx(0.5, abs=0.07)


def test_r2_where_nothing_is_to_tell_or_to_tell_by() -> None:
    rng = np.random.default_rng(2)
    x, still = rng.normal(size=(300, 2)), np.ones((300, 2))
    assert block_r2(split(x), split(still)) == 0
    assert abs(block_r2(split(still), split(x))) < 0.1


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 4), st.integers(0, 2))
def test_mean_correlation_forgives_order_sign_scale_and_extra_columns_and_nothing_else(
    seed: int, size: int, extra: int
) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(400, size))
    signs = rng.choice([-1.0, 1.0], size) * rng.uniform(0.1, 10, size)
    learnt = np.c_[truth * signs + rng.normal(size=size), rng.normal(size=(400, extra))]
    assert mean_correlation(truth, learnt[:, rng.permutation(size + extra)]) == pytest.approx(1)
    assert mean_correlation(truth, rng.normal(size=(400, size))) < 0.35


def test_mean_correlation_of_a_rotation_and_of_missing_columns() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(20_000, 2))
    quarter = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    assert mean_correlation(truth, truth @ quarter) == pytest.approx(1 / np.sqrt(2), abs=0.02)
    assert mean_correlation(truth, truth[:, :1]) == pytest.approx(0.5, abs=0.02)
    assert mean_correlation(truth, np.zeros((20_000, 3))) == 0
    # One learnt column may not stand for two true ones.
    same = np.c_[truth[:, 0], truth[:, 0] + 1e-3 * truth[:, 1]]
    assert mean_correlation(same, np.c_[truth[:, 0], truth[:, 1]]) == pytest.approx(0.5, abs=0.02)


# The benchmark ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:  # a script finds what lies beside it
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("identifiability")


@pytest.mark.slow
def test_the_benchmark_resumes_and_its_rows_say_what_they_are(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "PARTS", (3, 2, 2))
    few = [replace(benchmark.REFERENCE, recordings=3, steps=12, supervision=s) for s in benchmark.EVERY]
    monkeypatch.setattr(benchmark, "SWEEPS", {"recordings": few})
    out = tmp_path / "deep" / "rows.json"

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["identifiability.py", "--out", str(out), *arguments])
        benchmark.main()
        return capsys.readouterr().out

    run("--seeds", "1")
    rows = benchmark.read(out)
    assert [row["run"]["supervision"] for row in rows] == list(benchmark.EVERY)
    assert all(row["true_from_learnt"] <= 1 and 0 <= row["mcc"] <= 1 for row in rows)
    given = {row["run"]["supervision"]: row.get("labels_right") for row in rows}
    assert given["labels"] == 1 and 0 < given["transcripts"] <= 1 and given["none"] is None
    assert run("--seeds", "1") == "" and benchmark.read(out) == rows, "nothing is run twice"
    # A lost row comes back as it was: the seed decides.
    benchmark.write(out, rows[1:])
    run("--seeds", "1")
    again = {row["run"]["supervision"]: row for row in benchmark.read(out)}
    for key in benchmark.COLUMNS:
        assert again["none"][key] == pytest.approx(rows[0][key], abs=1e-3)
    text = run("--table")
    assert text.count("| 3 | ") == len(few) and "none" in text


def test_step_lists_longer_than_the_samples_are_said_not_hidden(benchmark: ModuleType) -> None:
    found = benchmark.learn(replace(benchmark.REFERENCE, recordings=2, steps=2, dwell=1.5, supervision="transcripts"))
    assert set(found) == {"skipped"}
