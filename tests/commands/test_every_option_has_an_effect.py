"""Every option of every command changes something: output, files, exit code, or an argument of the work behind it.

The options come from typer, so a new option without an entry in `COMMANDS` fails. Both command lines of an entry run in
this process; work that takes seconds is replaced by a function that prints the arguments it was called with.
`test_every_setting_has_an_effect.py` does the same for settings: thresholds, configuration keys, options of a run.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer

from edge_hal import cli
from edge_hal.bundle.certificate import certificate_text
from edge_hal.bundle.signature import new_signer
from edge_hal.calib.learn_procedure import learn_procedure
from edge_hal.config import PRESETS
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.events import End, encode
from edge_hal.learning.data.extraction import extract
from edge_hal.model.model_file import save_model
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.runtime.delivery.retention import Retention
from edge_hal.runtime.options import RunOptions, Summary
from tests.helpers import films
from tests.helpers.bundles import AT_ONCE, LABELS, known_bundle, vectors
from tests.helpers.kept_posteriors import keep
from tests.helpers.sample_events import start, transition
from tests.helpers.shift_work import Bench, utc_ns
from tests.helpers.small_data import ACTIONS, CONFIG, write_alignment, write_small_data
from tests.helpers.small_models import random_input, random_model, small_spec
from tests.helpers.videos import write_video

RUN = "run --bundle bundle --camera features:f.npy@10"
VIDEO = "run --bundle pictures --camera folder --fps 10"
CAMERA = "run --bundle pictures --camera rtsp://host/x --no-journal"
VIEW = "view --token-file token"
CORRECT = "correct lesson --token-file token"
TRAIN = f"train data --out new --config {CONFIG}"
BEGUN = "train data --out new --set data.rate_hz=20 --init run"
PICTURED = "train films --out new --config tiny"
EVAL = "eval data --ckpt run --split 1 --json"
EVAL_BELIEF = "eval data --ckpt believing --split 1 --json"
CHECK = f"check data --config {CONFIG}"
TINY = "--config tiny"
EXTRACT = f"extract films {TINY}"
REFUSED = ("--allow-uncertified", "--accept-damaged")
"""Without them the command is refused."""
CHECK_VIDEOS = f"check films {TINY}"
LABEL = "label data --ckpt aligned --out new"
HARVEST = "harvest tape --into task"
DIFF = "models diff models features:f.npy@10 --before 1 --after 2"
FUSE = "fuse left=view right=worse-view"
EXPORT = "export --ckpt run --out new"
INT8 = f"{EXPORT} --precision int8 --calib data --split 1"
CALIBRATE = "calibrate data --ckpt run"
SIGN = "keys sign bundle2 --key strangers/b.signer_secret"
MQTT = "bridge mqtt mqtt://host --station here"
TLS = "bridge mqtt mqtts://host --station here"
CERT = f"{TLS} --cert cert.pem --cert-key cert.key"
SQL = "bridge sql sqlite:///e.db"
WEBHOOK = "bridge webhook https://host/x --secret-file word"
PLOT = "plot data --ckpt believing --split 1 --out new --kinds confusion"
REPORT = "report one.journal --timezone UTC"
BRIDGES = ("mqtt", "sql", "webhook")
CONFIDENCE = "calibrate data --ckpt run --confidence --split 1 --part test"

# {option: (a command line, the same with this option changed)}; a positional argument is named in capitals.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "run": {
        "TASK": (RUN, "run task --camera features:f.npy@10"),
        "--camera": (RUN, f"{RUN} --camera features:g.npy@10"),
        "--camera-auth": (CAMERA, f"{CAMERA} --camera-auth auth"),
        "--size": (CAMERA, f"{CAMERA} --size 64x48"),
        "--fps": (VIDEO, f"{VIDEO} --fps 20"),
        "--fourcc": (CAMERA, f"{CAMERA} --fourcc YUYV"),
        "--pace": (RUN, f"{RUN} --pace asap"),
        "--max-hold-ms": (RUN, f"{RUN} --max-hold-ms 900"),
        "--stall": (CAMERA, f"{CAMERA} --stall 7s"),
        "--still": (CAMERA, f"{CAMERA} --still 7s"),
        "--resume": (CAMERA, f"{CAMERA} --resume 7s"),
        "--give-up": (CAMERA, f"{CAMERA} --give-up 7s"),
        "--seconds": (RUN, f"{RUN} --seconds 3"),
        "--set": (RUN, f"{RUN} --set decoder.confirm_s=2"),
        "--decide": (RUN, f"{RUN} --decide fast"),
        "--now-hz": (RUN, f"{RUN} --now-hz 2"),
        "--events": (RUN, f"{RUN} --events core"),
        "--decide-every": (RUN, f"{RUN} --decide-every 8"),
        "--pub": (RUN, f"{RUN} --pub ipc://here"),
        "--stream": (RUN, f"{RUN} --stream other"),
        "--wait-subscribers": (RUN, f"{RUN} --wait-subscribers 2"),
        "--journal": (RUN, f"{RUN} --journal j"),
        "--no-journal": (f"{RUN} --journal j", f"{RUN} --journal j --no-journal"),
        "--retention": (f"{RUN} --journal j", f"{RUN} --journal j --retention 2d"),
        "--replay": (f"{RUN} --journal j", f"{RUN} --journal j --replay ipc://past"),
        "--preview": (VIDEO, f"{VIDEO} --preview ipc://pictures"),
        "--key": (RUN, f"{RUN} --key keys/me.key_secret"),
        "--allowed": (f"{RUN} --key keys/me.key_secret", f"{RUN} --key keys/me.key_secret --allowed others"),
        "--insecure": (RUN, f"{RUN} --insecure"),
        "--record": (RUN, f"{RUN} --record new"),
        "--record-around": (f"{RUN} --record new", f"{RUN} --record new --record-around 2m,2GB"),
        "--record-pictures": (f"{VIDEO} --record new", f"{VIDEO} --record new --record-pictures source"),
        "--bundle": (RUN, f"{RUN} --bundle bundle2"),
        "--engine": (RUN, f"{RUN} --engine onnxruntime"),
        "--precision": (RUN, f"{RUN} --precision fp32"),
        "--threads": (RUN, f"{RUN} --threads 2"),
        "--overload": (RUN, f"{RUN} --overload cut"),
        "--selfcheck": (RUN, f"{RUN} --selfcheck 1m"),
        "--allow-uncertified": (RUN, f"{RUN} --allow-uncertified"),
        "--trusted": (f"{RUN} --trusted trusted", f"{RUN} --trusted strangers"),
        "--metrics": (RUN, f"{RUN} --metrics 127.0.0.1:9570"),
        "--log": (f"{RUN} --log human", f"{RUN} --log json"),
        "--json": (RUN, f"{RUN} --json"),
        "--station": ("run --station one.yaml", "run --station two.yaml"),
        "--check": (RUN, f"{RUN} --check"),
    },
    "listen": {
        "--connect": ("listen", "listen --connect ipc://there"),
        "--stream": ("listen", "listen --stream other"),
        "--replay": ("listen", "listen --replay ipc://past"),
        "--from-start": ("listen", "listen --from-start"),
        "--from": ("listen", "listen --from 7"),
        "--since": ("listen", "listen --since 2026-05-01T08:00Z"),
        "--cursor": ("listen", "listen --cursor c.json"),
        "--key": (
            "listen --server-key keys/you.key --key keys/me.key_secret",
            "listen --server-key keys/you.key --key keys/you.key_secret",
        ),
        "--server-key": (
            "listen --key keys/me.key_secret --server-key keys/me.key",
            "listen --key keys/me.key_secret --server-key keys/you.key",
        ),
        "--json": ("listen", "listen --json"),
        "--count": ("listen", "listen --count 1"),
        "--until-end": ("listen", "listen --until-end"),
    },
    "view": {
        "--connect": (VIEW, f"{VIEW} --connect ipc://there"),
        "--stream": (VIEW, f"{VIEW} --stream other"),
        "--replay": (VIEW, f"{VIEW} --replay ipc://past"),
        "--journal": (VIEW, f"{VIEW} --journal j"),
        "--bundle": (VIEW, f"{VIEW} --bundle bundle2"),
        "--recording": (VIEW, f"{VIEW} --recording tape"),
        "--key": (
            f"{VIEW} --server-key keys/you.key --key keys/me.key_secret",
            f"{VIEW} --server-key keys/you.key --key keys/you.key_secret",
        ),
        "--server-key": (
            f"{VIEW} --key keys/me.key_secret --server-key keys/me.key",
            f"{VIEW} --key keys/me.key_secret --server-key keys/you.key",
        ),
        "--host": (VIEW, f"{VIEW} --host ::1"),
        "--port": (VIEW, f"{VIEW} --port 0"),
        "--tls-cert": (f"{VIEW} --tls-key k --tls-cert c", f"{VIEW} --tls-key k --tls-cert d"),
        "--tls-key": (f"{VIEW} --tls-cert c --tls-key k", f"{VIEW} --tls-cert c --tls-key l"),
        "--token-file": (VIEW, "view --token-file other"),
        "--no-browser": (VIEW, f"{VIEW} --no-browser"),
    },
    "correct": {
        "TASK": (CORRECT, CORRECT.replace("lesson", "lesson2")),
        "--format": (CORRECT, f"{CORRECT} --format eaf"),
        "--host": (CORRECT, f"{CORRECT} --host ::1"),
        "--port": (CORRECT, f"{CORRECT} --port 0"),
        "--tls-cert": (f"{CORRECT} --tls-key k --tls-cert c", f"{CORRECT} --tls-key k --tls-cert d"),
        "--tls-key": (f"{CORRECT} --tls-cert c --tls-key k", f"{CORRECT} --tls-cert c --tls-key l"),
        "--token-file": (CORRECT, "correct lesson --token-file other"),
        "--no-browser": (CORRECT, f"{CORRECT} --no-browser"),
    },
    "replay": {
        "FOLDER": ("replay rec", "replay rec2"),
        "--bundle": ("replay rec", "replay rec --bundle bundle2"),
        "--pub": ("replay rec", "replay rec --pub nowhere"),
        "--stream": ("replay rec", "replay rec --stream left"),
        "--json": ("replay rec", "replay rec --json"),
    },
    "cameras": {"--json": ("cameras", "cameras --json")},
    "demo": {
        "--out": ("demo", "demo --out new"),
        "--seed": ("demo", "demo --seed 3"),
        "--procedure": ("demo", "demo --procedure circuit_board"),
    },
    "encoders": {
        "KINDS": ("encoders own", "encoders"),
        "--set": ("encoders own", "encoders own --set size=32"),
        "--json": ("encoders own", "encoders own --json"),
    },
    "init": {
        "FOLDER": ("init new --encoder own", "init newer --encoder own"),
        "--encoder": ("init new --encoder own", "init new --encoder timm:resnet18"),
    },
    "check": {
        "DATA": (CHECK, CHECK.replace("data", "data2")),
        "--split": (CHECK, f"{CHECK} --split 1"),
        "--config": (CHECK, CHECK.replace(str(CONFIG), "kinematics --set data.rate_hz=20")),
        "--set": (CHECK, f"{CHECK} --set model.model_hz=5"),
        "--encoder": (CHECK_VIDEOS, f"{CHECK_VIDEOS} --encoder onnx:pictures/encoder.fp32.onnx"),
        "--init": ("check data --set data.rate_hz=20", "check data --set data.rate_hz=20 --init run"),
        "--accept-damaged": (f"check paused {TINY}", f"check paused {TINY} --accept-damaged"),
        "--json": (CHECK, f"{CHECK} --json"),
    },
    "extract": {
        "DATA": (EXTRACT, f"extract films2 {TINY}"),
        "--encoder": (EXTRACT, f"{EXTRACT} --encoder onnx:pictures/encoder.fp32.onnx --config eye.yaml"),
        "--config": (EXTRACT, f"{EXTRACT} --config eye.yaml"),
        "--set": (EXTRACT, f"{EXTRACT} --set model.encoder.width=32"),
        "--workers": (EXTRACT, f"{EXTRACT} --workers 7"),
        "--clear": ("extract films", "extract films --clear"),
    },
    "train": {
        "DATA": (TRAIN, TRAIN.replace("data", "data2")),
        "--out": (TRAIN, f"{TRAIN} --out elsewhere"),
        "--split": (TRAIN, f"{TRAIN} --split 1"),
        "--config": (TRAIN, f"{TRAIN} --config kinematics --set data.rate_hz=20"),
        "--encoder": (PICTURED, f"{PICTURED} --encoder efficientnet-lite0@96"),
        "--budget-ms": (f"{PICTURED} --encoder auto --budget-ms 0.001", f"{PICTURED} --encoder auto"),
        "--set": (TRAIN, f"{TRAIN} --set learning.restarts=3"),
        "--seed": (TRAIN, f"{TRAIN} --seed 3"),
        "--supervision": (TRAIN, f"{TRAIN} --supervision frames"),
        "--labelled": (TRAIN, f"{TRAIN} --labelled video1"),
        "--timestamps": (TRAIN, f"{TRAIN} --timestamps"),
        "--labels": (TRAIN, f"{TRAIN} --labels corrected"),
        "--alignment": (TRAIN, f"{TRAIN} --alignment run/alignment.json"),
        "--init": (BEGUN, f"{BEGUN}2"),
        "--accept-damaged": (TRAIN, f"{TRAIN} --accept-damaged"),
        "--workers": (TRAIN, f"{TRAIN} --workers 7"),
    },
    "eval": {
        "DATA": (EVAL, EVAL.replace("data", "data2")),
        "--ckpt": (EVAL, f"{EVAL} --ckpt run2"),
        "--split": (EVAL, "eval data --ckpt run --json"),
        "--part": (EVAL, f"{EVAL} --part train"),
        "--full": (EVAL, f"{EVAL} --full run2"),
        "--stage": (f"{EVAL} --part train", f"{EVAL} --part train --stage alignment"),
        "--set": (EVAL, f"{EVAL} --set decoder.confirm_s=4"),
        "--curve": (EVAL_BELIEF, f"{EVAL_BELIEF} --curve new.png"),
        "--json": (EVAL, EVAL.replace(" --json", "")),
    },
    "label": {
        "DATA": (LABEL, LABEL.replace("data", "data2")),
        "--ckpt": (LABEL, f"{LABEL} --ckpt aligned2"),
        "--out": (LABEL, f"{LABEL} --out elsewhere"),
        "--format": (LABEL, f"{LABEL} --format eaf"),
        "--within": (LABEL, f"{LABEL} --within 2s"),
        "--labels": (LABEL, f"{LABEL} --labels corrected"),
        "--overwrite": (f"{LABEL} --out corrected --overwrite", f"{LABEL} --out corrected"),
    },
    "harvest": {
        "RECORDINGS": (HARVEST, HARVEST.replace("tape", "tape2")),
        "--into": (HARVEST, HARVEST.replace("--into task", "--into task2")),
        "--most": (HARVEST, f"{HARVEST} --most 1"),
        "--around": (HARVEST, f"{HARVEST} --around 2s"),
        "--below": (HARVEST, f"{HARVEST} --below 0.1"),
        "--blur-faces": (HARVEST, f"{HARVEST} --blur-faces"),
    },
    "export": {
        "TASK": (EXPORT, "export task --out new"),
        "--ckpt": (EXPORT, f"{EXPORT} --ckpt run2"),
        "--out": (EXPORT, f"{EXPORT} --out elsewhere"),
        "--precision": (EXPORT, f"{EXPORT} --precision fp16"),
        "--target": (INT8, f"{INT8} --target tensorrt"),
        "--calib": (INT8, f"{INT8} --calib data2"),
        "--split": (INT8, INT8.replace(" --split 1", "")),
        "--rate-hz": (INT8, f"{INT8} --rate-hz 40"),
        "--work": (INT8, f"{INT8} --work w"),
        "--budget-f1": (INT8, f"{INT8} --budget-f1 2"),
        "--budget-within": (INT8, f"{INT8} --budget-within 0.5"),
        "--reference": (EXPORT, f"{EXPORT} --reference r.npy"),
        "--json": (EXPORT, f"{EXPORT} --json"),
    },
    "calibrate": {
        "DATA": (CALIBRATE, CALIBRATE.replace("data", "data2")),
        "--ckpt": (CALIBRATE, f"{CALIBRATE} --ckpt run2"),
        "--split": (CALIBRATE, f"{CALIBRATE} --split 1"),
        "--target": (CALIBRATE, f"{CALIBRATE} --target tensorrt"),
        "--work": (CALIBRATE, f"{CALIBRATE} --work w"),
        "--rate-hz": (CALIBRATE, f"{CALIBRATE} --rate-hz 40"),
        "--budget-f1": (CALIBRATE, f"{CALIBRATE} --budget-f1 2"),
        "--budget-within": (CALIBRATE, f"{CALIBRATE} --budget-within 0.5"),
        "--confidence": (f"{CALIBRATE} --split 1", f"{CALIBRATE} --split 1 --confidence"),
        "--part": (CONFIDENCE, CONFIDENCE.replace("--part test", "--part valid")),
        "--check": (CONFIDENCE, f"{CONFIDENCE} --check valid"),
        "--json": (CALIBRATE, f"{CALIBRATE} --json"),
    },
    "fuse": {
        "VIEWS": (FUSE, f"{FUSE} top=worse-view"),
        "--json": (FUSE, f"{FUSE} --json"),
    },
    "bench": {
        "BUNDLE": ("bench bundle", "bench bundle2"),
        "--compare": ("bench bundle", "bench bundle --compare bundle2"),
        "--engine": ("bench bundle", "bench bundle --engine onnxruntime"),
        "--precision": ("bench bundle", "bench bundle --precision fp16"),
        "--threads": ("bench bundle", "bench bundle --threads 2"),
        "--ticks": ("bench bundle", "bench bundle --ticks 7"),
        "--paced": ("bench bundle", "bench bundle --paced 0"),
        "--allow-uncertified": ("bench uncertified", "bench uncertified --allow-uncertified"),
        "--json": ("bench bundle", "bench bundle --json"),
    },
    "doctor": {
        "--bundle": ("doctor", "doctor --bundle bundle2"),
        "--selftest": ("doctor", "doctor --selftest"),
        "--json": ("doctor", "doctor --json"),
    },
    "keys new": {
        "NAME": ("keys new a --dir new", "keys new b --dir new"),
        "--dir": ("keys new a --dir new", "keys new a --dir other"),
        "--sign": ("keys new a --dir new", "keys new a --dir new --sign"),
    },
    "keys sign": {
        "BUNDLE": (SIGN, SIGN.replace("bundle2", "bundle")),
        "--key": (SIGN, SIGN.replace("strangers/b.signer_secret", "keys/me.key_secret")),
    },
    "keys allow": {
        "PUBLIC": ("keys allow keys/me.key --dir keys", "keys allow keys/you.key --dir keys"),
        "--name": ("keys allow keys/me.key --dir keys", "keys allow keys/me.key --dir keys --name her"),
        "--dir": ("keys allow keys/me.key --dir keys", "keys allow keys/me.key --dir other"),
    },
    "keys revoke": {
        "NAME": ("keys revoke friend --dir keys", "keys revoke foe --dir keys"),
        "--dir": ("keys revoke friend --dir keys", "keys revoke friend --dir other"),
    },
}


def bridge_options(line: str) -> dict[str, tuple[str, str]]:
    """The options that all bridges have."""
    keyed = f"{line} --key keys/me.key_secret --server-key keys/me.key"
    return {
        "--connect": (line, f"{line} --connect ipc://there"),
        "--stream": (line, f"{line} --stream other"),
        "--replay": (line, f"{line} --replay ipc://past"),
        "--cursor": (line, f"{line} --cursor c.json"),
        "--key": (keyed, keyed.replace("me.key_secret", "you.key_secret")),
        "--server-key": (
            keyed,
            keyed.replace("keys/me.key", "keys/you.key").replace("you.key_secret", "me.key_secret"),
        ),
        "--log": (f"{line} --log human", f"{line} --log json"),
    }


COMMANDS |= {
    "plot": {
        "DATA": (PLOT, PLOT.replace("data", "data2")),
        "--ckpt": (PLOT, PLOT.replace("believing", "run2")),
        "--out": (PLOT, PLOT.replace("new", "other")),
        "--kinds": (PLOT, f"{PLOT},delays"),
        "--format": (PLOT, f"{PLOT} --format svg"),
        "--videos": (PLOT.replace("confusion", "timelines"), f"{PLOT.replace('confusion', 'timelines')} --videos 1"),
        "--split": (PLOT, PLOT.replace(" --split 1", "")),
        "--part": (PLOT, f"{PLOT} --part train"),
        "--set": (PLOT, f"{PLOT} --set decoder.decide_at=0.9"),
    },
    "report": {
        "JOURNALS": (REPORT, REPORT.replace("one", "two")),
        "--html": (REPORT, f"{REPORT} --html new.html"),
        "--csv": (REPORT, f"{REPORT} --csv new"),
        "--timezone": (f"{REPORT} --json", f"{REPORT} --json".replace("UTC", "Europe/Berlin")),
        "--shifts": (f"{REPORT} --json", f"{REPORT} --json --shifts 05:10"),
        "--waiting": (REPORT, f"{REPORT} --waiting turn"),
        "--bundle": (REPORT, f"{REPORT} --bundle background.json"),
        "--since": (REPORT, f"{REPORT} --since 2026-05-01T05:02Z"),
        "--until": (REPORT, f"{REPORT} --until 2026-05-01T05:02Z"),
        "--json": (REPORT, f"{REPORT} --json"),
    },
    "bridge mqtt": {
        "BROKER": (MQTT, MQTT.replace("host", "other")),
        "--station": (MQTT, MQTT.replace("here", "there")),
        "--auth": (MQTT, f"{MQTT} --auth auth"),
        "--ca": (TLS, f"{TLS} --ca cert.pem"),
        "--cert": (CERT, CERT.replace("cert.pem", "cert2.pem")),
        "--cert-key": (CERT, CERT.replace("cert.key", "cert2.key")),
        **bridge_options(MQTT),
    },
    "bridge sql": {
        "DATABASE": (SQL, SQL.replace("e.db", "f.db")),
        "--password-file": (SQL, f"{SQL} --password-file word"),
        **bridge_options(SQL),
    },
    "bridge webhook": {
        "URL": (WEBHOOK, WEBHOOK.replace("host", "other")),
        "--secret-file": (WEBHOOK, WEBHOOK.replace("word", "word2")),
        "--types": (WEBHOOK, f"{WEBHOOK} --types deviation"),
        "--skip-refused": (WEBHOOK, f"{WEBHOOK} --skip-refused"),
        "--ca": (WEBHOOK, f"{WEBHOOK} --ca cert.pem"),
        **bridge_options(WEBHOOK),
    },
}
COMMANDS |= {
    "models list": {
        "FOLDER": ("models list models", "models list task"),
        "--json": ("models list models", "models list models --json"),
    },
    "models diff": {
        "FOLDER": (DIFF, DIFF.replace("models features", "models2 features")),
        "SOURCES": (DIFF, DIFF.replace("f.npy", "g.npy")),
        "--before": (DIFF, f"{DIFF} --before 2"),
        "--after": (DIFF, f"{DIFF} --after 3"),
        "--within": (DIFF, f"{DIFF} --within 100ms"),
        "--json": (DIFF, f"{DIFF} --json"),
    },
    "models use": {
        "FOLDER": ("models use models 2", "models use models2 2"),
        "NAME": ("models use models 2", "models use models 3"),
    },
    "models rollback": {"FOLDER": ("models rollback models", "models rollback models2")},
    "procedure show": {
        "BUNDLE": ("procedure show p.json", "procedure show q.json"),
        "--json": ("procedure show p.json", "procedure show p.json --json"),
    },
    "procedure check": {"BUNDLE": ("procedure check p.json", "procedure check q.json")},
    "procedure plot": {
        "BUNDLE": ("procedure plot p.json", "procedure plot q.json"),
        "--out": ("procedure plot p.json", "procedure plot p.json --out new.png"),
    },
    "procedure diff": {
        "BEFORE": ("procedure diff p.json q.json", "procedure diff q.json q.json"),
        "AFTER": ("procedure diff p.json q.json", "procedure diff p.json p.json"),
        "--json": ("procedure diff p.json q.json", "procedure diff p.json q.json --json"),
    },
}
ENTRIES = [(command, option) for command, entries in COMMANDS.items() for option in entries]


def options_of(command: Any, path: str = "") -> dict[str, set[str]]:
    """{command: its options and arguments}, from what typer would parse."""
    if hasattr(command, "commands"):
        parts = (options_of(inner, f"{path} {name}".strip()) for name, inner in command.commands.items())
        return {name: options for part in parts for name, options in part.items()}
    named = {param.opts[0] if param.opts[0].startswith("-") else param.name.upper() for param in command.params}
    return {path: named - {"--help"}}


def test_each_option_of_each_command_has_an_entry() -> None:
    found = options_of(typer.main.get_command(cli.app))
    assert found == {command: set(entries) for command, entries in COMMANDS.items()}


# --- a folder for the commands to run in -----------------------------------------------------------


def write_run(path: Path, seed: int, decoder: DecoderConfig = AT_ONCE) -> None:
    """A run of a random model that decides at every bin. Its alignment gives each video the action `seed`."""
    path.mkdir(parents=True)
    save_model(path / "model.safetensors", *random_model(small_spec(size=6), seed), decoder, {"by": "tests"})
    shutil.copy(CONFIG, path / "config.yaml")
    video = {"labelled": True, "agreement": 1.0, "segments": [[ACTIONS[seed], 0]]}
    alignment = {f"video{number}": video for number in range(6)}
    (path / "alignment.json").write_text(json.dumps(alignment))


def write_certificate(folder: Path) -> None:
    """`cert.pem` and `cert.key`, and both again under other names."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, day = ec.generate_private_key(ec.SECP256R1()), datetime(2026, 1, 1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day + timedelta(days=9999))
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for number in ("", "2"):
        (folder / f"cert{number}.pem").write_bytes(pem)
        (folder / f"cert{number}.key").write_bytes(secret)


