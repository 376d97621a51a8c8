"""50,000 frames with faults: memory stays, nothing is lost uncounted, the state is that of a fresh stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_hal.events import Event, Gap
from edge_hal.runtime import runner
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.report import Status
from tests.helpers.bundles import LABELS, known_bundle


def anonymous_bytes() -> int:
    """What this process has allocated and touched; the mapped file is not part of it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


@pytest.mark.slow
def test_fifty_thousand_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = known_bundle(tmp_path / "bundle").path
    rows = np.random.default_rng(0).normal(size=(50_000, len(LABELS))).astype(np.float32)
    np.save(tmp_path / "f.npy", rows)
    del rows
    holes = ",".join(f"unplug@{at}s+2s" for at in range(500, 5000, 500))
    camera = f"fault:drop=2%,dup=1%,jitter=30ms,{holes}:features:{tmp_path}/f.npy@10"
    memory: list[int] = []
    reports, real = 0, Publisher.status

    def status(publisher: Publisher, report: Status) -> None:
        nonlocal reports
        counters = report.counters
        dropped = sum(counters["dropped"].values())
        assert counters["captured"] == counters["used"] + dropped + counters["in_flight"]
        assert counters["ticks"] == counters["fresh"] + counters["held"] + counters["cut"]
        reports += 1
        if reports % 5000 == 0:
            memory.append(anonymous_bytes())
        real(publisher, report)

    monkeypatch.setattr(Publisher, "status", status)
    events: list[Event] = []
    gaps = 0

    def follow(event: Event) -> None:
        nonlocal gaps
        gaps += isinstance(event, Gap)
        events[:] = [event]

    options = runner.RunOptions(bundle, camera, "tcp://127.0.0.1:*", "asap", selfcheck_s=300.0)
    summary = runner.run(options, on_event=follow)
    assert summary.counters["captured"] > 48_000 and gaps == 9 and summary.events > 1000
    assert summary.counters == events[-1].counters
    assert summary.counters["in_flight"] == 0 and summary.counters["cut"] == 0
    check = summary.health["selfcheck"]
    assert check["checks"] > 3 and check["failed"] == 0
    assert len(memory) >= 9 and max(memory[1:]) - memory[1] < 2_000_000, [value >> 10 for value in memory]
