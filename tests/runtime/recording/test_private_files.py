"""What a recording writes is for its owner only, whatever the umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edge_hal.runtime.recording.state_file import save
from edge_hal.runtime.runner import RunOptions
from tests.helpers.bundles import vectors
from tests.helpers.loops import features, recorded


def test_others_can_read_no_file_of_a_recording(tmp_path: Path, bundle: Path) -> None:
    before = os.umask(0)
    try:
        source = features(tmp_path, vectors([0] * 20), 10)
        recorded(RunOptions(bundle, source, pace="asap", record=tmp_path / "recording"))
        save(tmp_path / "recording" / "state.npz", {"a": 1})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "recording").iterdir()}
    assert len(modes) == 4 and set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "recording").stat().st_mode) == 0o700