def write_film(path: Path) -> None:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for value in range(20):
        writer.write(np.full((48, 64, 3), value * 5, np.uint8))
    writer.release()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("options") / "prepared"
    root.mkdir()
    np.save(root / "f.npy", vectors([0] * 20 + [1] * 20))
    np.save(root / "g.npy", vectors([1] * 20 + [2] * 20))
    np.save(root / "r.npy", random_input(50, 6))
    for name, strength in (("view", 1.0), ("worse-view", 0.5)):
        keep(root / name, 1, strength)
    for name, labels in (("p", LABELS), ("q", LABELS[:2])):
        procedure = learn_procedure([np.repeat(range(len(labels)), 20)] * 8, labels, 10.0)
        (root / f"{name}.json").write_text(procedure.to_json())
    (root / "one.yaml").write_text("{bundle: bundle, streams: {left: {camera: 'features:f.npy@10'}}}")
    (root / "two.yaml").write_text("{bundle: bundle, streams: {left: {camera: 'features:g.npy@10'}}}")
    (root / "auth").write_text("user:password")
    (root / "auth").chmod(0o600)
    (root / "token").write_text("0" * 64)
    (root / "token").chmod(0o600)
    for name in ("word", "word2"):
        (root / name).write_text(f"secret-{name}")
        (root / name).chmod(0o600)
    write_certificate(root)
    for name, cycles in (("one", 9), ("two", 12)):
        work = Bench(utc_ns("2026-05-01T05:00"))
        for _ in range(cycles):
            work.cycle([("reach", 10), ("turn", 20)])
        with Journal(root / f"{name}.journal", "bench", Retention(float("inf"), 2**63)) as journal:
            journal.append([(event.seq, encode(event)) for event in work])
    common = {"first": 0.5, "share": 0.5, "median_s": 9.0, "spread": 1.5, "optional": True, "repeatable": True}
    steps = {"reach": {**common, "then": {"turn": 1.0}}, "turn": {**common, "then": {"reach": 1.0}, "background": True}}
    (root / "background.json").write_text(json.dumps(steps))
    (root / "folder").mkdir()
    (root / "others").mkdir()
    bundles: dict[str, dict[str, Any]] = {"bundle": {}, "bundle2": {"lag_s": 0.3}, "pictures": {"pictures": True}}
    for name, kind in bundles.items():
        certificate = known_bundle(root / name, **kind).path / "certificate.json"
        metrics = {"frame_agreement": 1.0, "transitions": 3, "shift_ticks_max": 0}
        more = {"ticks": 10, "reference": "random", "receptive_field": 5, "metrics": metrics}
        body = json.loads(certificate.read_text())
        del body["sha256"]
        certificate.write_text(certificate_text({**body, **more}))
    shutil.copytree(root / "bundle", root / "uncertified")
    (root / "uncertified" / "certificate.json").unlink()
    for name, seed in (("data", 0), ("data2", 1)):
        data = write_small_data(root / name, train=3, test=3, seed=seed)
        shutil.copy(data / "splits" / "train.split1.bundle", data / "splits" / "valid.split1.bundle")
        (data / "timestamps").mkdir()
        for path in (data / "groundTruth").iterdir():
            frames = path.read_text().split()
            starts = [i for i, label in enumerate(frames) if i == 0 or label != frames[i - 1]]
            (data / "timestamps" / path.name).write_text("".join(f"{i} {frames[i]}\n" for i in starts))
    for name in ("films", "films2"):
        (root / name / "videos").mkdir(parents=True)
        write_film(root / name / "videos" / f"{name}.mp4")
        (root / name / "transcripts").mkdir()
        (root / name / "transcripts" / f"{name}.txt").write_text("reach\ngrasp\n")
    shutil.copytree(root / "films", root / "paused")
    write_video(root / "paused" / "videos" / "films.mkv", [100 * i + 600_000 * (i > 30) for i in range(60)])
    (root / "paused" / "videos" / "films.mp4").unlink()
    for name, source in (("lesson", "films"), ("lesson2", "films2")):
        shutil.copytree(root / source, root / name)
        (root / name / "task.yaml").write_text("encoder: own\n")
    (root / "eye.yaml").write_text(
        (PRESETS / "tiny.yaml")
        .read_text()
        .replace("96, width: 128, size: 64", f"16, width: 16, size: {len(LABELS)}, coarse: 0")
    )
    (root / "task").mkdir()
    (root / "task" / "task.yaml").write_text("")
    write_run(root / "task" / "runs" / "1", 1)
    shutil.copytree(root / "bundle2", root / "task" / "runs" / "1" / "bundle")
    write_run(root / "run", 0)
    write_run(root / "run2", 1)
    (root / "data" / "transcripts" / "video0.txt").write_text("reach\nturn\nplace\n")
    for name, seed in (("aligned", 0), ("aligned2", 1)):
        write_run(root / name, seed)
        write_alignment(root / name, root / "data")
    (root / "corrected").mkdir()
    (root / "corrected" / "segments.csv").write_text(
        "video,begin_s,end_s,step\nvideo0,0,0.1,reach\nvideo0,0.1,0.2,turn\n"
    )
    procedure = learn_procedure([np.repeat(range(len(ACTIONS)), 20)] * 3, ACTIONS, 10.0)
    write_run(root / "believing", 0, DecoderConfig(decide_at=0.5, procedure=procedure))
    from edge_hal.runtime.network import curve_keys

    for name in ("me", "you"):
        curve_keys.new_pair(root / "keys", name)
    for folder, name in (("trusted", "a"), ("strangers", "b")):
        new_signer(root / folder, name)
    for name in ("friend", "foe"):
        curve_keys.allow(root / "keys", root / "keys" / "me.key", name)
    curve_keys.allow(root / "other", root / "keys" / "me.key", "another")
    for name in ("models", "models2"):
        (root / name).mkdir()
        for number in (1, 2, 3):
            lag_s = (number - 1) * (0.3 if name == "models" else 0.5)
            known_bundle(root / name / str(number), lag_s=lag_s)
            os.utime(root / name / str(number) / "manifest.json", (10**9 + number, 10**9 + number))
    (root / "models" / "current").symlink_to("2")
    (root / "models2" / "current").symlink_to("3")
    shutil.copytree(root / "task", root / "task2")
    from edge_hal.runtime import runner

    doubt = [films.RED, films.ALMOST_GREEN, films.BLUE]
    for name, colours in (("tape", [*doubt, *doubt]), ("tape2", doubt)):
        film = films.write_film(root / f"{name}.avi", [(colour, 40) for colour in colours])
        how: dict[str, Any] = {"pace": "asap", "record": root / name, "record_pictures": "source"}
        runner.run(RunOptions(root / "pictures", str(film), "tcp://127.0.0.1:*", **how))

    for name, array in (("rec", "f"), ("rec2", "g")):
        camera = f"features:{root}/{array}.npy@10"
        runner.run(RunOptions(root / "bundle", camera, "tcp://127.0.0.1:*", pace="asap", record=root / name))
    return root


