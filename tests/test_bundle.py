from __future__ import annotations

import contextlib
import itertools
import json
import logging
import operator
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal import __version__
from edge_hal.bundle import Bundle, expected_graphs, file_hash, load_bundle, write_bundle
from edge_hal.bundle.certificate import certificate_text
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.errors import EdgeHalError
from edge_hal.files import whole
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.spec import EncoderSpec, PyramidSpec
from tests.helpers.bundles import known_bundle
from tests.helpers.familiar import familiar_input
from tests.helpers.toy_pyramid import toy_bundle, toy_spec, write_graphs

SPEC = toy_spec((2, 2), encoder=EncoderSpec(height=4, width=6, size=5))
Rewrite = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("made") / "bundle", SPEC).path


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


def rewrite(path: Path, change: Rewrite) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps(change(data) or data))


def contents(path: Path) -> dict[str, str]:
    return {entry.name: file_hash(entry) for entry in sorted(path.iterdir())}


def test_a_written_bundle_loads_as_it_was_written(bundle: Path) -> None:
    config = DecoderConfig(confirm_s=0.3)
    (bundle / "decoder.json").write_text(config.to_json())  # people edit it: no hash covers it
    loaded = load_bundle(bundle)
    assert loaded.spec == SPEC and loaded.certified and loaded.decoder == config
    assert loaded.provenance == {"made_by": "tests"}
    names = {entry.name for entry in bundle.iterdir()}
    assert names == {
        *expected_graphs(SPEC, "fp32"),
        "manifest.json",
        "certificate.json",
        "decoder.json",
    }
    assert loaded.graph(0, 2).is_file() and loaded.encoder is not None and loaded.encoder.is_file()


def test_a_procedure_is_written_beside_the_thresholds_and_people_edit_both(tmp_path: Path) -> None:
    steps = {name: Step(0.5, 0.5, 2.0, 1.5, {}) for name in SPEC.labels}
    config = DecoderConfig(confirm_s=0.3, evidence_hz=2.0, procedure=Procedure(steps))
    written = toy_bundle(tmp_path / "bundle", SPEC, config)
    file = written.path / "procedure.json"
    assert written.decoder == config and "procedure" not in (written.path / "decoder.json").read_text()
    rewrite(file, lambda data: data[SPEC.labels[0]].update(median_s=9.0))
    edited = load_bundle(written.path)
    assert edited.certified and edited.fingerprint == written.fingerprint
    assert edited.decoder.procedure is not None
    assert edited.decoder.procedure.steps[SPEC.labels[0]].median_s == 9.0
    assert edited.decoder.fingerprint() != config.fingerprint()
    file.write_text("{")
    with pytest.raises(EdgeHalError, match=r"cannot use .*procedure\.json") as caught:
        load_bundle(written.path)
    assert "delete it" in caught.value.todo and caught.value.exit_code == 1
    file.unlink()
    without = load_bundle(written.path)
    assert without.certified and without.decoder == replace(config, procedure=None)


def test_a_model_of_the_input_is_covered_by_the_certificate(tmp_path: Path) -> None:
    model = familiar_input(np.eye(3))
    path = known_bundle(tmp_path / "bundle", decoder=DecoderConfig(unfamiliar_per_h=1.0), familiarity=model).path
    loaded, file = load_bundle(path), path / "familiarity.json"
    assert loaded.familiarity is not None and loaded.familiarity.to_json() == model.to_json()
    whole = file.read_bytes()
    for index in range(0, len(whole), 23):
        file.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(EdgeHalError, match=r"cannot read .*familiarity\.json"):
            load_bundle(path, allow_uncertified=True)
    file.unlink()
    with pytest.raises(EdgeHalError, match=r"lacks familiarity\.json"):
        load_bundle(path)
    file.write_bytes(whole)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["familiarity"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EdgeHalError, match="unfamiliar_per_h has no effect"):
        load_bundle(path, allow_uncertified=True)


