"""Wrong keys are told at both ends within five seconds: real processes, real sockets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.network.curve_keys import allow, client_keys, new_pair
from tests.helpers.bundles import vectors
from tests.helpers.processes import start

WITHIN_S = 5.0


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("station", "other", "friend", "stranger"):
        new_pair(tmp_path, name)
    allow(tmp_path, tmp_path / "friend.key")
    return tmp_path


@pytest.mark.parametrize(
    ("who", "server", "cause", "told"),
    [
        ("friend", "other", "wrong server key", "probably the key of another publisher"),
        ("stranger", "station", "key not allowed", "this key is not allowed there"),
        (None, None, "encryption on one side only", "one side encrypts and the other does not"),
    ],
)
def test_both_ends_say_why_a_subscriber_is_refused(
    keys: Path, bundle: Path, who: str | None, server: str | None, cause: str, told: str
) -> None:
    np.save(keys / "f.npy", vectors([0, 1] * 2000))
    address = f"ipc://{keys}/s"
    run = start(
        *("run", "--bundle", str(bundle), "--camera", f"features:{keys}/f.npy@10", "--no-journal", "--log", "json"),
        *("--pub", address, "--key", f"{keys}/station.key_secret"),
    )
    listener = None
    try:
        friend = client_keys(keys / "friend.key_secret", keys / "station.key")
        with subscribe(address, timeout_s=60.0, keys=friend) as events:
            next(events)  # the run is on its way
            mine = [] if who is None else ["--key", f"{keys}/{who}.key_secret", "--server-key", f"{keys}/{server}.key"]
            listener = start("listen", "--connect", address, *mine)
            assert listener.stderr is not None
            said = listener.stderr.readline()
            assert told in said, said
            refused: dict[str, int] = {}
            for event in events:
                refused = getattr(event, "delivery", {}).get("refused", {})
                if refused:
                    break
            if who is None and cause not in refused:
                cause = "it closed the connection during the handshake"  # the subscriber noticed first
            assert cause in refused and (who is None or len(refused) == 1)
            if server == "other":
                assert listener.poll() is None  # it goes on trying
    finally:
        for process in (listener, run):
            if process is not None:
                process.terminate()
        _, err = run.communicate()
    warnings = [entry for entry in map(json.loads, err.splitlines()) if cause in entry["message"]]
    assert len(warnings) == 1 and warnings[0]["level"] == "warning"  # once, although it was tried again and again


def test_a_publisher_that_is_away_draws_no_hint_about_keys(keys: Path) -> None:
    listener = start(
        *("listen", "--connect", f"ipc://{keys}/nobody", "--key", f"{keys}/friend.key_secret"),
        *("--server-key", f"{keys}/station.key"),
    )
    with pytest.raises(subprocess.TimeoutExpired):
        listener.communicate(timeout=WITHIN_S)
    listener.terminate()
    _, err = listener.communicate()
    assert "--server-key" not in err
