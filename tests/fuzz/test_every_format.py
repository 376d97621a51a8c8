"""No traceback for any input: every file that we read is changed at random. Either it is read, or an EdgeHalError says
why not. Any other exception fails.

To add a format, add a function that writes a valid example and one that reads it.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_hal import redaction
from edge_hal.bundle import load_bundle
from edge_hal.bundle.signature import new_signer, sign_bundle, signers
from edge_hal.commands.options.station_file import read_station
from edge_hal.commands.run import run as run_command
from edge_hal.config import load_config
from edge_hal.decoding.decode import open_decoder
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.harvested import read_harvested
from edge_hal.learning.data.video_cache import VideoCache
from edge_hal.media.stamps import Missing
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime.delivery.cursor import Position, read_cursor, write_cursor
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.journal_reader import JournalReader
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.network import curve_keys
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.event_ring import pieces
from edge_hal.runtime.recording.material_reader import read_material
from edge_hal.runtime.recording.reader import read_recording
from edge_hal.runtime.recording.state_file import load, save
from edge_hal.runtime.recording.stretches import LONGEST_S, find_stretches
from edge_hal.runtime.runner import run
from edge_hal.runtime.sources.source_spec import SourceSpec
from edge_hal.task_file import read_task
from tests.fuzz.mutations import mutated_bytes, mutated_json, mutated_json_lines, mutated_lines, mutated_tree
from tests.helpers.bundles import LABELS, known_bundle, vectors
from tests.helpers.films import ALMOST_GREEN, BLUE, write_film
from tests.helpers.toy_procedure import procedure_bundle, steps

RATE_HZ = 20.0
VIDEOS = ("video0", "video1")
Mutate = Callable[[bytes, int], bytes]
Read = Callable[[Path], Any]


def read_bundle(root: Path) -> None:
    bundle = load_bundle(root / "bundle", allow_uncertified=True)
    open_decoder(bundle.decoder, bundle.spec)


def read_certified(root: Path) -> None:
    load_bundle(root / "bundle")


def read_trusted(root: Path) -> None:
    load_bundle(root / "bundle", trusted=root / "trusted")


def replay(root: Path) -> None:
    """What `edge-hal replay` does with a recording. Ten seconds were recorded; the limit ends what was made longer."""
    recording = read_recording(root / "rec")
    options = recording.options(root / "bundle")
    run(replace(options, endpoint="tcp://127.0.0.1:*", allow_uncertified=True, seconds=60.0))
    recording.difference([b'{"type": "end"}'])


def replay_piece(root: Path) -> None:
    recording = read_recording(root / "piece")
    run(replace(recording.options(root / "bundle"), endpoint="tcp://127.0.0.1:*", seconds=60.0))


def harvest(root: Path) -> None:
    """What `edge-hal harvest` reads of a recording and of a task folder."""
    material = read_material(root / "tape")
    taken = {entry.session: [(entry.begin_ns, entry.end_ns)] for entry in read_harvested(root).values()}
    for stretch in find_stretches([material], 1.0, 0.9, taken).stretches:
        assert 0 < stretch.end_ns - stretch.begin_ns <= LONGEST_S * 1e9
        for picture in stretch.pictures:
            with suppress(OSError, ValueError):
                picture.read()


def read_journal(root: Path) -> None:
    with Journal(root / "journal", "default") as journal:
        journal.prune()
    reader = JournalReader(root / "journal")
    try:
        with suppress(sqlite3.Error):  # the replay server answers that the journal cannot be read
            reader.page(0, 100, 10**6)
        with suppress(sqlite3.Error):
            reader.since(0)
    finally:
        reader.close()


def read_keys(root: Path) -> None:
    curve_keys.allowed_keys(root / "keys" / "allowed")
    for read in (
        lambda: curve_keys.server_keys(root / "keys" / "a.key_secret"),
        lambda: curve_keys.client_keys(root / "keys" / "a.key_secret", root / "keys" / "a.key"),
        lambda: signers(root / "trusted"),
        lambda: sign_bundle(root / "bundle", root / "b.signer_secret"),
    ):
        with suppress(EdgeHalError):
            read()


def read_run(root: Path) -> None:
    from edge_hal.model.model_file import load_checkpoint

    load_checkpoint(root / "run")


def read_alignment(root: Path) -> None:
    from edge_hal.learning.data.dataset import load_dataset
    from edge_hal.learning.data.recordings import read_recordings
    from edge_hal.learning.hmm.alignment_file import first_alignment_from, read_alignment

    stored = read_alignment(root / "alignment.json")
    videos = load_dataset(root / "data", split=1, part="train", rate_hz=20.0)
    first_alignment_from(stored, read_recordings(videos, 20.0, None), videos.labels)


def read_labels(folder: str) -> Read:
    """Reads the videos with labels of `folder`."""

    def read(root: Path) -> None:
        from edge_hal.learning.data.dataset import load_dataset
        from edge_hal.learning.data.labels.folder import read_given_labels

        own = read_given_labels(root / folder, {name: root for name in VIDEOS})
        load_dataset(root / "data", split=1, part="train", rate_hz=20.0, with_labels=set(own), own_labels=own)

    return read


def read_data(root: Path) -> None:
    from edge_hal.learning.data.dataset import load_dataset
    from edge_hal.learning.data.recordings import read_recordings

    for timestamps in (False, True):
        how: dict[str, Any] = {"split": 1, "part": "train", "with_labels": True, "rate_hz": RATE_HZ}
        found = load_dataset(root / "data", **how, timestamps=timestamps)
        read_recordings(found, 20.0, None)


def read_vectors(root: Path) -> None:
    run(RunOptions(root / "bundle", f"features:{root}/f.npy@10", "tcp://127.0.0.1:*", pace="asap", seconds=60.0))


def read_task_file(root: Path) -> None:
    task = read_task(root)
    assert task is not None
    load_config(task.config_source() or "tiny", task.overrides(pictures=True))


def read_station_file(root: Path) -> None:
    options = read_station(root / "station.yaml", run_command, {})
    assert options.streams and all(each.stream == name for name, each in options.streams.items())
    options.check()


def read_cached(root: Path) -> None:
    """What is not whole is no entry. What is read can be used."""
    found = VideoCache(root).get("k")
    assert found is None or (found.values.shape[1:] == (3,) and np.isfinite(found.missing.share))


FORMATS: dict[str, tuple[str, Read, tuple[Mutate, ...]]] = {
    "manifest": ("bundle/manifest.json", read_bundle, (mutated_bytes, mutated_json)),
    "certificate": ("bundle/certificate.json", read_certified, (mutated_bytes, mutated_json)),
    "decoder": ("bundle/decoder.json", read_bundle, (mutated_bytes, mutated_json)),
    "procedure": ("bundle/procedure.json", read_bundle, (mutated_bytes, mutated_json)),
    "signature": ("bundle/signature.json", read_trusted, (mutated_bytes, mutated_json)),
    "log of a recording": ("rec/log.jsonl", replay, (mutated_bytes, mutated_json_lines)),
    "events of a recording": ("rec/events.jsonl", replay, (mutated_bytes, mutated_json_lines)),
    "frames of a recording": ("rec/frames.bin", replay, (mutated_bytes,)),
    "state of a recording": ("piece/state.npz", replay_piece, (mutated_bytes,)),
    "log with a session": ("tape/log.jsonl", harvest, (mutated_bytes, mutated_json_lines)),
    "events of a harvest": ("tape/events.jsonl", harvest, (mutated_bytes, mutated_json_lines)),
    "pictures of the source": ("tape/pictures.jsonl", harvest, (mutated_bytes, mutated_json_lines)),
    "belief of a run": ("tape/belief.jsonl", harvest, (mutated_bytes, mutated_json_lines)),
    "what was harvested": ("harvested.json", harvest, (mutated_bytes, mutated_json)),
    "journal": ("journal", read_journal, (mutated_bytes,)),
    "cursor": ("cursor", lambda root: read_cursor(root / "cursor"), (mutated_bytes, mutated_json)),
    "allowed key": ("keys/allowed/a.key", read_keys, (mutated_bytes, mutated_lines)),
    "secret key": ("keys/a.key_secret", read_keys, (mutated_bytes, mutated_lines)),
    "public signing key": ("trusted/b.signer", read_keys, (mutated_bytes, mutated_lines)),
    "secret signing key": ("b.signer_secret", read_keys, (mutated_bytes, mutated_lines)),
    "configuration": ("c.yaml", lambda root: load_config(str(root / "c.yaml")), (mutated_bytes, mutated_lines)),
    "vectors": ("f.npy", read_vectors, (mutated_bytes,)),
    "task file": ("task.yaml", read_task_file, (mutated_bytes, mutated_lines)),
    "station file": ("station.yaml", read_station_file, (mutated_bytes, mutated_lines)),
    "cached video": ("k.ticks", read_cached, (mutated_bytes,)),
}
TRAINING: dict[str, tuple[str, Read, tuple[Mutate, ...]]] = {
    "alignment": ("alignment.json", read_alignment, (mutated_bytes, mutated_json)),
    "mapping": ("data/mapping.txt", read_data, (mutated_bytes, mutated_lines)),
    "transcript": ("data/transcripts/video0.txt", read_data, (mutated_bytes, mutated_lines)),
    "frame labels": ("data/groundTruth/video0.txt", read_data, (mutated_bytes, mutated_lines)),
    "time stamps": ("data/timestamps/video0.txt", read_data, (mutated_bytes, mutated_lines)),
    "split": ("data/splits/train.split1.bundle", read_data, (mutated_bytes, mutated_lines)),
    "labels in a table": ("csv/segments.csv", read_labels("csv"), (mutated_bytes, mutated_lines)),
    "labels of ELAN": ("eaf/video0.eaf", read_labels("eaf"), (mutated_bytes, mutated_lines)),
    "labels of Label Studio": (
        "label-studio/label-studio.json",
        read_labels("label-studio"),
        (mutated_bytes, mutated_json),
    ),
    "features": ("data/features/video0.npy", read_data, (mutated_bytes,)),
    "model": ("run/model.safetensors", read_run, (mutated_bytes,)),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid example of each format of the runtime."""
    root = tmp_path_factory.mktemp("fuzz")
    then = {"blue": {"green": 1.0}, "green": {"red": 1.0}, "red": {"blue": 1.0}}
    procedure = Procedure({name: Step(0.3, 0.3, 2.0, 1.6, then[name]) for name in LABELS})
    known_bundle(root / "bundle", decoder=DecoderConfig(0.0, 0.2, 0.0, evidence_hz=3.0, procedure=procedure))
    np.save(root / "f.npy", vectors(np.repeat([0, 1, 2, 1, 0], 20).tolist()))
    camera = f"features:{root}/f.npy@10"
    options = RunOptions(root / "bundle", camera, "tcp://127.0.0.1:*", pace="asap", record=root / "rec")
    run(options)
    run(replace(options, record=root / "ring", record_around=Retention(2.0)))
    shutil.copytree(pieces(root / "ring")[1], root / "piece")
    known_bundle(root / "pictures", pictures=True)
    film = write_film(root / "film.avi", [(BLUE, 20), (ALMOST_GREEN, 20), (BLUE, 20)])
    tape: dict[str, Any] = {"record": root / "tape", "record_pictures": "source"}
    run(RunOptions(root / "pictures", str(film), "tcp://127.0.0.1:*", pace="asap", **tape))
    entry = {"session": "20260101T000000Z-0a1b2c3d", "begin_ns": 0, "end_ns": 10**9, "why": ["a"], "bundle": "b"}
    (root / "harvested.json").write_text(json.dumps({"schema": 1, "videos": {"live": {**entry, "finished": True}}}))
    with Journal(root / "journal", "default") as journal:
        journal.append([(n, json.dumps({"n": n}).encode()) for n in range(20)])
    write_cursor(root / "cursor", {"default": Position("j", "default", 3)})
    curve_keys.new_pair(root / "keys", "a")
    curve_keys.allow(root / "keys", root / "keys" / "a.key")
    _, secret = new_signer(root / "trusted", "b")
    secret.rename(root / "b.signer_secret")
    sign_bundle(root / "bundle", root / "b.signer_secret")
    shutil.copy(Path(__file__).parent.parent / "helpers" / "small.yaml", root / "c.yaml")
    task = "steps: [pick, place, idle]\nbackground: idle\ntest: [a, b]\nrate_hz: 30\nconfig: tiny\n"
    station = f"bundle: {root}/bundle\npub: ipc://{root}/s\ndecide: ~\nset: [decoder.lead_s=0.1]\nno-journal: true\n"
    station += "streams:\n  left: {camera: 'features:f.npy@9', priority: 1}\n  right: {camera: 'features:f.npy@10'}\n"
    (root / "station.yaml").write_text(station)
    (root / "task.yaml").write_text(f"{task}settings:\n  learning.restarts: 64\n  model: {{lag_s: 0.3}}\n")
    with VideoCache(root).adding("k") as rows:
        rows.append(np.arange(3, dtype=np.uint8))
        rows.missing = Missing(1, 0, 0)
    return root


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A piece of a run that decides by a belief and follows a procedure with rules."""
    root = tmp_path_factory.mktemp("fuzz")
    procedure_bundle(root / "bundle")
    np.save(root / "f.npy", steps()[:400])
    camera, around = f"features:{root}/f.npy@10", Retention(4.0)
    ring: dict[str, Any] = {"pace": "asap", "record": root / "ring", "record_around": around}
    run(RunOptions(root / "bundle", camera, "tcp://127.0.0.1:*", **ring))
    shutil.copytree(pieces(root / "ring")[4], root / "piece")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid example of each format of training."""
    pytest.importorskip("torch")
    from edge_hal.model.model_file import save_model
    from tests.helpers.bundles import AT_ONCE
    from tests.helpers.small_data import ACTIONS, write_small_data
    from tests.helpers.small_models import random_model, small_spec

    root = tmp_path_factory.mktemp("fuzz")
    write_small_data(root / "data", train=2, test=1)
    (root / "data" / "timestamps").mkdir()
    for path in (root / "data" / "groundTruth").iterdir():
        labels = path.read_text().split()
        starts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
        (root / "data" / "timestamps" / path.name).write_text("".join(f"{i} {labels[i]}\n" for i in starts))
    (root / "run").mkdir()
    save_model(root / "run" / "model.safetensors", *random_model(small_spec(size=6), 0), AT_ONCE, {"by": "tests"})
    video = {"labelled": True, "agreement": 1.0, "segments": [[ACTIONS[0], 0], [ACTIONS[1], 9]]}
    frames = {name: len((root / "data" / "groundTruth" / f"{name}.txt").read_text().split()) for name in VIDEOS}
    alignment = {name: {**video, "frames": count} for name, count in frames.items()}
    (root / "alignment.json").write_text(json.dumps(alignment))
    write_labels(root)
    return root


