"""The server of `edge-hal view`: who may use it, what it tells, and what it withstands. No browser is needed."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
import re
import resource
import socket as net
import ssl
import stat
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")
pytest.importorskip("wsproto", reason="needs the extra web")

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from edge_hal.bundle import load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.events import encode
from edge_hal.procedure.rules import Procedure, Step
from edge_hal.runtime.delivery.journal import Journal
from edge_hal.web import hub as hub_module
from edge_hal.web import serving
from edge_hal.web.access import kept_token
from edge_hal.web.hub import Hub
from edge_hal.web.serving import CONNECTIONS
from edge_hal.web.view.history import History
from edge_hal.web.view.pictures import address_of
from edge_hal.web.view.steps import Procedures, in_order
from edge_hal.web.view.troubles import MOST_MESSAGES, Troubles
from tests.helpers.bundles import LABELS, known_bundle
from tests.helpers.made_up_shift import Bench, store
from tests.helpers.processes import REPOSITORY, called_here
from tests.helpers.sample_events import start, transition
from tests.helpers.viewer import Viewer, seqs

STORED = 700
PAGES = [REPOSITORY / "edge_hal" / "web" / place / "page" for place in (".", "view", "correct")]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("bench") / "journal", transitions=STORED) as bench:
        yield bench


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory, bench: Bench) -> Iterator[Viewer]:
    with Viewer(tmp_path_factory.mktemp("state"), "--connect", bench.endpoint) as viewer:
        viewer.heard_of("bench-1")
        while True:  # until it has received all that the journal holds
            page = viewer.open()
            events = page.until(type="hello")["streams"]["bench-1"]["events"]
            page.close()
            if events and events[-1]["seq"] >= STORED:
                break
        yield viewer


# --- who may use it -------------------------------------------------------------------------------


def test_the_page_is_served_with_a_strict_policy_and_the_data_only_with_the_token(viewer: Viewer) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#[0-9a-f]{64}", viewer.address)
    status, headers, body = viewer.get("/")
    assert status == 200 and b"<title>edge-hal</title>" in body
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert headers["referrer-policy"] == "no-referrer" and headers["x-content-type-options"] == "nosniff"
    wrong = "0" * 64
    for path in ("/data/check", "/data/history?stream=bench-1&before=m9"):
        assert viewer.get(path)[0] == viewer.get(path, wrong)[0] == viewer.get(path, viewer.token[:-1])[0] == 401
    assert viewer.get("/data/check", viewer.token)[0] == 204
    assert viewer.open(token=wrong).refused == viewer.open(token="edge-hal").refused == 403


def test_another_name_and_another_site_are_refused(viewer: Viewer) -> None:
    assert viewer.get("/", host="evil.example")[0] == 421
    assert viewer.get("/", host=f"evil.example:{viewer.port}")[0] == 421
    assert viewer.get("/", host="127.0.0.1.evil.example")[0] == 421
    assert viewer.get("/", host=f"localhost:{viewer.port}")[0] == 200
    assert viewer.get("/", host="localhost:9999")[0] == 200  # through a tunnel
    assert viewer.open(origin="http://evil.example").refused == 403
    assert viewer.open(origin=f"http://127.0.0.1:{viewer.port + 1}").refused == 403
    assert viewer.open(host="evil.example").refused == 403


@pytest.mark.parametrize("path", ["/../access.py", "/%2e%2e/access.py", "/page/index.html", "//etc/passwd", "/\\..\\x"])
def test_a_path_outside_is_not_found(viewer: Viewer, path: str) -> None:
    assert viewer.get(path)[0] == 404


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--host", "0.0.0.0"], "--tls-cert"),
        (["--tls-cert", "c.pem"], "--tls-key"),
        (["--tls-cert", "text", "--tls-key", "text"], "PEM"),
        (["--journal", "missing"], "missing"),
        (["--journal", "text"], "cannot read the journal"),
        (["--connect", "nowhere"], "cannot connect to 'nowhere'"),
        (["--replay", "ipc://r", "--connect", "ipc://a", "--connect", "ipc://b"], "--replay"),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    wanted: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("neither a journal nor a certificate")
    code, out, err = called_here(
        monkeypatch, capsys, "view", "--no-browser", "--port", "0", "--token-file", "token", *arguments
    )
    assert code in (1, 2) and out == "" and err.startswith("error: ") and wanted in err and "Traceback" not in err


def test_tls_serves_the_page(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with Viewer(tmp_path, "--tls-cert", certificate, "--tls-key", key, "--connect", "tcp://127.0.0.1:1") as viewer:
        assert viewer.site.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"https://localhost:{viewer.port}/", context=context) as answer:
            assert b"edge-hal" in answer.read()


def self_signed(folder: Path) -> tuple[Path, Path]:
    pytest.importorskip("cryptography")
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    files = folder / "c.pem", folder / "k.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files[0].write_bytes(certificate.public_bytes(pem))
    files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return files


def test_the_token_is_kept_and_is_secret(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"
    before = os.umask(0o000)
    try:
        token = kept_token(path)
    finally:
        os.umask(before)
    assert re.fullmatch(r"[0-9a-f]{64}", token) and kept_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(EdgeHalError, match="will not use"):
        kept_token(path)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(EdgeHalError, match="holds no token"):
        kept_token(path)


# --- what it tells --------------------------------------------------------------------------------


def test_a_page_gets_the_past_and_then_each_event_as_it_was_published(viewer: Viewer, bench: Bench) -> None:
    page = viewer.open()
    hello = page.until(type="hello")
    known = hello["streams"]["bench-1"]
    assert known["live"] and known["older"] is not None
    assert known["events"][-1]["run"]["journal"] and seqs(known["events"]) == sorted(seqs(known["events"]))
    bench.tell("transition place_base")
    event = page.until(type="transition", to="place_base")
    assert event["seq"] == known["events"][-1]["seq"] + 1
    bench.tell("now place_base 0.8")
    assert page.until(type="now")["probability"] == 0.8
    assert page.until(type="heartbeat")["health"]["source"]["state"] == "running"
    page.close()


def test_history_is_paged_back_to_the_first_event(viewer: Viewer) -> None:
    page = viewer.open()
    known = page.until(type="hello")["streams"]["bench-1"]
    page.close()
    found, older = seqs(known["events"]), known["older"]
    while older is not None:
        answer = viewer.history("bench-1", older, 111)
        assert len(answer["events"]) <= 111
        found, older = seqs(answer["events"]) + found, answer["older"]
    assert found == list(range(found[-1] + 1)) and len(found) > STORED
    for query in ("limit=0", "limit=501", "limit=x", "limit=99999999999999999999", "limit=0000005009999"):
        assert viewer.get(f"/data/history?stream=bench-1&before=m5&{query}", viewer.token)[0] == 400
    for query in ("stream=bench-1&before=", "stream=bench-1&before=m-1", "stream=x&before=m5", "before=m5", ""):
        assert viewer.get(f"/data/history?{query}", viewer.token)[0] == 404


def test_a_journal_is_shown_without_a_run(tmp_path: Path) -> None:
    store(tmp_path / "journal", "bench-2", 300)
    with Viewer(tmp_path, "--journal", tmp_path / "journal") as viewer:
        page = viewer.open()
        known = page.until(type="hello")["streams"]["bench-2"]
        assert known["live"] is False and known["events"] == []
        newest = viewer.history("bench-2", known["older"], 50)
        assert len(newest["events"]) == 50
        earlier = viewer.history("bench-2", newest["older"], 50)
        assert seqs(earlier["events"] + newest["events"]) == list(
            range(earlier["events"][0]["seq"], newest["events"][-1]["seq"] + 1)
        )
        page.close()
        assert viewer.stop() == 0


def test_memory_and_journal_join_without_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_hal.web.view.history.KEPT_EVENTS", 5)
    with Journal(tmp_path / "journal", "bench") as journal:
        events = [start(0), *(transition(seq) for seq in range(1, 40))]
        for event in events:
            event.run["journal"] = journal.id
        journal.append([(event.seq, encode(event)) for event in events])
    history = History([tmp_path / "journal"])
    for event in events[20:]:
        assert history.add(event, encode(event), "tcp://127.0.0.1:1") is None
    page = history.page("bench", "m20", 100)
    assert page is not None and page.older == "m15"
    assert len(page.events) == 5
    before = history.page("bench", "m15", 12)
    assert before is not None and before.older == "j23"
    assert before.events == [encode(event) for event in events[23:35]]
    last = history.page("bench", "j23", 100)
    assert last is not None and last.older is None and last.events == [encode(event) for event in events[:23]]


def test_pictures_are_passed_on_and_end_with_the_server(tmp_path: Path) -> None:
    np.save(tmp_path / "picture.npy", np.full((60, 80, 3), 99, np.uint8))
    with (
        Bench(tmp_path / "journal", preview=f"ipc://{tmp_path}/p") as bench,
        Viewer(tmp_path, "--connect", bench.endpoint) as viewer,
    ):
        page = viewer.open()
        assert page.until(type="heartbeat")["health"]["preview"]["sent"] == 0
        unknown = viewer.open("/pictures?stream=other")
        assert unknown.receive() is None and unknown.closed == 4004
        assert viewer.open("/pictures?stream=bench-1", token="0" * 64).refused == 403
        bench.tell(f"picture {tmp_path}/picture.npy")
        pictures = viewer.open("/pictures?stream=bench-1")
        message = pictures.receive()
        assert isinstance(message, bytes)
        about, _, data = message.partition(b"\n")
        assert json.loads(about)["width"] == 80 and data.startswith(b"\xff\xd8\xff")
        assert viewer.stop() == 0


def test_what_no_browser_parses_is_not_passed_on() -> None:
    history = History()
    event = start(0)
    why = history.add(event, encode(event).replace(b'"model_hz":10', b'"model_hz":NaN'), "ipc://a")
    assert why is not None and "NaN" in why
    assert history.add(event, encode(event).replace(b'"source":"s"', b'"source":"NaN"'), "ipc://a") is None


def test_two_streams_of_one_name_are_not_mixed() -> None:
    history, event = History(), start(0)
    assert history.add(event, encode(event), "ipc://a") is None
    why = history.add(event, encode(event), "ipc://b")
    assert why is not None and "ipc://a and ipc://b" in why
    assert len(history.hello()["bench"]["events"]) == 1


def test_a_trouble_is_told_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    told = list[list[str]]()
    troubles, history = Troubles(told.append), History()
    for _ in range(5):  # a station sends two streams, and one of them is known from another address
        for name, address in (("left", "ipc://a"), ("left", "ipc://b"), ("right", "ipc://b")):
            event = replace(start(0), stream=name)
            why = history.add(event, encode(event), address)
            troubles.address(address, None)
            if why is not None:
                troubles.message(why)
    [[why]] = told
    assert "'left' is published at ipc://a and ipc://b" in why and troubles.now() == [why]
    assert [record.getMessage() for record in caplog.records] == [why]
    troubles.address("ipc://c", "gone")
    troubles.address("ipc://c", "gone")
    assert told[1:] == [["gone", why]]
    troubles._forget(-math.inf)  # it came since then
    troubles.address("ipc://c", None)
    assert told[2:] == [[why]]
    troubles._forget(math.inf)
    assert told[3:] == [[]] and troubles.now() == []


def test_a_publisher_with_a_new_trouble_in_each_message_fills_nothing() -> None:
    told = list[list[str]]()
    troubles = Troubles(told.append)
    for number in range(1000):
        troubles.message(f"stream {number} cannot be shown")
    assert len(troubles.now()) == len(told) == MOST_MESSAGES
    troubles._forget(math.inf)
    troubles.message("another one")
    assert troubles.now() == ["another one"]


def test_pictures_come_from_the_host_that_events_come_from() -> None:
    assert address_of("tcp://10.0.0.5:5570", "tcp://0.0.0.0:5572") == "tcp://10.0.0.5:5572"
    assert address_of("tcp://127.0.0.1:5570", "tcp://10.9.9.9:5572") == "tcp://127.0.0.1:5572"
    assert address_of("tcp://[::1]:5570", "tcp://[::]:5572") == "tcp://[::1]:5572"
    assert address_of("tcp://127.0.0.1:5570", "ipc:///run/p") == "ipc:///run/p"
    assert address_of("tcp://10.0.0.5:5570", "ipc:///run/p") is None
    assert address_of("tcp://10.0.0.5:5570", "file:///etc/passwd") is None


def test_a_step_is_shown_after_those_that_it_requires() -> None:
    steps = {
        "wipe": Step(0.0, 0.1, 3.0, 1.5, {}, background=True),
        "close": Step(0.1, 0.2, 3.0, 1.5, {}, requires={"fill": 0.9, "open": 0.9}),
        "fill": Step(0.0, 0.2, 3.0, 1.5, {"close": 1.0}, requires={"open": 0.9}),
        "open": Step(0.9, 0.2, 3.0, 1.5, {"label": 0.6, "fill": 0.4}),
        "label": Step(0.0, 0.2, 3.0, 1.5, {"fill": 1.0}),
    }
    assert [each["name"] for each in in_order(Procedure(steps))] == ["open", "label", "fill", "close", "wipe"]


def test_an_edited_procedure_is_shown_once_the_run_names_its_fingerprint(tmp_path: Path) -> None:
    procedures = Procedures([tmp_path / "bundle"])
    assert procedures.steps("f" * 64, "d") is None  # there is no bundle yet
    bundle = known_bundle(tmp_path / "bundle")

    def edited(median_s: float) -> tuple[str, Procedure]:
        rules = Procedure({name: Step(0.5, 0.3, median_s, 1.5, {}) for name in LABELS})
        (tmp_path / "bundle" / "procedure.json").write_text(rules.to_json())
        return load_bundle(tmp_path / "bundle").decoder.fingerprint(), rules

    for median_s in (1.5, 7.5):
        decoder, rules = edited(median_s)
        steps = procedures.steps(bundle.fingerprint, decoder)
        assert steps == in_order(rules) and {step["median_s"] for step in steps} == {median_s}
    assert procedures.steps("f" * 64, decoder) is None


def test_the_page_is_light_and_names_no_other_site() -> None:
    files = [path for page in PAGES if page.is_dir() for path in page.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    for path in files:
        addresses = re.findall(r"https?://[^\"'\s)`$]+", path.read_text())
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|eval\(|document\.write", path.read_text()), path


# --- what it withstands ---------------------------------------------------------------------------


def test_a_page_that_sends_is_dropped_and_the_others_go_on(viewer: Viewer, bench: Bench) -> None:
    other, flood = viewer.open(), viewer.open()
    other.until(type="hello")
    try:
        for _ in range(200):
            flood.send(b"x" * 4000)
    except OSError:
        pass  # the connection has ended
    while flood.receive() is not None:
        pass
    assert flood.closed is not None
    huge = viewer.open()
    with_header = b"\x82\xff" + (2**40).to_bytes(8, "big") + b"\0\0\0\0"
    huge.socket.sendall(with_header + b"y" * 65536)
    while huge.receive() is not None:
        pass
    bench.tell("transition grease_gear")
    assert other.until(type="transition", to="grease_gear")
    other.close()


def test_pages_beyond_the_limit_are_told_to_try_later(tmp_path: Path) -> None:
    async def join() -> tuple[list[hub_module.Page | None], hub_module.Page | None]:
        hub = Hub()
        hub.open()
        pages = [hub.join() for _ in range(hub_module.PAGES)]
        return pages, hub.join()

    pages, one_more = asyncio.run(join())
    assert None not in pages and one_more is None


def test_a_page_that_does_not_read_is_full_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "QUEUE_MESSAGES", 10)

    async def spread() -> tuple[bool, bool, list[str]]:
        hub, read = Hub(), list[str]()
        hub.open()
        slow, good = hub.join(), hub.join()
        assert slow is not None and good is not None
        for number in range(30):
            hub.tell(str(number))
            read.append(await good.next())
        return slow.full.is_set(), good.full.is_set(), read

    assert asyncio.run(spread()) == (True, False, [str(number) for number in range(30)])


UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n"


@pytest.mark.parametrize("headers", ["Sec-WebSocket-Protocol: \xff", "Sec-WebSocket-Extensions: \xff", "Host: xn--a"])
def test_a_websocket_with_headers_that_are_no_text_is_refused_and_forgotten(tmp_path: Path, headers: str) -> None:
    host = "" if headers.startswith("Host") else "Host: localhost\r\n"
    request = f"GET /live HTTP/1.1\r\n{host}{UPGRADE}{headers}\r\n\r\n".encode("latin-1")
    with Viewer(tmp_path, "--connect", "tcp://127.0.0.1:1") as viewer:
        for _ in range(CONNECTIONS + 1):
            with net.create_connection(("127.0.0.1", viewer.port)) as page:
                page.sendall(request)
                assert page.recv(4096).startswith(b"HTTP/1.1 400")
        assert viewer.get("/")[0] == 200
        assert viewer.stop() == 0
        assert viewer.process.stderr is not None and viewer.process.stderr.read() == ""


def test_more_connections_than_descriptors_do_not_end_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is not served asks again, as browsers do."""
    few = resource.RLIMIT_NOFILE, (100, 100)
    popen = functools.partial(subprocess.Popen, preexec_fn=lambda: resource.setrlimit(*few))
    monkeypatch.setattr(subprocess, "Popen", popen)
    with Viewer(tmp_path, "--connect", "tcp://127.0.0.1:1") as viewer:
        idle = [net.create_connection(("127.0.0.1", viewer.port)) for _ in range(150)]
        for each in idle:
            each.close()
        assert viewer.get("/")[0] in (200, 503)
        while viewer.get("/")[0] != 200:
            pass
        assert viewer.stop() == 0
        assert viewer.process.stderr is not None and "system resource" not in viewer.process.stderr.read()


