"""What `edge-hal train` says at its end."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from edge_hal.calib.fit_patience import UNFITTED
from edge_hal.commands.progress import WAIT_S, Stages
from edge_hal.commands.train_report import say_if_unfitted
from edge_hal.learning.training import LEAST_HELD_OUT


@pytest.mark.parametrize(
    ("videos", "given", "said"),
    [
        (LEAST_HELD_OUT - 1, {}, True),
        (LEAST_HELD_OUT, {}, False),
        (LEAST_HELD_OUT - 1, {"decide_at": 0.8}, False),
        (LEAST_HELD_OUT - 1, {"evidence_hz": 2.0}, False),  # asks for a decoder without these settings
        (LEAST_HELD_OUT - 1, {"lead_s": 0.1}, True),
    ],
)
def test_settings_that_no_video_was_held_out_for_are_named(
    videos: int, given: dict[str, float], said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    say_if_unfitted(videos, given)
    out = capsys.readouterr().out
    assert bool(out) is said
    if said:
        assert all(f"{name} {value:g}" in out for name, value in UNFITTED.items()) and str(LEAST_HELD_OUT) in out


def test_a_log_shows_how_far_a_long_stage_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr("edge_hal.commands.progress.time.monotonic", lambda: now_s[0])
    with Stages() as report:
        for done in range(11):
            report("teacher", done, 10, "loss 1")
            now_s[0] += 0.4 * WAIT_S
        report("student", 5, 5, "")
    told = [line for line in capsys.readouterr().err.splitlines() if line]
    assert told == [*(f"teacher: {n}/10 loss 1" for n in (3, 6, 9, 10)), "student: 5/5"]
