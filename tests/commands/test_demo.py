"""The demo, whole: what it prints, what it leaves, and that what it leaves can be used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import pytest

from edge_hal.learning.data.dataset import load_dataset
from tests.helpers.processes import call, finish, start

KEYS = {"mof", "edit", "f1_10", "f1_25", "f1_50", "transition_f1", "delay_s_median"}
KEYS |= {"boundary_error_s_median", "false_per_min"}


@pytest.mark.slow
def test_the_demo_leaves_scores_a_picture_a_run_a_bundle_and_the_videos(tmp_path: Path) -> None:
    """Three minutes. Seed 1: the README shows seed 0, and one lucky seed would not be a demo."""
    out = tmp_path / "a demo"
    code, printed, err = call("demo", "--out", str(out), "--seed", "1", timeout_s=1800)
    assert code == 0 and "Traceback" not in err, err
    assert sorted(path.name for path in out.iterdir()) == [
        *("bundle", "data", "full", "run", "scores.json", "timeline.png", "videos")
    ]

    scores = json.loads((out / "scores.json").read_text())
    assert list(scores) == ["floor", "ours", "full"]
    for name, column in scores.items():
        assert set(column) >= KEYS
        for key in KEYS:
            assert isinstance(column[key], float) or (column[key] is None and name == "floor"), (name, key)
        assert all(0 <= column[key] <= 100 for key in ("mof", "edit", "f1_10", "f1_25", "f1_50"))
        assert 0 <= column["transition_f1"] <= 1
    assert scores["floor"]["delay_s_median"] is None
    assert scores["ours"]["transition_f1"] > scores["floor"]["transition_f1"] + 0.2

    picture = cv2.imread(str(out / "timeline.png"))
    assert picture is not None and picture.shape[1] > 800 and picture.std() > 20

    unseen = load_dataset(out / "data", split=1, part="test", with_labels=True)
    assert sorted(path.name for path in (out / "videos").iterdir()) == [f"{video.name}.mp4" for video in unseen.videos]
    for video in unseen.videos:
        assert (out / "videos" / video.path.name).read_bytes() == video.path.read_bytes()
    learnt = json.loads((out / "run" / "alignment.json").read_text())
    assert not learnt.keys() & {video.name for video in unseen.videos}

    # The bundle says again, over the first video, what the demo printed.
    endpoint = f"ipc://{tmp_path}/events"
    listener = start("listen", "--connect", endpoint, "--json", "--until-end")
    source = out / "videos" / unseen.videos[0].path.name
    code, _, err = call(
        *("run", "--bundle", str(out / "bundle"), "--camera", str(source), "--pub", endpoint),
        *("--pace", "asap", "--wait-subscribers", "1", "--json"),
    )
    assert code == 0, err
    heard = [json.loads(line) for line in finish(listener)[1].splitlines()]
    moved = [event for event in heard if event["type"] == "transition"]
    shown = re.findall(r"^ *([\d.]+) s +(\S+) -> (\S+) +since +([\d.]+) s .* truth now: (\S+)$", printed, flags=re.M)
    assert [(decided, to, since) for decided, _, to, since, _ in shown] == [
        (f"{e['decision']['t_ns'] / 1e9:.1f}", e["to"], f"{e['boundary']['t_ns'] / 1e9:.1f}") for e in moved
    ]
    assert {truth for *_, truth in shown} <= set(unseen.labels)
    assert "timeline" in printed and "floor" in printed
