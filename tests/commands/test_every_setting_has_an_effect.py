"""Every setting changes something: the fields of `RunOptions`, the numbers of `decoder.json` and `procedure.json`, and
the keys of the configuration. The names come from the classes, so a new one without an entry fails."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import BaseModel
from safetensors import safe_open

from edge_hal import open_stream
from edge_hal.bundle import load_bundle
from edge_hal.commands.train import train
from edge_hal.config import Config, Section, load_config
from edge_hal.decoding.decoder_config import NEW_THRESHOLDS, THRESHOLDS, DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Now, encode
from edge_hal.learning.data.recordings import SampledRecording
from edge_hal.learning.encoders.train_encoder import learn_encoder
from edge_hal.learning.networks.optimise import Stage
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime import model as model_room
from edge_hal.runtime import open_source, runner
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.network import curve_keys
from edge_hal.runtime.options import RunOptions
from edge_hal.runtime.recording.reader import comparable
from edge_hal.runtime.sources.watchdog import Limits
from edge_hal.spec import EncoderSpec
from tests.helpers.bundles import LABELS, SHARP, known_bundle, vectors
from tests.helpers.familiar import familiar_input
from tests.helpers.moving_dot import HZ, SIZE, moving_dot
from tests.helpers.short_training import BRIEF, weights
from tests.helpers.small_data import CONFIG, write_small_data

# --- options of a run --------------------------------------------------------------------------------

SEEN = [0] * 30 + [1] * 4 + [2] * 30 + [1] * 30
OPEN = {"endpoint": "tcp://0.0.0.0:*"}
CAMERA = {"bundle": "pictures", "camera": "rtsp://host/x", "pace": "realtime"}
FILE = {"bundle": "pictures", "camera": "folder", "fps": 10.0}
PATIENT = {"bundle": "patient"}
DROPS = {"camera": "fault:drop=90%,seed=1:features:f.npy@10"}

# {field: (options of one run, those of another)}; a pair differs in this field only.
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bundle": ({}, {"bundle": "slow"}),
    "camera": ({}, {"camera": "features:g.npy@10"}),
    "endpoint": ({}, {"endpoint": "ipc://here"}),
    "pace": ({"overload": "cut"}, {"overload": "cut", "pace": "realtime", "camera": "features:f.npy@900"}),
    "stream": ({}, {"stream": "other"}),
    "decoder": ({}, {"decoder": {"confirm_s": 2.0}}),
    "decide": (PATIENT, {**PATIENT, "decide": "fast"}),
    "now_hz": (PATIENT, {**PATIENT, "now_hz": 1.0}),
    "events": (PATIENT, {**PATIENT, "events": "core"}),
    "decide_every": ({}, {"decide_every": 7}),
    "engine": ({}, {"engine": "nothing"}),
    "precision": ({}, {"precision": "fp16"}),
    "threads": ({}, {"threads": 2}),
    "wait_subscribers": ({}, {"wait_subscribers": 2}),
    "max_hold_ms": (DROPS, {**DROPS, "max_hold_ms": 9e3}),
    "fps": (FILE, {**FILE, "fps": 20.0}),
    "size": (CAMERA, {**CAMERA, "size": (64, 48)}),
    "fourcc": (CAMERA, {**CAMERA, "fourcc": "YUYV"}),
    "camera_auth": (CAMERA, {**CAMERA, "camera_auth": Path("auth")}),
    "limits": (CAMERA, {**CAMERA, "limits": Limits(stall_s=7.0)}),
    "overload": ({}, {"overload": "cut"}),
    "selfcheck_s": ({}, {"selfcheck_s": 60.0}),
    "record": ({}, {"record": Path("new")}),
    "record_around": ({"record": Path("new")}, {"record": Path("new"), "record_around": Retention(120.0, 10**9)}),
    "record_pictures": (
        {**FILE, "record": Path("new")},
        {**FILE, "record": Path("new"), "record_pictures": "source"},
    ),
    "seconds": ({}, {"seconds": 4.0}),
    "allow_uncertified": ({"bundle": "uncertified"}, {"bundle": "uncertified", "allow_uncertified": True}),
    "trusted": ({}, {"trusted": Path("nobody")}),
    "insecure": (OPEN, {**OPEN, "insecure": True}),
    "journal": ({}, {"journal": Path("j")}),
    "retention": ({"journal": Path("j")}, {"journal": Path("j"), "retention": Retention(60.0, 10**6)}),
    "replay": ({"journal": Path("j")}, {"journal": Path("j"), "replay": "ipc://past"}),
    "keys": (OPEN, {**OPEN, "keys": "me"}),
    "metrics": ({}, {"metrics": "nowhere"}),
    "preview": (FILE, {**FILE, "preview": "nowhere"}),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("settings") / "prepared"
    root.mkdir()
    np.save(root / "f.npy", vectors(SEEN))
    np.save(root / "g.npy", vectors(SEEN[::-1]))
    (root / "auth").write_text("user:password")
    (root / "auth").chmod(0o600)
    (root / "folder").mkdir()
    for number in range(8):
        cv2.imwrite(str(root / "folder" / f"{number}.png"), np.full((16, 16, 3), 9 * number, np.uint8))
    known_bundle(root / "bundle")
    known_bundle(root / "slow", decoder=DecoderConfig(confirm_s=1.0))
    steps = {name: Step(**STEP, then={other: 0.5 for other in LABELS if other != name}) for name in LABELS}
    patience = {"fast": 0.5, "balanced": 0.99, "sure": 0.999}
    patient = DecoderConfig(min_duration_s=0.0, decide_at=0.99, procedure=Procedure(steps), patience=patience)
    known_bundle(root / "patient", decoder=patient)
    known_bundle(root / "pictures", pictures=True)
    shutil.copytree(root / "bundle", root / "uncertified")
    (root / "uncertified" / "certificate.json").unlink()
    curve_keys.new_pair(root / "keys", "me")
    return root


class Taken(Exception):
    """Raised where a camera would be opened; holds what was asked of it."""


def ran(options: dict[str, Any], prepared: Path, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a run shows: error, events, endpoint, files, and what it asked of camera, engine and journal."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder)
    patch.chdir(folder)
    found: dict[str, Any] = {"error": None, "events": [], "asked": []}
    real_model, real_journal, real_publish = model_room.Model, runner.Journal, runner.Publisher.publish

    def camera(request: Any, limits: Limits) -> None:
        raise Taken(f"{dataclasses.astuple(request)} {limits}")

    def model(bundle: Any, engine: str, threads: int) -> Any:
        found["asked"].append(threads)
        return real_model(bundle, engine, threads)

    def journal(path: Path, stream: str, retention: Any) -> Any:
        found["asked"].append(retention)
        return real_journal(path, stream, retention)

    def publish(publisher: Any, event: Event, **named: Any) -> None:
        if isinstance(event, Now):
            found["asked"].append(event.at.tick)
        real_publish(publisher, event, **named)

    def wait(_: Any, count: int, stopped: Any) -> None:
        found["asked"].append(count)

    patch.setattr(open_source, "CameraSource", camera)
    patch.setattr(model_room, "Model", model)
    patch.setattr(runner, "Journal", journal)
    patch.setattr(runner.Publisher, "wait_subscribers", wait)
    patch.setattr(runner.Publisher, "publish", publish)
    given: dict[str, Any] = {
        "bundle": "bundle",
        "camera": "features:f.npy@10",
        "endpoint": "tcp://127.0.0.1:*",
        "pace": "asap",
    }
    given |= options
    if "keys" in given:
        given["keys"] = curve_keys.server_keys(folder / "keys" / "me.key_secret", None)
    try:
        summary = runner.run(
            RunOptions(**{**given, "bundle": Path(given["bundle"])}),
            on_ready=lambda endpoint: found.update(endpoint=re.sub(r":\d+$", "", endpoint)),
            on_event=lambda event: found["events"].append(comparable(encode(event))),
        )
        found |= {"reason": summary.reason, "health": sorted(summary.health), "engine": summary.health["engine"]}
    except (EdgeHalError, Taken) as error:
        found["error"] = re.sub(r"\(\d+, ", "", str(error))
    found["files"] = sorted({p.parts[0] for p in (path.relative_to(folder) for path in folder.rglob("*"))})
    found["recorded"] = sorted(path.name for path in (folder / "new").rglob("log.jsonl") if path.parent.name == "new")
    return found


def test_each_field_of_the_options_has_an_entry() -> None:
    elsewhere = {"resume_s"}  # acts after the pause of a camera: tests/runtime/test_resumption.py
    assert {field.name for field in dataclasses.fields(RunOptions)} == set(RUNS) | elsewhere


@pytest.mark.parametrize("name", RUNS)
def test_an_option_of_a_run_has_an_effect(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for options in (RUNS[name][0], RUNS[name][0], RUNS[name][1]):
        with monkeypatch.context() as patch:
            found.append(ran(options, prepared, tmp_path / "copy", patch))
    assert found[0] == found[1], "the outcome is not a function of the options: a difference shows nothing"
    assert found[0] != found[2], f"{name} changes nothing"


# --- thresholds and procedure of a bundle ------------------------------------------------------------

STEP: dict[str, Any] = {"first": 0.5, "share": 0.3, "median_s": 2.0, "spread": 1.5}
CHANGED = {"smooth_s": 2.0, "confirm_s": 1.5, "margin": 0.3, "min_duration_s": 5.0, "lead_s": 0.7, "temperature": 3.0}
CHANGED |= {"evidence_hz": 1.0, "decide_at": 0.95, "decide_hz": 0.5, "belief_hz": 0.5, "free_order": 0.9}
CHANGED |= {"unfamiliar_per_h": 900.0, "now_temperature": 4.0}
INPUT = familiar_input(np.zeros((1, len(LABELS))))
NARROW = dataclasses.replace(INPUT.vector, scale=np.full(len(LABELS), 0.05))
FAMILIARITY = dataclasses.replace(INPUT, vector=NARROW)

# {what decides: (its thresholds, those that change nothing)}
DECIDERS: dict[str, tuple[DecoderConfig, set[str]]] = {
    "hysteresis": (DecoderConfig(0.2, 0.4, 0.0, 0.5), {"evidence_hz", "now_temperature", *NEW_THRESHOLDS}),
    "filter": (DecoderConfig(0.2, 0.4, 0.0, 0.5, evidence_hz=4.0), {"margin", "decide_hz"}),
    "belief": (DecoderConfig(min_duration_s=0.5, decide_at=0.7), {"smooth_s", "confirm_s", "margin", "evidence_hz"}),
}


def told(bundle: Path) -> list[dict[str, Any]]:
    """What a stream says of random posteriors, several epochs: its events without fingerprints, and now and then what
    is believed."""
    found: list[Event] = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        logits = np.repeat(rng.normal(size=(30, len(LABELS))), 10, axis=0) + rng.normal(size=(300, len(LABELS)))
        with open_stream(bundle) as stream:
            for tick, vector in enumerate(logits.astype(np.float32) / SHARP):
                found += stream.push(vector, tick * 100_000_000)
                if tick % 20 == 19 and stream.now is not None:
                    found.append(stream.now)
            found += stream.close()
    return [{**json.loads(comparable(encode(event))), "decoder": None, "bundle": None} for event in found]


def steps_of(**rules: Any) -> dict[str, Step]:
    then = {name: {LABELS[i - 1]: 0.8, LABELS[i - 2]: 0.2} for i, name in enumerate(LABELS)}
    return {name: Step(**STEP, then=then[name], **rules) for name in LABELS}


def bundle_with(folder: Path, decider: str, steps: dict[str, Step]) -> Path:
    procedure = None if decider == "hysteresis" else Procedure(steps)
    decoder = dataclasses.replace(DECIDERS[decider][0], procedure=procedure)
    return known_bundle(folder, decoder=decoder, familiarity=FAMILIARITY).path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Any]]:
    """What a stream says with each decoder, unchanged."""
    root = tmp_path_factory.mktemp("plain")
    return cache(lambda decider: told(bundle_with(root / decider, decider, steps_of())))


@pytest.mark.parametrize("decider", DECIDERS)
@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_threshold_in_decoder_json_has_an_effect(
    tmp_path: Path, name: str, decider: str, plain: Callable[[str], list[Any]]
) -> None:
    """Those that have none are refused by `DecoderConfig.replaced` where a user gives them."""
    bundle = bundle_with(tmp_path / "b", decider, steps_of())
    config = load_bundle(bundle).decoder
    file = bundle / "decoder.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: CHANGED[name]}))
    dead = name in DECIDERS[decider][1]
    assert (told(bundle) == plain(decider)) == dead
    if dead:
        with pytest.raises(EdgeHalError, match=f"{name} has no effect"):
            config.with_user_thresholds({name: CHANGED[name]})
    else:
        assert config.with_user_thresholds({name: CHANGED[name]}) == load_bundle(bundle).decoder


def test_a_threshold_acts_beside_one_that_chooses_its_decoder() -> None:
    believing = DecoderConfig(decide_at=0.9, evidence_hz=2.0, procedure=Procedure(steps_of()))
    for name in ("smooth_s", "confirm_s", "evidence_hz"):
        assert not believing.with_user_thresholds({"decide_at": 0.0, name: 1.0}).believes
    assert not believing.with_user_thresholds({"decide_at": 0.0, "evidence_hz": 0.0, "margin": 0.2}).believes
    older = believing.with_thresholds({"decide_at": 0.0})
    assert older.with_user_thresholds({"decide_at": 0.8, "decide_hz": 4.0}).believes
    for name in ("evidence_hz", "decide_at"):  # what already is so may be said
        assert (
            dataclasses.replace(older, evidence_hz=0.0, procedure=None).with_user_thresholds({name: 0.0}).procedure
            is None
        )


RULES: dict[str, Any] = {"optional": False, "repeatable": False}
# {field: another value than that of STEP and RULES}
OTHER: dict[str, Any] = {"first": 0.0, "share": 0.9, "median_s": 6.0, "spread": 4.0, "then": {LABELS[2]: 1.0}}
OTHER |= {"requires": {}, "not_after": {LABELS[0]: 1.0}, "optional": True, "repeatable": True, "overdue_s": 1.0}
OTHER |= {"begins_cycle": True, "ends_cycle": True, "background": True, "shortest_s": 9.0, "least_confidence": 0.9999}
OTHER |= {"doubt_s": 0.01}


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A bundle whose first step requires the third, and what a stream of it says."""
    steps = steps_of(**RULES)
    steps[LABELS[0]] = dataclasses.replace(steps[LABELS[0]], requires={LABELS[2]: 1.0})
    bundle = bundle_with(tmp_path_factory.mktemp("ruled") / "b", "belief", steps)
    return bundle, told(bundle)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Step)])