def test_a_model_of_the_input_fits_the_vectors_of_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(EdgeHalError, match=r"vectors of 5 numbers, of which 5 are read; the table says 3 and 3"):
        known_bundle(tmp_path / "bundle", familiarity=familiar_input(np.eye(5)))
    split = replace(
        familiar_input(np.eye(2)), coarse=familiar_input(np.eye(1)).vector
    )  # three numbers, two of them read
    with pytest.raises(EdgeHalError, match=r"of which 2 are read; the table says 3 and 3"):
        known_bundle(tmp_path / "bundle", familiarity=split)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", expected_graphs(SPEC, "fp32"))
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_byte_changed_in_a_graph_is_found(bundle: Path, name: str, where: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    index = {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[where]
    data[index] ^= 1
    (bundle / name).write_bytes(data)
    for allow in (False, True):
        with pytest.raises(EdgeHalError, match=f"{name} is not the file that was exported"):
            load_bundle(bundle, allow_uncertified=allow)


def test_any_byte_changed_in_the_manifest_is_found(bundle: Path) -> None:
    data = (bundle / "manifest.json").read_bytes()
    for index in range(0, len(data), 37):
        (bundle / "manifest.json").write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        with pytest.raises(EdgeHalError):
            load_bundle(bundle)
    (bundle / "manifest.json").write_bytes(data + b"\n")
    with pytest.raises(EdgeHalError, match="belongs to another manifest"):
        load_bundle(bundle)
    assert not load_bundle(bundle, allow_uncertified=True).certified


def flipped(data: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """`count` times the data with one byte changed: the first, the last, and random ones to random values."""
    positions = {0, len(data) - 1, *rng.choice(len(data), min(count, len(data)), replace=False).tolist()}
    for position in sorted(positions):
        other = data[position] ^ int(rng.integers(1, 256))
        yield data[:position] + bytes([other]) + data[position + 1 :]


def test_a_change_of_any_byte_is_refused_but_where_people_edit(tmp_path: Path) -> None:
    steps = {name: Step(0.5, 0.5, 2.0, 1.5, {}) for name in SPEC.labels}
    path = toy_bundle(tmp_path / "bundle", SPEC, DecoderConfig(evidence_hz=2.0, procedure=Procedure(steps))).path
    rng = np.random.default_rng(7)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        edited = file.name in ("decoder.json", "procedure.json")
        text = file.suffix == ".json"
        for data in flipped(good, rng, 150 if text else 15):
            file.write_bytes(data)
            if edited:  # no hash: either the content is refused in one error, or it is valid
                with contextlib.suppress(EdgeHalError):
                    load_bundle(path)
            else:
                with pytest.raises(EdgeHalError):
                    load_bundle(path)
        file.write_bytes(good)
        assert load_bundle(path).certified


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", " \n", 1),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "\n",
        lambda text: "\ufeff" + text,
        lambda text: json.dumps(json.loads(text)),
        lambda text: text.replace('"checks"', '"remark": "fine", "checks"'),
        lambda text: text.replace('"passed": true', '"passed": true, "passed": true'),
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"}, indent=2) + "\n",
        lambda text: json.dumps({**json.loads(text), "sha256": None}, indent=2) + "\n",
        lambda text: "[" * 100_000,
    ],
)
def test_an_edited_certificate_is_refused(bundle: Path, change: Callable[[str], str]) -> None:
    file = bundle / "certificate.json"
    file.write_bytes(change(file.read_text()).encode())
    with pytest.raises(EdgeHalError, match="not certified: its certificate"):
        load_bundle(bundle)
    assert not load_bundle(bundle, allow_uncertified=True).certified


def test_a_certificate_without_a_hash_warns_where_the_manifest_names_no_version(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As version 0.1 wrote them. The manifest's hash is in the certificate, so nobody can take the version out."""
    assert json.loads((bundle / "manifest.json").read_text())["version"] == __version__
    rewrite(bundle / "manifest.json", lambda manifest: {k: v for k, v in manifest.items() if k != "version"})
    with pytest.raises(EdgeHalError, match="another manifest"):
        load_bundle(bundle)
    body = {"manifest": file_hash(bundle / "manifest.json"), "passed": True, "checks": []}
    (bundle / "certificate.json").write_text(json.dumps(body))
    with caplog.at_level(logging.WARNING):
        assert load_bundle(bundle).certified
    [record] = caplog.records
    assert "no hash of itself" in record.getMessage() and "edge-hal export" in record.getMessage()
    caplog.clear()
    (bundle / "certificate.json").write_text(certificate_text(body))
    assert load_bundle(bundle).certified and not caplog.records


@pytest.mark.parametrize("name", [*expected_graphs(SPEC, "fp32"), "manifest.json", "decoder.json"])
@pytest.mark.parametrize("how", ["missing", "empty", "a directory"])
def test_a_file_that_is_gone_is_named(bundle: Path, name: str, how: str) -> None:
    (bundle / name).unlink()
    if how == "empty":
        (bundle / name).touch()
    elif how == "a directory":
        (bundle / name).mkdir()
    with pytest.raises(EdgeHalError, match=name.replace(".", r"\.")):
        load_bundle(bundle, allow_uncertified=True)


def test_a_directory_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(EdgeHalError, match="no bundle"):
            load_bundle(path)


@pytest.mark.parametrize("schema", [2, "1", None, True])
def test_another_schema_is_refused(bundle: Path, schema: object) -> None:
    rewrite(bundle / "manifest.json", lambda manifest: {**manifest, "schema": schema})
    if schema is True:  # JSON's true is Python's 1: the certificate catches the edit
        with pytest.raises(EdgeHalError, match="belongs to another"):
            load_bundle(bundle)
        return
    with pytest.raises(EdgeHalError, match=f"schema {schema!r}"):
        load_bundle(bundle, allow_uncertified=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no certificate"),
        ('{"manifest": "0000", "passed": true}', "another manifest"),
        ("[]", "cannot be read"),
        ("{", "cannot be read"),
        ("{}", "cannot be read"),
    ],
)
def test_a_foreign_certificate_does_not_pass(bundle: Path, text: str | None, reason: str) -> None:
    if text is None:
        (bundle / "certificate.json").unlink()
    else:
        (bundle / "certificate.json").write_text(text)
    with pytest.raises(EdgeHalError, match=rf"not certified: .*{reason}"):
        load_bundle(bundle)
    assert not load_bundle(bundle, allow_uncertified=True).certified


@pytest.mark.parametrize("passed", [False, "yes", 1, None])
def test_only_a_certificate_that_says_true_passes(bundle: Path, passed: object) -> None:
    rewrite(bundle / "certificate.json", lambda body: {**body, "passed": passed})
    with pytest.raises(EdgeHalError, match="certificate failed"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["graphs"].update({"../outside.onnx": "00"}),
        lambda manifest: manifest["graphs"].update({"/etc/hostname": "00"}),
        lambda manifest: manifest["graphs"].pop("level0.c1.fp32.onnx") and None,
        lambda manifest: manifest.update(graphs=sorted(manifest["graphs"])),
        lambda manifest: manifest.update(graphs=[[1, "a"], ["b", 2]]),
        lambda manifest: manifest.update(graphs=None),
        lambda manifest: manifest.update(precision="fp32/../../outside"),
        lambda manifest: manifest.update(precision=["fp32"]),
        lambda manifest: manifest.update(provenance=3),
        lambda manifest: manifest.pop("spec") and None,
        lambda manifest: manifest.update(spec=[]),
        lambda manifest: manifest["spec"].update(model_hz="fast"),
        lambda manifest: manifest["spec"].update(model_hz=float("nan")),
        lambda manifest: manifest["spec"].update(labels=5),
        lambda manifest: manifest["spec"].update(surprise=1),
        lambda manifest: manifest["spec"]["levels"][1].update(stride=2.5),
        lambda manifest: manifest["spec"]["levels"][1].update(stride="2"),
        lambda manifest: manifest["spec"]["levels"][1].update(width=None),
        lambda manifest: manifest["spec"]["levels"][0].update(window=10**9),
        lambda manifest: manifest["spec"].update(encoder={"height": "4"}),
    ],
)
def test_a_manifest_of_tricks_is_one_clear_error(bundle: Path, change: Rewrite) -> None:
    rewrite(bundle / "manifest.json", change)
    with pytest.raises(EdgeHalError):
        load_bundle(bundle, allow_uncertified=True)


