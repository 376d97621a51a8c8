from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.events import SCHEMA, TYPES, Event, Moment, Start, Transition, Unknown, decode, encode, topic
from edge_hal.runtime.sources.frame import Intake
from edge_hal.runtime.stream.counters import Counters
from edge_hal.runtime.stream.latency import STAGES
from tests.helpers.processes import REPOSITORY

DOC = (REPOSITORY / "docs" / "events.md").read_text()

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
integers = st.integers(-(2**62), 2**62)
numbers = st.floats(allow_nan=False, allow_infinity=False)
moments = st.builds(Moment, integers, integers, integers)
scalars = st.one_of(names, integers, numbers, st.booleans(), st.none())
objects = st.dictionaries(names, st.one_of(scalars, st.dictionaries(names, scalars, max_size=3)), max_size=4)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "str": names,
    "str | None": st.one_of(names, st.none()),
    "int": integers,
    "float": numbers,
    "bool": st.booleans(),
    "Moment": moments,
    "Moment | None": st.one_of(moments, st.none()),
    "tuple[str, ...]": st.lists(names, max_size=4).map(tuple),
    "tuple[str, ...] | None": st.one_of(st.lists(names, max_size=4).map(tuple), st.none()),
    "dict[str, Any]": objects,
    "dict[str, Any] | None": st.one_of(objects, st.none()),
    "tuple[dict[str, Any], ...]": st.lists(objects, max_size=3).map(tuple),
    "float | None": st.one_of(numbers, st.none()),
    "int | None": st.one_of(integers, st.none()),
}


def any_event(kind: type[Event]) -> st.SearchStrategy[Event]:
    return st.builds(kind, **{field.name: BY_TYPE[str(field.type)] for field in dataclasses.fields(kind)})


@settings(max_examples=150, deadline=None)
@given(st.one_of(*map(any_event, TYPES.values())))
def test_every_event_survives_the_wire(event: Any) -> None:
    assert decode(encode(event)) == event
    assert decode(encode(event).decode()) == event
    assert b"\n" not in encode(event)
    body = json.loads(encode(event))
    assert list(body)[:3] == ["schema", "type", "stream"] and list(body)[-1] == "run"
    assert body["schema"] == SCHEMA and body["type"] == event.type
    assert topic(event) == f"{event.stream}/{event.type}".encode()
    assert ("seq" in body) == event.durable


@settings(max_examples=50, deadline=None)
@given(st.one_of(*map(any_event, TYPES.values())), st.data())
def test_a_missing_field_is_named_and_an_unknown_one_ignored(event: Any, data: st.DataObject) -> None:
    body = json.loads(encode(event))
    assert decode(json.dumps({**body, "invented_later": [1]})) == event
    optional = {field.name for field in dataclasses.fields(event) if field.default is not dataclasses.MISSING}
    gone = data.draw(st.sampled_from(sorted(set(body) - {"schema", "type"} - optional)))
    del body[gone]
    with pytest.raises(EdgeHalError, match=f"'{gone}'"):
        decode(json.dumps(body))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", '{"schema":1}', '{"schema":1,"type":"party"}', "\x00\xff"),
        '{"schema":1,"type":7,"stream":"s","epoch":0,"run":{}}',
        '{"schema":1,"type":"party","stream":"s","epoch":0,"run":{},"seq":"many"}',
    ],
)
def test_what_is_no_event_is_refused(text: str) -> None:
    with pytest.raises(EdgeHalError):
        decode(text)
    with pytest.raises(EdgeHalError):
        decode(text.encode("latin-1"))


@settings(max_examples=50, deadline=None)
@given(st.one_of(*map(any_event, TYPES.values())), names.filter(lambda name: name not in TYPES), st.booleans())
def test_an_event_of_an_unknown_type_reaches_the_program_with_its_number(event: Any, kind: str, durable: bool) -> None:
    body = {**json.loads(encode(event)), "type": kind}
    body.pop("seq", None)
    if durable:
        body["seq"] = 7
    found = decode(json.dumps(body))
    assert isinstance(found, Unknown) and found.type == kind and found.body == body
    assert found.seq == (7 if durable else -1) and found.stream == event.stream and found.run == body["run"]
    assert json.loads(encode(found)) == body


def test_reports_of_older_publishers_lack_now() -> None:
    heartbeat: dict[str, Any] = {
        "action": None,
        "since": None,
        "last_seq": 3,
        "counters": {},
        "health": {},
        "delivery": {},
    }
    common = {"schema": 1, "stream": "s", "epoch": 0, "run": {}}
    assert getattr(decode(json.dumps({**common, "type": "heartbeat", **heartbeat})), "now", 1) is None


def test_another_schema_is_refused_by_number() -> None:
    body = json.loads(encode(Start("s", 0, seq=0, source="", labels=(), model_hz=1, bundle="", decoder="")))
    with pytest.raises(EdgeHalError, match="schema 2"):
        decode(json.dumps({**body, "schema": 2}))


def test_numbers_json_does_not_know_never_leave() -> None:
    moment = Moment(0, 0, 0)
    with pytest.raises(ValueError, match="JSON"):
        encode(
            Transition(
                "s",
                0,
                seq=0,
                from_=None,
                to="a",
                boundary=moment,
                decision=moment,
                confidence=float("nan"),
                warm=True,
                decoder="",
            )
        )


# --- the document --------------------------------------------------------------------------------


def fields_of(section: str) -> list[str]:
    """First column of the first table under the heading."""
    text = re.split(rf"^### {re.escape(section)}$", DOC, flags=re.M)
    assert len(text) == 2, f"docs/events.md has no section {section}"
    table = re.split(r"^##", text[1], flags=re.M)[0]
    return re.findall(r"^\| `([^`]+)` \|", table, flags=re.M)


@pytest.mark.parametrize("kind", TYPES.values(), ids=list(TYPES))
def test_the_document_lists_each_field_of_each_type_in_order(kind: Any) -> None:
    common = [field.name for field in dataclasses.fields(Event)]
    own = [field.name for field in dataclasses.fields(kind) if field.name not in common]
    assert fields_of(f"`{kind.type}`") == [name.rstrip("_") for name in own]


def test_the_document_lists_the_common_fields_the_counters_and_the_stages() -> None:
    common = [field.name for field in dataclasses.fields(Event)]
    assert sorted(fields_of("All events")) == sorted(["schema", "type", *common])
    tally = Counters().tally(Intake())
    listed = [*tally, *(f"dropped.{reason}" for reason in tally["dropped"])]
    assert sorted(fields_of("`counters`")) == sorted(listed)
    assert all(f"`{stage}`" in DOC for stage in STAGES)
    assert fields_of("`run`") == ["session", "journal", "utc_ns", "latency_ms", "latency_ms"]
    assert fields_of("`delivery`") == ["journal", "held", "replay", "refused", "replay_refused", "troubles"]


def test_the_example_in_the_document_is_an_event() -> None:
    [example] = re.findall(r"```json\n(.+?)```", DOC, flags=re.S)
    event = decode(example)
    assert isinstance(event, Transition) and event.from_ == "pick screw"
    assert json.loads(encode(event)) == json.loads(example)