def test_a_number_in_procedure_json_has_an_effect(tmp_path: Path, name: str, ruled: tuple[Path, list[Any]]) -> None:
    bundle = shutil.copytree(ruled[0], tmp_path / "b")
    file = bundle / "procedure.json"
    steps = json.loads(file.read_text())
    # Shares and chances are relative: the same for all steps is no change. Only the third step can be missing. The
    # background has no rules.
    third, second = name in ("optional", "doubt_s", "begins_cycle"), name in ("background", "not_after")
    for label in LABELS[2:] if third else LABELS[1:2] if second else LABELS[:2]:
        steps[label][name] = OTHER[name]
    file.write_text(json.dumps(steps))
    assert told(bundle) != ruled[1]


@pytest.mark.parametrize(
    "rule",
    [{"repeatable": False}, {"overdue_s": 1.0}, {"not_after": {LABELS[0]: 1.0}}],
    ids=lambda rule: next(iter(rule)),
)
def test_one_rule_alone_gives_deviations(
    tmp_path: Path, rule: dict[str, Any], plain: Callable[[str], list[Any]]
) -> None:
    steps = steps_of()
    steps[LABELS[2]] = dataclasses.replace(steps[LABELS[2]], **rule)
    kinds = {event["type"] for event in told(bundle_with(tmp_path / "b", "belief", steps)) if event is not None}
    assert "deviation" in kinds
    assert "deviation" not in {event["type"] for event in plain("belief")}


