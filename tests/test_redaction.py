"""A random secret within a random spelling of an address is never shown."""

from __future__ import annotations

import io
import logging
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_hal import logs, redaction
from edge_hal.errors import EdgeHalError
from edge_hal.redaction import mask, redact, remember
from edge_hal.runtime.sources.credentials import read_auth
from edge_hal.runtime.sources.source_spec import SourceSpec
from tests.helpers.bundles import known_bundle
from tests.helpers.processes import call, start

TIMEOUT_S = 60.0

cores = st.text(string.ascii_letters, min_size=8, max_size=12).map("qQz".__add__)
"""The part of a secret that must not be seen; around it stands what spoils naive parsers."""
around = st.text("aZ07:@/\\?#&=%!;,.$()[]{}|~^`*+-_äß漢", max_size=3)
schemes = st.sampled_from(["rtsp", "RTSP", "rtsps", "http", "Https", "rtmp", "tcp", "ws", "x-odd+1.2", "edge"])
slashes = st.sampled_from(["://", ":/", ":///", ":\\\\", ":", "//", ":/\\", " ://", "%3A%2F%2F"])
hosts = st.sampled_from(["camera.example", "10.0.0.7", "[::1]", "[fe80::1%25eth0]", "camera", "bücher.example"])
ports = st.sampled_from(["", ":554", ":*", ":0"])
wrappers = st.sampled_from(["", "fault:drop=1%:", "fault:hang@2s+2s,clockstep=-1s@3s:", "fault:", "replay:", " "])
ats = st.sampled_from(["@", "%40", "@@", "%2540", "＠"])


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """(text, the part of it that is secret)."""
    core = draw(cores)
    kind = draw(st.sampled_from(["userinfo", "user", "query", "fragment", "path", "bare", "gst", "gst address"]))
    host = draw(hosts) + draw(ports)
    secret = draw(around) + core + draw(around)
    scheme = draw(schemes) + draw(slashes)
    if kind == "userinfo":
        text = f"{scheme}tom{draw(st.sampled_from([':', '%3A']))}{secret}{draw(ats)}{host}/x"
    elif kind == "user":
        text = f"{scheme}{core}{draw(ats)}{host}/x"
    elif kind == "query":
        text = f"{draw(schemes)}://{host}/x{draw(st.sampled_from(['?', '%3F', ';', '&']))}token={secret}"
    elif kind == "fragment":
        text = f"{draw(schemes)}://{host}/x{draw(st.sampled_from(['#', '%23']))}{secret}"
    elif kind == "path":
        text = f"{draw(schemes)}://{host}/user=admin_password={secret}_channel=1.sdp"
    elif kind == "bare":
        name = draw(st.sampled_from(["tom:", "//tom:", "\\\\tom:"]))
        text = f"{name}{secret}{draw(ats)}{host}/x"
    elif kind == "gst":
        quoted = secret.replace("\\", "\\\\").replace('"', '\\"')
        value = draw(st.sampled_from([f'"a ! {quoted} b"', core, f'"{quoted}"']))
        key = draw(st.sampled_from(["user-pw", "password", "proxy-pw", "extra-headers"]))
        text = f"gst:rtspsrc location=rtsp://h/x {key}={value} ! decodebin ! appsink"
    else:
        text = f"gst:rtspsrc location=rtsp://tom:{core}@h/x?t={core} ! decodebin ! appsink"
    return ("" if kind.startswith("gst") else draw(wrappers)) + text, core


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", {})


@settings(max_examples=700, deadline=None)
@given(spellings())
def test_no_spelling_shows_its_secret(spelling: Any) -> None:
    text, secret = spelling
    shown = redact(text)
    assert secret not in shown and redact(shown) == shown
    try:
        spec = SourceSpec.parse(text)
    except EdgeHalError as error:
        assert secret not in str(error) + error.what + error.why + error.todo
    else:
        assert secret not in spec.log_name and secret not in repr(spec)


MESSAGES = ["cannot open '{}': no such file", "{}", "got {}, wanted 1", '{{"webhook": "{}"}}']


