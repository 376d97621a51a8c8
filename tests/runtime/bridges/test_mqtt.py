"""The MQTT bridge against a real Mosquitto (slow), and what needs no broker."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("paho.mqtt.client")

from edge_hal.errors import EdgeHalError
from edge_hal.events import End, Event, Gap, Heartbeat, Moment, Now, Unknown, encode
from edge_hal.runtime.bridges.bridge import Delivery, Stopped, Unavailable
from edge_hal.runtime.bridges.mqtt import BRIEF, MqttBroker
from edge_hal.runtime.bridges.stream_state import StreamState
from tests.helpers.sample_events import STREAM, mixed, start
from tests.helpers.services import Mosquitto, free_port, program, self_signed, until

AT = Moment(7, 7, 7 * 10**9)
NOW = Now(STREAM, 0, AT, "b", 0.8, AT, (), (), {"p50": 2.0}, None, last_seq=3, run={"utc_ns": 70})


def batch(*events: Event) -> list[Delivery]:
    return [Delivery(event, encode(event)) for event in events]


# --- without a broker ------------------------------------------------------------------------------


def test_the_state_follows_the_events() -> None:
    state = StreamState(STREAM)
    assert not state.running
    state = state.after(start())
    assert state.running and state.action is None and state.last_seq == 0
    state = state.after(mixed(3))
    assert (state.action, state.since, state.last_seq) == ("b", Moment(3, 3, 3 * 10**9), 3)
    state = state.after(NOW)
    assert state.now is not None and state.now["probability"] == 0.8 and state.utc_ns == 70
    assert state.action == "b" and state.last_seq == 3
    gap = Gap(STREAM, 0, 4, "overload", AT, AT, 1, reset=False, bundle="b", decoder="d")
    assert state.after(gap) == replace(state, last_seq=4)
    lost = state.after(replace(gap, reset=True))
    assert (lost.action, lost.since, lost.now, lost.running) == (None, None, None, True)
    end = state.after(End(STREAM, 0, 5, "eof", AT, {}))
    assert (end.action, end.running, end.last_seq) == (None, False, 5)
    beat = Heartbeat(STREAM, 0, "a", AT, 5, {}, {}, {}, now=None)
    assert end.after(beat) == StreamState(STREAM, True, "a", AT, None, 5, 70)
    told = json.loads(state.to_json())
    assert told["since"] == {"tick": 3, "frame": 3, "t_ns": 3 * 10**9} and told["now"]["action"] == "b"


def test_reports_of_a_session_that_has_ended_do_not_say_that_it_runs() -> None:
    run = {"session": "tests"}
    ended = StreamState(STREAM).after(start()).after(End(STREAM, 0, 1, "eof", AT, {}, run=run))
    beat = Heartbeat(STREAM, 0, None, None, 1, {}, {}, {}, now=None, run=run)
    for _ in range(2):
        ended = ended.after(beat)
        assert not ended.running and not json.loads(ended.to_json())["running"]
    assert ended.after(replace(beat, run={"session": "next"})).running
    assert ended.after(replace(start(2), run=run)).after(beat).running
    assert "ended" not in json.loads(ended.to_json())


@pytest.mark.parametrize(
    ("url", "how", "why"),
    [
        ("http://host", {}, "must begin with mqtt://"),
        ("mqtt://", {}, "must begin with mqtt://"),
        ("mqtt://host:port", {}, "ort"),
        ("mqtt://host/path", {}, "must begin with mqtt://"),
        ("mqtt://user:secret-word@host", {}, "--auth"),
        ("mqtt://host", {"station": "a/b"}, "name a station"),
        ("mqtt://host", {"station": "a#"}, "name a station"),
        ("mqtt://host", {"ca": Path("x")}, "no TLS"),
        ("mqtts://host", {"cert_key": Path("x")}, "--cert"),
        ("mqtts://host", {"ca": Path("/none/ca.pem")}, "No such file"),
        ("mqtts://host", {"ca": Path(__file__)}, "for TLS"),
        ("mqtts://host", {"cert": Path(__file__)}, "for TLS"),
    ],
)
def test_wrong_use_is_one_error(url: str, how: dict[str, Any], why: str) -> None:
    with pytest.raises(EdgeHalError, match=why) as refused:
        MqttBroker(url, **{"station": "here", **how})
    assert "secret-word" not in str(refused.value)


def test_a_broker_that_is_away_or_no_broker_is_tried_again() -> None:
    away = MqttBroker(f"mqtt://127.0.0.1:{free_port()}", "here")
    with pytest.raises(Unavailable, match="refused"):
        away.open()
    away.close()


def test_paho_is_not_called_while_the_lock_is_held_that_its_thread_takes() -> None:
    target, free = MqttBroker("mqtt://127.0.0.1", "here"), list[bool]()

    def take_lock() -> None:
        free.append(target._changed.acquire(blocking=False))
        if free[-1]:
            target._changed.release()

    class Client:
        def publish(self, *_: Any, **__: Any) -> None:
            asking = threading.Thread(target=take_lock)
            asking.start()
            asking.join()

    class Reason:
        is_failure = False

    target._on_connect(Client(), None, None, Reason(), None)  # type: ignore[arg-type]
    assert free == [True] and target._connected


# --- with one --------------------------------------------------------------------------------------


class Listener:
    """Everything that a broker sends to a new client: {topic: payloads}, and what was retained."""

    def __init__(self, broker: Mosquitto) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.received: dict[str, list[bytes]] = {}
        self.retained: dict[str, bytes] = {}
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._note
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert subscribed.wait(60)

    def _note(self, _client: Any, _data: Any, message: Any) -> None:
        self.received.setdefault(message.topic, []).append(message.payload)
        if message.retain:
            self.retained[message.topic] = message.payload

    def until(self, topic: str, payload: bytes) -> None:
        until(lambda: payload in self.received.get(topic, []), lambda: str(self.received))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as service:
        yield service  # type: ignore[misc]


@pytest.fixture
def target(broker: Mosquitto) -> Iterator[MqttBroker]:
    made = MqttBroker(f"mqtt://127.0.0.1:{broker.port}", "here")
    yield made
    made.close()


@pytest.mark.slow
def test_events_reports_and_states_have_their_topics(broker: Mosquitto, target: MqttBroker) -> None:
    listener = Listener(broker)
    target.open()
    events = [start(), *map(mixed, range(1, 200))]
    target.deliver(batch(*events))
    target.report(NOW, encode(NOW))
    strange = Unknown("a/b", 0, type="new/+#", seq=5, body={"seq": 5, "type": "new/+#"})
    target.deliver(batch(strange))
    listener.until("edge-hal/here/a_b/new___", encode(strange))
    listener.close()
    root = f"edge-hal/here/{STREAM}"
    for kind in ("start", "transition", "deviation", "cycle"):
        assert listener.received[f"{root}/{kind}"] == [encode(event) for event in events if event.type == kind]
    assert listener.received[f"{root}/now"] == [encode(NOW)]
    assert not listener.retained
    late = Listener(broker)
    late.until("edge-hal/here/status", b"online")
    until(lambda: {f"{root}/state", "edge-hal/here/a_b/state"} <= set(late.retained))
    state = json.loads(late.retained[f"{root}/state"])
    assert state["action"] == "b" and state["now"]["probability"] == 0.8 and state["last_seq"] == 3
    assert set(late.retained) == {f"{root}/state", "edge-hal/here/a_b/state", "edge-hal/here/status"}
    target.close()
    late.until("edge-hal/here/status", b"offline")
    late.close()


@pytest.mark.slow
def test_a_bridge_that_is_killed_is_offline(broker: Mosquitto, endpoint: str, tmp_path: Path) -> None:
    from tests.helpers.services import start_bridge

    listener = Listener(broker)
    address = f"mqtt://127.0.0.1:{broker.port}"
    with start_bridge("mqtt", address, "--station", "x", "--connect", endpoint, "--cursor", tmp_path / "c") as process:
        listener.until("edge-hal/x/status", b"online")
        process.kill()
    listener.until("edge-hal/x/status", b"offline")
    listener.close()


@pytest.mark.slow
def test_events_wait_for_a_broker_that_is_killed(broker: Mosquitto, target: MqttBroker) -> None:
    target.open()
    target.deliver(batch(*map(mixed, range(1, 10))))
    broker.kill()
    delivered = threading.Thread(target=target.deliver, args=(batch(*map(mixed, range(10, 300))),))
    delivered.start()
    target.report(NOW, encode(NOW))
    broker.start()
    listener = Listener(broker)
    delivered.join(60)
    assert not delivered.is_alive()
    target.deliver(batch(mixed(301)))
    listener.until(f"edge-hal/here/{STREAM}/transition", encode(mixed(301)))
    listener.close()


@pytest.mark.slow
def test_a_stop_ends_the_wait_for_a_broker(broker: Mosquitto, target: MqttBroker) -> None:
    target.open()
    broker.kill()
    target.stop.ask()
    with pytest.raises(Stopped):
        target.deliver(batch(mixed(1)))
    target.close()


@pytest.mark.slow
def test_who_may_not_is_told_so(tmp_path: Path) -> None:
    """A wrong password, and a user who may not write there: the broker confirms such a message with a refusal."""
    passwords, rights = tmp_path / "passwords", tmp_path / "rights"
    passwords.touch(mode=0o600)
    for user in ("writer", "reader"):
        subprocess.run([program("mosquitto_passwd"), "-b", str(passwords), user, f"{user}-word"], check=True)
    rights.write_text("user writer\ntopic readwrite edge-hal/#\nuser reader\ntopic read #\n")
    with Mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}\nacl_file {rights}") as broker:
        address = f"mqtt://127.0.0.1:{broker.port}"
        for auth in (None, "writer:wrong-word", "nobody:writer-word"):
            target = MqttBroker(address, "here", auth)
            with pytest.raises(EdgeHalError, match=r"refuses the connection.*not authorized") as refused:
                target.open()
            assert "wrong-word" not in str(refused.value)
            target.close()
        reader = MqttBroker(address, "here", "reader:reader-word")
        with pytest.raises(EdgeHalError, match="refuses messages on edge-hal/here/#: not authorized"):
            reader.open()
            reader.deliver(batch(mixed(1)))
        reader.close()
        writer = MqttBroker(address, "here", "writer:writer-word")
        writer.open()
        writer.deliver(batch(mixed(1)))
        writer.close()


@pytest.mark.slow
def test_a_limit_of_the_size_of_messages_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One broker announces its limit, the other ends the connection."""
    (tmp_path / "announced").mkdir()
    with Mosquitto(tmp_path / "announced", "allow_anonymous true\nmax_packet_size 150") as broker:
        target = MqttBroker(f"mqtt://127.0.0.1:{broker.port}", "here")
        target.open()
        with pytest.raises(EdgeHalError, match="takes messages of 150 bytes"):
            target.deliver(batch(mixed(1)))
        target.close()
    (tmp_path / "silent").mkdir()
    with Mosquitto(tmp_path / "silent", "allow_anonymous true\nmessage_size_limit 150") as broker:
        target = MqttBroker(f"mqtt://127.0.0.1:{broker.port}", "here")
        target.open()

        def send() -> None:
            with contextlib.suppress(Stopped):
                target.deliver(batch(mixed(1)))

        sending = threading.Thread(target=send)
        sending.start()
        until(lambda: "limit the size of messages" in caplog.text, lambda: caplog.text)
        target.stop.ask()
        sending.join()
        target.close()


