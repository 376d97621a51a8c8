"""What was believed before a pause is resumed after a short one, and only then."""

from __future__ import annotations

import dataclasses
import json
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.decoding.belief import Belief, BeliefTracker
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.forward_filter import filter_tables
from edge_hal.errors import EdgeHalError
from edge_hal.events import Cycle, Deviation, Event, Gap, Now, Start, Transition, encode
from edge_hal.procedure.conformance import Conformance
from edge_hal.procedure.kept_cycle import KeptCycle
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime.delivery.journal import BELIEF_BYTES, Journal
from edge_hal.runtime.delivery.stream_delivery import StreamDelivery
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.reader import comparable, read_recording
from edge_hal.runtime.resumption import LiveResumption, pause_ns
from edge_hal.runtime.runner import run
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.stop import Stop
from edge_hal.runtime.stream.latency import Latency
from edge_hal.runtime.stream.resumed import Instant, Noted, Resumed, read_row
from tests.helpers.bundles import LABELS, known_bundle, vectors
from tests.helpers.deliveries import edge_hal, kept, spawn
from tests.helpers.loops import check_stream, received, recorded
from tests.helpers.processes import TIMEOUT_S
from tests.helpers.sample_events import ANY_PORT, STREAM, start
from tests.helpers.steps_once import AFTER, AGAIN, HZ, LACKING, following, seconds

S = 10**9
NOW = Instant(1_800_000_000 * S, "boot", 5000 * S)
UNSURE = np.zeros((1, 3), np.float32)
"""All labels are equally probable."""


def believing(folder: Path) -> Path:
    """A bundle whose first step is `blue`, which decides by the belief. Steps last a minute."""
    procedure = Procedure({name: Step(float(name == "blue"), 1 / 3, 60.0, 1.3, AFTER[name]) for name in LABELS})
    decoder = DecoderConfig(decide_at=0.6, min_duration_s=0.2, procedure=procedure)
    return known_bundle(folder / "bundle", HZ, decoder=decoder).path


def camera(folder: Path, script: str, rows: Any) -> str:
    """A camera with faults: a process of its own delivers the rows, at their own times."""
    np.save(folder / "f.npy", rows)
    return f"fault:{script}:features:{folder}/f.npy@{HZ}"


def later(passed_s: float, *, boot: str = "boot", boot_s: float | None = None) -> Instant:
    return Instant(NOW.utc_ns + round(passed_s * S), boot, NOW.boot_ns + round((boot_s or passed_s) * S))


# --- the pause -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "passed_s"),
    [
        (later(12.5), 12.5),
        (later(12.5, boot_s=13.4), 12.5),  # within what two readings may differ
        (later(-1, boot_s=2), None),  # set back
        (later(5, boot_s=70), None),  # set back, but not before the row
        (later(70, boot_s=5), None),  # set forward
        (Instant(NOW.utc_ns + 40 * S, "another boot", 20 * S), 40),
        (Instant(NOW.utc_ns + 10 * S, "another boot", 20 * S), None),  # it has run for longer than the pause
        (Instant(NOW.utc_ns + 10 * S, "", 0), 10),  # a system that does not tell
    ],
)
def test_a_pause_is_known_only_where_the_clocks_agree(then: Instant, passed_s: float | None) -> None:
    assert pause_ns(NOW, then) == (None if passed_s is None else round(passed_s * S))


def test_a_clock_that_was_never_set_tells_no_pause() -> None:
    assert pause_ns(Instant(100 * S, "boot", 0), Instant(110 * S, "boot", 10 * S)) is None


# --- the row -------------------------------------------------------------------------------------


class Camera(Source):
    live = True

    def take(self, until_ns: int | None) -> None:
        return None

    def now_ns(self) -> int:
        return 0

    def intake(self) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


def kept_cycle() -> KeptCycle:
    """`blue` went on, and `red` was called skipped by the event 41."""
    steps = {name: Step(1 / 3, 1 / 3, 60.0, 1.3, {}, optional=False) for name in LABELS}
    tracker = Conformance(Procedure(steps), HZ)
    tracker.decided(0, 0, 10, 0.9)
    return dataclasses.replace(tracker.kept(), called={"red": 41})