@settings(max_examples=400, deadline=None)
@given(
    spellings(), st.sampled_from(["cannot open '{}': no such file", "{}", "got {}, wanted 1", '{{"webhook": "{}"}}'])
)
def test_no_message_shows_the_secret_of_an_argument(spelling: Any, message: str) -> None:
    text, secret = spelling
    remember(text)
    assert secret not in mask(message.format(text))
    error = EdgeHalError(message.format(text), f"it is {text}", text)
    assert secret not in str(error) + repr(error)
    handler = logging.StreamHandler(io.StringIO())
    for formatter in (logs.Human(), logs.JsonLines("s")):
        handler.setFormatter(formatter)
        record = logging.LogRecord("edge_hal", logging.WARNING, "", 0, "%s", (message.format(text),), None)
        record.fields = {"endpoint": text, "deep": [{"a": Path(text)}]}
        assert secret not in handler.format(record)


@settings(max_examples=500, deadline=None)
@given(spellings(), st.sampled_from(["", "--camera=", "--pub=", "-x="]))
def test_no_argument_keeps_its_secret_in_the_process_list(spelling: Any, option: str) -> None:
    text, secret = spelling
    covered = redaction._covered(option + text)
    assert secret not in covered and len(covered) == len(option + text)


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "/dev/video0",
        "clip#1.mp4",
        "efficientnet-lite0@160",
        "model.encoder.kind=timm:resnet18.a1@120x160/2x2",
        "a b/c@d.mp4",
        "/data/me@home/x=3/clip.mp4",
        "features:a:b@c.npy@12.5",
        "features:FILE.npy@HZ",
        "sqlite:///events.db",
        "tcp://127.0.0.1:*",
        "tcp://[::1]:5570",
        "tcp://*:5570",
        "ipc:///run/bench/events.sock",
        "ipc://@abstract",
        "127.0.0.1:9570",
        "rtsp://10.0.0.7:554/stream/1",
        "fault:drop=5%,freeze@10s+3s,hang@20s,unplug@30s+5s,dup=1%,jitter=20ms,clockstep=-1s@40s,seed=7:0",
        "replay:some/folder",
        "csi:0",
    ],
)
def test_what_holds_no_secret_is_shown_whole(text: str) -> None:
    assert redact(text) == text and mask(f"cannot open {text}: gone") == f"cannot open {text}: gone"


def test_the_user_of_a_database_is_hidden_in_its_address_only() -> None:
    remember("postgresql://edge@db/plant")
    remember("postgresql://writer:s3cret-word@db/plant")
    assert (
        mask("from postgresql://edge@db/plant to /var/lib/edge-hal")
        == "from postgresql://db/plant to /var/lib/edge-hal"
    )
    assert mask("the writer has no s3cret-word") == "the writer has no ***"


def test_free_text_shows_no_setting_that_is_secret() -> None:
    text = "POST https://hooks.example/T0?sig=abcdefgh failed, password='x y z' api_key=12345678 with Bearer abc.def"
    shown = mask(text)
    for secret in ("abcdefgh", "x y z", "12345678", "abc.def"):
        assert secret not in shown
    assert "https://hooks.example/T0 failed" in shown