def test_connections_far_beyond_the_limit_are_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REST_S", 1e6)  # none is ended because it waits

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("there is no request")

    async def left_open() -> int:
        config = uvicorn.Config(nothing, lifespan="off", log_config=None)
        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: serving.HttpProtocol(config, state, {}), "127.0.0.1", 0)
        place = server.sockets[0].getsockname()
        peers = [await asyncio.open_connection(*place) for _ in range(2 * CONNECTIONS + 20)]
        for reader, writer in peers[2 * CONNECTIONS :]:
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()
        left = len(state.connections)
        for _, writer in peers:
            writer.transport.abort()
        server.close()
        return left

    assert asyncio.run(left_open()) == 2 * CONNECTIONS


def test_a_peer_that_reads_nothing_of_an_answer_is_ended_and_a_slow_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REST_S", 1e6)  # the test looks by itself
    made = list[serving.HttpProtocol]()

    class Seen(serving.HttpProtocol):
        def connection_made(self, transport: Any) -> None:
            transport.get_extra_info("socket").setsockopt(net.SOL_SOCKET, net.SO_SNDBUF, 65536)
            super().connection_made(transport)
            made.append(self)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(b"x" * 20_000_000)(scope, receive, send)

    async def looked_at(reads: bool) -> bool:
        config = uvicorn.Config(large, lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Seen(config, state, {}), "127.0.0.1", 0)
        with net.create_connection(server.sockets[0].getsockname()) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            peer.setblocking(False)
            while not (made and made[-1].transport.get_write_buffer_size()):
                await asyncio.sleep(0)
            protocol = made.pop()
            transport = protocol.transport
            for _ in range(serving.UNREAD_LOOKS + 1):
                protocol._look()
                left = transport.get_write_buffer_size()
                while reads and transport.get_write_buffer_size() == left and not transport.is_closing():
                    await loop.sock_recv(peer, 100_000)
            ended = transport.is_closing()
            transport.abort()
        server.close()
        return ended

    assert asyncio.run(looked_at(reads=False)) and not asyncio.run(looked_at(reads=True))


