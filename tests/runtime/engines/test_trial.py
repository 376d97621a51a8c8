"""Hostile bundles: every hash is right and the certificate valid, but the graphs or the table do harm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.bundle import Bundle, load_bundle
from edge_hal.bundle.load import OUTSIDE
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.api import open_model
from edge_hal.runtime.engines import trial
from tests.helpers.bundles import known_bundle
from tests.helpers.hostile_bundles import certify, endless, huge, out_of_bounds, poisoned, with_graph


def test_a_good_bundle_passes_and_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = known_bundle(tmp_path / "bundle", pictures=True)
    started: list[object] = []
    plain = trial.subprocess.run
    monkeypatch.setattr(trial.subprocess, "run", lambda *given, **how: started.append(given) or plain(*given, **how))
    trial.try_bundle(bundle)
    trial.try_bundle(bundle)
    assert len(started) == 1
    (tmp_path / "cache" / "edge-hal" / "trials").chmod(0o777)  # now anybody could have written the mark
    trial.try_bundle(bundle)
    assert len(started) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bundle_that_gives_no_numbers_is_refused(tmp_path: Path, value: float) -> None:
    bundle = with_graph(known_bundle(tmp_path / "bundle"), poisoned(value))
    with pytest.raises(EdgeHalError, match=r"failed its trial.*frame of level 0 is not finite"):
        open_model(bundle.path)


def test_a_graph_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "WALL_LIMIT_S", 2.0)
    bundle = with_graph(known_bundle(tmp_path / "bundle"), endless())
    with pytest.raises(EdgeHalError, match="failed its trial"):
        open_model(bundle.path)


def test_a_graph_that_needs_all_memory_is_refused(tmp_path: Path) -> None:
    bundle = with_graph(known_bundle(tmp_path / "bundle"), huge())
    with pytest.raises(EdgeHalError, match="failed its trial"):
        open_model(bundle.path)


def test_a_graph_that_cannot_be_stepped_is_one_line(tmp_path: Path) -> None:
    bundle = with_graph(known_bundle(tmp_path / "bundle"), out_of_bounds())
    with pytest.raises(EdgeHalError, match="failed its trial") as caught:
        open_model(bundle.path)
    assert "out of data bounds" in caught.value.why
    assert "\n" not in caught.value.why and "x1b" not in caught.value.why  # nor what ONNX Runtime wrote for terminals


def test_the_child_imports_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = known_bundle(tmp_path / "bundle", 7.0)
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    trial.try_bundle(bundle)


def links_graph(bundle: Bundle) -> None:
    graph = bundle.graph(0)
    graph.rename(bundle.path.parent / "elsewhere")
    graph.symlink_to("../elsewhere")


def outside_data(bundle: Bundle) -> None:
    """The weights of the graph are in another file, which no hash covers."""
    import onnx

    model = onnx.load(bundle.graph(0))
    onnx.save(model, bundle.graph(0), save_as_external_data=True, location="weights", size_threshold=0)
    certify(bundle.path)


def renamed_node(bundle: Bundle, name: str) -> None:
    import onnx

    model = onnx.load(bundle.graph(0))
    model.graph.node[0].name = name
    onnx.save(model, bundle.graph(0))
    certify(bundle.path)


def test_a_name_that_contains_the_key_of_outside_data_does_no_harm(tmp_path: Path) -> None:
    bundle = known_bundle(tmp_path / "bundle")
    renamed_node(bundle, "/allocation/location.1")
    assert load_bundle(bundle.path).certified


@pytest.mark.parametrize("length", [b"\x08", b"\x88\x00", b"\x88\x80\x80\x00"])
def test_the_key_of_outside_data_is_found_however_its_length_is_written(length: bytes) -> None:
    import onnx

    entry = b"\x0a" + length + b"location\x12\x01w"
    read = onnx.StringStringEntryProto.FromString(entry)
    assert (read.key, read.value) == ("location", "w") and OUTSIDE.search(entry)


def spec_with(**fields: Any) -> Callable[[Bundle], None]:
    def change(bundle: Bundle) -> None:
        certify(bundle.path, fields)

    return change


def raw_manifest(text: str) -> Callable[[Bundle], object]:
    return lambda bundle: (bundle.path / "manifest.json").write_text(text)


LEVEL = {"stride": 1, "window": 2, "width": 4, "heads": 1, "blocks": 1}
HOSTILE: dict[str, Callable[[Bundle], object]] = {
    "a link out of the bundle": links_graph,
    "weights outside the graph": outside_data,
    "a pipe": lambda bundle: (bundle.graph(0).unlink(), os.mkfifo(bundle.graph(0))),
    "a pipe as thresholds": lambda bundle: (
        (bundle.path / "decoder.json").unlink(),
        os.mkfifo(bundle.path / "decoder.json"),
    ),
    "a device as certificate": lambda bundle: (
        (bundle.path / "certificate.json").unlink(),
        (bundle.path / "certificate.json").symlink_to("/dev/zero"),
    ),
    "a rate near zero": spec_with(model_hz=1e-300),
    "a rate that is no number": spec_with(model_hz="10"),
    "a rate of true": spec_with(model_hz=True),
    "an endless memory": spec_with(lookback_s=1e300),
    "a ring of terabytes": spec_with(levels=[LEVEL] + [{**LEVEL, "stride": 256}] * 7),
    "a state of gigabytes": spec_with(levels=[{**LEVEL, "window": 4096, "width": 8192, "blocks": 64}]),
    "a million labels": spec_with(labels=[str(number) for number in range(10**5)]),
    "a long label": spec_with(labels=["x" * 10**6]),
    "a size that is a fraction": spec_with(front_end={"size": 3.5, "window": 1, "clip": 5.0}),
    "a window without end": spec_with(levels=[{**LEVEL, "window": 10**12}]),
    "deep nesting": raw_manifest("[" * 100_000),
    "deep nesting, closed": raw_manifest('{"a":' * 5000 + "1" + "}" * 5000),
    "a number of a million digits": raw_manifest('{"schema": ' + "9" * 10**6 + "}"),
    "a surrogate": raw_manifest('{"schema": 1, "spec": {"labels": ["\\ud800"]}}'),
    "a file of many megabytes": raw_manifest('{"a": "' + "x" * (17 << 20) + '"}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_before_it_is_tried(tmp_path: Path, name: str) -> None:
    bundle = known_bundle(tmp_path / "bundle")
    HOSTILE[name](bundle)
    with pytest.raises(EdgeHalError):
        load_bundle(bundle.path)


def test_a_link_to_a_bundle_and_a_link_within_it_are_accepted(tmp_path: Path) -> None:
    """`current -> v3` is how people switch bundles."""
    bundle = known_bundle(tmp_path / "v3")
    (tmp_path / "current").symlink_to("v3")
    (bundle.path / "decoder.json").rename(bundle.path / "mine.json")
    (bundle.path / "decoder.json").symlink_to("mine.json")
    assert (
        load_bundle(tmp_path / "current").fingerprint
        == json.loads((bundle.path / "certificate.json").read_text())["manifest"]
    )