def write_labels(root: Path) -> None:
    """The labels of the first video in each format, in a folder of its own."""
    from edge_hal.learning.data.dataset import load_dataset
    from edge_hal.learning.data.labels.csv_file import write_csv
    from edge_hal.learning.data.labels.eaf import write_eaf
    from edge_hal.learning.data.labels.label_studio import write_label_studio
    from edge_hal.learning.data.labels.segments import SegmentedVideo, segments_of_labels

    videos = load_dataset(root / "data", split=1, part="train", rate_hz=20.0, with_labels=True)
    video = videos.videos[0]
    assert video.labels is not None
    segments = segments_of_labels(video.labels, videos.labels)
    confidences = (0.5,) * (len(segments) - 1)
    one = SegmentedVideo(video.name, video.path, "video", video.length, 20.0, segments, confidences)
    for folder, write in (("csv", write_csv), ("eaf", write_eaf), ("label-studio", write_label_studio)):
        (root / folder).mkdir()
        for name, text in write([one]).items():
            (root / folder / name).write_text(text)


def check(root: Path, name: str, examples: int, formats: Any) -> None:
    file, read, kinds = formats[name]
    original = (root / file).read_bytes()
    read(root)  # the example is valid

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32 - 1), st.sampled_from(kinds))
    def changed(seed: int, mutate: Mutate) -> None:
        (root / file).write_bytes(mutate(original, seed))
        with suppress(EdgeHalError):
            read(root)

    try:
        changed()
    finally:
        for left in root.glob("journal-*"):
            left.unlink()
        (root / file).write_bytes(original)


