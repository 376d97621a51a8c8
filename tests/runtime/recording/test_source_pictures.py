"""Recordings with the source's pictures: they are those of the source, and they never delay the loop."""

from __future__ import annotations

import json
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_hal.bundle import load_bundle
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.events import Transition, encode
from edge_hal.media.video_file import VideoFile
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.model import Model
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.log_file import parse_head
from edge_hal.runtime.recording.material import DOUBTFUL, PICTURES, UNCERTAIN, WAITING, MaterialWriter
from edge_hal.runtime.recording.material_reader import read_material
from edge_hal.runtime.recording.reader import comparable, read_recording
from edge_hal.runtime.recording.stretches import find_stretches
from edge_hal.runtime.sources.frame import Frame
from tests.helpers.bundles import LABELS, known_bundle, vectors
from tests.helpers.films import ALMOST_GREEN, BLUE, RED, write_film
from tests.helpers.loops import features, recorded


def options(bundle: Path, film: Path, record: Path, **more: Any) -> RunOptions:
    return RunOptions(bundle, str(film), pace="asap", record=record, record_pictures="source", **more)


def test_the_pictures_are_those_of_the_source_and_the_recording_replays(tmp_path: Path, picture_bundle: Path) -> None:
    film = write_film(tmp_path / "film.avi", [(BLUE, 30), (RED, 30)])
    summary, events = recorded(options(picture_bundle, film, tmp_path / "rec"))
    assert summary.health["recording"] == {"pictures": {"kept": 60, "left_out": 0}}
    found = read_material(tmp_path / "rec")
    assert not found.being_written and [event.seq for event in found.events] == list(range(len(events)))
    with VideoFile(film) as video:
        for picture, (t_ns, frame) in zip(found.pictures, video.frames(), strict=True):
            assert picture.t_ns == t_ns and picture.size == (96, 64)
            seen = cv2.imdecode(np.frombuffer(picture.read(), np.uint8), cv2.IMREAD_COLOR)
            assert seen is not None and np.abs(seen.astype(int) - video.picture(frame)).mean() < 4
    recording = read_recording(tmp_path / "rec")
    _, replayed = recorded(recording.options(picture_bundle))
    again = [comparable(encode(event)) for event in replayed]
    assert recording.difference(again) is None
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "rec").iterdir()}
    assert modes == {0o600}


def test_a_recording_without_them_has_the_schema_that_older_versions_read(tmp_path: Path, picture_bundle: Path) -> None:
    film = write_film(tmp_path / "film.avi", [(BLUE, 20)])
    plain = replace(options(picture_bundle, film, tmp_path / "plain"), record_pictures="encoder")
    recorded(plain)
    recorded(options(picture_bundle, film, tmp_path / "rec"))
    schemas = {}
    for name in ("plain", "rec"):
        line = (tmp_path / name / "log.jsonl").read_text().splitlines()[0]
        schemas[name] = parse_head(line)["schema"]
    assert schemas == {"plain": 3, "rec": 4}
    newer = json.loads(line) | {"schema": 5}
    with pytest.raises(ValueError, match="wrote schema 5"):
        parse_head(json.dumps(newer))
    for wrong in ({"session": "../../etc"}, {"session": 3}):
        with pytest.raises(ValueError, match="session"):
            parse_head(json.dumps(json.loads(line) | wrong))
    with pytest.raises(EdgeHalError, match="no pictures of the source") as error:
        read_material(tmp_path / "plain")
    assert "--record-pictures source" in error.value.todo


def test_pieces_without_a_doubt_are_deleted_first(tmp_path: Path, picture_bundle: Path) -> None:
    parts = [(BLUE, 60), (ALMOST_GREEN, 12), (BLUE, 60), (RED, 200), (BLUE, 200)]
    film = write_film(tmp_path / "film.avi", parts, (320, 240))
    around = Retention(4.0, 1_000_000)
    _, events = recorded(options(picture_bundle, film, tmp_path / "rec", record_around=around))
    doubts = [e for e in events if isinstance(e, Transition) and e.confidence < UNCERTAIN]
    assert [event.to for event in doubts] == ["green"]
    kept = [read_material(path) for path in pieces(tmp_path / "rec")]
    spans = [(each.pictures[0].t_ns / 1e9, each.pictures[-1].t_ns / 1e9) for each in kept]
    marked = [span for each, span in zip(kept, spans, strict=True) if (each.folder / DOUBTFUL).exists()]
    assert any(begin <= 6.5 <= end for begin, end in marked), spans
    assert not any(18 < end < 35 for _, end in spans), spans  # certain, and older than the end of the run
    assert all(begin < 16 for begin, _ in marked)