# --- keys of the configuration -----------------------------------------------------------------------


def keys_of(section: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """(path, class, field) of every value a configuration may hold; lists of levels count once."""
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None:
            yield f"{path}{name}", section, name
        else:
            yield from keys_of(inner, f"{path}{name}.")


def section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, getattr(annotation, "__args__", ()))), None)


KEYS = {path: (section, name) for path, section, name in keys_of(Config)}

# Key -> another value than in CONFIG. `WITH`: further keys that both trainings have, without which this one cannot act.
LEVELS = "[{window: 6, width: 16, heads: 2, blocks: 1}, {stride: 4, window: 4, width: 24, heads: 2, blocks: 1}]"
TEACHER = "[{window: 6, width: 24}, {stride: 3, window: 4, width: 32}]"
VALUES: dict[str, str] = {
    "model.model_hz": "5",
    "model.front_end_window_s": "0.6",
    "model.clip": "1",
    "model.change_window_s": "1.5",
    "model.lookback_s": "10",
    "model.lag_s": "0",
    "model.other_lags_s": "[0.3]",
    "model.projected": "3",
    "model.baseline_s": "2",
    "model.levels.stride": LEVELS.replace("stride: 4", "stride: 5"),
    "model.levels.window": LEVELS.replace("window: 4", "window: 5"),
    "model.levels.width": LEVELS.replace("width: 24", "width: 28"),
    "model.levels.heads": LEVELS.replace("heads: 2", "heads: 4"),
    "model.levels.blocks": LEVELS.replace("blocks: 1", "blocks: 2"),
    "data.rate_hz": "25",
    "data.background": "turn",
    "data.layout": "TD",
    "data.mistakes": "[video0]",
    "learning.supervision": "frames",
    "learning.lists": "sets",
    "learning.labelled": "2",
    "learning.timestamps": "true",
    "learning.starter": "uniform",
    "learning.restarts": "1",
    "learning.align_hz": "2",
    "learning.dropout": "0.1",
    "learning.weight_decay": "0.3",
    "learning.weights.video": "0.2",
    "learning.weights.frame": "0.2",
    "learning.weights.contrast": "0.7",
    "learning.weights.reconstruction": "0.7",
    "learning.weights.kl": "0.5",
    "learning.weights.sparse": "0.5",
    "learning.weights.action": "2",
    "learning.weights.change": "2",
    "learning.weights.distil": "2",
    "learning.weights.lagged": "2",
    "learning.weights.smooth": "2",
    "learning.teacher.levels.stride": TEACHER.replace("stride: 3", "stride: 4"),
    "learning.teacher.levels.window": TEACHER.replace("window: 4", "window: 5"),
    "learning.teacher.levels.width": TEACHER.replace("width: 32", "width: 40"),
    "learning.teacher.levels.heads": TEACHER.replace("width: 32", "width: 32, heads: 2"),
    "learning.teacher.levels.blocks": TEACHER.replace("width: 32", "width: 32, blocks: 1"),
    "learning.teacher.warm_epochs": "2",
    "learning.teacher.epochs": "4",
    "learning.teacher.realign_every": "~",
    "learning.teacher.batch": "2",
    "learning.teacher.lr": "1e-2",
    "learning.student.epochs": "4",
    "learning.student.least_steps": "9",
    "learning.student.batch": "2",
    "learning.student.crop_s": "5",
    "learning.student.lr": "1e-2",
    "learning.student.noise": "0.1",
    "learning.student.offset": "0.5",
    "learning.student.shuffled": "1",
    **{f"decoder.{name}": str(value) for name, value in CHANGED.items() if name != "evidence_hz"},
    "decoder.evidence_hz": "0",
}
WITH = {"decoder.margin": ["decoder.evidence_hz=0"], "decoder.smooth_s": ["decoder.evidence_hz=0"]}
PICTURES = {path for path in KEYS if path.startswith(("model.encoder.", "learning.encoder."))}
PICTURES |= {"learning.student.copies", "learning.swap_backgrounds"}
"""Keys that only trainings on videos use; see the tests of encoders below."""
READ_ONLY = {"learning.workers": "the number of processes changes the duration of the search, and never its result"}


