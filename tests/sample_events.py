"""Events of a made-up stream, for tests that publish without recognising."""

from __future__ import annotations

from edge_hal.events import Moment, Start, Transition

STREAM = "bench"
ANY_PORT = "tcp://127.0.0.1:*"


def start(seq: int = 0) -> Start:
    run = {"session": "tests"}
    return Start(STREAM, 0, seq=seq, source="s", labels=("a", "b"), model_hz=10, bundle="b1", decoder="d1", run=run)


def transition(seq: int, to: str = "a", from_: str | None = None) -> Transition:
    moment = Moment(seq, seq, seq * 1000)
    return Transition(
        *(STREAM, 0),
        seq=seq,
        from_=from_,
        to=to,
        boundary=moment,
        decision=moment,
        confidence=0.5,
        warm=True,
        decoder="d1",
        run={"session": "tests"},
    )
