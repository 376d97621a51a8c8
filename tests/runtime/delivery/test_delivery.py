"""Delivery as a whole: real runs and subscribers, those who do not read among them, and no room on the disk."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_hal.commands.options.parsing import parse_time
from edge_hal.commands.options.run_values import _journal
from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Lost, encode
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.held_events import HELD_EVENTS
from edge_hal.runtime.delivery.journal import Journal, default_path
from edge_hal.runtime.delivery.publisher import Publisher
from tests.helpers.deliveries import ENVIRONMENT, TIMEOUT_S, edge_hal, kept, run_arguments, spawn
from tests.helpers.processes import call_each
from tests.helpers.sample_events import STREAM, Server, start, transition

# --- the command line ----------------------------------------------------------------------------


def test_two_runs_are_one_stream_and_every_part_of_it_can_be_had(place: Path, endpoint: str, tmp_path: Path) -> None:
    arguments = (*run_arguments(place, endpoint, tmp_path / "j"), "--seconds", "60", "--wait-subscribers", "1")
    listen = ("-m", "edge_hal", "listen", "--connect", endpoint, "--json")
    for _ in range(2):
        live = spawn(*listen, "--until-end")
        code, _, err = edge_hal(*arguments)
        assert code == 0, err
        out, err = live.communicate(timeout=TIMEOUT_S)
        assert live.returncode == 0, err
    bodies = kept(tmp_path / "j")
    kinds = [json.loads(body)["type"] for body in bodies]
    assert kinds.count("start") == kinds.count("end") == 2 and len(bodies) > 60
    second = len(bodies) // 2
    assert [line for line in out.splitlines() if '"seq"' in line] == [body.decode() for body in bodies[second:]]
    # the same file again: the same events, but for their numbers
    for first, again in zip(bodies[:second], bodies[second:], strict=True):
        one, other = json.loads(first), json.loads(again)
        assert (one.pop("seq") + second, one.pop("run")["journal"]) == (other.pop("seq"), other.pop("run")["journal"])
        assert one == other
    # a third run holds its start until everybody who asks for the past is there
    third = spawn("-m", "edge_hal", *arguments[:-1], "4")
    asked: list[tuple[tuple[str, ...], int]] = [
        (("--from-start", "--count", "20"), 0),
        (("--from", "7", "--count", "20"), 7),
        (("--since", "1w", "--count", "20"), 0),
        (("--cursor", str(tmp_path / "c"), "--count", "20"), 0),
    ]
    listeners = [spawn(*listen, *options) for options, _ in asked]
    for listener, (options, first_seq) in zip(listeners, asked, strict=True):
        out, err = listener.communicate(timeout=TIMEOUT_S)
        assert listener.returncode == 0, (options, err)
        seqs = [event["seq"] for event in map(json.loads, out.splitlines()) if "seq" in event]
        assert len(seqs) >= 18 and seqs == list(range(first_seq, first_seq + len(seqs))), options
    assert third.wait(timeout=TIMEOUT_S) == 0
    third.communicate()
    assert json.loads((tmp_path / "c").read_text())["seq"] < len(bodies)


def test_wrong_use_is_said_in_a_line(place: Path, endpoint: str, tmp_path: Path) -> None:
    run = run_arguments(place, endpoint, tmp_path / "j")
    cases: list[tuple[tuple[str, ...], int, str]] = [
        ((*run, "--retention", "1y"), 2, "--retention 1y"),
        ((*run, "--no-journal"), 2, "exclude"),
        (run_arguments(place, endpoint, tmp_path / "none" / "j"), 1, "cannot open the journal"),
        ((*run, "--replay", "tcp://0.0.0.0:5599"), 2, "unencrypted"),
        ((*run[:-5], "--stream", STREAM, "--replay", f"{endpoint}.r"), 2, "keeps no journal"),
        ((*run, "--key", str(tmp_path / "none")), 2, "cannot read the key"),
        ((*run[:-5], "--stream", "a b", "--journal", str(tmp_path / "new")), 2, "cannot name a stream"),
        ((*run, "--pub", "inproc://x", "--journal", str(tmp_path / "new")), 2, "it is not an address"),
        ((*run, "--preview", "nonsense", "--journal", str(tmp_path / "new")), 2, "it is not an address"),
        (("listen", "--stream", "a b"), 2, "cannot name a stream"),
        (("listen", "--from-start", "--from", "3"), 2, "more than one place"),
        (("listen", "--since", "yesterday"), 2, "not a time"),
        (("listen", "--connect", "nonsense"), 2, "cannot connect"),
    ]
    (tmp_path / "told").mkdir()
    told = call_each([arguments for arguments, _, _ in cases], tmp_path / "told")
    for (_, wanted, text), (code, out, err) in zip(cases, told, strict=True):
        assert (code, out) == (wanted, "") and text in err and "Traceback" not in err, err
    assert not (tmp_path / "new").exists()  # nor a journal of a name that no run can have


def test_cameras_are_kept_by_default_and_recordings_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "v.mp4").touch()
    for camera in ("0", "rtsp://host/x", "csi:0", "gst:videotestsrc ! appsink", "fault:drop=5%:0"):
        assert _journal(None, False, camera, "bench") == default_path("bench")
        assert _journal(None, True, camera, "bench") is None
        assert _journal(tmp_path / "j", False, camera, "bench") == tmp_path / "j"
    for camera in (str(tmp_path / "v.mp4"), str(tmp_path), "features:f.npy@10", f"fault:dup:{tmp_path}/v.mp4"):
        assert _journal(None, False, camera, "bench") is None
    assert list(tmp_path.iterdir()) == [tmp_path / "v.mp4"]


def test_times_are_dates_or_ago() -> None:
    now_ns = 1_700_000_000 * 10**9
    assert parse_time("90m", now_ns) == now_ns - 5400 * 10**9
    assert parse_time("2023-11-14T22:13:20Z", 0) == parse_time("2023-11-14T23:13:20+01:00", 0) == now_ns
    for text in ("", "soon", "5y", "-3m", "2023-13-01", "9" * 30 + "d"):
        with pytest.raises(EdgeHalError) as error:
            parse_time(text, now_ns)
        assert error.value.exit_code == 2


# --- the disk ------------------------------------------------------------------------------------


def test_the_loop_never_waits_for_the_disk_and_nothing_unkept_is_sent(endpoint: str, tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "j", STREAM) as journal,
        Publisher(endpoint, STREAM, journal=journal) as publisher,
        subscribe(endpoint, timeout_s=TIMEOUT_S) as events,
    ):
        publisher.wait_subscribers(1)
        publisher.publish(start())
        assert next(events).type == "start"
        holder = sqlite3.connect(tmp_path / "j", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")  # nobody but this thread can let the writer go on
        for seq in range(1, 600):
            publisher.publish(transition(seq))
        while True:
            event = next(events)
            assert not event.durable
            if event.type == "heartbeat" and event.delivery["journal"] != "ok":
                break
        assert "locked" in event.delivery["journal"] and event.delivery["held"] == 599 and event.last_seq == 0
        holder.execute("ROLLBACK")
        holder.close()
        assert [next(e for e in events if e.durable).seq for _ in range(599)] == list(range(1, 600))
        while (event := next(events)).type != "heartbeat":
            pass
        assert event.delivery["journal"] == "ok" and event.delivery["held"] == 0
        assert event.delivery["replay"] == f"{endpoint}.replay"
        assert "utc_ns" in event.run and event.run["journal"] == journal.id


def test_a_journal_that_stays_away_is_an_error_after_a_thousand_events(endpoint: str, tmp_path: Path) -> None:
    with Journal(tmp_path / "j", STREAM) as journal:
        publisher = Publisher(endpoint, STREAM, journal=journal)
        holder = sqlite3.connect(tmp_path / "j", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        publisher.publish(start())
        for seq in range(1, HELD_EVENTS):
            publisher.publish(transition(seq))
        with pytest.raises(EdgeHalError, match="1000 events could not be stored"):
            publisher.publish(transition(HELD_EVENTS), wait=True)
        with pytest.raises(EdgeHalError, match="1000 events were not stored"):
            publisher.close()
        assert publisher.sent <= 5  # heartbeats
        holder.close()
    assert kept(tmp_path / "j") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_holds_events_back_until_there_is_room(endpoint: str, small_disk: Path) -> None:
    with Journal(small_disk / "j", STREAM) as journal:
        with (
            Publisher(endpoint, STREAM, journal=journal) as publisher,
            subscribe(endpoint, timeout_s=TIMEOUT_S) as events,
        ):
            publisher.wait_subscribers(1)
            publisher.publish(start())
            assert next(events).type == "start"
            with (small_disk / "filler").open("wb", buffering=0) as filler:
                try:
                    while filler.write(b"x" * 512):
                        pass
                except OSError:
                    pass
            for seq in range(1, 900):
                publisher.publish(transition(seq))
            seqs, ailing = [0], None
            while ailing is None:
                event = next(events)
                if event.durable:
                    seqs.append(event.seq)
                elif event.type == "heartbeat" and event.delivery["journal"] != "ok":
                    ailing = event
            assert "full" in ailing.delivery["journal"] and ailing.delivery["held"] == 899 - ailing.last_seq > 0
            assert seqs == list(range(ailing.last_seq + 1)) and len(kept(small_disk / "j")) == len(seqs)
            (small_disk / "filler").unlink()
            while len(seqs) < 900:
                event = next(events)
                if event.durable:
                    seqs.append(event.seq)
            assert seqs == list(range(900))
        assert len(kept(small_disk / "j")) == 900


def test_a_run_without_room_for_its_journal_stops_with_an_error(place: Path, endpoint: str, tmp_path: Path) -> None:
    heard: list[bytes] = []

    def listen() -> None:
        with subscribe(endpoint, timeout_s=TIMEOUT_S) as events:
            for event in events:
                if event.durable:
                    heard.append(events.raw)
                if isinstance(event, End):
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    arguments = (*run_arguments(place, endpoint, tmp_path / "j"), "--wait-subscribers", "1")
    limited = ["bash", "-c", 'ulimit -f 200; exec "$@"', "-", sys.executable, "-m", "edge_hal", *arguments]
    done = subprocess.run(limited, capture_output=True, text=True, env=ENVIRONMENT, timeout=TIMEOUT_S)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "could not be stored" in done.stderr and "free the disk" in done.stderr
    before = kept(tmp_path / "j")
    assert 0 < len(before) < 2000
    code, _, err = edge_hal(*arguments)  # the disk is larger now
    assert code == 0, err
    listener.join(timeout=TIMEOUT_S)
    after = kept(tmp_path / "j")
    assert [json.loads(body)["seq"] for body in after] == list(range(len(after)))
    assert after[: len(before)] == before and json.loads(after[len(before)])["type"] == "start"
    assert heard == after


# --- those who do not read -----------------------------------------------------------------------

COUNTER = """
import sys
from edge_hal import subscribe

