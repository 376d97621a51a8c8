"""Bad input on the command line: one clear message, exit code 1 or 2, no traceback, nothing half written.

Most cases share one child process, which calls the command line's `main` for each in a folder of its own: importing
torch thirty times would take longer than all the rest. What depends on being a process has one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import zmq

from edge_hal.cli import command_line
from edge_hal.learning.run_directory import RunDirectory
from tests.helpers.bundles import known_bundle, vectors
from tests.helpers.processes import call, contents, finish, start
from tests.helpers.small_data import CONFIG, write_small_data
from tests.helpers.small_models import random_input, save_run, small_spec


@dataclass(frozen=True)
class Case:
    """`make` prepares the folder the command runs in; `told` must all be in the message."""

    command: str
    code: int
    told: tuple[str, ...]
    make: Callable[[Path], object] = lambda root: None


def data(root: Path) -> Path:
    return write_small_data(root / "data", train=3, test=1)


def damage(path: str, change: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    """The small data set with one file changed, or gone."""

    def make(root: Path) -> None:
        file = data(root) / path
        new = change(file.read_bytes())
        file.unlink()
        if new is not None:
            file.write_bytes(new)

    return make


def array(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        path = data(root) / "features" / "video1.npy"
        np.save(path, change(np.load(path)))

    return make


def not_finite(x: np.ndarray) -> np.ndarray:
    x[2, 17] = np.nan
    return x


def labels_alone(text: str) -> Callable[[Path], None]:
    """Step lists to be collapsed from frame labels, one of them with `text` in front."""

    def make(root: Path) -> None:
        shutil.rmtree(data(root) / "transcripts")
        path = root / "data" / "groundTruth" / "video1.txt"
        path.write_text(text + path.read_text())

    return make


def videos(root: Path) -> None:
    """A set of camera recordings, the second of them cut off before its index."""
    for folder in ("videos", "transcripts"):
        (root / "data" / folder).mkdir(parents=True)
    for name in ("a", "b"):
        path = root / "data" / "videos" / f"{name}.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
        for value in range(40):
            writer.write(np.full((48, 64, 3), value * 5, np.uint8))
        writer.release()
        (root / "data" / "transcripts" / f"{name}.txt").write_text("reach\nturn\n")
    path.write_bytes(path.read_bytes()[:2000])


def in_the_way(name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        data(root)
        (root / name).write_text("a file")

    return make


def foreign(name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        data(root)
        (root / name).mkdir()
        (root / name / "thesis.txt").write_text("not ours")

    return make


def unfinished(root: Path) -> None:
    """A run that stopped under way, with other settings."""
    from edge_hal.config import load_config
    from edge_hal.learning.data.dataset import load_dataset

    videos = load_dataset(data(root), split=1, part="train")
    RunDirectory(root / "run", load_config(str(CONFIG), ["learning.student.epochs=99"]), 0, videos).begin()


def run(root: Path) -> Path:
    """A complete run of a random model, on vectors of six numbers."""
    path = save_run(root / "run", small_spec(size=6), reference=random_input(60, 6))
    shutil.copy(CONFIG, path / "config.yaml")
    return path


def damaged_run(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        data(root)
        file = run(root) / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return make


def bundle(root: Path) -> Path:
    np.save(root / "f.npy", vectors([0] * 20 + [1] * 20))
    return known_bundle(root / "bundle").path


def damaged_bundle(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        file = bundle(root) / name
        file.write_bytes(change(file.read_bytes()))

    return make


def odd_procedure(root: Path) -> None:
    """Of one step less than the model has."""
    step = {"first": 0.5, "share": 0.5, "median_s": 2, "spread": 1.5, "then": {}}
    (bundle(root) / "procedure.json").write_text(json.dumps({"blue": step, "green": step}))


def dancing(root: Path) -> None:
    """Every action of the data has another name."""
    data = root / "data"
    for path in (data / "mapping.txt", *(data / "groundTruth").iterdir(), *(data / "transcripts").iterdir()):
        path.write_text(re.sub(r"[a-z]+", lambda word: "dance_" + word[0], path.read_text()))


def both(*made: Callable[[Path], object]) -> Callable[[Path], None]:
    def make_all(root: Path) -> None:
        for make in made:
            make(root)

    return make_all


def alignment_with(entry: str) -> Callable[[Path], object]:
    return lambda root: (root / "run" / "alignment.json").write_text(entry)


TRAIN = f"train data --split 1 --out run --config {CONFIG}"
RUN = "run --log human --camera features:f.npy@10 --pub tcp://127.0.0.1:* --pace asap"


def stamped(line: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (data(root) / "timestamps").mkdir()
        for name in ("video0", "video1", "video2"):
            (root / "data" / "timestamps" / f"{name}.txt").write_text(f"{line}\n")

    return make


def looped(root: Path) -> None:
    (root / "loop").mkdir()
    (root / "loop" / "current").symlink_to("current")


CASES = {
    # configuration
    "unknown key": Case(f"{TRAIN} --set learning.student.epoch=3", 2, ("learning.student.epoch'", "'epochs'"), data),
    "unknown key in a file": Case(
        "train data --out run --config c.yaml",
        2,
        ("c.yaml", "model.levls", "'levels'"),
        both(data, lambda root: (root / "c.yaml").write_text("model: {levls: []}")),
    ),
    "a seed below 0": Case(f"{TRAIN} --seed -1", 2, ("--seed",), data),
    "unknown preset": Case("train data --out run --config tinny", 2, ("tinny", "kinematics"), data),
    "impossible value": Case(f"{TRAIN} --set learning.student.batch=0", 2, ("learning.student.batch",), data),
    "unknown supervision": Case(f"{TRAIN} --supervision both", 2, ("learning.supervision", "frames"), data),
    "unknown option": Case(f"{TRAIN} --nonsense", 2, ("--nonsense",), data),
    "unknown engine": Case(f"{RUN} --engine gpu", 2, ("--engine gpu", "tensorrt"), bundle),
    "unknown threshold": Case(f"{RUN} --set decoder.confirm=1", 2, ("decoder.confirm_s",), bundle),
    # data
    "no data": Case(TRAIN, 1, ("data", "No such file")),
    "no data set": Case(
        TRAIN,
        1,
        ("data has no folder features/", "kinematics"),
        lambda root: (root / "data" / "other").mkdir(parents=True),
    ),
    "missing features": Case(
        TRAIN, 1, ("1 file", "features/video1.npy"), damage("features/video1.npy", lambda raw: None)
    ),
    "truncated features": Case(
        TRAIN, 1, ("video1.npy", "not a whole"), damage("features/video1.npy", lambda raw: raw[:-5])
    ),
    "truncated header": Case(TRAIN, 1, ("video1.npy",), damage("features/video1.npy", lambda raw: raw[:30])),
    "not finite": Case(TRAIN, 1, ("video1", "feature 2 of frame 17"), array(not_finite)),
    "other width": Case(TRAIN, 1, ("video1", "(5, "), array(lambda x: x[:5])),
    "unknown label": Case(TRAIN, 1, ("video1", "line 1", "'graps'", "'grasp'"), labels_alone("graps\n")),
    "unknown action": Case(
        TRAIN, 1, ("video1", "'fly'", "mapping.txt"), damage("transcripts/video1.txt", lambda raw: raw + b"fly\n")
    ),
    "empty step list": Case(TRAIN, 1, ("video1",), damage("transcripts/video1.txt", lambda raw: b"")),
    "more steps than samples": Case(
        TRAIN,
        1,
        ("video1 is too short for its 400 steps", "step list"),
        damage("transcripts/video1.txt", lambda raw: b"turn\nplace\n" * 200),
    ),
    "endless id": Case(TRAIN, 1, ("mapping.txt", "line 1"), damage("mapping.txt", lambda raw: b"9" * 5000 + b" a\n")),
    "endless stamp": Case(f"{TRAIN} --timestamps", 1, ("line 1", "is no stamp"), stamped("9" * 5000 + " reach")),
    "stamp in other digits": Case(f"{TRAIN} --timestamps", 1, ("line 1", "is no stamp"), stamped("\u00b2 reach")),
    "name that is too long": Case(f"check {'a' * 300}", 1, ("cannot read the folder", "too long")),
    "bundle whose name is too long": Case(f"procedure show {'a' * 300}", 2, ("cannot use aaa", "too long")),
    "models in a loop": Case("models list loop", 1, ("current",), looped),
    "bad mapping": Case(TRAIN, 1, ("mapping.txt", "line 1"), damage("mapping.txt", lambda raw: b"reach 0\n")),
    "unknown split": Case(TRAIN.replace("split 1", "split 7"), 1, ("train.split7.bundle", "train.split1"), data),
    "unknown rate": Case(f"{TRAIN} --set data.rate_hz=~", 1, ("rate", "--set data.rate_hz=30"), data),
    "unknown background": Case(f"{TRAIN} --set data.background=gras", 1, ("'gras'", "'grasp'"), data),
    "neither kind of data": Case(
        "train data --out run", 1, ("data is no data set", "features/"), lambda root: (root / "data").mkdir()
    ),
    "features with a preset for cameras": Case(
        "train data --out run --config tiny", 1, ("no folder videos/", "kinematics"), data
    ),
    "video that cannot be opened": Case("train data --out run", 1, ("b.mp4",), videos),
    # where to write
    "output below a file": Case(
        TRAIN.replace("--out run", "--out file/run"), 1, ("file/run", "--out"), in_the_way("file")
    ),
    "output is a file": Case(TRAIN, 1, ("cannot write run", "--out"), in_the_way("run")),
    "output is not ours": Case(TRAIN, 1, ("run is not empty",), foreign("run")),
    "output is complete": Case(TRAIN, 1, ("complete run",), both(data, run)),
    "output of other settings": Case(TRAIN, 1, ("other settings",), unfinished),
    "bundle below a file": Case(
        "export --ckpt run --out file/bundle", 1, ("file/bundle", "--out"), both(run, in_the_way("file"))
    ),
    "bundle in the way": Case(
        "export --ckpt run", 1, ("bundle exists and is no bundle",), both(run, foreign("bundle"))
    ),
    "demo below a file": Case("demo --out file/demo", 1, ("file/demo",), in_the_way("file")),
    "demo in the way": Case("demo --out demo", 1, ("demo is not empty",), foreign("demo")),
    # checkpoints
    "no checkpoint": Case("export --ckpt data", 1, ("data is no checkpoint", "edge-hal train"), data),
    "nothing there": Case("export --ckpt none", 1, ("none is no checkpoint",)),
    "garbage": Case("export --ckpt run", 1, ("model.safetensors",), damaged_run(lambda raw: b"garbage")),
    "truncated": Case("export --ckpt run", 1, ("model.safetensors",), damaged_run(lambda raw: raw[:-9])),
    "pickle": Case("export --ckpt run", 1, ("model.safetensors",), damaged_run(lambda raw: b"\x80\x02}q\x00.")),
    "eval of garbage": Case(
        "eval data --split 1 --ckpt run", 1, ("model.safetensors",), damaged_run(lambda raw: raw[: len(raw) // 2])
    ),
    "eval against nothing": Case("eval data --ckpt run --full none", 1, ("none is no checkpoint",), both(data, run)),
    "run without its configuration": Case(
        "eval data --ckpt run",
        1,
        ("config.yaml is missing",),
        both(data, lambda root: (run(root) / "config.yaml").unlink()),
    ),
    "run without an alignment": Case(
        "eval data --ckpt run --split 1 --stage alignment", 1, ("alignment.json",), both(data, run)
    ),
    **{
        f"alignment {entry}": Case(
            "eval data --ckpt run --split 1 --stage alignment",
            1,
            ("alignment.json", "video0"),
            both(data, run, alignment_with(entry)),
        )
        for entry in (
            "{}",
            '{"video0": 3}',
            '{"video0": null}',
            '{"video0": {"segments": [["dance", 0]]}}',
            '{"video0": {"segments": [0]}}',
        )
    },
    "labels of another set": Case(
        "eval data --ckpt run",
        1,
        ("other steps", "dance"),
        both(data, run, dancing),
    ),
    "unknown stage": Case("eval data --ckpt run --stage all", 2, ("--stage all",), both(data, run)),
    "unknown part": Case("eval data --ckpt run --part rest", 2, ("--part rest",), both(data, run)),
    "odd reference": Case(
        "export --ckpt run --reference f.npy",
        1,
        ("f.npy",),
        both(run, lambda root: np.save(root / "f.npy", np.zeros((5, 4)))),
    ),
    # bundles
    "no bundle": Case(RUN, 1, ("bundle is no bundle", "edge-hal export")),
    "one byte of a graph": Case(
        RUN,
        1,
        ("level0.c1.fp32.onnx", "SHA-256", "edge-hal export"),
        damaged_bundle("level0.c1.fp32.onnx", lambda raw: raw[:99] + bytes([raw[99] ^ 1]) + raw[100:]),
    ),
    "one byte of the manifest": Case(
        RUN, 1, ("not certified",), damaged_bundle("manifest.json", lambda raw: raw.replace(b'"tests"', b'"texts"'))
    ),
    "another schema": Case(
        RUN,
        1,
        ("schema 2", "reads schema 1", "edge-hal export"),
        damaged_bundle("manifest.json", lambda raw: raw.replace(b'"schema": 1', b'"schema": 2')),
    ),
    "odd thresholds": Case(
        RUN, 1, ("decoder.json",), damaged_bundle("decoder.json", lambda raw: raw.replace(b"margin", b"marging"))
    ),
    "odd procedure": Case(RUN, 1, ("procedure.json", "red", "delete it"), odd_procedure),
    "a procedure is no threshold": Case(f"{RUN} --set decoder.procedure=1", 2, ("decoder.procedure",), bundle),
    "more threads than cores": Case(f"{RUN} --threads 100000", 2, ("threads", "512"), bundle),
    "a folder for a journal": Case(
        f"{RUN} --journal bundle", 2, ("journal bundle is a folder", "--journal bundle/default.journal"), bundle
    ),
    "no address for metrics": Case(f"{RUN} --metrics 5570 --check", 2, ("--metrics 5570", "127.0.0.1:9570"), bundle),
    "no frame rate": Case(f"{RUN} --fps 0", 2, ("fps = 0", "0.01..1000"), bundle),
    # sources and listeners
    "no such file": Case(RUN.replace("f.npy", "g.npy"), 1, ("g.npy", "no such file"), bundle),
    "truncated input": Case(
        RUN, 1, ("f.npy",), both(bundle, lambda root: (root / "f.npy").write_bytes((root / "f.npy").read_bytes()[:-3]))
    ),
    "malformed address": Case(RUN.replace("tcp://127.0.0.1:*", "here"), 2, ("'here'", "tcp://"), bundle),
    "nobody can be heard": Case("listen --connect nowhere", 2, ("nowhere", "--connect")),
}

CHILD = """
import contextlib, io, json, os, sys, traceback
from edge_hal.cli import main
found = {}
for name, (folder, command) in json.load(open(sys.argv[1])).items():
    os.chdir(folder)
    sys.argv = ["edge-hal", *command.split()]
    code, err, out = None, io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
    found[name] = [code, out.getvalue(), err.getvalue()]
