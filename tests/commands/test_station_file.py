"""station.yaml: its keys are the options of `edge-hal run`, and what is wrong is named with its line."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.commands.options.command_words import command_of
from edge_hal.commands.options.station_file import OF_COMMAND, OF_STATION, read_station
from edge_hal.commands.run import run
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.delivery.journal import Retention, default_path
from edge_hal.runtime.station.options import StationOptions
from tests.helpers.bundles import vectors
from tests.helpers.processes import called_here

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Call]:
    monkeypatch.chdir(tmp_path)
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    yield lambda *arguments: called_here(monkeypatch, capsys, *arguments)
    root.handlers[:] = handlers
    logging.captureWarnings(False)


def read(folder: Path, text: str, **given: Any) -> StationOptions:
    (folder / "station.yaml").write_text(text)
    return read_station(folder / "station.yaml", run, given)


def test_the_least_file_and_what_its_streams_are_told(tmp_path: Path) -> None:
    options = read(tmp_path, "streams: {left: {camera: 0, bundle: b}}")
    left = options.streams["left"]
    assert (left.camera, left.bundle, left.stream) == ("0", Path("b"), "left")
    assert left.journal == default_path("left") and options.address.endpoint == "tcp://127.0.0.1:5570"


def test_defaults_stand_at_the_top_and_a_stream_replaces_them(tmp_path: Path) -> None:
    text = """
    bundle: b
    decide: fast
    pub: ipc://here
    now-hz: 2.5
    set: [decoder.confirm_s=2, decoder.margin=0.1]
    allow-uncertified: true
    retention: 2d
    seconds: 9
    streams:
      left: {camera: 0, priority: 2}
      right: {camera: 'features:f.npy@10', decide: sure, set: decoder.margin=0.2, allow-uncertified: false,
              retention: ~, seconds: null}
    """
    options = read(tmp_path, text)
    left, right = options.streams["left"], options.streams["right"]
    assert options.address.endpoint == "ipc://here" and options.priority == {"left": 2, "right": 0}
    assert (left.decide, left.now_hz, left.decoder) == ("fast", 2.5, {"confirm_s": 2.0, "margin": 0.1})
    assert (right.decide, right.now_hz, right.decoder) == ("sure", 2.5, {"margin": 0.2})
    assert (left.allow_uncertified, right.allow_uncertified) == (True, False)
    assert (left.seconds, right.seconds, right.journal) == (9.0, None, None)
    assert left.retention == Retention(2 * 86400.0, 2**63) and right.retention is None
    again = read(tmp_path, text)
    assert dataclasses.replace(again) == options  # a reload that changes nothing finds nothing changed


def test_options_of_the_command_line_replace_those_of_the_station(tmp_path: Path) -> None:
    text = "{pub: 'ipc://file', metrics: '127.0.0.1:1', streams: {a: {bundle: b}}}"
    address = read(tmp_path, text, pub="ipc://given").address
    assert (address.endpoint, address.metrics) == ("ipc://given", "127.0.0.1:1")


def test_a_fused_stream_has_the_source_of_its_views_and_decisions_of_its_own(tmp_path: Path) -> None:
    text = """
    bundle: b
    decide: fast
    record: rec
    streams:
      bench: {fuse: [left, right], decide: sure, weights: {right: 0.5, left: 1}, wait: 50ms, priority: 2}
      left: {camera: 'features:l.npy@10', pace: asap, bundle: l, record: ~, journal: left.journal}
      right: {camera: 'features:r.npy@10', pace: asap, decide: balanced}
      plain: {fuse: [right, left], journal: plain.journal}
    """
    options = read(tmp_path, text)
    assert list(options.streams) == ["left", "right"] and list(options.runs) == ["left", "right", "bench", "plain"]
    bench, plain = options.fused["bench"], options.fused["plain"]
    assert (bench.views, bench.weights, bench.wait_s) == (("left", "right"), {"left": 1.0, "right": 0.5}, 0.05)
    assert (bench.run.stream, bench.run.bundle, bench.run.pace, bench.run.decide) == (
        "bench",
        Path("l"),
        "asap",
        "sure",
    )
    assert bench.run.journal is None and bench.run.record is None and options.priority["bench"] == 2
    assert (plain.run.bundle, plain.run.decide, plain.weights, plain.wait_s) == (Path("b"), "fast", None, 0.2)
    assert plain.run.journal == Path("plain.journal")
    live = read(tmp_path, "streams: {a: {camera: 0}, b: {camera: 1}, c: {fuse: [a, b]}}")
    assert live.fused["c"].run.journal == default_path("c")
    assert dataclasses.replace(read(tmp_path, text)) == options


WRONG = [
    ("{}", "line 1: it has no streams", "streams: {left"),
    ("bundle: b\nstreams: {}", "line 2: it has no streams", ""),
    ("- a", "line 1: it holds no keys", "streams: {left"),
    ("streams:\n  left: 3", "line 2: stream 'left' has no name or holds no keys", ""),
    ("streams:\n  ~: {}", "stream 'None' has no name", ""),
    ("streams:\n  left:\n    camra: 0", "line 3: unknown key 'camra'", "did you mean camera?"),
    ("max_hold_ms: 3\nstreams: {a: {}}", "line 1: unknown key 'max_hold_ms'", "did you mean max-hold-ms?"),
    ("streams:\n  a:\n    pub: ipc://x", "line 3: 'pub' belongs to the whole station", "at the top"),
    ("streams:\n  a: {stream: b}", "line 2: unknown key 'stream'", "the keys under `streams:`"),
    ("stream: x\nstreams: {a: {}}", "line 1: unknown key 'stream'", "the keys under `streams:`"),
    ("streams:\n  a: {task: b}", "line 2: unknown key 'task'", "write `bundle: TASK`"),
    ("json: true\nstreams: {a: {}}", "line 1: unknown key 'json'", "give --json on the command line"),
    ("streams:\n  a: {}\n  a: {}", "line 3: key 'a' twice", ""),
    ("streams:\n  a:\n    fps: many", "line 3: 'fps'", ""),
    ("threads: 0\nstreams: {a: {}}", "line 1: 'threads'", ""),
    ("insecure: maybe\nstreams: {a: {}}", "line 1: 'insecure'", ""),
    ("streams:\n  a:\n    camera: {index: 0}", "line 3: 'camera'", ""),
    ("streams:\n  a:\n    camera: [0, 1]", "line 3: 'camera'", ""),
    ("streams:\n  a:\n    set: [decoder.margn=1]", "line 2: stream 'a': unknown key 'decoder.margn'", "decoder.margin"),
    ("streams:\n  a:\n    stall: soon", "line 2: stream 'a': 'soon' is no duration", ""),
    ("allowed: x\nstreams: {a: {}}", "--allowed without --key", ""),
    ("streams: {a: {camera: 'features:f.npy@10', retention: 3d}}", "--retention without --journal", ""),
    ("streams:\n  a: {priority: high}", "line 2: 'priority'", "priority: 1"),
    ("streams: [", "station.yaml, line", ""),
    (
        "streams:\n  a: {}\n  b: {fuse: [a, c]}",
        "line 3: stream 'b': fuse: there is no stream 'c'",
        "streams with a source: a",
    ),
    ("streams:\n  left: {}\n  b: {fuse: [left, lfet]}", "no stream 'lfet'", "did you mean left?"),
    ("streams:\n  a: {}\n  b: {fuse: [a, b]}", "no stream 'b' with a source", ""),
    ("streams:\n  a: {}\n  b: {fuse: a}", "line 3: stream 'b': fuse: it is a list", "write fuse: [left, right]"),
    ("streams:\n  a: {}\n  b: {fuse: [a]}", "fuse: it needs two streams", ""),
    ("streams:\n  a: {}\n  b: {fuse: [a, a]}", "fuse: 'a' twice", ""),
    ("streams:\n  a: {}\n  c: {}\n  b: {fuse: [a, c], camera: 0}", "line 4: 'camera' belongs to a stream with a", ""),
    ("streams:\n  a: {}\n  c: {}\n  b: {fuse: [a, c], wieghts: {}}", "unknown key 'wieghts'", "did you mean weights?"),
    (
        "streams:\n  a: {}\n  c: {}\n  b: {fuse: [a, c], weights: 3}",
        "weights: it is a number for each view",
        "weights: {",
    ),
    ("streams:\n  a: {}\n  c: {}\n  b: {fuse: [a, c], weights: {a: x}}", "weights: it is a number for each", ""),
    ("streams:\n  a: {}\n  c: {}\n  b: {fuse: [a, c], wait: soon}", "stream 'b': 'soon' is no duration", ""),
    ("streams:\n  a: {}\n  c: {}\n  b: {fuse: [a, c], wait: {a: 1}}", "is no duration", ""),
    ("streams:\n  a: {camera: ''}", "line 2: stream 'a': the source is empty", "a video file"),
    ('streams:\n  a:\n    camera: "b\\0c"', "line 3: 'camera'", ""),
    ('bundle: "\\ud800"\nstreams: {a: {}}', "line 1: 'bundle'", ""),
    ("streams:\n  a: {weights: {a: 1}}", "line 2: unknown key 'weights'", ""),
]


@pytest.mark.parametrize(("text", "expected", "todo"), WRONG, ids=[expected for _, expected, _ in WRONG])
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, expected: str, todo: str) -> None:
    with pytest.raises(EdgeHalError) as error:
        read(tmp_path, text)
    assert expected in error.value.what and todo in error.value.todo and error.value.exit_code == 2
    assert "Traceback" not in str(error.value)


def test_every_option_of_run_is_a_key_or_named_as_none(tmp_path: Path) -> None:
    keys = {each.opts[0].removeprefix("--") for each in command_of(run).params}
    assert {*OF_STATION, *OF_COMMAND} < keys
    for key in sorted(keys - set(OF_COMMAND)):
        with pytest.raises(EdgeHalError) as error:  # the value is wrong for each of them, the key is known
            read(tmp_path, f"{key}: {{below: it}}\nstreams: {{a: {{}}}}")
        assert f"line 1: '{key}'" in error.value.what, error.value.what


def test_a_station_is_checked_and_run_from_the_command_line(call: Call, tmp_path: Path, bundle: Path) -> None:
    for name in ("left", "right"):
        np.save(tmp_path / f"{name}.npy", vectors([0] * 20 + [1] * 20))
    lines = [f"{name}: {{camera: 'features:{name}.npy@10', pace: asap}}" for name in ("left", "right")]
    lines.append("both: {fuse: [left, right]}")
    (tmp_path / "s.yaml").write_text("\n  ".join([f"bundle: {bundle}\nstreams:", *lines]))
    code, out, err = call("run", "--station", "s.yaml", "--check")
    assert code == 0, err
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        *("'left' can run", "'right' can run", "'both' can run")
    ]
    assert out.splitlines()[-1] == "'both' can run: fused from left, right, no journal"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["left.npy", "right.npy", "s.yaml"]
    code, out, err = call("run", "--station", "s.yaml", "--pub", "tcp://127.0.0.1:*", "--json", "--log", "json")
    assert code == 0, err
    streams = json.loads(out)["streams"]
    assert [(name, each["reason"], each["ticks"]) for name, each in streams.items()] == [
        ("left", "eof", 40),
        ("right", "eof", 40),
        ("both", "eof", 40),
    ]
    assert {line.get("stream") for line in map(json.loads, err.splitlines())} == {"left", "right", "both", None}
    assert "views and weights: left 1, right 1 (equal: none were given)" in err
    code, out, err = call("run", "--station", "s.yaml", "--pub", "tcp://127.0.0.1:*", "--log", "human")
    assert code == 0 and "[left] start" in out and "'right':\nframes: 40 captured" in out and " [left] bundle" in err
    for words, expected in (
        (("--camera", "0"), "--camera with --station"),
        (("--camera", "0"), "write `camera: ...` in the file"),
        (("task",), "TASK with --station"),
        (("task",), "write `bundle: TASK` in the file"),
        (("--stream", "x"), "--stream with --station"),
        (("--stream", "x"), "names of streams in the file are the keys"),  # `stream` is no key of the file
        (("--pub", "nowhere"), "cannot publish on 'nowhere'"),
    ):
        code, _, err = call("run", "--station", "s.yaml", *words)
        assert code == 2 and expected in err, err
    code, out, err = call("run", "--bundle", str(bundle), "--camera", "features:left.npy@10", "--check")
    assert code == 0 and out.startswith("'default' can run"), err
    assert call("run", "--bundle", "none", "--camera", "features:left.npy@10", "--check")[0] == 1
    (tmp_path / "left.npy").unlink()
    for source, what in (
        (["--station", "s.yaml"], "stream 'left': "),
        (["--bundle", str(bundle), "--camera", "features:left.npy@10"], "left.npy"),
    ):
        code, out, err = call("run", *source, "--check")
        assert code == 1 and what in err and "left.npy" in err and not out, err
