"""Make one file or folder of every kind that a user of edge-hal keeps, to test that later versions still open them.

The folder `0.1.0` was made by version 0.1.0, commit 9854880, with this script. To make it again, check that commit out,
`make venv`, and run from a folder of your choice:

    CHECKOUT/.venv/bin/python make_artefacts_0_1_0.py 0.1.0

It needs no GPU and takes about a minute. The inputs are drawn with fixed seeds. Journal ids, keys, piece names and wall
times differ each time; `expected.json` holds those of this time. Weights may differ in the last digits on another
machine, and so may scores and confidences.

Version 0.1.0 exports graphs with a stack trace at each node, which names folders of the machine. This script removes
all metadata from the graphs and writes the bundle again with `write_bundle`; it checks that the events stay the same.

What a test must take care of:

- Git keeps no file modes but 644 and 755: after copying, `chmod 600` each `*.key_secret`, or it is refused.
- Opening a journal changes it: work on a copy. `killed.journal` belongs together with `killed.journal-wal`.
- A journal drops events older than its retention, 30 days unless told otherwise, as soon as a run opens it: give
  `Retention(float("inf"), 2**63)`, or `--retention 1GB`.
- Run commands with the (copied) folder as the working directory: recordings name their source by a relative path.
- `journal/` has no `.lock` files: the next run makes them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edge_hal
from edge_hal.bundle import expected_graphs, load_bundle, write_bundle
from edge_hal.events import Event, encode
from edge_hal.model.checkpoint import load_checkpoint
from edge_hal.runtime.client import subscribe
from edge_hal.runtime.cursor import read_cursor
from edge_hal.runtime.journal import JournalReader
from edge_hal.runtime.keys import allowed_keys, client_keys
from edge_hal.runtime.recording import read_recording, recordings

COMMIT = "9854880"
STREAM = "bench"
STEPS = ("idle", "take", "fold", "press")
RATE_HZ, SIZE = 20, 6
PICTURE_HZ, SIDE = 10, 8
ACKNOWLEDGED = 4
"""The last event of which the client said that it had dealt with it."""
TRANSITIONS = 4
"""So many must have come from the run that is killed."""
FAULT = "unplug@20s+2s,drop=2%,seed=5"

LEVELS = """
  levels:
    - {window: 6, width: 8, heads: 2, blocks: 1}
    - {stride: 4, window: 4, width: 12, heads: 2, blocks: 1}
"""
LEARNING = """
learning:
  restarts: 4
  workers: 1
  dropout: 0.1
  teacher: {warm_epochs: 0, epochs: 0}
  encoder: {epochs: 1}
  student: {epochs: 20, least_steps: 200, crop_s: 15}
  weights: {distil: 0}
