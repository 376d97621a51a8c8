"""`fault:` sources: the same script, seeded, over files as fast as possible and over cameras for real."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.runtime.sources.base import Source
from edge_hal.runtime.sources.faults import ASAP_HANG_S, FaultInjector, FaultScript, Window, inject_faults
from edge_hal.runtime.sources.frame import Frame
from edge_hal.runtime.sources.watchdog import Limits
from tests.helpers.camera_server import serving
from tests.helpers.sources import opened

S = 10**9
HZ = 20


def played(script: str, seconds: int = 60) -> list[tuple[int, int]]:
    """(stream time, which frame it shows) of a file at 20 Hz, frame i showing i."""
    frames = ((index * S // HZ, np.array([index])) for index in range(seconds * HZ))
    return [(t_ns, int(data[0])) for t_ns, data in inject_faults(FaultScript.parse(script), frames) if data is not None]


def test_a_script_is_read_as_it_is_written() -> None:
    script = FaultScript.parse("drop=5%,freeze@10s+3s,hang@20s,unplug@0.5m+5s,dup,jitter=20ms,clockstep=-1s@40s,seed=7")
    assert script == FaultScript(
        drop=0.05,
        dup=1.0,
        jitter_ns=20_000_000,
        seed=7,
        windows=(
            Window("freeze", 10 * S, 13 * S),
            Window("hang", 20 * S, None),
            Window("unplug", 30 * S, 35 * S),
        ),
        clock_steps=((40 * S, -S),),
    )


@pytest.mark.parametrize("text", ["", "drop=5", "drop", "freeze=3s", "hang@s", "party@3s", "jitter=3", "drop=5%,,dup"])
def test_what_is_no_fault_is_named(text: str) -> None:
    if text == "drop":
        assert FaultScript.parse(text).drop == 1.0
        return
    with pytest.raises(EdgeHalError, match="there is no fault") as error:
        FaultScript.parse(text)
    assert error.value.exit_code == 2 and "fault:drop=5%" in error.value.todo


def test_each_fault_over_a_file_does_what_it_says() -> None:
    clean = played("drop=0%")
    assert clean == [(index * S // HZ, index) for index in range(60 * HZ)]
    lost = set(clean) - set(played("drop=25%"))
    assert 0.2 < len(lost) / len(clean) < 0.3
    assert [shown for _, shown in played("dup")] == [index // 2 for index in range(120 * HZ)]
    assert 1.05 < len(played("dup=10%")) / len(clean) < 1.15
    frozen = played("freeze@10s+3s")
    assert [t for t, _ in frozen] == [t for t, _ in clean]
    assert all(shown == (200 if 200 <= i < 260 else i) or shown == 199 for i, (_, shown) in enumerate(frozen))
    assert len({shown for _, shown in frozen[200:260]}) == 1
    for script, begin, end in [
        ("unplug@30s+5s", 30, 35),
        ("unplug@30s", 30, 60),
        ("hang@20s+2s", 20, 22),
        ("hang@20s", 20, 20 + ASAP_HANG_S),
    ]:
        assert played(script) == [(t, shown) for t, shown in clean if not begin * S <= t < end * S]
    late = played("jitter=20ms")
    assert all(0 <= t - shown * S // HZ <= 20_000_000 for t, shown in late)
    assert len({t - shown * S // HZ for t, shown in late}) > 1000
    stepped = played("clockstep=-1s@40s,clockstep=3s@50s")
    assert all(t - shown * S // HZ == (0 if shown < 800 else -S if shown < 1000 else 2 * S) for t, shown in stepped)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from(["drop=20%", "dup=30%", "jitter=15ms", "freeze@3s+2s", "unplug@7s+1s", "clockstep=-2s@9s"]),
        min_size=1,
        unique=True,
    ),
    st.integers(0, 1000),
)
def test_the_same_seed_gives_the_same_faults(faults: list[str], seed: int) -> None:
    script = ",".join([*faults, f"seed={seed}"])
    assert played(script, 12) == played(script, 12)
    if "drop=20%" in faults:
        assert played(script, 12) != played(",".join([*faults, f"seed={seed + 1}"]), 12)


def test_a_hang_or_a_freeze_without_length_ends_when_the_camera_is_opened_again() -> None:
    script = FaultScript.parse("hang@2s,freeze@4s,unplug@6s")
    first, second = FaultInjector(script), FaultInjector(script, opened_ns=5 * S)
    assert first.hang(S) is None and first.hang(3 * S) is not None and first.hang(3 * S) is None
    assert first.frozen(100 * S) and not second.frozen(100 * S) and second.hang(100 * S) is None
    assert first.unplugged(100 * S) and second.unplugged(100 * S)


# --- through a source ----------------------------------------------------------------------------


def drain(source: Source) -> list[Frame]:
    frames = []
    while source.ended is None:
        if (got := source.take(None)) is not None:
            frames.append(got[0])
    return frames


def test_a_file_with_faults_stays_exactly_accounted_and_never_runs_backwards(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
    rows[100] = np.nan
    np.save(tmp_path / "f.npy", rows)
    uri = f"fault:drop=10%,dup=10%,jitter=30ms,clockstep=-1s@20s,seed=3:features:{tmp_path}/f.npy@20"
    runs = []
    for _ in range(2):
        with opened(uri, "asap", vector_size=3) as source:
            frames = drain(source)
        intake = source.intake()
        assert len(frames) + intake.undecodable == intake.captured and source.ended == "eof"
        assert all(a.index < b.index and a.t_ns <= b.t_ns for a, b in pairwise(frames))
        assert source.name == uri
        runs.append([(frame.index, frame.t_ns, frame.data.tobytes()) for frame in frames])
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_a_file_with_faults_at_its_own_pace_is_a_camera_they_happen_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Hung, killed, replaced; unplugged, refused, back: while the file goes on where it would be."""
    np.save(tmp_path / "f.npy", np.repeat(np.arange(440, dtype=np.float32)[:, None], 3, axis=1))
    uri = f"fault:hang@1s,unplug@4s+2s,clockstep=-1s@9s:features:{tmp_path}/f.npy@40"
    with opened(uri, vector_size=3, limits=Limits(stall_s=0.3)) as source:
        frames = drain(source)
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert source.ended == "eof" and source.health()["connections"] >= 3 and source.health()["clock_steps"] == 1
    assert "it hangs" in told and "delivers no more frames" in told and "stepped by -1.0" in told
    assert all(a.t_ns <= b.t_ns for a, b in pairwise(frames))
    for frame in frames:  # what a frame shows tells when it was taken
        assert abs(frame.t_ns / S - frame.data[0] / 40) < 0.5
    silences = [b.t_ns - a.t_ns for a, b in pairwise(frames) if b.t_ns - a.t_ns > 0.25 * S]
    assert len(silences) >= 2 and frames[-1].data[0] == 439


def test_a_real_camera_can_be_made_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    with serving("http") as (_, port):
        uri = f"fault:freeze@0.5s:http://127.0.0.1:{port}/cam"
        with opened(uri, limits=Limits(still_s=0.3)) as source:
            end = time.monotonic() + 30
            while source.health()["connections"] < 2:
                assert time.monotonic() < end
                source.take(None)
    assert "frozen" in "\n".join(record.getMessage() for record in caplog.records)


def test_bad_scripts_and_bad_files_are_refused_before_anything_starts(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros((5, 3), np.float32))
    for uri, pace, expected in [
        (f"fault:party:features:{tmp_path}/f.npy@5", "asap", "there is no fault"),
        (f"fault:drop=1%:features:{tmp_path}/g.npy@5", "realtime", "no such file"),
        ("fault:drop=1%:0", "asap", "cannot wait"),
        ("fault:drop=1%", "realtime", "names no source"),
    ]:
        with pytest.raises(EdgeHalError, match=expected):
            opened(uri, pace, vector_size=3)
