"""The loop of a bridge, with a target in this process and a real publisher."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Lost
from edge_hal.runtime.bridges import bridge as module
from edge_hal.runtime.bridges.bridge import Delivery, Identity, Source, Unavailable, bridge
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.stop import Stop
from tests.helpers.deliveries import kept
from tests.helpers.processes import REPOSITORY
from tests.helpers.sample_events import STREAM, mixed
from tests.helpers.services import position, start_bridge, until


class Remembering:
    """A target that fails `failures` times, and asks for a stop when it has `enough` events."""

    def __init__(self, enough: int, failures: int = 0, refuse: bool = False) -> None:
        self.stop, self.enough, self.failures, self.refuse = Stop(), enough, failures, refuse
        self.batches: list[list[Delivery]] = []
        self.reports: list[Event] = []
        self.opened = self.closed = 0

    @property
    def raws(self) -> list[bytes]:
        return [each.raw for batch in self.batches for each in batch]

    def open(self) -> None:
        self.opened += 1
        self._fail()

    def deliver(self, batch: Sequence[Delivery]) -> None:
        if self.refuse:
            raise EdgeHalError("the target wants none of it")
        self._fail()
        self.batches.append(list(batch))
        if len(self.raws) >= self.enough:
            self.stop.ask()

    def report(self, event: Event, raw: bytes) -> None:
        self.reports.append(event)

    def close(self) -> None:
        self.closed += 1

    def _fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise Unavailable("the target is away", 0.0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal", STREAM, Retention(float("inf"), 2**63)) as opened:
        yield opened


@pytest.fixture
def published(endpoint: str, journal: Journal) -> Iterator[Callable[[int], None]]:
    """`published(n)`: n more events are in the journal and sent."""
    with Publisher(endpoint, STREAM, journal=journal) as publisher:

        def more(count: int) -> None:
            first = journal.next_seq
            for seq in range(first, first + count):
                publisher.publish(mixed(seq), wait=True)
            until(lambda: journal.next_seq == first + count)

        yield more


def test_past_events_come_in_pages_and_only_what_was_confirmed_is_not_given_again(
    endpoint: str, tmp_path: Path, published: Callable[[int], None]
) -> None:
    published(2500)
    source, first = Source(tmp_path / "cursor", endpoint), Remembering(1200)
    bridge(source, first, first.stop)
    assert first.raws == kept(tmp_path / "journal")[: len(first.raws)] and 1200 <= len(first.raws) < 2500
    assert len(first.batches) < 20  # a page is one batch
    assert position(tmp_path / "cursor") == len(first.raws) - 1

    refusing = Remembering(1, refuse=True)
    with pytest.raises(EdgeHalError, match="wants none"):
        bridge(source, refusing, refusing.stop)
    assert position(tmp_path / "cursor") == len(first.raws) - 1 and refusing.closed == 1

    second = Remembering(2500 - len(first.raws))
    bridge(source, second, second.stop)
    assert first.raws + second.raws == kept(tmp_path / "journal")
    assert (second.opened, second.closed) == (1, 1)


def test_a_target_that_is_away_is_asked_again_and_gets_the_same_batch(
    endpoint: str, tmp_path: Path, published: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edge_hal")
    published(30)
    target = Remembering(30, failures=7)
    bridge(Source(tmp_path / "cursor", endpoint), target, target.stop)
    assert target.raws == kept(tmp_path / "journal") and target.opened == 8
    assert [r.message for r in caplog.records if "is away" in r.message] == [
        "the target is away; trying again until it works"
    ]  # told once
    assert any("can be reached again" in record.message for record in caplog.records)


def test_a_target_that_keeps_silent_is_told_once_for_each_call(
    endpoint: str,
    tmp_path: Path,
    published: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LATE_S", 0.05)

    def told() -> int:
        return caplog.text.count("the target has not confirmed")

    class Silent(Remembering):
        def deliver(self, batch: Sequence[Delivery]) -> None:
            before = told()
            until(lambda: told() > before)
            super().deliver(batch)

    published(30)
    target = Silent(30)
    bridge(Source(tmp_path / "cursor", endpoint), target, target.stop, largest_batch=10)
    assert target.raws == kept(tmp_path / "journal") and told() == 3


def test_pauses_grow_and_end(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(Remembering):
        def open(self) -> None:
            raise Unavailable("away")

    pauses: list[float] = []
    target = Away(1)

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            target.stop.ask()

    monkeypatch.setattr(module.time, "sleep", sleep)
    bridge(Source(tmp_path / "cursor", endpoint), target, target.stop)
    assert pauses[0] <= 0.5 and 0.5 * module.LONGEST_PAUSE_S <= min(pauses[8:]) <= max(pauses) <= module.LONGEST_PAUSE_S
    assert target.closed == 1 and not (tmp_path / "cursor").exists()


def test_reports_come_after_the_events_before_them(
    endpoint: str, tmp_path: Path, published: Callable[[int], None]
) -> None:
    published(3)
    target = Remembering(4)
    thread = threading.Thread(target=bridge, args=(Source(tmp_path / "cursor", endpoint), target, target.stop))
    thread.start()
    until(lambda: bool(target.reports))
    assert len(target.raws) == 3 and target.reports[0].type in ("snapshot", "heartbeat")
    published(1)
    thread.join()
    assert len(target.raws) == 4


def test_lost_events_are_given_with_their_identity(endpoint: str, tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "journal", STREAM, Retention(float("inf"), 1)) as journal,
        Publisher(endpoint, STREAM, journal=journal) as publisher,
    ):
        publisher.publish(mixed(0), wait=True)
        until(lambda: journal.next_seq == 1)
        target = Remembering(1)
        bridge(Source(tmp_path / "cursor", endpoint), target, target.stop)
        for seq in range(1, 400):  # retention deletes what is older than the newest 256
            publisher.publish(mixed(seq), wait=True)
        until(lambda: journal.next_seq == 400)
        target = Remembering(2)
        bridge(Source(tmp_path / "cursor", endpoint), target, target.stop)
        lost = target.batches[0][0]
        assert isinstance(lost.event, Lost)
        assert lost.identity == Identity(journal.id, STREAM, 1)
        assert target.batches[0][1].identity == Identity(journal.id, STREAM, lost.event.to + 1)


def test_a_cursor_serves_one_bridge(endpoint: str, tmp_path: Path, published: Callable[[int], None]) -> None:
    published(1)
    source, inside = Source(tmp_path / "cursor", endpoint), Remembering(10**9)
    thread = threading.Thread(target=bridge, args=(source, inside, inside.stop))
    thread.start()
    until(lambda: bool(inside.raws))
    with pytest.raises(EdgeHalError, match="another bridge moves it"):
        bridge(source, Remembering(1))
    inside.stop.ask()
    thread.join()
    outside = Remembering(1)
    published(1)
    bridge(source, outside, outside.stop)
    assert len(outside.raws) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_exit_code_0_wherever_it_waits(
    endpoint: str, tmp_path: Path, number: signal.Signals
) -> None:
    """First without a publisher, then without a target."""
    (tmp_path / "secret").write_text("secret-word")
    (tmp_path / "secret").chmod(0o600)
    common = ("--secret-file", tmp_path / "secret", "--connect", endpoint, "--cursor", tmp_path / "c", "--log", "json")
    with start_bridge("webhook", "http://127.0.0.1:9/x", *common) as process:
        _told(process, "position in")
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
    with Journal(tmp_path / "journal", STREAM) as journal, Publisher(endpoint, STREAM, journal=journal) as publisher:
        publisher.publish(mixed(0), wait=True)
        with start_bridge("webhook", "http://127.0.0.1:9/x", *common) as process:
            _told(process, "trying again")
            process.send_signal(signal.SIGHUP)  # there is nothing to load again
            process.send_signal(number)
            assert process.wait(timeout=60) == 0
    assert not (tmp_path / "c").exists()


def _told(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    assert any(text in line for line in process.stderr)


def test_the_bridge_of_the_document_survives_a_kill(
    endpoint: str, tmp_path: Path, published: Callable[[int], None]
) -> None:
    """docs/bridges.md: a bridge of one's own."""
    page = (REPOSITORY / "docs" / "bridges.md").read_text()
    [code] = [block.partition("```")[0] for block in page.split("```python\n")[1:] if "def deliver" in block]
    assert len(code.splitlines()) <= 25
    code = code.replace("tcp://127.0.0.1:5570", endpoint)
    from tests.helpers.processes import start

    published(500)
    with start(code=code, cwd=tmp_path) as process:
        until(lambda: (tmp_path / "events.jsonl").exists() and (tmp_path / "events.cursor").exists())
        process.kill()
    published(50)
    everything = kept(tmp_path / "journal")
    with start(code=code, cwd=tmp_path) as process:
        until(lambda: (tmp_path / "events.jsonl").read_bytes().endswith(everything[-1] + b"\n"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert [line for line in dict.fromkeys(lines)] == everything