"""
FEATURES_YAML = f"""model:
  model_hz: 10
  front_end_window_s: 0.3
  lookback_s: 10{LEVELS}data: {{rate_hz: {RATE_HZ}, background: idle}}{LEARNING}"""
PICTURES_YAML = f"""model:
  model_hz: {PICTURE_HZ}
  front_end_window_s: 0.3
  lookback_s: 10
  encoder: {{height: {SIDE}, width: {SIDE}, size: 12, onnx: pictures/encoder.onnx}}{LEVELS}{LEARNING}"""


# --- what is drawn ---------------------------------------------------------------------------------


def drawn_labels(rng: np.random.Generator, rounds: int, hz: int) -> NDArray[np.int64]:
    """Labels (T,): the steps in order, `rounds` times, now and then without `press`; each lasts 1.5 to 3.5 s."""
    order = [0]
    for _ in range(rounds):
        order += [1, 2, 3, 0] if rng.random() < 0.75 else [1, 2, 0]
    return np.repeat(order, [round(hz * rng.uniform(1.5, 3.5)) for _ in order])


def drawn_features(rng: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """(T, SIZE): the mean of each step, with noise."""
    means = np.random.default_rng(1).normal(size=(len(STEPS), SIZE))
    return (means[labels] + 0.4 * rng.normal(size=(len(labels), SIZE))).astype(np.float32)


def drawn_pictures(rng: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(T, SIDE, SIDE, 3): a quarter of another colour for each step, on grey, with noise."""
    pictures = 96 + 8 * rng.normal(size=(len(labels), SIDE, SIDE, 3))
    half = SIDE // 2
    for picture, label in zip(pictures, labels, strict=True):
        row, column = half * (label // 2), half * (label % 2)
        picture[row : row + half, column : column + half, label % 3] += 100
    return np.clip(pictures, 0, 255).astype(np.uint8)


def write_lists(root: Path, named: dict[str, NDArray[np.int64]]) -> None:
    """Transcripts, frame labels, mapping and split 1, whose last two videos are its test part."""
    for folder in ("transcripts", "groundTruth", "splits"):
        (root / folder).mkdir(parents=True)
    (root / "mapping.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(STEPS)))
    for name, labels in named.items():
        told = labels[np.flatnonzero(np.diff(labels, prepend=-1))]
        (root / "transcripts" / f"{name}.txt").write_text("".join(f"{STEPS[label]}\n" for label in told))
        (root / "groundTruth" / f"{name}.txt").write_text("".join(f"{STEPS[label]}\n" for label in labels))
    names = list(named)
    for part, members in (("train", names[:-2]), ("test", names[-2:])):
        (root / "splits" / f"{part}.split1.bundle").write_text("".join(f"{name}.txt\n" for name in members))


def write_features() -> None:
    """`features/`, a training set, and `stream.npy`, which the runs play."""
    rng = np.random.default_rng(11)
    named = {f"v{number}": drawn_labels(rng, 1 + number % 2, RATE_HZ) for number in range(8)}
    root = Path("features")
    write_lists(root, named)
    (root / "features").mkdir()
    for name, labels in named.items():
        np.save(root / "features" / f"{name}.npy", drawn_features(rng, labels))
    Path("features.yaml").write_text(FEATURES_YAML)
    np.save("stream.npy", drawn_features(rng, drawn_labels(rng, 5, RATE_HZ)))


def write_pictures(root: Path) -> None:
    """A training set of videos in `root`, which is not kept; `pictures/frames.npy` and an encoder of our own are."""
    import cv2

    rng = np.random.default_rng(12)
    named = {f"p{number}": drawn_labels(rng, 1 + number % 2, PICTURE_HZ) for number in range(8)}
    write_lists(root, named)
    (root / "videos").mkdir()
    codec = cv2.VideoWriter_fourcc(*"MJPG")  # type: ignore[attr-defined]
    for name, labels in named.items():
        writer = cv2.VideoWriter(str(root / "videos" / f"{name}.avi"), codec, PICTURE_HZ, (64, 64))
        for picture in drawn_pictures(rng, labels):
            writer.write(cv2.resize(picture, (64, 64), interpolation=cv2.INTER_NEAREST))
        writer.release()
    Path("pictures").mkdir()
    Path("pictures/config.yaml").write_text(PICTURES_YAML)
    np.save("pictures/frames.npy", drawn_pictures(rng, drawn_labels(rng, 1, PICTURE_HZ)))
    write_encoder(Path("pictures/encoder.onnx"))


def write_encoder(path: Path) -> None:
    """The mean colour of each quarter: (SIDE, SIDE, 3) uint8 -> (1, 12)."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "scale": np.float32(1 / 64),
        "quarters": np.array([2, SIDE // 2, 2, SIDE // 2, 3], np.int64),
        "axes": np.array([1, 3], np.int64),
        "shape": np.array([1, 12], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "quarters"], ["split"]),
        helper.make_node("ReduceMean", ["split", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, 12])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())


# --- what edge-hal makes of it ---------------------------------------------------------------------


def started(*arguments: object) -> subprocess.Popen[str]:
    """`edge-hal ARGUMENTS` on one thread."""
    command = [sys.executable, "-m", "edge_hal", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def called(*arguments: object) -> str:
    """Its standard output; it must succeed."""
    with started(*arguments) as process:
        out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"edge-hal {' '.join(map(str, arguments))}: exit code {process.returncode}")
    return out


def runs(source: str, endpoint: str, pace: str, *arguments: object) -> tuple[object, ...]:
    return ("run", "--bundle", "bundle", "--stream", STREAM, "--camera", source, "--pub", endpoint, "--pace", pace,
            "--engine", "onnxruntime", *arguments)  # fmt: skip


def make_journals(work: Path) -> None:
    """`clean.journal`, of a run that ended, with the `cursor` of a client that acknowledged its first events; and
    `killed.journal`: the same, then a second run that was killed. Its last events are in the write-ahead log."""
    endpoint, clean = f"ipc://{work}/s", work / "clean.journal"
    source = f"fault:{FAULT}:features:stream.npy@{RATE_HZ}"
    with started(*runs(source, endpoint, "asap", "--journal", clean, "--wait-subscribers", 1)) as process:
        with subscribe(endpoint, STREAM, begin="oldest", cursor=Path("cursor"), timeout_s=60) as events:
            for event in events:
                if event.durable and event.seq <= ACKNOWLEDGED:  # type: ignore[attr-defined]
                    events.ack()
                if event.durable and event.seq > ACKNOWLEDGED + 1:  # type: ignore[attr-defined]
                    break  # read, and not acknowledged
        process.communicate()
    assert process.returncode == 0
    Path("journal").mkdir()
    shutil.copyfile(clean, "journal/clean.journal")
    assert not Path(f"{clean}-wal").exists()

    with started(*runs(f"features:stream.npy@{RATE_HZ}", endpoint, "realtime", "--journal", clean)) as process:
        with subscribe(endpoint, STREAM, begin="now", timeout_s=60) as events:
            count = 0
            for event in events:
                count += event.kind == "transition"
                if count == TRANSITIONS:
                    break
        process.kill()
    for ending in ("", "-wal"):
        shutil.copyfile(f"{clean}{ending}", f"journal/killed.journal{ending}")


def without_metadata(graph: Path) -> None:
    """The same graph without the exporter's notes on where each node came from."""
    import onnx

    model = onnx.load(graph)
    inside = (*model.graph.node, *model.graph.initializer, *model.graph.value_info)
    for part in (model, model.graph, *inside, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    onnx.save(model, graph)


def export(run: Path, out: Path, rows: NDArray[Any], hz: int) -> None:
    """`edge-hal export`, then the same bundle with graphs that say nothing of this machine."""
    called("export", "--ckpt", run, "--out", out)
    bundle, before = load_bundle(out), streamed(out, rows, hz)
    certificate = json.loads((out / "certificate.json").read_text())
    del certificate["manifest"]

    def write_graphs(folder: Path) -> None:
        for name in expected_graphs(bundle.spec, bundle.precision):
            shutil.copyfile(out / name, folder / name)
            without_metadata(folder / name)

    write_bundle(
        out,
        bundle.spec,
        bundle.precision,
        bundle.decoder,
        bundle.provenance,
        write_graphs,
        lambda _: certificate,
        bundle.target,
    )
    after = streamed(out, rows, hz)
    assert [{**event, "bundle": 0} for event in after] == [{**event, "bundle": 0} for event in before]


def make_all(work: Path) -> None:
    write_features()
    called("train", "features", "--split", 1, "--config", "features.yaml", "--out", "run", "--seed", 3)
    export(Path("run"), Path("bundle"), np.load("stream.npy"), RATE_HZ)
    make_journals(work)
    called("keys", "new", "publisher", "--dir", "keys/publisher")
    called("keys", "new", "listener", "--dir", "keys/listener")
    called("keys", "allow", "keys/listener/listener.key", "--dir", "keys/publisher")
    anywhere = f"ipc://{work}/r"
    source = f"fault:{FAULT}:features:stream.npy@{RATE_HZ}"
    called(*runs(source, anywhere, "asap", "--seconds", 30, "--record", "recording"))
    around = ("--record", "recording_ring", "--record-around", "8s,1GB")
    called(*runs(source, anywhere, "asap", "--seconds", 30, "--decide-every", 2, *around))
    write_pictures(work / "videos")
    config = ("--config", "pictures/config.yaml", "--seed", 3)
    called("train", work / "videos", "--split", 1, *config, "--out", "pictures/run")
    export(Path("pictures/run"), Path("pictures/bundle"), np.load("pictures/frames.npy"), PICTURE_HZ)


# --- what must be true of it -----------------------------------------------------------------------


def kept(path: Path, work: Path) -> dict[str, Any]:
    """What the journal holds, read from a copy: reading moves the write-ahead log into the file."""
    copy = work / "copy"
    for ending in ("", "-wal"):
        if Path(f"{path}{ending}").exists():
            shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
    reader = JournalReader(copy)
    page = reader.page(0, 10**6, 10**9)
    identity, stream = reader._db.execute("SELECT id, stream FROM journal").fetchone()
    reader.close()
    for file in work.glob("copy*"):
        file.unlink()
    bodies = [body.decode() for body in page.bodies]
    return {"id": identity, "stream": stream, "next_seq": page.next, "events": len(bodies), "bodies": bodies}


def streamed(bundle: Path, rows: Sequence[NDArray[Any]] | NDArray[Any], hz: int) -> list[dict[str, Any]]:
    """The events of `open_stream` over these rows, without `run`."""
    events: list[Event] = []
    with edge_hal.open_stream(bundle, stream=STREAM, source_hz=hz) as stream:
        for number, row in enumerate(rows):
            events += stream.push(row, round(number * 1e9 / hz))
        events += stream.close()
    return [{key: value for key, value in json.loads(encode(event)).items() if key != "run"} for event in events]


def of_bundle(path: Path, rows: NDArray[Any], hz: int) -> dict[str, Any]:
    bundle = load_bundle(path)
    return {
        "fingerprint": bundle.fingerprint,
        "labels": list(bundle.spec.labels),
        "model_hz": bundle.spec.model_hz,
        "precision": bundle.precision,
        "target": bundle.target,
        "certified": bundle.certified,
        "thresholds": bundle.decoder.thresholds,
        "decoder": bundle.decoder.fingerprint(),
        "procedure": bundle.decoder.procedure is not None,
        "events": streamed(path, rows, hz),
    }


def of_run(path: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(path)
    return {
        "labels": list(checkpoint.spec.labels),
        "spec": checkpoint.spec.to_dict(),
        "thresholds": checkpoint.decoder.thresholds,
        "parameters": sum(value.numel() for value in checkpoint.pyramid.parameters()),
        "reference": {name: list(value.shape) for name, value in checkpoint.reference.items()},
        "encoder": checkpoint.encoder is not None,
        "provenance": dict(checkpoint.provenance),
    }


def of_recording(folder: Path) -> list[dict[str, Any]]:
    """Of each piece, oldest first."""
    found = []
    for piece in recordings(folder):
        recording = read_recording(piece)
        found.append(
            {
                "folder": "" if piece == folder else piece.name,
                "bundle": recording.bundle,
                "options": recording.head["options"],
                "begins_in_the_midst": recording.state is not None,
                "ended": recording.ended,
                "rows": list(recording.rows.shape),
                "events": len(recording.events()),
            }
        )
    return found


def of_keys() -> dict[str, Any]:
    pair = client_keys(Path("keys/listener/listener.key_secret"), Path("keys/publisher/publisher.key"))
    allowed = allowed_keys(Path("keys/publisher/allowed"))
    return {
        "publisher": pair.server.decode(),
        "listener": pair.public.decode(),
        "allowed": {name: key.decode() for name, key in allowed.items()},
    }


def expected(work: Path) -> dict[str, Any]:
    position = read_cursor(Path("cursor"))
    assert position is not None
    evaluate = ("eval", "features", "--ckpt", "run", "--split", 1, "--json")
    return {
        "version": edge_hal.__version__,
        "commit": COMMIT,
        "journal": {name: kept(Path("journal") / f"{name}.journal", work) for name in ("clean", "killed")},
        "cursor": asdict(position),
        "keys": of_keys(),
        "run": {
            **of_run(Path("run")),
            "scores": json.loads(called(*evaluate)),
            "scores_alignment": json.loads(called(*evaluate, "--stage", "alignment")),
        },
        "bundle": of_bundle(Path("bundle"), np.load("stream.npy"), RATE_HZ),
        "recording": of_recording(Path("recording")),
        "recording_ring": of_recording(Path("recording_ring")),
        "pictures": {
            "run": of_run(Path("pictures/run")),
            "bundle": of_bundle(Path("pictures/bundle"), np.load("pictures/frames.npy"), PICTURE_HZ),
        },
    }


def main() -> None:
    if edge_hal.__version__ != "0.1.0":
        raise SystemExit(f"this script is for version 0.1.0, not {edge_hal.__version__}")
    out = Path(sys.argv[1])
    out.mkdir(parents=True)
    os.chdir(out)
    with tempfile.TemporaryDirectory() as work:
        make_all(Path(work))
        text = json.dumps(expected(Path(work)), indent=1, ensure_ascii=False)
    Path("expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