def test_credentials_of_a_file_are_hidden_in_free_text(tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_text("tom:s3cret/w@rd\n")
    file.chmod(0o600)
    read_auth(file)
    assert mask("401 for s3cret/w@rd and s3cret%2Fw%40rd") == "401 for *** and ***"


SECRET = "hUnter2zwei"
ARGUMENTS = [
    ["--camera", f"rtsp:/tom:{SECRET}@127.0.0.1:9/x"],
    ["--camera", f"RTSP://tom:{SECRET}@127.0.0.1:9/x?token={SECRET}", "--give-up", "100ms"],
    ["--camera", f"http://127.0.0.1:9/x#tok={SECRET}@b", "--give-up", "100ms"],
    ["--camera", f"fault:drop=1%:rtsp://tom%3A{SECRET}%40127.0.0.1:9/x", "--give-up", "100ms"],
    ["--camera", f"tom:{SECRET}@127.0.0.1"],
    ["--camera", f'gst:rtspsrc user-pw="a ! {SECRET} !" location=rtsp://127.0.0.1:9 ! appsink'],
    ["--camera", f"features:rtsp://tom:{SECRET}@h@x"],
    [f"--pub=tcp://tom:{SECRET}@127.0.0.1:1", "--camera", "rtsp://127.0.0.1:9/x"],
    ["--replay", f"tom:{SECRET}@127.0.0.1:1", "--camera", "rtsp://127.0.0.1:9/x"],
    ["--metrics", f"http://tom:{SECRET}@127.0.0.1:1", "--camera", "rtsp://127.0.0.1:9/x"],
    ["--journal", f"rtsp://tom:{SECRET}@h/j"],
    ["--fps", f"rtsp://tom:{SECRET}@h/a_long_path_that_makes_a_box_of_an_error_wrap_its_lines/and_again"],
    [f"rtsp://tom:{SECRET}@h/x"],
    [f"--rtsp://tom:{SECRET}@h/x"],
    ["--set", f"decoder.token=rtsp://tom:{SECRET}@h"],
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("log", ["human", "json"])
def test_a_run_that_fails_writes_the_secret_nowhere(tmp_path: Path, arguments: list[str], log: str) -> None:
    bundle = known_bundle(tmp_path / "bundle", pictures=True).path
    defaults = {"--pub": f"ipc://{tmp_path}/s", "--journal": f"{tmp_path}/journal"}
    given = {word.partition("=")[0] for word in arguments}
    others = [word for option, value in defaults.items() if option not in given for word in (option, value)]
    code, out, err = call("run", "--bundle", str(bundle), "--log", log, *others, *arguments)
    assert code in (1, 2) and err and "Traceback" not in err
    files = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for written in (out, err, "".join((out + err).split())):
        assert SECRET not in written
    assert SECRET.encode() not in files


def test_the_process_list_and_events_of_a_run_show_no_secret(tmp_path: Path) -> None:
    from edge_hal.events import encode
    from edge_hal.runtime.delivery.client import subscribe

    bundle = known_bundle(tmp_path / "bundle", pictures=True).path
    camera, endpoint = f"RTSP://tom:{SECRET}@127.0.0.1:9/x?token={SECRET}", f"ipc://{tmp_path}/s"
    process = start("run", "--bundle", str(bundle), "--camera", camera, "--pub", endpoint, "--no-journal")
    try:
        for event in subscribe(endpoint, timeout_s=TIMEOUT_S):
            assert SECRET.encode() not in encode(event)
            if event.type == "heartbeat" and event.health["source"].get("lost"):
                break
        for folder in Path("/proc").glob("[0-9]*"):
            if str(process.pid) in (folder.name, _parent(folder)):
                assert SECRET.encode() not in (folder / "cmdline").read_bytes()
    finally:
        process.terminate()
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert SECRET not in out + err and "--camera-auth" in err


def _parent(folder: Path) -> str:
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return ""


def test_a_traceback_is_masked() -> None:
    code = (
        "import sys; sys.argv = ['edge-hal', 'run', '--camera', sys.argv[1]]\n"
        "from edge_hal import cli\n"
        "def run(camera: str = ''): raise RuntimeError(camera)\n"
        "[command] = [each for each in cli.app.registered_commands if each.name == 'run']\n"
        "command.callback = run\n"
        "cli.main()\n"
    )
    status, out, err = call(f"rtsp:/tom:{SECRET}@h/x", code=code)
    assert status == 1 and "RuntimeError" in err and SECRET not in out + err


@pytest.mark.parametrize("odd", ["\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\b\b", "\u202e"])
def test_no_error_and_no_log_line_controls_a_terminal(odd: str) -> None:
    error = EdgeHalError(f"cannot read {odd}x", odd, f"rename\n\t{odd}")
    record = logging.LogRecord("edge_hal", logging.INFO, "", 0, "lost %s\nline", (odd,), None)
    for text in (str(error), logs.Human().format(record)):
        assert not any(c in text for c in odd if not c.isprintable()) and "\n" in text
