"""What follows what, and for how long: the file people edit, the tables made of it, what is learnt from segments."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.calib.learn_procedure import PRIOR_SEGMENTS, learn_procedure
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.procedure.rules import LEAST_SHARE, MAX_TICKS, UNSEEN, Procedure, Step

NAMES = ("reach", "grasp", "turn", "place")


@st.composite
def procedures(draw: st.DrawFn) -> Procedure:
    """Of 2 .. 5 steps; a step may be followed by none, and none may come first."""
    names = [*NAMES, "wait"][: draw(st.integers(2, 5))]
    chance = st.floats(0, 1)
    return Procedure(
        {
            name: Step(
                first=draw(chance),
                share=draw(chance),
                median_s=draw(st.floats(0.01, 100)),
                spread=draw(st.floats(1, 10)),
                then={to: draw(chance) for to in names if to != name and draw(st.booleans())},
            )
            for name in names
        }
    )


def simple(**changed: Any) -> Procedure:
    """A cycle of the four names; `changed` fields of `grasp`."""
    steps = {
        name: Step(first=float(i == 0), share=0.25, median_s=2.0, spread=1.5, then={NAMES[(i + 1) % 4]: 1.0})
        for i, name in enumerate(NAMES)
    }
    steps["grasp"] = replace(steps["grasp"], **changed)
    return Procedure(steps)


# The file ---------------------------------------------------------------------------------------


@given(procedures())
def test_a_procedure_survives_its_file(tmp_path_factory: pytest.TempPathFactory, procedure: Procedure) -> None:
    path = tmp_path_factory.mktemp("file") / "procedure.json"
    path.write_text(procedure.to_json())
    labels = tuple(procedure.steps)
    assert Procedure.from_file(path, labels) == procedure
    assert Procedure.from_dict(json.loads(procedure.to_json())) == procedure
    config = DecoderConfig(evidence_hz=2.0, procedure=procedure)
    assert DecoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(procedures(), st.randoms(use_true_random=False))
def test_the_order_in_the_file_is_no_matter(
    tmp_path_factory: pytest.TempPathFactory, procedure: Procedure, random: Any
) -> None:
    labels = list(procedure.steps)
    mixed = random.sample(labels, len(labels))
    path = tmp_path_factory.mktemp("file") / "procedure.json"
    path.write_text(json.dumps({name: procedure.to_dict()[name] for name in mixed}))
    read = Procedure.from_file(path, tuple(labels))
    assert list(read.steps) == labels
    fingerprints = {DecoderConfig(evidence_hz=1.0, procedure=p).fingerprint() for p in (procedure, read)}
    assert len(fingerprints) == 1


@pytest.mark.parametrize(
    "changed",
    [{"first": 0.1}, {"share": 0.3}, {"median_s": 2.001}, {"spread": 1.6}, {"then": {"turn": 0.9}}, {"then": {}}],
    ids=lambda changed: "-".join(changed),
)
def test_the_fingerprint_follows_every_number_of_the_procedure(changed: dict[str, Any]) -> None:
    base = DecoderConfig(evidence_hz=1.0, procedure=simple())
    assert DecoderConfig(evidence_hz=1.0, procedure=simple()).fingerprint() == base.fingerprint()
    assert DecoderConfig(evidence_hz=1.0, procedure=simple(**changed)).fingerprint() != base.fingerprint()
    assert DecoderConfig(evidence_hz=1.0).fingerprint() != base.fingerprint()
    assert base.with_thresholds({"evidence_hz": 1.5}).fingerprint() != base.fingerprint()


@pytest.mark.parametrize(
    ("whole", "decimal"),
    [
        ({"first": 1, "share": 1}, {"first": 1.0, "share": 1.0}),
        ({"first": 0, "share": 0}, {"first": 0.0, "share": 0.0}),
        ({"median_s": 2, "spread": 3}, {"median_s": 2.0, "spread": 3.0}),
        ({"then": {"turn": 1, "place": 0}}, {"then": {"turn": 1.0, "place": 0.0}}),
    ],
    ids=lambda changed: "-".join(changed),
)
def test_one_and_one_point_nought_have_one_fingerprint(
    tmp_path: Path, whole: dict[str, Any], decimal: dict[str, Any]
) -> None:
    """However it was made: in Python, or from a file that somebody edited."""
    path, made = tmp_path / "procedure.json", []
    for changed in (whole, decimal):
        path.write_text(json.dumps({**simple().to_dict(), "grasp": {**simple().to_dict()["grasp"], **changed}}))
        made += [simple(**changed), Procedure.from_file(path, NAMES)]
    assert len({DecoderConfig(evidence_hz=1.0, procedure=each).fingerprint() for each in made}) == 1
    assert len({each.to_json() for each in made}) == 1


@pytest.mark.parametrize("digits", [30, 400, 4200, 5000])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", ["first", "share", "median_s", "spread", "then"])
def test_a_huge_whole_number_is_one_error(tmp_path: Path, field: str, sign: str, digits: int) -> None:
    """Too large for a float, and for Python to read or print at all."""
    path = tmp_path / "procedure.json"
    huge = f"{sign}1{'0' * digits}"
    marked = edited(lambda d: d["turn"].update({field: {"reach": "HUGE"} if field == "then" else "HUGE"}))
    path.write_text(marked.replace('"HUGE"', huge))
    with pytest.raises(EdgeHalError) as caught:
        Procedure.from_file(path, NAMES)
    assert str(path) in caught.value.what and "delete it" in caught.value.todo
    value = int(sign + "1") * 10**digits
    data = json.loads(edited(lambda d: None))
    data["turn"][field] = {"reach": value} if field == "then" else value
    for read in (Procedure.from_dict, lambda d: DecoderConfig.from_dict({"evidence_hz": 1.0, "procedure": d})):
        with pytest.raises(EdgeHalError):
            read(data)


def test_thresholds_change_and_the_procedure_stays() -> None:
    config = DecoderConfig(evidence_hz=1.0, procedure=simple()).with_thresholds({"confirm_s": 0.25, "evidence_hz": 3})
    assert config.procedure == simple() and config.confirm_s == 0.25 and config.evidence_hz == 3.0
    assert "procedure" not in json.loads(config.to_json())  # decoder.json holds thresholds alone


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    data = simple().to_dict()
    change(data)
    return json.dumps(data)


BROKEN = {
    "not JSON": ("{", "procedure.json"),
    "empty": ("", "procedure.json"),
    "a list": ("[]", "procedure.json"),
    "a number": ("3", "procedure.json"),
    "null": ("null", "procedure.json"),
    "no steps": ("{}", "no step"),
    "unknown step": (edited(lambda d: d.update(jump=d["turn"])), "'jump'"),
    "missing step": (edited(lambda d: d.pop("place") and d["turn"].update(then={})), "'place'"),
    "follows an unknown step": (edited(lambda d: d["turn"]["then"].update(jump=0.5)), "'jump'"),
    "chance above 1": (edited(lambda d: d["turn"]["then"].update(reach=1.5)), "'reach'"),
    "chance below 0": (edited(lambda d: d["turn"]["then"].update(reach=-0.1)), "'reach'"),
    "chance a word": (edited(lambda d: d["turn"]["then"].update(reach="often")), "'reach'"),
    "chance not a number": (edited(lambda d: d["turn"]["then"].update(reach=float("nan"))), "NaN is not finite"),
    "chance true": (edited(lambda d: d["turn"]["then"].update(reach=True)), "'reach'"),
    "first": (edited(lambda d: d["turn"].update(first=2)), "first is 2"),
    "share": (edited(lambda d: d["turn"].update(share=-1)), "share is -1"),
    "median zero": (edited(lambda d: d["turn"].update(median_s=0)), "median_s is 0"),
    "median infinite": (edited(lambda d: d["turn"].update(median_s=float("inf"))), "Infinity is not finite"),
    "spread": (edited(lambda d: d["turn"].update(spread=0.5)), "spread is 0.5"),
    "spread a word": (edited(lambda d: d["turn"].update(spread="wide")), "spread is 'wide'"),
    "missing field": (edited(lambda d: d["turn"].pop("spread")), "spread"),
    "unknown field": (edited(lambda d: d["turn"].update(colour=1)), "colour"),
    "then a list": (edited(lambda d: d["turn"].update(then=["reach"])), "procedure"),
    "then missing": (edited(lambda d: d["turn"].pop("then")), "then"),
    "step a number": (edited(lambda d: d.update(turn=3)), "procedure"),
}


@pytest.mark.parametrize("case", BROKEN, ids=list(BROKEN))
def test_a_broken_file_is_one_error_that_says_what_and_where(tmp_path: Path, case: str) -> None:
    text, named = BROKEN[case]
    path = tmp_path / "procedure.json"
    path.write_text(text)
    with pytest.raises(EdgeHalError) as caught:
        Procedure.from_file(path, NAMES)
    error = caught.value
    assert str(path) in error.what and named in f"{error.what} {error.why}"
    assert "delete it" in error.todo


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    plain, marked = tmp_path / "plain.json", tmp_path / "marked.json"
    plain.write_text(edited(lambda d: None))
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert Procedure.from_file(marked, NAMES) == Procedure.from_file(plain, NAMES)


def test_a_missing_or_unreadable_file_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeHalError, match=r"cannot use .*procedure\.json"):
        Procedure.from_file(tmp_path / "procedure.json", NAMES)
    (tmp_path / "procedure.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(EdgeHalError, match=r"cannot use .*procedure\.json: it is no text in UTF-8"):
        Procedure.from_file(tmp_path / "procedure.json", NAMES)
    (tmp_path / "procedure.json").unlink()
    (tmp_path / "procedure.json").mkdir()
    with pytest.raises(EdgeHalError, match=r"cannot use .*procedure\.json: Is a directory\n"):
        Procedure.from_file(tmp_path / "procedure.json", NAMES)


# Tables -----------------------------------------------------------------------------------------


@given(procedures(), st.sampled_from([0.5, 4.0, 10.0, 30.0]))
@settings(deadline=None)
def test_tables_are_distributions(procedure: Procedure, hz: float) -> None:
    tables, count = procedure.tables(hz), len(procedure.steps)
    longest = tables.duration.shape[1]
    assert 4 <= longest <= MAX_TICKS and tables.duration.shape == tables.survival.shape == (count, longest)
    np.testing.assert_allclose(np.exp(tables.duration).sum(axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose(tables.survival[:, 0], 0, atol=1e-9)
    assert (np.diff(np.exp(tables.survival), axis=1) <= 0).all()
    # To have gone on for d ticks is to end then or to go on.
    ends, on = np.exp(tables.duration), np.exp(tables.survival)
    np.testing.assert_allclose(on[:, :-1], ends[:, :-1] + on[:, 1:], rtol=1e-7)
    np.testing.assert_allclose(np.exp(tables.first).sum(), 1)
    np.testing.assert_allclose(np.exp(tables.share).sum(), 1)
    follows = np.exp(tables.follows)
    assert (np.diag(follows) == 0).all()
    # What a step gives itself is lost: at most what every step gets, for `then` names itself nowhere here ...
    to_itself = UNSEEN / count
    for row, step in zip(follows, procedure.steps.values(), strict=True):
        if sum(step.then.values()) > 0:
            assert row.sum() == pytest.approx(1 - to_itself)
        else:  # ... and its share of all where nothing is known
            assert row.sum() == pytest.approx(1 - (1 - UNSEEN) / count - to_itself)
    off = ~np.eye(count, dtype=bool)
    assert (follows[off] >= UNSEEN / count - 1e-12).all()  # people do what no step list has shown


def test_tables_say_what_the_numbers_say() -> None:
    procedure = simple(median_s=6.0, spread=1.3, then={"turn": 0.2, "place": 0.6})
    tables = procedure.tables(10.0)
    median = 1 + (np.exp(tables.duration).cumsum(axis=1) < 0.5).sum(axis=1)
    assert abs(median[0] - 20) <= 1 and abs(median[1] - 60) <= 2
    follows = np.exp(tables.follows)
    assert follows[1, 3] == pytest.approx(0.99 * 0.75 + 0.0025) and follows[1, 2] == pytest.approx(0.99 * 0.25 + 0.0025)
    assert np.exp(tables.first) == pytest.approx([0.9925, 0.0025, 0.0025, 0.0025])
    wider = simple(median_s=6.0, spread=2.0).tables(10.0)
    inside = slice(40, 80)
    assert np.exp(wider.duration[1, inside]).sum() < np.exp(tables.duration[1, inside]).sum()


@given(procedures())
def test_no_share_is_nearly_none_and_order_stays(procedure: Procedure) -> None:
    tables, count = procedure.tables(10.0), len(procedure.steps)
    given_shares = np.array([step.share for step in procedure.steps.values()])
    shares = np.exp(tables.share)
    assert (shares >= LEAST_SHARE / count / (1 + LEAST_SHARE) - 1e-12).all()
    order = np.argsort(given_shares, kind="stable")
    assert (np.diff(shares[order]) >= -1e-12).all()
    if given_shares.sum() > 1e-3 and (given_shares >= LEAST_SHARE / count * given_shares.sum()).all():
        np.testing.assert_allclose(shares, given_shares / given_shares.sum())  # the floor moves no others
    scaled = Procedure({n: replace(s, share=s.share / 2) for n, s in procedure.steps.items()})
    if given_shares.min() > 1e-300:
        np.testing.assert_allclose(scaled.tables(10.0).share, tables.share, atol=1e-9)


def test_a_step_of_hours_costs_no_more_than_the_longest_table() -> None:
    tables = simple(median_s=1e5, spread=1e3).tables(30.0)
    assert tables.duration.shape == (4, MAX_TICKS)
    for table in (tables.duration, tables.survival):
        assert np.isfinite(table).all()


# Learning ---------------------------------------------------------------------------------------


def test_what_is_learnt_is_what_was_counted() -> None:
    videos = [
        np.repeat([0, 1, 2, 1], [20, 30, 10, 40]),
        np.repeat([0, 2, 1], [25, 15, 60]),
        np.repeat([1, 2], [50, 50]),
    ]
    found = learn_procedure(videos, NAMES, 10.0)
    assert list(found.steps) == list(NAMES)
    steps = found.steps
    assert [steps[name].first for name in NAMES] == [0.6667, 0.3333, 0, 0]
    assert [steps[name].share for name in NAMES] == pytest.approx([45 / 300, 180 / 300, 75 / 300, 0], abs=1e-5)
    assert steps["reach"].then == {"grasp": 0.5, "turn": 0.5}
    assert steps["grasp"].then == {"turn": 1.0}
    assert steps["turn"].then == {"grasp": 1.0}
    assert steps["place"].then == {}
    # All durations together count as two of each step's own.
    durations: dict[str, list[float]] = {"reach": [2, 2.5], "grasp": [3, 4, 6, 5], "turn": [1, 1.5, 5], "place": []}
    every = np.log(np.concatenate(list(durations.values())))
    for name, own in durations.items():
        log_s = np.log(own)
        weight = len(own) + PRIOR_SEGMENTS
        mean = (log_s.sum() + PRIOR_SEGMENTS * every.mean()) / weight
        variance = (((log_s - mean) ** 2).sum() + PRIOR_SEGMENTS * every.var()) / weight
        assert steps[name].median_s == pytest.approx(np.exp(mean), abs=1e-3)
        assert steps[name].spread == pytest.approx(np.exp(np.sqrt(variance)), abs=1e-3)


@given(st.integers(0, 2**32 - 1), st.sampled_from([4.0, 10.0, 30.0]))
@settings(deadline=None)
def test_many_examples_recover_the_procedure_they_were_drawn_from(seed: int, hz: float) -> None:
    """Also: whatever is learnt is allowed in a file, and shares are of time, whatever the rate."""
    rng = np.random.default_rng(seed)
    medians, spreads = rng.uniform(2, 20, 4), rng.uniform(1.1, 1.6, 4)
    then = rng.dirichlet(np.ones(3), 4)
    videos = []
    for _ in range(30):
        order = [int(rng.integers(4))]
        for _ in range(40):
            order.append([k for k in range(4) if k != order[-1]][rng.choice(3, p=then[order[-1]])])
        ticks = np.exp(rng.normal(np.log(medians[order]), np.log(spreads[order]))) * hz
        videos.append(np.repeat(order, np.maximum(np.round(ticks), 1).astype(int)))
    found = learn_procedure(videos, NAMES, hz)
    assert Procedure.from_dict(json.loads(found.to_json())) == found
    for k, step in enumerate(found.steps.values()):
        visits = sum(int((np.diff(np.r_[-1, y]) != 0)[y == k].sum()) for y in videos)
        if visits < 100:
            continue
        assert step.median_s == pytest.approx(medians[k], rel=0.2)
        got = [step.then.get(NAMES[j], 0) for j in range(4) if j != k]
        assert got == pytest.approx(then[k], abs=0.25) and sum(got) == pytest.approx(1, abs=1e-3)
    assert sum(step.share for step in found.steps.values()) == pytest.approx(1, abs=1e-4)
    assert sum(step.first for step in found.steps.values()) == pytest.approx(1, abs=1e-3)


def test_one_video_of_one_tick_teaches_something_that_can_be_used() -> None:
    found = learn_procedure([np.array([2])], NAMES, 10.0)
    assert found.steps["turn"].first == 1 and found.steps["turn"].share == 1
    tables = found.tables(10.0)
    assert np.isfinite(tables.duration).all() and np.isfinite(tables.first).all()