def test_each_key_of_the_configuration_has_an_entry() -> None:
    assert set(KEYS) == set(VALUES) | PICTURES | set(READ_ONLY)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_small_data(tmp_path_factory.mktemp("keys") / "data", train=3, test=1)
    (root / "timestamps").mkdir()
    for path in (root / "groundTruth").iterdir():
        labels = path.read_text().split()
        starts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
        (root / "timestamps" / path.name).write_text("".join(f"{i} {labels[i]}\n" for i in starts))
    return root


def overrides(path: str) -> list[str]:
    """The change of one key, and what it acts together with."""
    key = path.rpartition(".")[0] if ".levels." in path else path
    return [*WITH.get(path, []), f"{key}={VALUES[path]}"]


def learnt(data: Path, out: Path, settings: list[str]) -> Any:
    """What a training leaves apart from its configuration and provenance, or its error."""
    try:
        train(data, out, split=1, config=str(CONFIG), settings=[*BRIEF, *settings])
    except EdgeHalError as error:
        return str(error)
    with safe_open(out / "model.safetensors", "np") as stored:
        metadata = json.loads(stored.metadata()["edge_hal"])
    model = {name: value.tobytes() for name, value in weights(out).items()}
    return model, metadata["spec"], metadata["decoder"], (out / "alignment.json").read_text()


