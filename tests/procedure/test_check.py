"""Faults of a procedure that was edited by hand: each is found, with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.procedure.check import check_data, check_text, find_ring, unused_fields
from edge_hal.procedure.json_lines import lines_of
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.spec_limits import LARGEST_LABELS, LONGEST_LABEL
from tests.helpers.processes import REPOSITORY

PLAIN = '"first": 0, "share": 0.5, "median_s": 2, "spread": 1.5, "then": {}'


def text(a: str = "", b: str = "", c: str = "") -> str:
    """Steps a, b and c on lines 2, 3 and 4; what is given follows on the line of the step."""
    steps = [f'"{name}": {{{PLAIN}{", " + more if more else ""}}}' for name, more in zip("abc", (a, b, c), strict=True)]
    return "{\n" + ",\n".join(steps) + "\n}\n"


FAULTS = {
    "ring": (text('"requires": {"b": 1}', '"requires": {"c": 1}', '"requires": {"a": 1}'), [(2, "'a' -> 'b' -> 'c'")]),
    "itself": (text(b='"requires": {"b": 1}'), [(3, "names itself")]),
    "unknown": (text(c='"requires": {"x": 1}'), [(4, "'x' is no step")]),
    "chance": (text(c='"not_after": {"a": 1.5}'), [(4, "'a' has the chance 1.5, not one in 0..1")]),
    "flag": (text(b='"optional": 1'), [(3, "true or false")]),
    "number": (text(b='"overdue_s": "long"'), [(3, "overdue_s is 'long'")]),
    "limit": (text(c='"least_confidence": 2'), [(4, "0..1")]),
    "unknown field": (text(c='"colour": 2'), [(4, "'colour' is no field")]),
    "twice": (text(b='"first": 1'), [(3, "'first' occurs twice")]),
    "background needs": (text(b='"background": true, "requires": {"a": 1}'), [(3, "the background cannot")]),
    "background needed": (text('"background": true', '"requires": {"a": 1}'), [(3, "'a' is background")]),
    "begin needs": (text('"optional": false', '"begins_cycle": true, "requires": {"a": 1}'), [(3, "begins a cycle")]),
    "both ways": (text(b='"requires": {"a": 1}, "not_after": {"a": 1}'), [(3, "also required")]),
    "two faults": (text('"optional": 3', c='"spread2": 1'), [(2, "true or false"), (4, "spread2")]),
}


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_found_with_its_line(case: str, tmp_path: Path) -> None:
    content, expected = FAULTS[case]
    _, problems = check_text(content)
    assert [problem.line for problem in problems] == [line for line, _ in expected]
    for problem, (_, why) in zip(problems, expected, strict=True):
        assert why in problem.why
    path = tmp_path / "procedure.json"
    path.write_text(content)
    with pytest.raises(EdgeHalError, match=f"procedure.json, line {expected[0][0]}"):
        Procedure.from_file(path, ("a", "b", "c"))


def test_a_file_without_fault_has_none_and_other_labels_are_one() -> None:
    good = text('"begins_cycle": true', '"requires": {"a": 0.9}, "overdue_s": null', '"not_after": {"b": 1}')
    assert check_text(good, ("c", "b", "a"))[1] == []
    _, problems = check_text(good, ("a", "b", "d"))
    missing, other = problems
    assert (missing.line, missing.why) == (1, "the model's step 'd' is missing")
    assert (other.line, other.why) == (4, "'c' is no step of the model")


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud800"', '{"a": NaN}', '"a\\"}\\u007b"\n, "first": NaN']
)
def test_a_number_or_a_text_that_cannot_be_used_has_its_line(value: str, tmp_path: Path) -> None:
    content = text(a='"overdue_s": 5', b=f'"doubt_s": {value}')
    line = 3 + value.count("\n")
    with pytest.raises(ValueError, match=rf"^line {line}: "):
        check_text(content)
    path = tmp_path / "decoder.json"
    path.write_text(content)
    with pytest.raises(EdgeHalError, match=rf"line {line}: "):
        DecoderConfig.from_file(path)


def test_what_the_background_says_in_vain_is_told_with_its_line() -> None:
    content = text('"background": true, "overdue_s": 5, "doubt_s": 1,\n"repeatable": false', '"overdue_s": 5')
    data, problems = check_text(content)
    assert problems == []
    told = [(each.line, each.path, each.why) for each in unused_fields(content, data)]
    assert told == [
        (2, ("a", "overdue_s"), "overdue_s has no effect on the background"),
        (3, ("a", "repeatable"), "repeatable has no effect on the background"),
    ]


def test_the_fields_survive_the_file_and_change_the_fingerprint() -> None:
    data, _ = check_text(text('"requires": {"c": 1}, "optional": false', '"overdue_s": 9', '"not_after": {"b": 0.5}'))
    procedure = Procedure.from_dict(data)
    again = Procedure.from_dict(json.loads(procedure.to_json()))
    assert again == procedure and again.steps["a"].requires == {"c": 1.0} and again.steps["b"].overdue_s == 9.0
    plain = Procedure.from_dict(check_text(text())[0])
    prints = {DecoderConfig(evidence_hz=1.0, procedure=p).fingerprint() for p in (plain, procedure)}
    assert len(prints) == 2


def test_a_file_of_0_1_0_keeps_its_text_and_its_fields() -> None:
    data = json.loads((REPOSITORY / "tests/data/0.1.0/bundle/procedure.json").read_text())
    procedure = Procedure.from_dict(data)
    assert procedure.to_dict() == data  # so its fingerprint is the one in old journals and recordings
    assert all(step.optional and step.repeatable and not step.requires for step in procedure.steps.values())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("\x1b[31m", "control character"),
        ("a\0b", "control character"),
        ("two\nlines", "more than one line"),
        ("line end\r", "more than one line"),
        ("", "is empty"),
        (" ", "is empty"),
        ("x" * (LONGEST_LABEL + 1), "at most 1000"),
    ],
)
def test_a_name_that_no_step_list_can_have_is_a_fault_unless_the_model_has_it(name: str, why: str) -> None:
    content = text().replace('"b"', json.dumps(name))
    (problem,) = check_text(content)[1]
    assert problem.line == 3 and why in problem.why and len(problem.where) < 1100
    assert check_text(content, ("a", name, "c"))[1] == []


def test_more_steps_than_a_model_can_have_are_one_fault() -> None:
    content = json.dumps({f"step {n}": json.loads("{" + PLAIN + "}") for n in range(LARGEST_LABELS + 1)})
    assert [problem.why for problem in check_text(content)[1]] == ["it has 1025 steps, a model has at most 1024"]


def test_a_procedure_made_in_python_is_checked_too() -> None:
    steps = {name: Step(0, 0.5, 2, 1.5, {}, requires={other: 1.0}) for name, other in (("a", "b"), ("b", "a"))}
    with pytest.raises(EdgeHalError, match="before each other"):
        Procedure(steps)


def test_a_long_chain_has_no_ring_and_ends() -> None:
    chain = {str(n): [str(n + 1)] if n < 3000 else [] for n in range(3001)}
    assert find_ring(chain) == []
    assert find_ring({**chain, "3000": ["2999"]}) == ["2999", "3000", "2999"]


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_every_path_has_the_line_where_it_begins(value: object) -> None:
    content = json.dumps(value, indent=1)
    lines, twice = lines_of(content)
    assert twice == []

    def paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(deeper for key, item in inner for deeper in paths(item, (*path, key)))]

    assert set(lines) == set(paths(value))
    ordered = [lines[path] for path in paths(value)]
    assert ordered == sorted(ordered) and ordered[0] == 1
    if isinstance(value, (dict, list)):
        assert len(set(ordered)) == len(ordered)  # with indent, each entry has a line of its own


@given(st.dictionaries(st.text(max_size=4), values, max_size=3))
def test_any_data_gives_faults_or_none_and_no_other_error(data: dict[str, object]) -> None:
    assert all(problem.why for problem in check_data(data))
