"""`run --preview`: pictures for people, on an address of their own."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import zmq

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event
from edge_hal.media.jpeg import SIDE
from edge_hal.runtime import runner
from edge_hal.runtime.network.curve_keys import (
    ClientKeys,
    ServerKeys,
    allow,
    client_keys,
    new_pair,
    revoke,
    server_keys,
)
from edge_hal.runtime.preview import Preview
from edge_hal.runtime.sources.frame import Frame
from tests.helpers.bundles import known_bundle

PATIENCE_MS = 10_000


@pytest.fixture
def preview(tmp_path: Path) -> Iterator[Preview]:
    preview = Preview(f"ipc://{tmp_path}/pictures", "bench")
    yield preview
    preview.close()


def frame(index: int, height: int = 90, width: int = 160) -> Frame:
    picture = np.full((height, width, 3), index % 256, np.uint8)
    return Frame(index, index * 10**8, time.monotonic_ns(), picture)


def subscriber(endpoint: str, topic: str = "bench/picture", keys: ClientKeys | None = None) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    if keys is not None:
        keys.secure(socket)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
    socket.connect(endpoint)
    return socket


def test_the_newest_picture_is_sent_small_and_once(preview: Preview) -> None:
    preview.frame_taken(frame(1), 0, None)
    preview.frame_taken(frame(200, 720, 1280), 0, None)
    with subscriber(preview.endpoint) as socket:
        assert socket.poll(PATIENCE_MS)
        topic, about, data = socket.recv_multipart()
        assert topic == b"bench/picture"
        fields = json.loads(about)
        assert fields == {"stream": "bench", "frame": 200, "t_ns": 200 * 10**8, "width": SIDE, "height": 360}
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (360, SIDE, 3) and abs(int(picture.mean()) - 200) <= 2
        preview.frame_taken(frame(7), 0, None)
        assert socket.poll(PATIENCE_MS)
        assert json.loads(socket.recv_multipart()[1])["frame"] == 7  # 200 did not come again
    assert preview.sent == 2 and preview.health() == {"preview": {"endpoint": preview.endpoint, "sent": 2}}


def test_nothing_is_encoded_while_nobody_subscribes(preview: Preview, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = list[int]()
    whole = preview._message

    def message(frame: Frame) -> tuple[bytes, bytes]:
        encoded.append(frame.index)
        return whole(frame)

    monkeypatch.setattr(preview, "_message", message)
    other = subscriber(preview.endpoint, "other/picture")  # of a stream that is not here
    for index in range(20):
        preview.frame_taken(frame(index), 0, None)
    with subscriber(preview.endpoint) as socket:
        assert socket.poll(PATIENCE_MS)
    assert encoded[0] == 19 and len(encoded) == preview.sent
    while preview._socket.subscribers("bench"):
        assert preview._thread.is_alive()
    sent = preview.sent
    preview.frame_taken(frame(50), 0, None)
    with subscriber(preview.endpoint, "bench/") as socket:
        assert socket.poll(PATIENCE_MS)
        assert json.loads(socket.recv_multipart()[1])["frame"] == 50
    assert preview.sent == sent + 1
    other.close()


def test_vectors_are_no_pictures(preview: Preview) -> None:
    preview.frame_taken(Frame(0, 0, 0, np.zeros(6, np.float32)), 0, None)
    with subscriber(preview.endpoint) as socket:
        while not preview._socket.subscribers("bench"):
            assert preview._thread.is_alive()
        preview.frame_taken(frame(3), 0, None)
        assert socket.poll(PATIENCE_MS)
        assert json.loads(socket.recv_multipart()[1])["frame"] == 3
    assert preview._thread.trouble is None


def test_pictures_are_encrypted_with_the_keys_of_the_run(tmp_path: Path) -> None:
    for name in ("station", "anna", "eve"):
        new_pair(tmp_path, name)
    allow(tmp_path, tmp_path / "anna.key")
    keys: ServerKeys = server_keys(tmp_path / "station.key_secret")
    preview = Preview("tcp://127.0.0.1:*", "bench", keys=keys)
    try:
        preview.frame_taken(frame(5), 0, None)
        stranger = client_keys(tmp_path / "eve.key_secret", tmp_path / "station.key")
        known = client_keys(tmp_path / "anna.key_secret", tmp_path / "station.key")
        with (
            subscriber(preview.endpoint) as open_one,
            subscriber(preview.endpoint, keys=stranger) as refused,
            subscriber(preview.endpoint, keys=known) as allowed,
        ):
            assert allowed.poll(PATIENCE_MS)
            assert not open_one.poll(0) and not refused.poll(0)
            monitor = allowed.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            revoke(tmp_path, "anna")
            for index in itertools.count(6):  # pictures go on, and nothing happens at the sockets of the run
                preview.frame_taken(frame(index), 0, None)
                if monitor.poll(50):
                    break
                assert index < 20 * PATIENCE_MS // 1000, "the key was revoked, and its connection is still open"
            allowed.disable_monitor()
            monitor.close(linger=0)
    finally:
        preview.close()


def test_an_address_that_others_can_reach_needs_keys(tmp_path: Path) -> None:
    with pytest.raises(EdgeHalError, match="will not publish"):
        Preview("tcp://0.0.0.0:*", "bench")


def test_the_events_of_a_run_are_the_same_with_and_without(tmp_path: Path) -> None:
    bundle = known_bundle(tmp_path / "bundle", pictures=True).path
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        cv2.imwrite(str(folder / f"{index:03d}.png"), rng.integers(0, 255, (48, 64, 3), np.uint8))
    seen = list[list[Event]]()
    for preview in (None, f"ipc://{tmp_path}/p"):
        events = list[Event]()
        options = runner.RunOptions(
            bundle=bundle,
            camera=str(folder),
            fps=10.0,
            pace="asap",
            endpoint=f"ipc://{tmp_path}/e",
            preview=preview,
            allow_uncertified=True,
        )
        runner.run(options, on_event=events.append)
        seen.append(events)
    with_none, with_preview = ([{**vars(event), "run": {}} for event in events] for events in seen)
    assert with_none == with_preview and len(with_none) >= 2


def test_a_source_of_vectors_has_no_preview() -> None:
    options = runner.RunOptions(camera="features:f.npy@10", preview="ipc://p")
    given, used, _ = options._of_sources()["--preview"]
    assert given and not used