# --- what takes seconds says what it was asked for ---------------------------------------------------


def plain(value: Any) -> str:
    """Every part of an argument that could differ."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(plain, value))}]"
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.sum():.6g}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {plain(each)}' for key, each in value.items())}}}"
    if hasattr(value, "__dataclass_fields__"):
        return f"{type(value).__name__}{plain({name: getattr(value, name) for name in value.__dataclass_fields__})}"
    return re.sub(r" at 0x\w+|<function.*?>", "", repr(value))


def stand_in(result: Callable[..., Any]) -> Callable[..., Any]:
    """A function that prints its arguments and returns `result` of them."""

    def called(*arguments: Any, **named: Any) -> Any:
        print("called with", plain(arguments), plain(named))
        return result(*arguments, **named)

    return called


def ran(options: RunOptions, on_ready: Any, on_event: Any, stop: Any) -> Summary:
    on_ready(options.endpoint)
    if on_event is not None:
        on_event(transition(1))
    counters = {name: 0 for name in ("captured", "used", "in_flight", "ticks", "fresh", "held", "cut")}
    return Summary("eof", {**counters, "dropped": {}}, 1, 10.0, {}, {})


def ran_station(read: Any, on_ready: Any, on_event: Any, stop: Any) -> Any:
    from edge_hal.runtime.station.options import StationSummary

    print(plain(read()))
    streams = read().streams
    return StationSummary({name: ran(each, on_ready, on_event, stop) for name, each in streams.items()})


def trained(videos: Any, config: Any, out: Path, *rest: Any, **named: Any) -> Path:
    out.mkdir()
    (out / "alignment.json").write_text('{"v": {"labelled": true, "agreement": 1.0}}')
    return out


def calibrated(checkpoint: Any, *rest: Any) -> SimpleNamespace:
    shift = {"moved": 0, "transitions": 9, "f1_50": 99.0}
    budget = {"within": 0.99, "ticks": 1, "f1_points": 0.5}
    return SimpleNamespace(report={"layers": {}, "method": "m", "ticks": 9, "shift": shift, "budget": budget})


def measured(opened: Any, *rest: Any) -> dict[str, Any]:
    times = {"tick": {"count": 1, "mean": 1.0, "p50": 1.0}}
    figures: dict[str, Any] = {
        "bundle": str(opened.path),
        "precision": "fp32",
        "engine": "e",
        "why": "w",
        "back_to_back_us": times,
    }
    figures |= {"paced_us": times, "weight_bytes": 1, "state_bytes": 1, "streams_per_core": 1.0, "model_hz": 10.0}
    return {**figures, "multiply_adds": {}, "resident_bytes": 0, "readings": {"after_paced": {}}}


def tried(what: str, bundles: Sequence[Path]) -> list[Any]:
    from edge_hal.runtime.checks.finding import Finding

    return [Finding(f"bundle {bundle}", "ok", what) for bundle in bundles]


def served(options: Any, on_ready: Callable[[str], None]) -> None:
    on_ready("http://127.0.0.1/#token")


STOPPED = 77


def stopped(*_: Any, **__: Any) -> None:
    raise SystemExit(STOPPED)


class Subscribed:
    """What `subscribe` returns: three events."""

    raw = b"{}"

    def __iter__(self) -> Iterator[Any]:
        end = End("bench", 0, seq=2, reason="eof", last=transition(1).boundary, counters={})
        return iter([start(), end, transition(3)])

    def ack(self) -> None:
        pass


@contextmanager
def subscribed(*arguments: Any, **named: Any) -> Iterator[Subscribed]:
    yield Subscribed()


def costs_of(settings: Any) -> Any:
    """Without the time, which differs between two runs."""
    from edge_hal.evaluation.encoder_costs import EncoderCosts

    return EncoderCosts(settings.kind, settings.spec(10.0), "none", 1000, 1.0, 10**6)


def stand_ins(command: str) -> dict[str, Callable[..., Any]]:
    """{function of the package: what replaces it while this command runs}."""
    from edge_hal.bundle import load_bundle

    work: dict[str, dict[str, Callable[..., Any]]] = {
        "run": {"edge_hal.runtime.runner.run": ran, "edge_hal.runtime.station.run.run_station": ran_station},
        "listen": {"edge_hal.runtime.delivery.client.subscribe": subscribed},
        "train": {
            "edge_hal.learning.train.train": trained,
            "edge_hal.evaluation.encoder_costs.measure": costs_of,
        },
        "view": {
            "edge_hal.web.view.server.serve": served,
            "edge_hal.commands.options.page.opened_in_browser": lambda _: nullcontext(),
        },
        "correct": {
            "edge_hal.web.correct.server.serve": served,
            "edge_hal.commands.options.page.opened_in_browser": lambda _: nullcontext(),
        },
        "check": {"edge_hal.learning.data.training_cost.extraction_speed": lambda *_: 100.0},
        "extract": {"edge_hal.learning.data.extraction.extract": extract},
        "export": {"edge_hal.export.bundle.export_bundle": lambda *_, **__: load_bundle(Path("bundle"))},
        "calibrate": {"edge_hal.export.int8.calibrate": calibrated},
        "bench": {
            "edge_hal.runtime.checks.bench.measure": measured,
            "edge_hal.runtime.engines.choose.choose_engines": lambda *_, **__: None,
        },
        "doctor": {
            "edge_hal.runtime.checks.doctor.examine.examine": lambda bundles, _: tried("opened", bundles),
            "edge_hal.runtime.checks.selftest.selftest": lambda bundles, _: tried("proved", bundles),
        },
        "demo": {"edge_hal.workbench.render_dataset": stopped},
        "encoders": {"edge_hal.evaluation.encoder_costs.measure": costs_of},
    }
    work |= {f"bridge {kind}": {"edge_hal.runtime.bridges.bridge.bridge": lambda *_, **__: None} for kind in BRIDGES}
    return work.get(command, {})


@dataclass(frozen=True)
class Outcome:
    """`files`: the names of those that the command made or deleted."""

    code: Any
    out: str
    err: str
    files: frozenset[str]


KNOWN: dict[str, Outcome] = {}
"""Outcomes of the unchanged command lines, many of which stand in several entries."""


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def outcome(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[str, str], Outcome]]:
    """Run a command line in a fresh copy of the folder: exit code, both outputs, and the files that are there then."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level

    def run_in_a_copy(command: str, line: str) -> Outcome:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(prepared, folder, symlinks=True)
        code: Any = None
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr("sys.argv", ["edge-hal", *line.split()])
            patch.setenv("COLUMNS", "200")
            for target, result in stand_ins(command).items():
                patch.setattr(target, stand_in(result))
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code
        out, err = capsys.readouterr()
        clock = re.compile(r"\d\d:\d\d:\d\d(\.\d+Z)?")
        return Outcome(code, out, clock.sub("", err), frozenset(names_in(folder) ^ names_in(prepared)))

    yield run_in_a_copy
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), ENTRIES, ids=[f"{c} {o}" for c, o in ENTRIES])
def test_an_option_has_an_effect(outcome: Callable[[str, str], Outcome], command: str, option: str) -> None:
    plain_line, changed_line = COMMANDS[command][option]
    if plain_line not in KNOWN:
        KNOWN[plain_line] = outcome(command, plain_line)
        again = outcome(command, plain_line)
        assert KNOWN[plain_line] == again, (
            "the outcome is not a function of the command line: a difference shows nothing"
        )
    assert KNOWN[plain_line].code in (None, 0, STOPPED) or option in REFUSED, KNOWN[plain_line].err
    before, after = KNOWN[plain_line], outcome(command, changed_line)
    assert "Traceback" not in before.err + after.err
    assert before != after, f"{option} changes nothing"
