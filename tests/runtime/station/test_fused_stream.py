"""A fused stream of a station: what it decides, and what happens to it when its views come and go."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_hal import subscribe
from edge_hal.bundle import Bundle, load_bundle
from edge_hal.decoding.decode import decode_posteriors
from edge_hal.decoding.fusion import fused_fingerprint, fused_spec, in_order, label_order, pooled
from edge_hal.errors import EdgeHalError
from edge_hal.events import Deviation, End, Gap, Start, Transition, encode
from edge_hal.runtime.model import Model
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.reader import comparable
from edge_hal.runtime.runner import OpenedRun
from edge_hal.runtime.station import stream_thread
from edge_hal.runtime.station.fused_run import FusedSuccession, fitting, fused_bundle
from edge_hal.runtime.station.fused_source import AHEAD, FusedSource
from edge_hal.runtime.station.options import AddressOptions, FusedOptions, StationOptions
from edge_hal.runtime.station.run import run_station
from edge_hal.runtime.station.stream_thread import StreamThread
from edge_hal.runtime.stop import Stop
from edge_hal.runtime.stream.recognizer import Recognizer
from tests.helpers.bundles import known_bundle, vectors
from tests.helpers.loops import check_laws, segments
from tests.helpers.running_station import Heard, options_of, running
from tests.helpers.station_streams import endless, stream
from tests.helpers.steps_once import AGAIN, following, seconds
from tests.helpers.steps_once import HZ as STEPS_HZ

TURNED = ("red", "blue", "green")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_thread, "FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A known bundle whose labels stand in another order."""
    return known_bundle(tmp_path_factory.mktemp("turned") / "bundle", labels=TURNED).path


def fused(*views: RunOptions, name: str = "bench", **more: Any) -> FusedOptions:
    own = {key: more.pop(key) for key in ("weights", "wait_s") if key in more}
    first = replace(views[0], journal=None)
    return FusedOptions(replace(first, stream=name, **more), tuple(each.stream for each in views), **own)


def with_fused(options: StationOptions, *streams: FusedOptions) -> StationOptions:
    return replace(options, fused={each.run.stream: each for each in streams})


def unsure(rows: NDArray[np.float32], seed: int, count: int) -> NDArray[np.float32]:
    """Vectors with stretches in which nothing can be seen."""
    rng, seen = np.random.default_rng(seed), rows.copy()
    for begin in rng.integers(0, len(rows), count):
        seen[begin : begin + 30] = rng.uniform(0, 1, seen[begin : begin + 30].shape)
    return seen


def two_views(folder: Path, bundle: Path, turned: Path) -> tuple[RunOptions, RunOptions]:
    """Two views of the same steps; each is blind at other times, and the second one counts them otherwise."""
    steps = segments(7, 40)
    left, right = (stream(folder, path, name) for path, name in ((bundle, "left"), (turned, "right")))
    np.save(folder / "left.npy", unsure(vectors(steps), 1, 10))
    place = [TURNED.index(label) for label in ("blue", "green", "red")]
    turned_steps = vectors([place[step] for step in steps])
    np.save(folder / "right.npy", unsure(turned_steps, 2, 10)[:-7])  # it ends earlier
    return left, right


def log_posteriors(options: RunOptions) -> NDArray[np.float32]:
    rows = np.load(options.camera.removeprefix("features:").removesuffix("@10"))
    model = Model(load_bundle(options.bundle))
    pyramid, found = model.stream().pyramid, []
    for tick, row in enumerate(rows):
        pyramid.push(row[None], [tick])
        found.append(pyramid.heads(1).copy())
    return np.concatenate(found)


