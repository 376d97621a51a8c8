from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from edge_hal.commands.listen import describe
from edge_hal.commands.options.parsing import parse_duration, parse_settings, parse_size
from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Gap, Heartbeat, Moment, Snapshot, Transition, decode
from edge_hal.runtime.delivery import sender
from edge_hal.runtime.delivery.client import subscribe
from edge_hal.runtime.delivery.publisher import Publisher
from edge_hal.runtime.delivery.shared_address import SharedAddress
from tests.helpers import sample_events
from tests.helpers.bundles import LABELS, expected_transitions, known_bundle, vectors
from tests.helpers.processes import REPOSITORY, TIMEOUT_S, call, call_each, start
from tests.helpers.sample_events import STREAM

LABELS_SEEN = [0] * 23 + [2] * 31 + [1] * 18 + [0] * 40


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bundle`, `pictures` (a bundle with an encoder), and `f.npy` of `LABELS_SEEN` at 10 Hz."""
    root = tmp_path_factory.mktemp("cli")
    known_bundle(root / "bundle")
    known_bundle(root / "pictures", pictures=True)
    np.save(root / "f.npy", vectors(LABELS_SEEN))
    return root


@pytest.fixture
def socket(endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as opened:
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
        opened.setsockopt(zmq.SUBSCRIBE, b"")
        opened.connect(endpoint)
        yield opened


def until(socket: zmq.Socket[bytes], kind: str) -> list[dict[str, Any]]:
    """All events up to the first of `kind`."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(socket.recv_multipart()[1]))
    return events


def test_a_run_and_a_listener_in_processes_of_their_own(place: Path, endpoint: str) -> None:
    source = f"features:{place}/f.npy@10"
    listener = start("listen", "--connect", endpoint, "--stream", "bench", "--json", "--until-end")
    people = start("listen", "--connect", endpoint, "--until-end")
    code, out, err = call(
        *("run", "--bundle", str(place / "bundle"), "--camera", source, "--pub", endpoint),
        *("--pace", "asap", "--stream", "bench", "--wait-subscribers", "2", "--json"),
    )
    assert code == 0, err
    heard, _ = listener.communicate(timeout=TIMEOUT_S)
    lines, _ = people.communicate(timeout=TIMEOUT_S)
    assert listener.returncode == people.returncode == 0
    events = [json.loads(line) for line in heard.splitlines()]
    durable = [event for event in events if "seq" in event]
    assert [event["seq"] for event in durable] == list(range(len(durable)))
    assert [
        (event["from"], event["to"], event["boundary"]["tick"], event["decision"]["tick"])
        for event in durable
        if event["type"] == "transition"
    ] == expected_transitions(LABELS_SEEN)
    summary = json.loads(out.splitlines()[-1])
    assert {
        *("captured", "used", "dropped", "in_flight", "ticks", "fresh", "held", "cut"),
        *("events", "fps", "latency_ms"),
    } <= set(summary)
    assert summary["events"] == len(durable) and summary["captured"] == len(LABELS_SEEN)
    assert durable[-1]["counters"] == {key: summary[key] for key in durable[-1]["counters"]}
    assert "blue -> red" in lines and "end (eof)" in lines and endpoint in err


def test_a_human_sees_one_line_for_each_transition(place: Path) -> None:
    code, out, _ = call(
        *("run", "--bundle", str(place / "bundle"), "--camera", f"features:{place}/f.npy@10"),
        *("--pace", "asap", "--pub", "tcp://127.0.0.1:*", "--set", "decoder.min_duration_s=0.2"),
    )
    lines = [line for line in out.splitlines() if "->" in line]
    assert code == 0 and len(lines) == len(expected_transitions(LABELS_SEEN))
    assert "(start) -> blue" in lines[0] and "00:02.30  blue -> red" in lines[1]
    assert "captured" in out and "latency" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_an_end_event_and_exit_code_0(
    place: Path, endpoint: str, socket: zmq.Socket[bytes], number: Any
) -> None:
    source = f"features:{place}/f.npy@4"  # half a minute, if it were let
    with start(
        *("run", "--bundle", str(place / "bundle"), "--camera", source, "--pub", endpoint),
        *("--wait-subscribers", "1", "--json"),
    ) as process:
        until(socket, "transition")
        process.send_signal(number)
        end = until(socket, "end")[-1]
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert end["reason"] == summary["reason"] == "signal"
    for counters in (end["counters"], summary):
        dropped = sum(counters["dropped"].values())
        assert counters["captured"] == counters["used"] + dropped + counters["in_flight"]
        assert counters["ticks"] == counters["fresh"] + counters["held"] + counters["cut"]
    assert summary["captured"] < len(LABELS_SEEN) and "Traceback" not in err


def test_a_signal_ends_the_wait_for_subscribers_and_a_second_one_everything(
    place: Path, endpoint: str, socket: zmq.Socket[bytes]
) -> None:
    base = ("run", "--bundle", str(place / "bundle"), "--camera", f"features:{place}/f.npy@10")
    with start(*base, "--pub", endpoint, "--wait-subscribers", "9") as process:
        try:
            assert process.stderr is not None and "engine: fp32 on" in process.stderr.readline()
            assert any(endpoint in line for line in process.stderr)  # logs may come between
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=TIMEOUT_S) == 0
        finally:
            process.kill()  # it would wait for ever
    code = (
        "import os, signal; from edge_hal.runtime import runner\n"
        "with runner.signals(runner.Stop()):\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')"
    )
    returned, out, _ = call(code=code)
    assert returned == 128 + signal.SIGTERM and out == ""


@pytest.mark.parametrize("number", [0, 1])
def test_the_subscribers_in_the_document_work(place: Path, endpoint: str, number: int) -> None:
    document = (REPOSITORY / "docs" / "events.md").read_text()
    snippet = re.findall(r"```python\n(.+?)```", document, flags=re.S)[number]
    with start(code=snippet.replace("tcp://127.0.0.1:5570", endpoint)) as process:
        code, _, err = call(
            *("run", "--bundle", str(place / "bundle"), "--camera", f"features:{place}/f.npy@10"),
            *("--pace", "asap", "--pub", endpoint, "--wait-subscribers", "1", "--json"),
        )
        assert code == 0, err
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    if number == 0:
        assert decode(line).type == "start"
    else:
        assert line == "None -> blue 0.0\n"


def test_listening_stops_after_count_and_on_interrupt(place: Path, endpoint: str) -> None:
    first = start("listen", "--connect", endpoint, "--json", "--count", "2")
    waiting = start("listen", "--connect", "ipc:///nobody/is/here", "--json")
    code, _, err = call(
        *("run", "--bundle", str(place / "bundle"), "--camera", f"features:{place}/f.npy@10"),
        *("--pace", "asap", "--pub", endpoint, "--wait-subscribers", "1"),
    )
    assert code == 0, err
    out, _ = first.communicate(timeout=TIMEOUT_S)
    assert first.returncode == 0 and len(out.splitlines()) == 2
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=TIMEOUT_S)
    assert waiting.returncode == 130 and "Traceback" not in err


def test_listening_counts_events_and_no_reports(
    endpoint: str, socket: zmq.Socket[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.05)
    with Publisher(endpoint, STREAM) as publisher:
        listener = start("listen", "--connect", endpoint, "--json", "--count", "2")
        assert publisher.wait_subscribers(2)
        publisher.publish(sample_events.start())
        for _ in range(3):
            until(socket, "heartbeat")
        for seq in (1, 2):
            publisher.publish(sample_events.transition(seq))
        out, err = listener.communicate(timeout=TIMEOUT_S)
    assert listener.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    assert [event["seq"] for event in told if "seq" in event] == [0, 1]
    assert [event["type"] for event in told].count("heartbeat") >= 3


def test_listening_until_the_end_is_not_held_up_by_a_snapshot_after_it(endpoint: str) -> None:
    """One comes if somebody subscribes between the end of a stream and its removal from a station."""
    with ExitStack() as opened:
        address = opened.enter_context(SharedAddress(endpoint, ("left", "right")))
        left, right = (opened.enter_context(Publisher(address, name)) for name in ("left", "right"))
        events = opened.enter_context(subscribe(endpoint))
        listener = start("listen", "--connect", endpoint, "--json", "--until-end")
        assert left.wait_subscribers(2)
        for publisher in (left, right):
            publisher.publish(replace(sample_events.start(), stream=publisher.stream))
            assert next(event for event in events if event.durable).stream == publisher.stream
        run = sample_events.start().run
        left.publish(End("left", 0, seq=1, reason="eof", last=Moment(0, 0, 0), counters={}, run=run))
        assert isinstance(next(event for event in events if event.durable), End)
        with subscribe(endpoint, "left") as newcomer:
            assert any(isinstance(event, Snapshot) for event in newcomer)
        right.publish(End("right", 0, seq=1, reason="eof", last=Moment(0, 0, 0), counters={}, run=run))
        out, err = listener.communicate(timeout=TIMEOUT_S)
    assert listener.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    assert ("left", "snapshot", 1) in [(event["stream"], event["type"], event.get("last_seq")) for event in told]


def test_bad_input_is_one_clear_error_without_a_traceback(place: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    bundle = ("--bundle", str(place / "bundle"))
    pictures = ("--bundle", str(place / "pictures"), "--pub", "tcp://127.0.0.1:*")
    source = ("--camera", f"features:{place}/f.npy@10")
    changed = shutil.copytree(place / "bundle", tmp_path / "changed")
    (changed / "level0.c1.fp32.onnx").write_bytes((changed / "level0.c1.fp32.onnx").read_bytes() + b"\0")
    failed = known_bundle(tmp_path / "failed").path
    (failed / "certificate.json").write_text((failed / "certificate.json").read_text().replace("true", "false"))
    context = zmq.Context()
    busy = context.socket(zmq.PUB)
    port = busy.bind_to_random_port("tcp://127.0.0.1")
    cases: list[tuple[tuple[str, ...], int, str]] = [
        ((*pictures, "--give-up", "100ms"), 1, "camera 0"),
        ((*pictures, "--camera", "/no/such.mp4"), 1, "no such file"),
        ((*pictures, "--camera", f"{tmp_path}/text.mp4"), 1, "not a video"),
        ((*bundle, "--camera", f"features:{place}/f.npy"), 2, "@"),
        ((*bundle, "--camera", f"features:{place}/g.npy@10"), 1, "no such file"),
        (("--bundle", str(tmp_path / "none"), *source), 1, "edge-hal export"),
        (("--bundle", str(changed), *source), 1, "is not the file that was exported"),
        (("--bundle", str(failed), *source), 1, "its certificate failed"),
        ((*bundle, *source, "--precision", "fp16"), 2, "has no fp16 graphs"),
        ((*bundle, *source, "--precision", "int4"), 2, "fp32, fp16, int8"),
        ((*bundle, *source, "--pub", f"tcp://127.0.0.1:{port}"), 1, "another process"),
        ((*bundle, *source, "--pub", "tcp://*:5570"), 2, "--insecure"),
        ((*bundle, *source, "--set", "decoder.confirm=1"), 2, "decoder.confirm_s"),
        ((*bundle, *source, "--set", "decoder.confirm_s=soon"), 2, "no number"),
        ((*bundle, *source, "--set", "decoder.confirm_s=-1"), 2, "confirm_s"),
        ((*bundle, *source, "--stream", "a/b"), 2, "stream"),
        ((*bundle, *source, "--pace", "slow"), 2, "pace"),
        ((*bundle, *source, "--nonsense"), 2, "nonsense"),
        ((*bundle, *source, "--stall", "soon"), 2, "no duration"),
        ((*bundle, *source, "--size", "big"), 2, "no size"),
        ((*bundle, *source, "--overload", "panic"), 2, "cut or lag"),
        ((*pictures, "--camera", "gst:videotestsrc ! appsink"), 1, "GStreamer"),
        ((*pictures, "--camera", "fault:party@3s:0"), 2, "no fault"),
        ((*pictures, "--camera", "rtsp://h/x", "--camera-auth", "/none"), 1, "credentials"),
    ]
    (tmp_path / "told").mkdir()
    told = call_each([("run", *arguments) for arguments, _, _ in cases], tmp_path / "told")
    for (arguments, wanted, text), (code, out, err) in zip(cases, told, strict=True):
        assert code == wanted, (arguments, err)
        assert text in err.replace("\n", " ") and "Traceback" not in err, err
        assert out == "" or (text == "camera 0" and out.endswith("end (error)\n"))
    busy.close(linger=0)
    context.term()


def test_a_real_video_is_replayed_through_the_command(
    place: Path, tmp_path: Path, endpoint: str, socket: zmq.Socket[bytes]
) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 50.0, (160, 120))
    for label in [1] * 50 + [2] * 50:
        picture = np.zeros((120, 160, 3), np.uint8)
        picture[:, :, label] = 230
        writer.write(picture)
    writer.release()
    code, out, err = call(
        *("run", "--bundle", str(place / "pictures"), "--camera", str(tmp_path / "v.mp4")),
        *("--pub", endpoint, "--wait-subscribers", "1", "--json"),
    )
    assert code == 0, err
    events = [event for event in until(socket, "end") if event["type"] == "transition"]
    assert [event["to"] for event in events] == ["green", "red"]
    summary = json.loads(out)
    assert summary["captured"] == 100 and summary["dropped"]["decimated"] > 50


def test_heartbeats_of_a_live_run_obey_the_laws_and_tell_how_it_is(
    place: Path, endpoint: str, socket: zmq.Socket[bytes]
) -> None:
    np.save(place / "long.npy", vectors(LABELS_SEEN * 20))
    with start(
        *("run", "--bundle", str(place / "bundle"), "--camera", f"fault:drop=1%:features:{place}/long.npy@30"),
        *("--pub", endpoint, "--wait-subscribers", "1", "--selfcheck", "500ms"),
    ) as process:
        beats = [until(socket, "heartbeat")[-1]]
        while len(beats) < 2 or not beats[-1]["health"]["selfcheck"]["checks"]:
            beats.append(until(socket, "heartbeat")[-1])
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)
    for beat in beats:
        counters = beat["counters"]
        dropped = sum(counters["dropped"].values())
        assert counters["captured"] == counters["used"] + dropped + counters["in_flight"]
        assert counters["ticks"] == counters["fresh"] + counters["held"] + counters["cut"]
        assert isinstance(decode(json.dumps(beat)), Heartbeat)
    assert beats[0]["counters"]["captured"] < beats[-1]["counters"]["captured"]
    health = beats[-1]["health"]
    assert health["source"]["state"] == "running" and health["source"]["connections"] == 1
    assert health["selfcheck"]["failed"] == 0 and health["selfcheck"]["worst"] <= 1


def test_the_runtime_needs_neither_torch_nor_onnx(place: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'matplotlib', 'edge_hal.model', 'edge_hal.learning',"
        " 'edge_hal.export', 'edge_hal.calib'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "import edge_hal, edge_hal.runtime.api\n"
        "from edge_hal.runtime.runner import RunOptions, run\n"
        f"options = RunOptions(Path({str(place / 'bundle')!r}), 'features:{place}/f.npy@10',"
        " 'tcp://127.0.0.1:*', pace='asap')\n"
        "print(run(options).counters['ticks'])"
    )
    returned, out, err = call(code=code)
    assert returned == 0 and int(out) == len(LABELS_SEEN), err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['edge-hal', '--help']\n"
        "from edge_hal.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'numpy', 'cv2', 'zmq', 'onnxruntime', 'torch', 'yaml', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    returned, out, err = call(code=code)
    assert returned == 0, err
    assert "run" in out and "listen" in out


def test_settings_name_the_nearest_key() -> None:
    assert parse_settings(["decoder.margin=0.1", "decoder.smooth_s=2"]) == {"margin": 0.1, "smooth_s": 2}
    for setting, near in [("decoder.marginn=1", "decoder.margin"), ("smooth=1", "decoder.smooth_s")]:
        with pytest.raises(EdgeHalError) as error:
            parse_settings([setting])
        assert near in error.value.todo and error.value.exit_code == 2


def test_durations_and_sizes() -> None:
    texts = ("500ms", "30s", "10m", "2h", "7", "0")
    assert [parse_duration(text) for text in texts] == [0.5, 30.0, 600.0, 7200.0, 7.0, 0.0]
    assert parse_size("1280x720") == (1280, 720)
    for parse, text in [(parse_duration, "-1s"), (parse_duration, "s"), (parse_size, "0x5"), (parse_size, "5")]:
        with pytest.raises(EdgeHalError) as error:
            parse(text)
        assert error.value.exit_code == 2


def test_events_are_described_in_one_line() -> None:
    moment = Moment(10, 30, 83_500_000_000)
    transition = Transition(
        "s",
        0,
        seq=1,
        from_=LABELS[0],
        to=LABELS[1],
        boundary=moment,
        decision=Moment(14, 42, 84_000_000_000),
        confidence=0.875,
        warm=False,
        decoder="",
    )
    line = describe(transition)
    assert "01:23.50" in line and "blue -> green" in line and "0.50 s later" in line
    gap = Gap(
        "s", 0, seq=2, reason="source", begin=moment, end=moment, lost_ticks=3, reset=True, bundle="b", decoder="d"
    )
    end = End("s", 0, seq=3, reason="eof", last=moment, counters={})
    assert "gap" in describe(gap) and "source" in describe(gap) and "eof" in describe(end)
    assert not any("\n" in describe(event) for event in (transition, gap, end))


def test_a_run_says_which_engine_steps_and_why(tmp_path: Path) -> None:
    bundle = known_bundle(tmp_path / "bundle").path
    np.save(tmp_path / "f.npy", vectors([0] * 20 + [1] * 20))
    command = ["run", "--bundle", str(bundle), "--camera", f"features:{tmp_path}/f.npy@10", "--pace", "asap"]
    command += ["--pub", f"ipc://{tmp_path}/events.sock", "--json", "--engine"]
    code, out, errors = call(*command, "onnxruntime")
    assert code == 0 and "engine: fp32 on onnxruntime (as asked for)" in errors
    assert json.loads(out)["health"]["engine"] == {"kind": "onnxruntime", "why": "as asked for"}
    if importlib.util.find_spec("tensorrt") is None:
        code, out, errors = call(*command, "auto")
        engine = json.loads(out)["health"]["engine"]
        assert code == 0 and engine["kind"] == "onnxruntime" and "TensorRT is not installed" in engine["why"]
        code, out, errors = call(*command, "tensorrt")
        assert code == 1 and "TensorRT is not installed" in errors and "Traceback" not in errors