CYCLE = kept_cycle()


def row(**changes: Any) -> bytes:
    found = Instant.now()
    data = {"schema": 1, **vars(found), "belief": {name: [1 / 3, 2.0] for name in LABELS}}
    return json.dumps({**data, **changes}).encode()


def test_a_row_is_resumed_and_its_text_gives_it_back() -> None:
    found = LiveResumption(30, Camera("c", None), row()).at_start()
    assert found is not None and 0 <= found.pause_ns < 30 * S and found.belief.fits(LABELS)
    told = found.told()
    assert told["action"] in LABELS and told["since_utc_ns"] == found.utc_ns - 2 * S
    at, belief, cycle = read_row(row())
    assert belief == found.belief and at.utc_ns >= found.utc_ns
    assert cycle is None and "done" not in told and "cycle" not in found.entry()["resumed"]  # as rows of 0.4
    made = Noted(None, LABELS, 10.0, at, 0, CYCLE)  # type: ignore[arg-type]
    entry = dataclasses.replace(found, cycle=CYCLE).entry()
    assert Resumed.from_entry(json.loads(json.dumps(entry))).cycle == CYCLE and made.newest_seq == 41
    resumed = LiveResumption(30, Camera("c", None), row(cycle=CYCLE.to_dict())).at_start()
    assert resumed is not None and resumed.cycle == CYCLE and resumed.told()["done"] == ["blue"]


@pytest.mark.parametrize("at_start", [row(), None])
def test_files_and_a_limit_of_zero_resume_nothing(at_start: bytes | None) -> None:
    file = Camera("f", None)
    file.live = False
    assert LiveResumption(30, file, at_start).at_start() is None
    assert LiveResumption(0, Camera("c", None), at_start).at_start() is None