@pytest.mark.parametrize("name", FORMATS)
def test_a_changed_file_of_the_runtime_is_read_or_refused(valid: Path, name: str) -> None:
    check(valid, name, 15, FORMATS)


@pytest.mark.parametrize("name", TRAINING)
def test_a_changed_file_of_training_is_read_or_refused(trained: Path, name: str) -> None:
    check(trained, name, 15, TRAINING)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_changed_files_of_the_runtime_are_read_or_refused(valid: Path, name: str) -> None:
    check(valid, name, 400, FORMATS)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINING)
def test_many_changed_files_of_training_are_read_or_refused(trained: Path, name: str) -> None:
    check(trained, name, 400, TRAINING)


def changed_states(root: Path, examples: int, *, part: str | None = None) -> None:
    """The values in a state are changed and the file is written correctly: only a check of the values finds it. `part`:
    of the recogniser, the others stay."""
    state = load(root / "piece" / "state.npz")
    original = (root / "piece" / "state.npz").read_bytes()
    try:
        for seed in range(examples):
            rng = random.Random(seed)
            changed = state if part is None else state["recognizer"][part]
            for _ in range(rng.randint(1, 3) if part is None else rng.randint(0, 1)):
                changed = mutated_tree(changed, rng)
            changed = _changed_arrays(changed, rng)
            if part is not None:
                changed = {**state, "recognizer": {**state["recognizer"], part: changed}}
            (root / "piece" / "state.npz").unlink()
            with suppress(OverflowError, AttributeError):  # `save` cannot write it
                save(root / "piece" / "state.npz", changed)
            with suppress(EdgeHalError):
                replay_piece(root)
    finally:
        (root / "piece" / "state.npz").write_bytes(original)