json.dump(found, sys.__stdout__)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str, set[str]]]:
    """Exit code, both outputs and what changed in its folder, for each case."""
    root = tmp_path_factory.mktemp("errors")
    before, commands = {}, {}
    for number, (name, case) in enumerate(CASES.items()):
        folder = root / str(number)
        folder.mkdir()
        case.make(folder)
        before[name], commands[name] = contents(folder), [str(folder), case.command]
    (root / "cases.json").write_text(json.dumps(commands))
    code, out, err = call(str(root / "cases.json"), code=CHILD)
    assert code == 0, err
    found = {}
    for name, (returned, printed, told) in json.loads(out).items():
        after = contents(Path(commands[name][0]))
        changed = {
            path for path in before[name].keys() | after.keys() if before[name].get(path, 0) != after.get(path, 0)
        }
        found[name] = (returned, printed, told, changed)
    return found


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_error_and_leaves_nothing(
    results: dict[str, tuple[int, str, str, set[str]]], name: str
) -> None:
    case = CASES[name]
    code, out, err, changed = results[name]
    assert code == case.code and "Traceback" not in err, err
    text = " ".join(err.replace("│", " ").split())
    assert text.count("error: ") == 1 or "Usage" in text, err
    assert all(part in text for part in case.told), err
    assert out == "" and not changed, (out, changed)