def test_it_decides_what_the_product_of_its_views_says_and_a_subscriber_receives_it(
    tmp_path: Path, bundle: Path, turned: Path
) -> None:
    left, right = two_views(tmp_path, bundle, turned)
    weights = {"left": 0.7, "right": 1.3}
    bench = fused(left, right, weights=weights, journal=tmp_path / "bench.journal", wait_subscribers=1)
    address, received = f"ipc://{tmp_path}/s", list[bytes]()
    heard = Heard()

    def listen() -> None:
        with subscribe(address, stream="bench", timeout_s=60.0) as events:
            for event in events:
                if event.durable:
                    received.append(encode(event))
                if isinstance(event, End):
                    return

    listening = threading.Thread(target=listen)
    listening.start()
    options = with_fused(replace(options_of(left, right), address=AddressOptions(address)), bench)
    summary = run_station(lambda: options, on_event=heard)
    listening.join(60.0)
    rows = [log_posteriors(each) for each in (left, right)]
    rows[1] = in_order(rows[1], label_order(("blue", "green", "red"), TURNED))
    both = len(rows[1])
    expected = np.concatenate(
        [pooled(list(row[:both] for row in rows), [0.7, 1.3], 3), pooled([rows[0][both:], None], [0.7, 1.3], 3)]
    )
    bundles = [load_bundle(each.bundle) for each in (left, right)]
    spec = fused_spec([each.spec for each in bundles])
    decisions = decode_posteriors(expected, bundles[0].decoder, spec)
    told = [event for event in heard.events["bench"] if isinstance(event, Transition)]
    assert [(event.to, event.boundary.tick, event.decision.tick) for event in told] == [
        (spec.labels[each.label], each.boundary_tick, each.decision_tick) for each in decisions
    ]
    assert len(decisions) > 30
    assert [comparable(body) for body in received] == [comparable(encode(event)) for event in heard.events["bench"]]
    start = heard.events["bench"][0]
    assert isinstance(start, Start) and start.source == "fuse:left,right" and start.labels == ("blue", "green", "red")
    assert start.bundle == fused_fingerprint([each.fingerprint for each in bundles], [0.7, 1.3])
    ended = summary.streams["bench"]
    assert ended is not None and ended.reason == "eof"
    check_laws(dict(ended.counters))
    assert ended.counters["fresh"] == len(rows[0]) and ended.counters["held"] == 0
    views = ended.health["source"]["views"]
    assert (views["left"]["used"], views["right"]["used"]) == (len(rows[0]), both)
    assert ended.health["source"]["seen_by"] == [len(rows[0]) - both, both]