expected = 0
with subscribe(sys.argv[1], begin="oldest") as events:
    for event in events:
        if event.durable:
            assert event.seq == expected, (event.seq, expected)
            expected += 1
            if expected == 100:
                print("reading", flush=True)
            if expected == int(sys.argv[2]):
                break
print("all", flush=True)
"""


def test_a_subscriber_that_is_stopped_costs_a_bounded_sum_and_misses_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path, 100)
    total = 100 + 3 * 15_000
    code = COUNTER.replace("sys.argv[1]", "sys.argv[1], replay=sys.argv[3]")
    with spawn("-c", code, server.endpoint, str(total), server.replay) as counter:
        assert counter.stdout is not None and counter.stdout.readline() == "reading\n"
        counter.send_signal(signal.SIGSTOP)
        weights, last = [], 99
        with subscribe(server.endpoint, replay=server.replay, timeout_s=TIMEOUT_S) as events:
            for _ in range(3):
                server.publish(15_000)  # each more than ZeroMQ keeps for one subscriber
                last += 15_000
                while getattr(event := next(events), "seq", getattr(event, "last_seq", -1)) < last:
                    assert not isinstance(event, Lost)
                weights.append(server.resident_bytes())
        # kept for the stopped one, the 30,000 events since the first weighing would take at least their own size
        assert weights[2] - weights[0] < 30_000 * len(encode(transition(1))), weights
        counter.send_signal(signal.SIGCONT)
        out, err = counter.communicate(timeout=2 * TIMEOUT_S)
        assert out == "all\n", err
    server.process.communicate(timeout=20)


@pytest.mark.slow
def test_a_listener_that_stops_reading_for_a_minute_holds_nothing_up_and_misses_nothing(
    place: Path, endpoint: str, tmp_path: Path
) -> None:
    """`edge-hal listen`, stopped for 60 s while a run goes on at its own pace."""
    np.save(tmp_path / "f.npy", np.load(place / "f.npy")[:750])
    arguments = (
        *("run", "--bundle", str(place / "bundle"), "--camera", f"features:{tmp_path}/f.npy@10", "--pub", endpoint),
        *("--journal", str(tmp_path / "j"), "--stream", STREAM, "--json", "--wait-subscribers", "1"),
    )
    listener = spawn("-m", "edge_hal", "listen", "--connect", endpoint, "--from-start", "--json", "--until-end")
    with spawn("-m", "edge_hal", *arguments) as process:
        assert listener.stdout is not None and '"seq":0' in listener.stdout.readline()
        listener.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):  # the run outlives the minute
            process.wait(timeout=60)
        listener.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=2 * TIMEOUT_S)
    assert process.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["ticks"] >= 740 and summary["cut"] == 0
    lines, err = listener.communicate(timeout=2 * TIMEOUT_S)
    assert listener.returncode == 0, err
    seqs = [event["seq"] for event in map(json.loads, lines.splitlines()) if "seq" in event]
    assert seqs == list(range(1, summary["events"])) and len(kept(tmp_path / "j")) == summary["events"]


def test_twenty_subscribers_come_and_go_and_each_is_welcomed(tmp_path: Path) -> None:
    server = Server(tmp_path, 200)
    failures: list[BaseException] = []

    def visit(number: int) -> None:
        rng = random.Random(number)
        try:
            for _ in range(5):
                begin = rng.randrange(200)
                with subscribe(server.endpoint, replay=server.replay, begin=begin, timeout_s=TIMEOUT_S) as events:
                    expected = begin
                    for event in events:
                        if event.durable:
                            assert event.seq == expected
                            expected += 1
                        if expected >= begin + 100:
                            break
        except BaseException as error:
            failures.append(error)

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(20)]
    for visitor in visitors:
        visitor.start()
    while any(visitor.is_alive() for visitor in visitors):
        server.publish(5)
        visitors[-1].join(timeout=0.05)
        visitors.append(visitors.pop(0))
    assert not failures
    server.process.communicate(timeout=20)
    assert server.process.returncode == 0