def test_a_port_in_use_is_told_by_the_process_that_wanted_it(tmp_path: Path) -> None:
    bundle(tmp_path)
    before = contents(tmp_path)
    with zmq.Context() as context, context.socket(zmq.PUB) as busy:
        port = busy.bind_to_random_port("tcp://127.0.0.1")
        command = ["run", "--camera", "features:f.npy@10", "--pub", f"tcp://127.0.0.1:{port}", "--pace", "asap"]
        code, out, err = call(*command, cwd=tmp_path)
    assert code == 1 and out == "" and "Traceback" not in err
    assert f"127.0.0.1:{port}" in err and "another process uses this address" in " ".join(err.split())
    assert contents(tmp_path) == before


def test_an_output_that_cannot_be_written_ends_the_process_with_1(tmp_path: Path) -> None:
    in_the_way("file")(tmp_path)
    before = contents(tmp_path)
    code, out, err = call("train", "data", "--out", "file/run", "--config", str(CONFIG), cwd=tmp_path)
    assert code == 1 and out == "" and err.startswith("error: cannot write file/run: ") and "Traceback" not in err
    assert contents(tmp_path) == before


HELP = """
import sys
sys.argv = ["edge-hal", *sys.argv[1:]]
from edge_hal.cli import main
try:
    main()
finally:
    heavy = {"torch", "onnx", "onnxruntime", "zmq", "cv2", "numpy", "matplotlib", "safetensors", "yaml"}
    print("loaded:", *sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def test_only_the_command_that_was_typed_is_built() -> None:
    every = set(command_line([]).commands)
    assert {"run", "bridge", "report"} < every == set(command_line(["--help"]).commands)
    assert all(set(command_line([name]).commands) == {name} for name in every)


def test_help_imports_nothing_heavy_and_a_wrong_key_no_torch(tmp_path: Path) -> None:
    """Of every command: what makes the first look slow, and what a device may not have."""
    processes = [
        start(*name, "--help", code=HELP) for name in ((), *[(x,) for x in ("train", "eval", "export", "run", "demo")])
    ]
    for process in processes:
        code, out, err = finish(process)
        assert code == 0 and "Usage" in out and err.split() == ["loaded:"], err
    (tmp_path / "data" / "features").mkdir(parents=True)
    code, _, err = call("train", "data", "--out", "run", "--set", "dta.rate_hz=1", code=HELP, cwd=tmp_path)
    assert code == 2 and "did you mean 'data'?" in err and "torch" not in err.splitlines()[-1]


NO_THREADS = """
import threading
from edge_hal.cli import main
threading.stack_size(2**46)  # more than an address space holds: no thread can start, as where they are limited
main()
"""


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_machine_without_threads_is_one_error(command: str, tmp_path: Path) -> None:
    if command == "train":
        data = write_small_data(tmp_path / "data", train=3, test=1)
        arguments = [str(data), "--workers", "2", "--config", str(CONFIG), "--out", str(tmp_path / "run")]
    else:
        np.save(tmp_path / "x.npy", vectors([0] * 30))
        bundle = known_bundle(tmp_path / "bundle").path
        camera = f"features:{tmp_path}/x.npy@10"
        arguments = ["--bundle", str(bundle), "--camera", camera, "--pub", f"ipc://{tmp_path}/s"]
    code, _, err = call(command, *arguments, code=NO_THREADS)
    assert (code, err.count("cannot start a process or a thread")) == (1, 1), err
    assert "raise the limit" in err and "Traceback" not in err