@pytest.mark.slow
def test_two_bridges_with_one_station_are_told_once_and_lose_nothing(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """Each takes the connection from the other, for ever."""
    caplog.set_level("INFO", "edge_hal")
    listener = Listener(broker)
    first, second = (MqttBroker(f"mqtt://127.0.0.1:{broker.port}", "here") for _ in range(2))
    for target in (first, second):
        target.open()
    until(lambda: min(first._brief, second._brief) >= BRIEF + 1, lambda: caplog.text)
    told = [record.getMessage() for record in caplog.records]
    assert sum("same --station 'here'" in text for text in told) == 2
    assert sum("is lost" in text for text in told) == 2 * (BRIEF - 1) and len(told) <= 4 * BRIEF
    for seq, target in ((3, first), (4, second)):
        target.deliver(batch(mixed(seq)))
        listener.until(f"edge-hal/here/{STREAM}/transition", encode(mixed(seq)))
    for target in (first, second):
        target.close()
    listener.close()


@pytest.mark.slow
def test_a_certificate_that_is_exchanged_during_the_run_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pem, key = self_signed(tmp_path, "server", "localhost")
    (tmp_path / "ca.pem").write_bytes(pem.read_bytes())
    own = pem.read_bytes(), key.read_bytes()
    with Mosquitto(tmp_path, f"allow_anonymous true\ncertfile {pem}\nkeyfile {key}") as broker:
        target = MqttBroker(f"mqtts://localhost:{broker.port}", "here", None, tmp_path / "ca.pem")
        target.open()
        broker.kill()
        self_signed(tmp_path, "server", "localhost")
        broker.start()
        delivered = threading.Thread(target=target.deliver, args=(batch(mixed(1)),))
        delivered.start()
        until(lambda: "self-signed certificate; trying again" in caplog.text, lambda: caplog.text)
        broker.kill()
        pem.write_bytes(own[0])
        key.write_bytes(own[1])
        broker.start()
        delivered.join(60)
        assert not delivered.is_alive() and caplog.text.count("self-signed certificate") == 1
        target.close()


@pytest.mark.slow
def test_tls_is_checked_both_ways(tmp_path: Path) -> None:
    hosts = {"server": "localhost", "client": "bridge", "other": "localhost"}
    server, client, other = (self_signed(tmp_path, name, host) for name, host in hosts.items())
    lines = (
        f"allow_anonymous true\ncafile {client[0]}\nrequire_certificate true\ncertfile {server[0]}\nkeyfile {server[1]}"
    )
    with Mosquitto(tmp_path, lines) as broker:
        address = f"mqtts://localhost:{broker.port}"
        good = MqttBroker(address, "here", None, server[0], *client)
        good.open()
        good.deliver(batch(*map(mixed, range(1, 100))))
        good.close()
        for ca in (other[0], None):
            stranger = MqttBroker(address, "here", None, ca, *client)
            with pytest.raises(EdgeHalError, match="no certificate to trust"):
                stranger.open()
            stranger.close()
        with pytest.raises((EdgeHalError, Unavailable)):
            MqttBroker(address, "here", None, server[0]).open()
    with Mosquitto(tmp_path) as plain, pytest.raises((EdgeHalError, Unavailable)):
        MqttBroker(f"mqtts://localhost:{plain.port}", "here", None, server[0]).open()