def test_a_long_uncertain_belief_is_kept_and_found_though_nothing_was_decided(tmp_path: Path) -> None:
    then = {name: {other: 0.5 for other in LABELS if other != name} for name in LABELS}
    procedure = Procedure({name: Step(0.3, 0.3, 8.0, 1.6, then[name]) for name in LABELS})
    decoder = DecoderConfig(min_duration_s=0.0, decide_at=0.9, procedure=procedure)
    bundle = known_bundle(tmp_path / "bundle", pictures=True, decoder=decoder).path
    parts = [(BLUE, 150), ((128, 128, 128), 80), (BLUE, 200)]
    film = write_film(tmp_path / "film.avi", parts)
    around = Retention(3.0, 10**9)
    _, events = recorded(options(bundle, film, tmp_path / "rec", record_around=around))
    materials = [read_material(path) for path in pieces(tmp_path / "rec")]
    found = find_stretches(materials, 2.0, UNCERTAIN, {})
    longest = [reason for stretch in found.stretches for reason in stretch.reasons if "uncertain for" in reason.text]
    assert longest and all(15.0 <= reason.begin_ns / 1e9 <= 24.0 for reason in longest), found
    assert not any(isinstance(e, Transition) and 16e9 < e.boundary.t_ns < 22e9 for e in events)


def test_the_loop_never_waits_for_pictures_and_few_are_held(
    tmp_path: Path, picture_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    real = cv2.imencode

    def slow(*arguments: Any) -> Any:
        free.wait()
        return real(*arguments)

    monkeypatch.setattr(cv2, "imencode", slow)
    model = Model(load_bundle(picture_bundle), "onnxruntime", 1)
    recognizer = model.stream("s")
    writer = MaterialWriter(recognizer, wait=False)
    writer.begin(tmp_path)
    for index in range(50):
        writer.add(Frame(index, index * 10**8, 0, np.full((48, 64, 3), index, np.uint8)))
    free.set()
    writer.close()
    recognizer.engines.close()
    assert writer.health() == {"pictures": {"kept": WAITING, "left_out": 50 - WAITING}}


def test_a_full_disk_ends_the_pictures_and_not_the_run(
    tmp_path: Path, picture_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = MaterialWriter.begin

    def begin(self: MaterialWriter, folder: Path) -> None:
        real(self, folder)
        assert self._place is not None
        self._place.pictures.close()
        self._place.pictures = open("/dev/full", "wb", buffering=0)  # noqa: SIM115

    monkeypatch.setattr(MaterialWriter, "begin", begin)
    film = write_film(tmp_path / "film.avi", [(BLUE, 30), (RED, 30)])
    summary, _ = recorded(options(picture_bundle, film, tmp_path / "rec"))
    assert summary.counters["ticks"] == 60 and read_recording(tmp_path / "rec").ended == "eof"
    assert read_material(tmp_path / "rec").pictures == ()
    assert sum("pictures end here" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("damage", ["link", "index", "belief", "events", "backwards"])
def test_damaged_material_is_one_error(tmp_path: Path, picture_bundle: Path, damage: str) -> None:
    film, rec = write_film(tmp_path / "film.avi", [(BLUE, 20)]), tmp_path / "rec"
    recorded(options(picture_bundle, film, rec))
    if damage == "link":
        (rec / PICTURES).rename(tmp_path / "elsewhere")
        (rec / PICTURES).symlink_to(tmp_path / "elsewhere")
    elif damage == "backwards":
        lines = (rec / "pictures.jsonl").read_text().splitlines()
        (rec / "pictures.jsonl").write_text("\n".join([*lines[5:], *lines[:5]]) + "\n")
    else:
        name = {"index": "pictures.jsonl", "belief": "belief.jsonl", "events": "events.jsonl"}[damage]
        (rec / name).write_text('{"t_ns": "soon"}\n')
    with pytest.raises(EdgeHalError, match="is no recording"):
        read_material(rec)


def test_what_cannot_be_is_refused(tmp_path: Path, bundle: Path, picture_bundle: Path) -> None:
    film = write_film(tmp_path / "film.avi", [(BLUE, 5)])
    for wrong, match in (
        (replace(options(picture_bundle, film, tmp_path / "rec"), record=None), "without --record"),
        (replace(options(picture_bundle, film, tmp_path / "rec"), record_pictures="both"), "encoder or source"),
        (options(bundle, Path(features(tmp_path, vectors([0] * 9), 10)), tmp_path / "rec"), "no pictures of a source"),
    ):
        with pytest.raises(EdgeHalError, match=match):
            recorded(wrong)
    assert not (tmp_path / "rec").exists()
