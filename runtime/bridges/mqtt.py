"""Publishes events to an MQTT broker with QoS 1 (MQTT 5, eclipse paho).

edge-hal/<station>/<stream>/<type>     each durable event, as it was published; `now` and `heartbeat` with QoS 0
edge-hal/<station>/<stream>/state      retained: what goes on (`stream_state.py`)
edge-hal/<station>/status              retained: `online`, or `offline`, the last will of the bridge
"""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from edge_hal.errors import EdgeHalError
from edge_hal.events import Event, Heartbeat, Now
from edge_hal.redaction import redact

from ..network.endpoint import is_loopback
from ..stop import Stop
from .bridge import Delivery, Stopped, Unavailable
from .stream_state import StreamState
from .tls import client_context

log = logging.getLogger("edge_hal")

PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEPALIVE_S = 20
ANSWER_S = 10.0
"""How long the broker has for its answer to a connection, and for the farewell."""
UNCONFIRMED = 20
"""Messages in flight. paho sends all of them at once after a reconnect, whatever the broker allows, so this is bounded
here."""
HEADER = 32
"""Bytes of a message beside topic and payload, and some to spare."""
BRIEF_S, BRIEF = 30.0, 3
"""The log warns once of `BRIEF` connections in a row that each last for less than `BRIEF_S`."""
WAKE_S = 0.2
"""How soon a stop ends the wait for a confirmation."""
LONGEST_LEVEL = 100
PASSING = ("Server unavailable", "Server busy", "Connection rate exceeded", "Quota exceeded")
"""Answers of a broker that are worth another try."""