def test_a_precision_cannot_lead_out_of_the_bundle(bundle: Path) -> None:
    """Whole and consistent: the graphs lie where the tampered manifest says, outside."""
    precision = "x/../../outside/fp32"
    outside = bundle.parent / "outside"
    outside.mkdir()
    manifest = json.loads((bundle / "manifest.json").read_text())
    names = []
    for name in manifest["graphs"]:
        renamed = name.replace("fp32", precision)
        (bundle / renamed.split("/")[0]).mkdir(exist_ok=True)
        shutil.copy(bundle / name, bundle / renamed)
        names.append(renamed)
    graphs = dict.fromkeys(names, file_hash(outside / "fp32.onnx"))
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "precision": precision, "graphs": graphs}))
    with pytest.raises(EdgeHalError, match="precision 'x/"):
        load_bundle(bundle, allow_uncertified=True)


# --- writing -----------------------------------------------------------------------------------


def write(
    path: Path,
    spec: PyramidSpec = SPEC,
    graphs: Callable[[Path], None] | None = None,
    certify: Callable[[Bundle], dict[str, Any]] | None = None,
) -> Bundle:
    passing = {"passed": True, "checks": []}
    return write_bundle(
        path,
        spec,
        "fp32",
        DecoderConfig(),
        {},
        graphs or write_graphs(spec),
        certify or (lambda bundle: passing),
    )