@pytest.mark.slow
def test_connections_that_ask_for_nothing_are_ended_and_let_others_in(viewer: Viewer) -> None:
    idle = [net.create_connection(("127.0.0.1", viewer.port)) for _ in range(150)]
    for number, each in enumerate(idle):
        each.settimeout(60)
        if number % 2:
            each.sendall(b"GET / HTTP/1.1\r\nHost:")
    for each in idle:
        try:
            while each.recv(4096):
                pass
        except ConnectionResetError:
            pass
        each.close()
    assert viewer.get("/")[0] == 200


@pytest.mark.slow
def test_a_slow_reader_is_cut_off_and_slows_nobody(tmp_path: Path) -> None:
    with Bench(tmp_path / "journal") as bench, Viewer(tmp_path, "--connect", bench.endpoint) as viewer:
        slow, good = viewer.open(small=True), viewer.open()
        good.until(type="hello")
        bench.tell("burst 40000")
        bench.tell("transition inspect")
        numbers = list[int]()
        for event in good.events():
            numbers += seqs([event])
            if (
                event["type"] == "transition"
                and event["confidence"]
                and event["to"] == "inspect"
                and len(numbers) > 40000
            ):
                break
        assert numbers == sorted(set(numbers))
        while slow.receive() is not None:
            pass
        assert slow.closed == 1006  # a reset, not a polite end: what waited is freed
        assert net.create_connection(("127.0.0.1", viewer.port)).close() is None