@dataclass
class MqttBroker:
    """A target that publishes. paho's thread keeps the connection, and sends what is unconfirmed again when it is back.

    Attributes:
        url: `mqtt://host[:port]`, or `mqtts://` for TLS.
        station: second level of all topics, and part of the identifier of the client. A broker has one connection for
            each identifier, so two bridges with one station take it from each other.
        auth: `user:password`.
        ca, cert, cert_key: see `client_context`; for `mqtts://`.
        stop: ends the wait for confirmations; that of `bridge`.

    Raises:
        EdgeHalError: the address or the station is malformed, or a file of TLS cannot be used.
    """

    url: str
    station: str
    auth: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    cert_key: Path | None = None
    stop: Stop = field(default_factory=Stop, repr=False)
    _client: Client | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"[^/+#\s\x00-\x1f]{{1,{LONGEST_LEVEL}}}", self.station):
            why = "it must be 1 to 100 characters without '/', '+', '#' and blanks"
            raise EdgeHalError(f"'{self.station}' cannot name a station", why, "choose another --station", exit_code=2)
        self._host, self._port, tls = self._address()
        files = {"--ca": self.ca, "--cert": self.cert, "--cert-key": self.cert_key}
        for option, path in files.items() if not tls else ():
            if path is not None:
                raise EdgeHalError(f"{option} with mqtt://", "it has no TLS", "write mqtts://", exit_code=2)
        if self.cert_key is not None and self.cert is None:
            raise EdgeHalError("--cert-key without --cert", "they belong together", "give both", exit_code=2)
        self._context = client_context(self.ca, self.cert, self.cert_key) if tls else None
        self.shown = redact(self.url)
        self._root = f"edge-hal/{self.station}"
        # paho's thread notifies it while it holds locks of its own: call nothing of paho while you hold it.
        self._changed = threading.Condition()
        self._connected = False
        self._refused: EdgeHalError | None = None
        self._in_flight: deque[MQTTMessageInfo] = deque()
        self._online: MQTTMessageInfo | None = None
        self._window = UNCONFIRMED
        self._largest: int | None = None
        self._connected_s = 0.0
        self._brief = 0  # connections in a row that were lost soon
        self._away = ""  # why the broker could not be reached the last time
        self._states: dict[str, StreamState] = {}

    def open(self) -> None:
        if self.auth is not None and self._context is None and not is_loopback(self._host):
            log.warning("user and password are sent to %s unencrypted: use mqtts://", self.shown)
        self._client = client = self._new_client()
        try:
            client.connect(self._host, self._port, KEEPALIVE_S)
        except ssl.SSLCertVerificationError as error:
            what = f"the broker {self.shown} has no certificate to trust"
            raise EdgeHalError(what, error.verify_message, "see --ca") from error
        except ssl.SSLError as error:
            todo = "check the port; 8883 is usual for TLS"
            raise EdgeHalError(f"{self.shown} does not speak TLS with us", error.reason or str(error), todo) from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"cannot reach the broker {self.shown}: {error}") from error
        client.loop_start()
        with self._changed:
            answered = self._changed.wait_for(lambda: self._connected or self._refused, ANSWER_S)
            refused = self._refused
        if refused is not None:
            raise refused
        if not answered:
            self._end(client)
            raise Unavailable(f"the broker {self.shown} does not answer")

    def deliver(self, batch: Sequence[Delivery]) -> None:
        changed: dict[str, None] = {}
        for delivery in batch:
            event = delivery.event
            self._publish(f"{self._topic(event.stream)}/{_level(event.type)}", delivery.raw)
            self._note(event)
            changed[event.stream] = None
        for stream in changed:
            self._publish(f"{self._topic(stream)}/state", self._states[stream].to_json(), retain=True)
        self._wait_for_fewer_than(1)

    def report(self, event: Event, raw: bytes) -> None:
        if self._refused is not None:
            raise self._refused
        self._note(event)
        topic = self._topic(event.stream)
        if self._client is not None and self._connected:
            if isinstance(event, (Now, Heartbeat)):
                self._client.publish(f"{topic}/{event.type}", raw)
            self._client.publish(f"{topic}/state", self._states[event.stream].to_json(), retain=True)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if self._connected:
            told = client.publish(f"{self._root}/status", b"offline", qos=1, retain=True)
            ends_s = time.monotonic() + ANSWER_S
            with contextlib.suppress(RuntimeError):  # the connection was lost: the broker says it
                while self._connected and not told.is_published() and time.monotonic() < ends_s:
                    told.wait_for_publish(WAKE_S)
        self._end(client)

    # --- sending -----------------------------------------------------------------------------------

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        assert self._client is not None
        self._wait_for_fewer_than(self._window)
        if self._largest is not None and len(topic.encode()) + len(payload) + HEADER > self._largest:
            what = f"the broker {self.shown} takes messages of {self._largest} bytes, and one to {topic} is larger"
            todo = "raise its limit (mosquitto: max_packet_size, message_size_limit)"
            raise EdgeHalError(what, f"it has {len(payload)} bytes", todo)
        message = self._client.publish(topic, payload, qos=1, retain=retain)
        message.rc = MQTTErrorCode.MQTT_ERR_SUCCESS  # also without a connection: paho keeps it, and sends it later
        self._in_flight.append(message)

    def _wait_for_fewer_than(self, count: int) -> None:
        """Until fewer messages are unconfirmed, however often the connection breaks.

        Raises:
            EdgeHalError: the broker has refused a message or the connection.
        """
        while True:
            while self._in_flight and self._in_flight[0].is_published():  # they are confirmed in order
                self._in_flight.popleft()
            if self._refused is not None:
                raise self._refused
            if len(self._in_flight) < count:
                return
            if self.stop.asked:
                raise Stopped
            self._in_flight[0].wait_for_publish(WAKE_S)

    def _note(self, event: Event) -> None:
        self._states[event.stream] = self._states.get(event.stream, StreamState(event.stream)).after(event)

    def _topic(self, stream: str) -> str:
        return f"{self._root}/{_level(stream)}"

    # --- the connection ----------------------------------------------------------------------------

    def _new_client(self) -> Client:
        version = MQTTProtocolVersion.MQTTv5
        client = Client(CallbackAPIVersion.VERSION2, client_id=f"edge-hal-{self.station}", protocol=version)
        client.reconnect_delay_set(min_delay=1, max_delay=30)
        client.max_inflight_messages_set(0)
        client.max_queued_messages_set(0)
        client.will_set(f"{self._root}/status", b"offline", qos=1, retain=True)
        if self.auth is not None:
            user, _, password = self.auth.partition(":")
            client.username_pw_set(user, password)
        if self._context is not None:
            client.tls_set_context(self._context)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail = self._on_connect_fail
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        if not reason.is_failure and (self._online is None or self._online.is_published()):
            # Else paho sends the old one again. Before `_connected` is set: after that, `close` may say `offline`.
            self._online = client.publish(f"{self._root}/status", b"online", qos=1, retain=True)
        with self._changed:
            if reason.is_failure:
                if str(reason) not in PASSING:
                    self._refuse(f"the broker {self.shown} refuses the connection", reason, "check user and password")
            else:
                self._connected, self._connected_s, self._away = True, time.monotonic(), ""
                self._window = max(1, min(UNCONFIRMED, getattr(properties, "ReceiveMaximum", UNCONFIRMED) - 1))
                self._largest = getattr(properties, "MaximumPacketSize", None)
                if self._brief < BRIEF:
                    log.info("connected to the broker %s", self.shown)
            self._changed.notify_all()

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        with self._changed:
            if self._connected and reason.is_failure:
                self._brief = self._brief + 1 if time.monotonic() - self._connected_s < BRIEF_S else 0
                if self._brief < BRIEF:
                    log.warning("the connection to the broker %s is lost: %s; connecting again", self.shown, reason)
                elif self._brief == BRIEF:
                    log.warning(
                        "the broker %s has ended %d connections, each within %g s: has another bridge the same "
                        "--station '%s', or does the broker limit the size of messages (mosquitto: "
                        "message_size_limit)? Connecting again each time; no further warning until a connection lasts "
                        "longer",
                        *(self.shown, BRIEF, BRIEF_S, self.station),
                    )
            self._connected = False
            self._changed.notify_all()

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        """paho tries again and tells nobody: a certificate may have expired since the first connection."""
        error = sys.exc_info()[1]  # paho calls this while it handles the error
        why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
        if why != self._away:
            log.warning("cannot reach the broker %s: %s; trying again until it works", self.shown, why)
        self._away = why

    def _on_publish(self, _client: Client, _data: Any, _mid: int, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            todo = "allow the user to publish there"
            self._refuse(f"the broker {self.shown} refuses messages on {self._root}/#", reason, todo)

    def _refuse(self, what: str, reason: Any, todo: str) -> None:
        self._refused = EdgeHalError(what, str(reason).lower(), todo)

    def _end(self, client: Client) -> None:
        client.disconnect()
        client.loop_stop()

    def _address(self) -> tuple[str, int, bool]:
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise self._malformed(str(error)) from error
        if parts.scheme not in PORTS or not host or parts.path not in ("", "/") or parts.query:
            raise self._malformed("it must begin with mqtt:// or mqtts://, and name a host and nothing after it")
        if parts.username is not None:
            raise self._malformed("user and password belong into a file: --auth FILE")
        return host, port or PORTS[parts.scheme], parts.scheme == "mqtts"

    def _malformed(self, why: str) -> EdgeHalError:
        return EdgeHalError(f"cannot connect to '{redact(self.url)}'", why, "write mqtt://localhost", exit_code=2)


def _level(name: str) -> str:
    """A level of a topic. Characters that have a meaning there become `_`."""
    return re.sub(r"[/+#\x00-\x1f\x7f]", "_", name)[:LONGEST_LEVEL] or "_"