def test_a_bundle_is_never_visible_half_written(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    looked = []

    def graphs(directory: Path) -> None:
        looked.append(path.exists())
        write_graphs(SPEC)(directory)
        looked.append(path.exists())

    def certify(bundle: Bundle) -> dict[str, Any]:
        looked.append(path.exists())
        assert bundle.graph(0).is_file() and not bundle.certified
        return {"passed": True, "checks": []}

    assert write(path, graphs=graphs, certify=certify).certified
    assert looked == [False, False, False]
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("bug"), Interrupted()])
@pytest.mark.parametrize("stage", ["graphs", "certify"])
def test_a_failure_leaves_the_old_bundle_and_nothing_else(tmp_path: Path, error: BaseException, stage: str) -> None:
    path = tmp_path / "bundle"
    write(path)
    before = contents(path)

    def fail(directory: Path) -> Any:
        if stage == "graphs":
            (directory / "level0.c1.fp32.onnx").write_bytes(b"half")
        raise error

    expected = EdgeHalError if isinstance(error, OSError) else type(error)
    failing: dict[str, Any] = {stage: fail}
    with pytest.raises(expected):
        write(path, **failing)
    assert contents(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_failed_certificate_leaves_the_old_bundle_and_names_the_check(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path)
    before = contents(path)
    checks = [{"name": "chunked", "passed": True}, {"name": "engine c2 frame", "passed": False}]
    with pytest.raises(EdgeHalError, match="failed: engine c2 frame"):
        write(path, certify=lambda bundle: {"passed": False, "checks": checks})
    assert contents(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_good_export_replaces_the_old_bundle_whole(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path)
    (path / "left_over.txt").write_text("of the old one")
    flat = toy_spec(())
    assert write(path, flat).spec == flat
    assert not (path / "left_over.txt").exists()
    assert load_bundle(path).spec == flat
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_what_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.mkdir()
    (path / "data.txt").write_text("mine")
    with pytest.raises(EdgeHalError, match="will not be overwritten"):
        write(path)
    assert (path / "data.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EdgeHalError, match="cannot write the bundle"):
        write(tmp_path / "file" / "bundle")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_old_bundle_comes_back_when_the_swap_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bundle"
    write(path)
    before = contents(path)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError("no space left")
        return real(self, target)

    monkeypatch.setattr(whole, "_exchange", lambda one, other: False)  # as on NFS
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(EdgeHalError, match="no space left"):
        write(path, toy_spec(()))
    assert contents(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_is_there_at_each_moment_of_an_export(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path)
    before, seen, missing = contents(path), 0, list[str]()
    done = threading.Event()

    def look() -> None:
        nonlocal seen
        while not done.is_set():
            seen += 1
            try:
                (path / "manifest.json").read_bytes()
            except OSError as error:
                missing.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        while seen < 200 or contents(path) == before:
            write(path, toy_spec(()))
    finally:
        done.set()
        thread.join()
    assert missing == []


def test_what_killed_exports_left_is_removed_and_a_running_one_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    for name in (f".bundle.partial-{gone.pid}", f".bundle.partial-{os.getppid()}", f".other.partial-{gone.pid}"):
        (tmp_path / name).mkdir()
    write(tmp_path / "bundle")
    left = {"bundle", f".bundle.partial-{os.getppid()}", f".other.partial-{gone.pid}"}
    assert {entry.name for entry in tmp_path.iterdir()} == left


def test_a_link_stays_and_the_bundle_that_it_names_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    (tmp_path / "newest").symlink_to("bundle")
    write(tmp_path / "newest", toy_spec(()))
    assert (tmp_path / "newest").is_symlink() and load_bundle(tmp_path / "bundle").spec == toy_spec(())
    assert {entry.name for entry in tmp_path.iterdir()} == {"bundle", "newest"}


@pytest.mark.parametrize("strides", [(1,), (1, 3), (4, 1)])
def test_a_level_may_keep_the_rate_of_the_one_below(tmp_path: Path, strides: tuple[int, ...]) -> None:
    spec = toy_spec(strides)
    assert spec.chunks(0) == tuple(c for c in range(1, strides[0] + 1) if strides[0] % c == 0)
    periods = [1, *itertools.accumulate(strides, operator.mul)]
    assert [spec.period(level) for level in range(len(periods))] == periods
    toy_bundle(tmp_path / "bundle", spec)
    assert load_bundle(tmp_path / "bundle").spec == spec


@pytest.mark.parametrize(("level", "stride"), [(0, 0), (0, 2), (1, 0), (1, -1), (1, 257), (2, 0)])
def test_a_stride_out_of_range_is_named(level: int, stride: int) -> None:
    good = toy_spec((4, 3))
    levels = tuple(replace(each, stride=stride) if i == level else each for i, each in enumerate(good.levels))
    with pytest.raises(EdgeHalError, match=rf"levels\[{level}\]\.stride"):
        replace(good, levels=levels)