@pytest.mark.parametrize(
    "found",
    [
        *(b"", b"{", b"[]", b"\xff", b"[" * 5000, b'{"schema":1}', row(schema=2), row(boot=None), row(utc_ns=-1)),
        *(row(utc_ns=1.5), row(boot_ns="7"), row(belief={}), row(utc_ns=2**70), row(belief={"blue": [7, 7]})),
        row().replace(b"2.0", b"NaN", 1),
        *(row(cycle=7), row(cycle=[]), row(cycle={}), row(cycle={**CYCLE.to_dict(), "count": 2})),
        row(belief={"blue": [1.0, 2.0]}, cycle=CYCLE.to_dict()),
    ],
)
def test_a_row_of_anything_else_is_ignored_with_a_warning(found: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert LiveResumption(30, Camera("c", None), found).at_start() is None
    assert "is not resumed" in caplog.text


def test_a_row_that_names_events_of_another_journal_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    found = row(cycle=CYCLE.to_dict())  # it names the event 41
    assert LiveResumption(30, Camera("c", None), found, 42).at_start() is not None and not caplog.text
    assert LiveResumption(30, Camera("c", None), found, 41).at_start() is None
    assert "it names events that are not in this journal" in caplog.text


def test_a_row_of_other_labels_is_not_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = np.repeat(UNSURE, 4 * HZ, 0)
    with Journal(tmp_path / "j", "default") as journal:
        journal.keep_belief(row(belief={"other": [1.0, 2.0]}))
    options = RunOptions(believing(tmp_path), camera(tmp_path, "seed=1", rows), journal=tmp_path / "j", seconds=1)
    _, events = recorded(options)
    assert isinstance(events[0], Start) and events[0].resumed is None
    assert caplog.text.count("is not resumed: the bundle has other labels") == 1


# --- the journal ---------------------------------------------------------------------------------


def test_a_journal_keeps_the_newest_belief_and_events_beside_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", STREAM) as journal:
        assert journal.kept_belief() is None
        for text in (b"one", b"two"):
            journal.keep_belief(text)
        journal.append([(0, encode(start()))])
        assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # of events: FULL
    with Journal(tmp_path / "j", STREAM) as journal:
        assert journal.kept_belief() == b"two" and journal.next_seq == 1
    with closing(sqlite3.connect(tmp_path / "j")) as db:
        assert db.execute("SELECT count(*) FROM belief").fetchone() == (1,)
        assert db.execute("PRAGMA user_version").fetchone() == (1,)  # earlier versions open it too
    assert len(kept(tmp_path / "j")) == 1


def belief_of(labels: tuple[str, ...]) -> Belief:
    """After one tick that tells nothing."""
    procedure = Procedure({name: Step(1 / 3, 1 / 3, 2.0, 1.3, {}) for name in labels})
    tracker = BeliefTracker(filter_tables(procedure, HZ, 0.05), (0.3,), (0,))
    return tracker.follow(0, {0: np.log(np.full((1, 3), 1 / 3))}).now


def test_a_row_is_kept_after_the_events_that_it_names(tmp_path: Path) -> None:
    """Else the next run would give their numbers to other events."""
    belief = belief_of(LABELS)
    with Journal(tmp_path / "j", STREAM) as journal:
        delivery = StreamDelivery(STREAM, journal, Latency())
        delivery.noted = Noted(belief, LABELS, HZ, NOW, 0, dataclasses.replace(CYCLE, called={"red": 0}))
        delivery.keep_belief()
        assert journal.kept_belief() is None
        delivery.held.put(start(), "", wait=False)
        delivery.send_batch(lambda event, body: None)  # and the row at once, not with the next heartbeat
        found = journal.kept_belief()
        assert found is not None and read_row(found)[2] == delivery.noted.cycle


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE belief SET body = zeroblob(5000000)", "it is larger than"),
        ("UPDATE belief SET body = 7", "it has another schema"),
        ("DELETE FROM belief", ""),
        ("DROP TABLE belief", ""),
        ("DROP TABLE belief; CREATE VIEW belief AS SELECT 0 AS id, 'x' AS other", "no such column: body"),
    ],
)
def test_a_belief_that_cannot_be_read_is_none_and_told(
    tmp_path: Path, change: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Journal(tmp_path / "j", STREAM) as journal:
        journal.keep_belief(row())
    with closing(sqlite3.connect(tmp_path / "j")) as db:
        db.executescript(change)
    with Journal(tmp_path / "j", STREAM) as journal:
        found = journal.kept_belief()
        assert found is None or LiveResumption(30, Camera("c", None), found).at_start() is None
    assert [record.getMessage().partition(" is not resumed: ")[2][: len(told)] for record in caplog.records] == (
        [told] if told else []
    )


def test_a_belief_that_cannot_be_kept_is_told_once_and_events_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A table of that name has another layout. A row that is too large to be read again is not kept either."""
    with Journal(tmp_path / "j", STREAM) as journal:
        journal._db.execute("CREATE TABLE belief (other TEXT)")
        delivery = StreamDelivery(STREAM, journal, Latency())
        for seq in range(3):
            delivery.noted = Noted(belief_of(LABELS), LABELS, HZ, NOW, seq)
            delivery.held.put(start(seq), "", wait=False)
            delivery.send_batch(lambda event, body: None)
        assert journal.next_seq == 3 and caplog.text.count("a restart would begin without it") == 1
        journal._db.execute("DROP TABLE belief")
        delivery.noted = Noted(belief_of(LABELS), LABELS, HZ, NOW, 3)
        delivery.keep_belief()
        assert journal.kept_belief() == delivery.noted.row()
        long = tuple(f"{name}{'x' * BELIEF_BYTES}" for name in LABELS)
        delivery.noted = Noted(belief_of(long), long, HZ, NOW, 4)
        delivery.keep_belief()
    assert caplog.text.count("a restart would begin without it") == 2 and f"the limit is {BELIEF_BYTES}" in caplog.text


def test_a_replaced_journal_takes_no_belief(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", STREAM) as journal:
        (tmp_path / "j").rename(tmp_path / "moved")
        with pytest.raises(EdgeHalError, match="removed or replaced"):
            journal.keep_belief(row())


# --- runs ----------------------------------------------------------------------------------------


def interrupted(folder: Path, **options: Any) -> tuple[RunOptions, list[Event], Any]:
    """A camera that shows `red` and is away from 2 s to 3 s; then nothing can be told from what it shows."""
    rows = np.concatenate([vectors([2] * 2 * HZ), np.repeat(UNSURE, 6 * HZ, 0)])
    source = camera(folder, "unplug@2s+1s", rows)
    made = RunOptions(believing(folder), source, seconds=6, max_hold_ms=300, record=folder / "rec", **options)
    summary, events = recorded(made)
    check_stream(events, summary)
    return made, events, summary


@pytest.mark.slow
def test_after_a_short_gap_the_belief_goes_on_and_a_replay_gives_the_same_events(tmp_path: Path) -> None:
    options, events, _ = interrupted(tmp_path)
    (gap,) = [event for event in events if isinstance(event, Gap)]
    assert gap.reset and gap.resumed is not None
    assert gap.resumed["action"] == "red" and 0.5 < gap.resumed["age_s"] < 10
    before, after = [event for event in events if isinstance(event, Transition)]
    assert (before.from_, before.to, before.epoch) == (None, "red", 0)
    assert (after.from_, after.to, after.epoch) == (None, "red", 1)  # not `blue`, the first of the procedure
    recording = read_recording(tmp_path / "rec")
    summary, replayed = recorded(recording.options(options.bundle))
    check_stream(replayed, summary)
    assert [comparable(encode(event)) for event in replayed] == [comparable(encode(event)) for event in events]


@pytest.mark.slow
def test_after_a_long_gap_nothing_is_believed(tmp_path: Path) -> None:
    _, events, _ = interrupted(tmp_path, resume_s=0.5)
    (gap,) = [event for event in events if isinstance(event, Gap)]
    assert gap.reset and gap.resumed is None
    assert [event.to for event in events if isinstance(event, Transition)] == ["red", "blue"]


def test_the_last_gap_and_gaps_of_files_resume_nothing(tmp_path: Path) -> None:
    rows = np.concatenate([vectors([2] * 2 * HZ), np.repeat(UNSURE, HZ, 0)])
    bundle = believing(tmp_path)
    options = RunOptions(bundle, camera(tmp_path, "unplug@1s", rows), max_hold_ms=300, seconds=3)
    _, events = recorded(options)
    assert [event.resumed for event in events if isinstance(event, Gap)] == [None]
    options = RunOptions(bundle, camera(tmp_path, "unplug@1s+1s", rows), max_hold_ms=300, pace="asap")
    _, events = recorded(options)
    assert [event.resumed for event in events if isinstance(event, Gap)] == [None]


@pytest.mark.parametrize("resume_s", [-1.0, 601.0, float("nan")])
def test_a_limit_out_of_range_is_refused(tmp_path: Path, resume_s: float) -> None:
    options = RunOptions(believing(tmp_path), camera(tmp_path, "seed=1", UNSURE), resume_s=resume_s)
    with pytest.raises(EdgeHalError, match="resume_s"):
        recorded(options)


def killed(folder: Path, source: str, bundle: Path, row: bytes = b'"red": [0.9') -> None:
    """A run that is killed as soon as it has kept its belief in `red`, or another row."""
    arguments = ("run", "--bundle", bundle, "--camera", source, "--journal", folder / "j", "--pub", f"ipc://{folder}/s")
    waited_s = 0.0
    with spawn("-m", "edge_hal", *arguments, stdout=subprocess.DEVNULL) as process:
        while row not in (kept_row(folder / "j") or b""):
            assert process.poll() is None and waited_s < TIMEOUT_S, process.communicate()
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                waited_s += 0.05
        process.send_signal(signal.SIGKILL)


def kept_row(path: Path) -> bytes | None:
    if not path.exists():
        return None
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            return bytes(db.execute("SELECT body FROM belief").fetchone()[0])
        except (sqlite3.Error, TypeError):
            return None


@pytest.mark.slow
def test_a_killed_run_goes_on_with_what_it_believed_unless_the_pause_was_long(tmp_path: Path) -> None:
    bundle = believing(tmp_path)
    sure = camera(tmp_path, "seed=1", vectors([2] * 60 * HZ))
    killed(tmp_path, sure, bundle)
    first = len(kept(tmp_path / "j"))
    (tmp_path / "unsure").mkdir()
    unsure = camera(tmp_path / "unsure", "seed=1", np.repeat(UNSURE, 60 * HZ, 0))
    arguments = ("run", "--bundle", bundle, "--journal", tmp_path / "j", "--pub", f"ipc://{tmp_path}/s")
    record = ("--seconds", "2", "--record", tmp_path / "rec")
    code, _, err = edge_hal(*arguments, "--camera", unsure, "--json", "--resume", "5m", *record)
    assert code == 0, err
    events = [json.loads(body) for body in kept(tmp_path / "j")]
    began, told = events[first], [event for event in events[first:] if event["type"] == "transition"]
    assert began["type"] == "start" and began["resumed"]["action"] == "red"
    assert 0 < began["resumed"]["age_s"] < 300
    assert began["resumed"]["since_utc_ns"] < began["run"]["utc_ns"] - began["resumed"]["age_s"] * S
    assert [(event["from"], event["to"]) for event in told] == [(None, "red")]
    recording = read_recording(tmp_path / "rec")
    _, replayed = recorded(recording.options(bundle))
    assert recording.difference([comparable(encode(event)) for event in replayed]) is None
    # The same pause, but a limit that it exceeds: Python needs longer to start.
    second = len(events)
    code, _, err = edge_hal(*arguments, "--camera", unsure, "--json", "--resume", "10ms", "--seconds", "2")
    assert code == 0, err
    events = [json.loads(body) for body in kept(tmp_path / "j")][second:]
    assert events[0]["resumed"] is None
    assert [event["to"] for event in events if event["type"] == "transition"] == ["blue"]


def test_a_reload_carries_the_belief_over(tmp_path: Path) -> None:
    rows = np.concatenate([vectors([2] * 3 * HZ), np.repeat(UNSURE, 60 * HZ, 0)])
    bundle, stop, events = believing(tmp_path), Stop(), []

    def heard(event: Event) -> None:
        events.append(event)
        if isinstance(event, Transition) and event.epoch == 0:
            decoder = bundle / "decoder.json"
            decoder.write_text(json.dumps({**json.loads(decoder.read_text()), "decide_at": 0.55}))
            stop.reload_asked = True
        elif isinstance(event, Transition):
            stop.ask()

    run(RunOptions(bundle, camera(tmp_path, "seed=1", rows), ANY_PORT, seconds=50), on_event=heard, stop=stop)
    (gap,) = [event for event in events if isinstance(event, Gap)]
    assert gap.reason == "reload" and gap.resumed is not None and gap.resumed["action"] == "red"
    assert [event.to for event in events if isinstance(event, Transition)] == ["red", "red"]


# --- the running cycle ---------------------------------------------------------------------------


def deviations(events: list[Event]) -> list[tuple[int, str, tuple[str, ...], str | None]]:
    return [(event.epoch, event.kind, event.expected, event.seen) for event in events if isinstance(event, Deviation)]


@pytest.mark.slow
@pytest.mark.parametrize("events", ["all", "core"])
def test_a_cycle_goes_on_over_a_short_gap_and_a_replay_gives_the_same_events(tmp_path: Path, events: str) -> None:
    rows = seconds((0, 1.5), (1, 7.5), (0, 60))  # a busy machine opens the camera late
    source = camera(tmp_path, "unplug@2500ms+1s", rows)
    options = RunOptions(
        following(tmp_path, AGAIN), source, seconds=12, max_hold_ms=300, record=tmp_path / "rec", events=events
    )
    summary, told = recorded(options)
    check_stream(told, summary)
    (gap,) = [event for event in told if isinstance(event, Gap)]
    assert gap.resumed is not None
    assert deviations(told) == ([(1, "repeated", ("green",), "blue")] if events == "all" else [])
    assert gap.resumed.get("done") == (["blue", "green"] if events == "all" else None)
    cycles = [event for event in told if isinstance(event, Cycle)]
    assert [cycle.before for cycle in cycles] == ([None, ("blue",)] if events == "all" else [])
    if cycles:
        assert [step["action"] for step in cycles[1].steps] == ["green", "blue"] and not cycles[1].complete
    recording = read_recording(tmp_path / "rec")
    summary, replayed = recorded(recording.options(options.bundle))
    check_stream(replayed, summary)
    assert recording.difference([comparable(encode(event)) for event in replayed]) is None


def test_a_reload_carries_the_cycle_over_to_labels_in_another_order(tmp_path: Path) -> None:
    rows = seconds((0, 1.5), (1, 60))
    bundle, stop, events = following(tmp_path, AGAIN), Stop(), []
    (tmp_path / "other").mkdir()
    # In its order the vectors of `green` are those of `blue`.
    other = following(tmp_path / "other", AGAIN, ("red", "blue", "green"))

    def heard(event: Event) -> None:
        events.append(event)
        if isinstance(event, Transition) and event.epoch == 0 and event.to == "green":
            bundle.rename(tmp_path / "before")
            other.rename(bundle)
            stop.reload_asked = True
        elif isinstance(event, Deviation):
            stop.ask()

    run(RunOptions(bundle, camera(tmp_path, "seed=1", rows), ANY_PORT, seconds=50), on_event=heard, stop=stop)
    (gap,) = [event for event in events if isinstance(event, Gap)]
    assert gap.reason == "reload" and gap.resumed is not None and gap.resumed["done"] == ["blue", "green"]
    assert deviations(events) == [(1, "repeated", ("green",), "blue")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "before", "after", "told"),
    [
        (AGAIN, ((0, 1.5), (1, 60)), ((1, 1.5), (0, 60)), ("repeated", ["green"], "blue")),
        (LACKING, ((0, 60),), ((0, 1.5), (2, 60)), ("skipped", ["green"], "red")),
    ],
)
def test_a_killed_run_goes_on_with_the_cycle(
    tmp_path: Path, rules: dict[str, dict[str, Any]], before: Any, after: Any, told: tuple[str, list[str], str]
) -> None:
    bundle, last = following(tmp_path, rules), LABELS[before[-1][0]]
    done = [LABELS[label] for label, _ in before]
    (tmp_path / "after").mkdir()
    killed(tmp_path, camera(tmp_path, "seed=1", seconds(*before)), bundle, f'"going_on": {{"label": "{last}"'.encode())
    first = len(kept(tmp_path / "j"))
    source = camera(tmp_path / "after", "seed=1", seconds(*after))
    arguments = ("run", "--bundle", bundle, "--journal", tmp_path / "j", "--pub", f"ipc://{tmp_path}/s")
    record = ("--seconds", "5", "--record", tmp_path / "rec", "--resume", "9m", "--json")
    code, _, err = edge_hal(*arguments, "--camera", source, *record)
    assert code == 0, err
    events = [json.loads(body) for body in kept(tmp_path / "j")][first:]
    assert events[0]["resumed"]["action"] == last and events[0]["resumed"]["done"] == done
    assert [(event["kind"], event["expected"], event["seen"]) for event in events if event["type"] == "deviation"] == [
        told
    ]
    (cycle,) = [event for event in events if event["type"] == "cycle"]
    assert cycle["before"] == done[:-1] and not cycle["complete"]
    assert [step["action"] for step in cycle["steps"]] == [last, told[2]]
    assert cycle["steps"][0]["begin_t_ns"] == 0
    recording = read_recording(tmp_path / "rec")
    _, replayed = recorded(recording.options(bundle))
    assert recording.difference([comparable(encode(event)) for event in replayed]) is None


@pytest.mark.slow
def test_progress_goes_on_after_kill_9(tmp_path: Path) -> None:
    bundle = following(tmp_path, AGAIN)
    killed(tmp_path, camera(tmp_path, "seed=1", seconds((0, 1.5), (1, 60))), bundle, b'"going_on": {"label": "green"')
    (tmp_path / "after").mkdir()
    source = camera(tmp_path / "after", "seed=1", seconds((1, 60)))
    options = RunOptions(bundle, source, f"ipc://{tmp_path}/s", seconds=2, journal=tmp_path / "j")
    found = []
    for resume_s in (540.0, 0.0):
        heard = received(dataclasses.replace(options, resume_s=resume_s))
        found.append(next(event.progress for event in heard if isinstance(event, Now) and event.action == "green"))
    # `blue` is over, which is a third of the usual time.
    assert found[0] is not None and found[0] >= 0.33 and found[1] is not None and found[1] < 0.1