def _changed_arrays(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: _changed_arrays(item, rng) for key, item in value.items()}
    if isinstance(value, list):
        return [_changed_arrays(item, rng) for item in value]
    if isinstance(value, np.ndarray) and value.size and rng.random() < 0.1:
        value = value.copy()
        odd = (0, -1, 5, 10**6) if value.dtype.kind in "iu" else (0.0, np.nan, np.inf, -np.inf, 1e30, -1e30)
        value.reshape(-1)[rng.randrange(value.size)] = rng.choice(odd)
    return value


def test_a_changed_state_is_used_or_refused(valid: Path) -> None:
    changed_states(valid, 30)


@pytest.mark.parametrize("part", ["belief", "procedure"])
def test_a_changed_belief_or_procedure_is_used_or_refused(following: Path, part: str) -> None:
    replay_piece(following)
    changed_states(following, 30, part=part)


@pytest.mark.slow
def test_many_changed_states_are_used_or_refused(valid: Path) -> None:
    changed_states(valid, 1000)


def scripts() -> Iterator[str]:
    words = (
        "drop",
        "unplug",
        "hang",
        "clockstep",
        "jitter",
        "seed",
        "freeze",
        "=",
        "@",
        "+",
        ",",
        "3%",
        "1s",
        "2ms",
        "-",
    )
    rng = random.Random(0)
    for _ in range(400):
        body = "".join(
            rng.choice((*words, "9" * 400, "1e999", "٣s", "\ud800", "\0", "")) for _ in range(rng.randint(1, 8))
        )
        yield (
            rng.choice(("fault:", "features:", "rtsp://", "gst:", "csi:", "replay:", ""))
            + body
            + rng.choice((":0", "@10", ""))
        )


def test_any_text_names_a_source_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", {})  # the passwords in these texts are words of other tests
    for text in scripts():
        with suppress(EdgeHalError):
            SourceSpec.parse(text)


def test_the_mutations_reach_the_values() -> None:
    """The tests above would pass if every change broke the syntax."""
    raw = json.dumps({"a": 1, "b": [1, 2, {"c": "x"}]}).encode()
    found = [mutated_json(raw, seed) for seed in range(200)]
    parsed = 0
    for text in found:
        with suppress(ValueError, RecursionError):
            parsed += isinstance(json.loads(text), dict)
    assert parsed > 120 and len({hashlib.sha256(text).digest() for text in found}) > 100