@pytest.mark.usefixtures("one_thread")
def test_training_reads_each_key(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick form of the next test: a key that nobody reads cannot act."""
    read: set[tuple[str, str]] = set()

    def watched(section: Section, name: str) -> Any:
        read.add((type(section).__name__, name))
        return object.__getattribute__(section, name)

    with monkeypatch.context() as patch:
        patch.setattr(Section, "__getattribute__", watched, raising=False)
        found = learnt(data, tmp_path / "run", ["learning.student.epochs=1", "learning.teacher.epochs=2"])
    assert not isinstance(found, str), found
    decoder = {path for path in KEYS if path.startswith("decoder.")}  # read all at once: `Decoder.given`
    unread = {path for path, (section, name) in KEYS.items() if (section.__name__, name) not in read}
    assert unread - decoder - PICTURES == set()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_each_key_changes_what_is_learnt(data: Path, tmp_path: Path) -> None:
    plain: dict[tuple[str, ...], Any] = {(): learnt(data, tmp_path / "plain", [])}
    assert learnt(data, tmp_path / "again", []) == plain[()]
    dead = []
    for path in VALUES:
        together = tuple(WITH.get(path, ()))
        if together not in plain:
            plain[together] = learnt(data, tmp_path / f"with {path}", list(together))
        if learnt(data, tmp_path / path, overrides(path)) == plain[together]:
            dead.append(path)
    assert dead == []


ENCODER = {"epochs": 2, "dropout": 0.9, "hz": 5.0, "batch": 8, "lr": 0.1}


@pytest.mark.usefixtures("one_thread")
def test_each_key_of_the_frame_encoder_has_an_effect(tmp_path: Path) -> None:
    fields = {path.rpartition(".")[2] for path in PICTURES if path.startswith("learning.encoder.")}
    assert fields == set(ENCODER)
    made = [moving_dot(np.random.default_rng(0), 80) for _ in range(2)]
    recordings = [SampledRecording(str(i), (0, 1), x, np.arange(len(x)), None) for i, (x, _) in enumerate(made)]

    def learn(name: str, value: float | None) -> list[bytes]:
        settings = ["learning.encoder.epochs=1"] + ([] if value is None else [f"learning.encoder.{name}={value}"])
        learning = load_config("tiny", settings).learning
        stage = Stage("encoder", tmp_path / name, 0, lambda *_: None)
        (tmp_path / name).mkdir()
        ways = [way for _, way in made]
        module = learn_encoder(recordings, ways, EncoderSpec(SIZE, SIZE, 16), 2, HZ, learning, stage)
        return [value.numpy().tobytes() for value in module.state_dict().values()]

    plain = learn("plain", None)
    assert learn("again", None) == plain
    assert [name for name, value in ENCODER.items() if learn(name, value) == plain] == []
    for name in ("height", "width", "size", "moving_s", "coarse"):  # `tests/test_moving.py`: what a run sees is greyed
        plain_spec, changed_spec = (
            encoder.spec(HZ)
            for settings in ([], [f"model.encoder.{name}=32"])
            if (encoder := load_config("tiny", settings).model.encoder) is not None
        )
        assert plain_spec != changed_spec, name


def test_copies_of_features_are_refused(data: Path, tmp_path: Path) -> None:
    """`tests/learning/encoders` has the effect of copies of videos."""
    for setting in ("learning.student.copies=1", "learning.swap_backgrounds=true"):
        assert "has no effect here" in learnt(data, tmp_path / "run", [setting])
    assert not (tmp_path / "run").exists()


def test_a_given_encoder_graph_is_used(tmp_path: Path) -> None:
    """`model.encoder.kind`: training on videos takes the file, also under the key of earlier versions, and says so if
    it is missing. `tests/learning/encoders` has the effects of `layout`, `channels`, `mean`, `std`,
    `weights` and `int8`."""
    root = write_small_data(tmp_path / "data", train=2, test=1)
    shutil.rmtree(root / "features")
    (root / "videos").mkdir()
    for path in (root / "groundTruth").iterdir():
        video = str(root / "videos" / f"{path.stem}.mp4")
        writer = cv2.VideoWriter(video, cv2.VideoWriter_fourcc(*"mp4v"), 20, (32, 24))
        for number, _ in enumerate(path.read_text().split()):
            writer.write(np.full((24, 32, 3), number % 250, np.uint8))
        writer.release()
    for key in ("onnx=missing.onnx", "kind=onnx:missing.onnx"):
        settings = [f"model.encoder.{key}", "learning.restarts=1", "learning.workers=1"]
        with pytest.raises(EdgeHalError, match=r"missing\.onnx"):
            train(root, tmp_path / "out", split=1, config="tiny", settings=settings)