def test_two_runs_over_the_same_files_give_the_same_events(tmp_path: Path, bundle: Path, turned: Path) -> None:
    left, right = two_views(tmp_path, bundle, turned)
    bench = fused(left, right, name="bench")
    again = fused(right, left, name="again")  # another first view: labels in its order, the same decisions
    runs = []
    for _ in range(2):
        heard = Heard()
        run_station(lambda: with_fused(options_of(left, right), bench, again), on_event=heard)
        runs.append([comparable(encode(event)) for event in heard.events["bench"]])
        decided = [
            [(event.to, event.decision.tick) for event in heard.events[name] if isinstance(event, Transition)]
            for name in ("bench", "again")
        ]
        assert decided[0] == decided[1]
        assert [event.seq for event in heard.events["bench"]] == list(range(len(heard.events["bench"])))
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_a_view_that_dies_is_left_out_and_counted_again_when_it_is_back(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, dead, go = Recognizer.step, threading.Event(), threading.Event()

    def dying(self: Recognizer, batch: Any, moments: Any) -> Any:
        if self.stream == "right" and (dead.is_set() or moments[0].tick >= 15) and not go.is_set():
            dead.set()
            raise ValueError("the view is gone")
        return real(self, batch, moments)

    monkeypatch.setattr(Recognizer, "step", dying)
    left, right = (endless(tmp_path, bundle, name) for name in ("left", "right"))
    heard, stop = Heard(), Stop()
    options = with_fused(options_of(left, right), fused(left, right, wait_s=0.05))
    with running([options], heard, stop) as ended:
        heard.until(lambda _: dead.is_set() and heard.count("bench", Transition) > 2)
        before = heard.count("bench", Transition)
        heard.until(lambda _: heard.count("bench", Transition) > before + 3)  # without the view
        go.set()
        back = heard.count("right", Transition)
        heard.until(lambda _: heard.count("right", Transition) > back + 3)
    assert heard.count("bench", Start) == 1 and heard.count("bench", Gap) == 0
    summary = ended[0].streams["bench"]
    check_laws(dict(summary.counters))
    source = summary.health["source"]
    assert min(source["seen_by"]) > 5
    for view in source["views"].values():
        kinds = ("used", "superseded", "late", "unfit", "waiting")
        assert view["ticks"] == sum(view[kind] for kind in kinds)
    assert source["views"]["left"]["used"] > source["views"]["right"]["used"] > 5


@pytest.mark.slow
def test_without_any_view_it_tells_a_gap_and_goes_on(tmp_path: Path, bundle: Path) -> None:
    views = []
    for name in ("left", "right"):
        each = endless(tmp_path, bundle, name, seconds=3.5)
        views.append(replace(each, camera=f"fault:unplug@1s+1200ms:{each.camera}"))
    bench = fused(*views)
    heard = Heard()
    summary = run_station(
        lambda: with_fused(options_of(*views), replace(bench, run=replace(bench.run, seconds=None))), on_event=heard
    )
    told = summary.streams["bench"]
    assert told is not None and told.reason == "eof"
    check_laws(dict(told.counters))
    gaps = [event for event in heard.events["bench"] if isinstance(event, Gap)]
    [gone] = [gap for gap in gaps if gap.reason == "source"]
    assert gone.reset and all(gap.reason == "overload" for gap in gaps if gap is not gone)  # a busy machine cuts ticks
    begun = sum(event.from_ is None for event in heard.events["bench"] if isinstance(event, Transition))
    assert 2 <= begun <= 1 + sum(gap.reset for gap in gaps)


@pytest.mark.slow
def test_its_cycle_goes_on_over_a_short_gap(tmp_path: Path) -> None:
    views, rules = [], following(tmp_path, AGAIN)
    for name in ("left", "right"):
        each = endless(tmp_path, rules, name, seconds=7)
        np.save(tmp_path / f"{name}.npy", seconds((0, 1.5), (1, 3.5), (0, 60)))
        views.append(replace(each, camera=f"fault:unplug@2500ms+1s:features:{tmp_path}/{name}.npy@{STEPS_HZ}"))
    bench = fused(*views)
    heard = Heard()
    run_station(
        lambda: with_fused(options_of(*views), replace(bench, run=replace(bench.run, seconds=None))), on_event=heard
    )
    [gone] = [event for event in heard.events["bench"] if isinstance(event, Gap) and event.reason == "source"]
    assert gone.resumed is not None and gone.resumed["done"] == ["blue", "green"]
    told = [event for event in heard.events["bench"] if isinstance(event, Deviation)]
    assert [(event.kind, event.seen) for event in told] == [("repeated", "blue")] and told[0].epoch > 0


def test_a_reload_adds_and_removes_it_and_touches_no_view(tmp_path: Path, bundle: Path) -> None:
    left, right = (endless(tmp_path, bundle, name) for name in ("left", "right"))
    heard, stop = Heard(), Stop()
    plain = options_of(left, right)
    options = [plain]
    with running(options, heard, stop):
        heard.until(lambda events: heard.count("left", Transition) > 1 and heard.count("right", Transition) > 1)
        options.append(with_fused(plain, fused(left, right)))
        stop.ask_reload()
        heard.until(lambda _: heard.count("bench", Transition) > 2)
        options.append(with_fused(plain, fused(left, right, weights={"left": 1.0, "right": 0.0})))
        stop.ask_reload()
        heard.until(lambda _: heard.count("bench", Start) == 2 and heard.count("bench", Transition) > 5)
        options.append(plain)
        stop.ask_reload()
        heard.until(lambda _: heard.count("bench", End) == 2)
        before = heard.count("left", Transition)
        heard.until(lambda _: heard.count("left", Transition) > before + 2)
    for name in ("left", "right"):
        assert heard.count(name, Start) == heard.count(name, End) == 1 and heard.count(name, Gap) == 0
    starts = [event for event in heard.events["bench"] if isinstance(event, Start)]
    assert starts[0].bundle != starts[1].bundle


def test_it_goes_on_where_a_reload_begins_all_its_views_again(tmp_path: Path, bundle: Path) -> None:
    left, right = (endless(tmp_path, bundle, name) for name in ("left", "right"))
    heard, stop = Heard(), Stop()
    bench = fused(left, right)
    options = [with_fused(options_of(left, right), bench)]
    with running(options, heard, stop):
        for number in range(1, 5):
            heard.until(lambda _, n=number: heard.count("left", Start) == heard.count("right", Start) == n)  # type: ignore[misc]
            before = heard.count("bench", Transition)
            heard.until(lambda _, n=before: heard.count("bench", Transition) > n + 1)  # type: ignore[misc]
            again = [replace(each, now_hz=10.0 + number) for each in (left, right)]
            options.append(with_fused(options_of(*again), bench))
            stop.ask_reload()
    assert heard.count("bench", Start) == heard.count("bench", End) == 1


def test_it_begins_again_with_a_view_where_it_was_about_to_end_with_all_of_them(
    tmp_path: Path, bundle: Path, turned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, ask, ending, released = Recognizer.end, StreamThread.stop, threading.Event(), threading.Event()

    def late(self: Recognizer, reason: str, counters: Any) -> Any:
        if self.stream == "bench":
            ending.set()
            assert released.wait(60)
        return end(self, reason, counters)

    def asked(self: StreamThread, **how: Any) -> None:
        ask(self, **how)
        if self.options.stream == "bench":
            released.set()

    monkeypatch.setattr(Recognizer, "end", late)
    monkeypatch.setattr(StreamThread, "stop", asked)
    (left, right), calm = two_views(tmp_path, bundle, turned), endless(tmp_path, bundle, "calm")
    heard, stop, bench = Heard(), Stop(), fused(left, right)
    options = [with_fused(options_of(left, right, calm), bench)]
    with running(options, heard, stop):
        assert ending.wait(60)
        options.append(with_fused(options_of(replace(left, now_hz=9.0), right, calm), bench))
        stop.ask_reload()
        heard.until(lambda _: heard.count("left", Start) == 2)
        released.set()  # without the guard nobody asks it to end
        heard.until(lambda _: heard.count("bench", Start) == 2)


def test_a_view_with_another_bundle_changes_that_of_the_fused_stream(tmp_path: Path) -> None:
    paths = {name: known_bundle(tmp_path / f"{name}-bundle").path for name in ("left", "right")}
    left, right = (endless(tmp_path, path, name) for name, path in paths.items())
    heard, stop = Heard(), Stop()
    with running([with_fused(options_of(left, right), fused(left, right))], heard, stop):
        heard.until(lambda _: heard.count("bench", Transition) > 1 and heard.count("right", Transition) > 1)
        for file in paths["right"].iterdir():
            file.unlink()
        paths["right"].rmdir()
        known_bundle(paths["right"], labels=TURNED)
        stop.ask_reload()
        heard.until(lambda _: heard.count("right", Gap) == 1 and heard.count("bench", Gap) == 1)
        heard.until(lambda events: isinstance(events["bench"][-1], Transition))
    [gap] = [event for event in heard.events["bench"] if isinstance(event, Gap)]
    [start] = [event for event in heard.events["bench"] if isinstance(event, Start)]
    assert gap.reason == "reload" and gap.bundle != start.bundle
    assert gap.bundle == fused_fingerprint([load_bundle(path).fingerprint for path in paths.values()], [1, 1])


def test_a_view_whose_new_bundle_does_not_fit_is_left_out_and_comes_back_with_one_that_fits(tmp_path: Path) -> None:
    first = known_bundle(tmp_path / "first")
    lagging, back = known_bundle(tmp_path / "lagging", lag_s=0.4), known_bundle(tmp_path / "back", labels=TURNED)
    link = tmp_path / "link"
    link.symlink_to(first.path)
    left, right = endless(tmp_path, first.path, "left"), endless(tmp_path, link, "right")
    heard, stop = Heard(), Stop()

    def take_over(bundle: Bundle) -> None:
        before = heard.count("right", Gap)
        (tmp_path / "next").symlink_to(bundle.path)
        (tmp_path / "next").rename(link)
        heard.until(lambda _: heard.count("right", Gap) > before)

    with running([with_fused(options_of(left, right), fused(left, right, wait_s=0.05))], heard, stop) as ended:
        heard.until(lambda _: heard.count("bench", Transition) > 1 and heard.count("right", Transition) > 1)
        take_over(lagging)
        told = heard.count("bench", Transition)
        heard.until(lambda _: heard.count("bench", Transition) > told + 3 or heard.count("bench", End) > 0)
        assert heard.count("bench", Gap) == heard.count("bench", End) == 0
        take_over(back)
        heard.until(lambda _: heard.count("bench", Gap) == 1)
        heard.until(lambda events: isinstance(events["bench"][-1], Transition))
    assert heard.count("bench", Start) == heard.count("bench", End) == 1
    [gap] = [event for event in heard.events["bench"] if isinstance(event, Gap)]
    assert gap.bundle == fused_fingerprint([first.fingerprint, back.fingerprint], [1, 1])
    views = ended[0].streams["bench"].health["source"]["views"]
    assert views["right"]["unfit"] > 0 == views["left"]["unfit"]


def test_the_decoder_is_that_of_a_view_with_the_order_of_the_source(tmp_path: Path, bundle: Path) -> None:
    """If the first view takes over a bundle with its labels in another order, the posteriors keep theirs."""
    first, turned = load_bundle(bundle), known_bundle(tmp_path / "turned", labels=TURNED)
    made = fused_bundle([turned, first], [1.0, 1.0], first.spec.labels)
    assert made.spec.labels == first.spec.labels and made.decoder.procedure == first.decoder.procedure
    assert made.fingerprint == fused_fingerprint([turned.fingerprint, first.fingerprint], [1, 1])
    now, taken = {"left": first, "right": first}, list[Sequence[Bundle | None]]()

    def make(used: Sequence[Bundle | None]) -> Any:
        taken.append(used)
        return used

    current: Any = None
    followed = FusedSuccession(("left", "right"), first.spec, (first, first), lambda: now, make)
    assert followed.poll(current) is None
    now["left"] = turned
    followed.poll(current)
    assert taken == [(turned, first)]
    now["right"] = turned
    assert followed.poll(current) is None and len(taken) == 1  # no decoder has the order of the source


def test_a_run_of_a_fused_stream_begins_without_a_view_that_does_not_fit(tmp_path: Path, bundle: Path) -> None:
    other = known_bundle(tmp_path / "other", lag_s=0.4).path
    first, *rest = (load_bundle(path) for path in (other, bundle, bundle))
    names = ("front", "left", "right")
    assert fitting(names, [first, *rest]) == [None, *rest]
    assert fitting(names, [*rest, first]) == [*rest, None]
    with pytest.raises(EdgeHalError, match="cannot be fused"):
        fitting(names[:2], [first, rest[0]])


@pytest.mark.slow
def test_a_fused_stream_that_fails_begins_again_and_its_views_do_not_notice(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = Recognizer.step, [ValueError("a bug")] * 2

    def failing(self: Recognizer, batch: Any, moments: Any) -> Any:
        if self.stream == "bench" and failures and moments[0].tick >= 20:
            raise failures.pop()
        return real(self, batch, moments)

    monkeypatch.setattr(Recognizer, "step", failing)
    left, right = (endless(tmp_path, bundle, name) for name in ("left", "right"))
    heard, stop = Heard(), Stop()
    bench = fused(left, right, journal=tmp_path / "bench.journal")
    with running([with_fused(options_of(left, right), bench)], heard, stop):
        heard.until(lambda _: heard.count("bench", Start) == 3 and heard.count("bench", Transition) > 8)
    assert [event.seq for event in heard.events["bench"]] == list(range(len(heard.events["bench"])))
    assert [end.reason for end in heard.events["bench"] if isinstance(end, End)] == ["error", "error", "signal"]
    for end in (event for event in itertools.chain(*heard.events.values()) if isinstance(event, End)):
        check_laws(end.counters)
    for name in ("left", "right"):
        assert heard.count(name, Start) == 1 and heard.count(name, Gap) == 0


def test_a_fused_stream_that_cannot_begin_does_not_hold_its_views(tmp_path: Path, bundle: Path, turned: Path) -> None:
    left, right = two_views(tmp_path, bundle, turned)
    heard, stop = Heard(), Stop()
    bench = fused(left, right, journal=tmp_path / "no" / "such" / "folder.journal")
    with running([with_fused(options_of(left, right), bench)], heard, stop) as ended:
        heard.until(lambda _: heard.count("left", End) == heard.count("right", End) == 1)
    assert ended[0].streams["bench"] is None and "bench" not in heard.events


def test_a_fused_stream_that_fails_before_its_loop_does_not_hold_its_views(
    tmp_path: Path, bundle: Path, turned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = OpenedRun.run, [ValueError("the preview's address is taken")]

    def failing(self: OpenedRun, *args: Any, **more: Any) -> Any:
        if self.options.stream == "bench" and failures:
            source = self.source
            assert isinstance(source, FusedSource)
            while max(source._newest) < AHEAD:  # until a view waits for the others
                assert not stop.asked
            raise failures.pop()
        return real(self, *args, **more)

    monkeypatch.setattr(OpenedRun, "run", failing)
    left, right = two_views(tmp_path, bundle, turned)
    heard, stop = Heard(), Stop()
    bench = fused(left, right, journal=tmp_path / "bench.journal")
    with running([with_fused(options_of(left, right), bench)], heard, stop):
        heard.until(lambda _: all(heard.count(name, End) == 1 for name in ("left", "right", "bench")))
    assert heard.count("bench", Start) == 1 and not failures


def test_a_file_that_fails_does_not_hold_the_other_view_while_it_is_away(
    tmp_path: Path, bundle: Path, turned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Recognizer.step

    def failing(self: Recognizer, batch: Any, moments: Any) -> Any:
        if self.stream == "right" and moments[0].tick >= 20:
            raise ValueError("gone for long")
        return real(self, batch, moments)

    monkeypatch.setattr(Recognizer, "step", failing)
    monkeypatch.setattr(stream_thread, "FIRST_PAUSE_S", 600.0)
    left, right = two_views(tmp_path, bundle, turned)
    heard, stop = Heard(), Stop()
    with running([with_fused(options_of(left, right), fused(left, right))], heard, stop) as ended:
        heard.until(lambda _: heard.count("left", End) == 1 and heard.count("bench", Transition) > 30)
    source = ended[0].streams["bench"].health["source"]
    assert source["views"]["right"]["used"] == 20 and source["views"]["right"]["absent"]
    assert source["seen_by"][1] == 20 < source["seen_by"][0]


def test_what_cannot_be_fused_is_refused_before_anything_starts(tmp_path: Path, bundle: Path) -> None:
    other = known_bundle(tmp_path / "other", labels=("cut", "fold", "glue")).path
    fast = known_bundle(tmp_path / "fast", 20.0).path
    left, right = (stream(tmp_path, bundle, name) for name in ("left", "right"))
    both = fused(left, right)
    threads = set(threading.enumerate())
    cases = [
        (left, replace(right, bundle=other), both, "only 'left' knows blue"),
        (left, replace(right, bundle=fast), both, "10 and 20 Hz"),
        (left, replace(right, pace="realtime"), both, "no common time"),
        (left, right, replace(both, views=("left",)), "nothing to be combined"),
        (left, right, replace(both, views=("left", "left")), "'left' twice"),
        (left, right, replace(both, views=("left", "rigth")), "did you mean right?"),
        (left, right, replace(both, views=("left", "bench")), "no stream 'bench' with a source"),
        (left, right, replace(both, wait_s=-1.0), "wait = -1"),
        (left, right, replace(both, weights={"left": 1.0}), "weights of left; views: left, right"),
        (left, right, replace(both, weights={"left": 0.0, "right": 0.0}), "not all are 0"),
        (left, right, replace(both, weights={"left": float("nan"), "right": 1.0}), "each lies in 0..100"),
        (left, right, replace(both, run=replace(both.run, journal=left.journal)), "same journal"),
        (left, right, replace(both, run=replace(both.run, decoder={"margin": 7.0})), "stream 'bench'"),
    ]
    for one, two, bench, expected in cases:
        with pytest.raises(EdgeHalError) as error:
            run_station(lambda one=one, two=two, bench=bench: with_fused(options_of(one, two), bench))  # type: ignore[misc]
        assert expected in str(error.value) + error.value.why + error.value.todo, expected
        assert "bench" in error.value.what
        assert set(threading.enumerate()) == threads
