"""Run directories and bundles of version 0.1.0: they load, and compute what they computed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_hal
from edge_hal.bundle import file_hash, load_bundle
from edge_hal.bundle.certificate import certificate_text
from edge_hal.events import encode
from tests.helpers.processes import Command, call
from tests.helpers.then_and_now import same

OPTIONAL = {"encoder": None, "background": None, "change_window_s": 0.5, "lookback_s": 30.0, "lag_s": 0.0}
"""What a manifest and a model file need not name, and what is taken instead; docs/upgrade.md lists the same."""
HERE = ("--bundle", "bundle", "--pub", "ipc://r")
THRESHOLDS = {
    **{"smooth_s": 0.5, "confirm_s": 0.5, "margin": 0.0, "min_duration_s": 1.0, "lead_s": 0.0},
    **{"temperature": 1.0, "evidence_hz": 0.0},
}


def streamed(bundle: Path, rows: np.ndarray[Any, Any], hz: int) -> list[dict[str, Any]]:
    events = []
    with edge_hal.open_stream(bundle, stream="bench", source_hz=hz) as stream:
        for number, row in enumerate(rows):
            events += stream.push(row, round(number * 1e9 / hz))
        events += stream.close()
    return [json.loads(encode(event)) for event in events]


@pytest.mark.parametrize(("folder", "rows", "hz"), [("", "stream.npy", 20), ("pictures", "pictures/frames.npy", 10)])
def test_a_bundle_gives_the_events_of_then_and_one_warning(
    frozen: Path,
    expected: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    folder: str,
    rows: str,
    hz: int,
) -> None:
    then = (expected[folder] if folder else expected)["bundle"]
    path = frozen / folder / "bundle"
    with caplog.at_level(logging.WARNING):
        bundle = load_bundle(path)
    [record] = caplog.records
    assert f"the certificate of {path} has no hash of itself" in record.getMessage()
    assert (bundle.fingerprint, bundle.precision, bundle.target) == (then["fingerprint"], "fp32", "any")
    assert bundle.certified and list(bundle.spec.labels) == then["labels"]
    assert same(bundle.decoder.thresholds, then["thresholds"]) and bundle.decoder.procedure is not None
    events = streamed(path, np.load(frozen / rows), hz)
    assert same(events, then["events"])  # without a deviation or a cycle, at the ticks of then
    assert [event.get("decoder") for event in events] == [event.get("decoder") for event in then["events"]]


def test_a_run_of_an_old_bundle_reports_what_goes_on_and_decides_as_then(
    frozen: Path, expected: dict[str, Any]
) -> None:
    """Its procedure has no rules, and its decoder does not decide by the belief."""
    bundle, rows = load_bundle(frozen / "bundle"), np.load(frozen / "stream.npy")
    assert bundle.decoder.procedure is not None and not bundle.decoder.believes
    assert (bundle.decoder.patience, bundle.decoder.curve) == ({}, ())
    with edge_hal.open_stream(bundle.path, stream="bench", source_hz=20) as stream:
        found = []
        for number, row in enumerate(rows):
            stream.push(row, round(number * 1e9 / 20))
            found.append(stream.now)
        assert stream.recognizer.close_cycle() == []
    reports = [report for report in found if report is not None]
    assert len(reports) > len(rows) / 4 and {report.progress for report in reports} == {None}
    assert {report.action for report in reports} <= set(bundle.spec.labels)
    code, _, err = call("run", "--camera", "features:stream.npy@20", "--pace", "asap", "--no-journal", "--decide",
                        "fast", *HERE, cwd=frozen)  # fmt: skip
    assert code == 2 and "has no setting 'fast'" in err and "Traceback" not in err


def test_fields_that_are_missing_take_their_defaults(frozen: Path) -> None:
    path = frozen / "bundle"
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["spec"] = {name: value for name, value in manifest["spec"].items() if name not in OPTIONAL}
    del manifest["target"], manifest["provenance"], manifest["spec"]["front_end"]["clip"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    certificate = {"manifest": file_hash(path / "manifest.json"), "passed": True, "checks": []}
    (path / "certificate.json").write_text(certificate_text(certificate))
    (path / "decoder.json").write_text("{}")
    (path / "procedure.json").unlink()
    bundle = load_bundle(path)
    assert {name: getattr(bundle.spec, name) for name in OPTIONAL} == OPTIONAL
    assert (bundle.target, bundle.spec.front_end.clip, dict(bundle.provenance)) == ("any", 5.0, {})
    assert THRESHOLDS.items() <= bundle.decoder.thresholds.items() and bundle.decoder.procedure is None


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["", "pictures"])
def test_a_run_is_exported_and_its_bundle_gives_the_events_of_then(
    frozen: Path, expected: dict[str, Any], caplog: pytest.LogCaptureFixture, folder: str
) -> None:
    pytest.importorskip("torch")
    from edge_hal.export.bundle import export_bundle
    from edge_hal.model.model_file import load_checkpoint

    run, then = frozen / folder / "run", expected[folder] if folder else expected
    checkpoint = load_checkpoint(run)
    assert same(json.loads(json.dumps(checkpoint.spec.to_dict())), then["run"]["spec"])
    assert dict(checkpoint.provenance) == then["run"]["provenance"]
    assert (checkpoint.encoder is not None) == then["run"]["encoder"]
    with caplog.at_level(logging.WARNING, "edge_hal"):
        bundle = export_bundle(run, frozen / "again")
    assert bundle.certified and not [record for record in caplog.records if "hash" in record.getMessage()]
    rows, hz = ("pictures/frames.npy", 10) if folder else ("stream.npy", 20)
    now = streamed(bundle.path, np.load(frozen / rows), hz)
    assert same([{**event, "bundle": then["bundle"]["fingerprint"]} if "bundle" in event else event for event in now],
                then["bundle"]["events"])  # fmt: skip


def test_a_run_is_evaluated_to_the_scores_of_then(frozen: Path, expected: dict[str, Any], command: Command) -> None:
    pytest.importorskip("torch")
    done = command("eval", "features", "--ckpt", "run", "--split", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert same(json.loads(done.stdout), expected["run"]["scores"], tolerance=0.01)


def test_training_begins_from_an_old_alignment(frozen: Path, command: Command) -> None:
    pytest.importorskip("torch")
    few = [f"--set=learning.student.{what}" for what in ("epochs=1", "least_steps=0")]
    arguments = ("--split", "1", "--config", "features.yaml", "--alignment", "run/alignment.json", "--out", "again")
    done = command("train", "features", *arguments, *few)
    assert done.returncode == 0, done.stderr
    again, before = (json.loads((frozen / run / "alignment.json").read_text()) for run in ("again", "run"))
    assert again.keys() == before.keys()
    assert all([s for s, _ in again[v]["segments"]] == [s for s, _ in before[v]["segments"]] for v in before)


def test_a_run_suggests_labels(frozen: Path, command: Command) -> None:
    """Its alignment holds less evidence, and its model has one head without lag."""
    pytest.importorskip("torch")
    alignment = json.loads((frozen / "run" / "alignment.json").read_text())
    done = command("label", "features", "--ckpt", "run", "--out", "found", "--format", "frames")
    assert done.returncode == 0, done.stderr
    for name, entry in alignment.items():
        lines = (frozen / "found" / f"{name}.txt").read_text().split()
        changes = [i for i, step in enumerate(lines) if i == 0 or step != lines[i - 1]]
        assert [[lines[i], i] for i in changes] == entry["segments"]
