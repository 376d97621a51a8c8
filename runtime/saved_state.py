"""The state of a run between two ticks, without that of its source. Checkpoints hold it, and replays begin with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_hal.errors import EdgeHalError

from .recording.reader import SOURCE_STATE
from .recording.replay_source import ReplaySource
from .recording.state_file import State, check_like
from .stream.clock import FrameClock
from .stream.recognizer import Recognizer


def state_of(clock: FrameClock, recognizer: Recognizer, vector: NDArray[np.float32] | None) -> State:
    """`vector`: that of the newest frame; None before the first one."""
    return {"clock": clock.state(), "recognizer": recognizer.state(), "vector": vector}


def restore(
    state: State, source: ReplaySource, clock: FrameClock, recognizer: Recognizer
) -> NDArray[np.float32] | None:
    """Continue where `state` was taken. Returns the vector of the newest frame.

    Raises:
        EdgeHalError: the state, which may come from anybody, does not fit the bundle and the options.
    """
    fresh = state_of(clock, recognizer, None)
    try:
        check_like({**fresh, "source": SOURCE_STATE}, state)
        vector: NDArray[np.float32] | None = state["vector"]
        if vector is not None:
            check_like(np.zeros(recognizer.spec.front_end.size, np.float32), vector, "state.vector")
        frame = state["clock"]["frame"]
        clock.restore(state["clock"], None if frame is None else source.frame(*frame), source.now_ns())
        recognizer.restore(state["recognizer"])
        return vector
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        what = f"the saved state of {source.name} cannot be used"
        todo = "were decoder.json and procedure.json edited since? Put them back as they were; or replay another piece"
        raise EdgeHalError(what, f"{type(error).__name__}: {error}", todo) from error
