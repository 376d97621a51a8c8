"""Serves `/metrics` for Prometheus, and `/health`: 200 while the run is healthy, else 503 with the reasons."""

from __future__ import annotations

import json
import logging
import re
import socket as net
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.runtime import threads
from edge_hal.runtime.network.bind_errors import bind_error
from edge_hal.runtime.network.descriptors import most_connections
from edge_hal.runtime.network.endpoint import is_loopback

CONNECTIONS, BACKLOG = 64, 64
"""Connections at once, and connections that wait. Prometheus needs one."""
THREADS = 2
RESTARTS = 10
SILENCE_S = 3
"""A connection that has sent no whole request for this long is closed."""


@dataclass(frozen=True)
class Vitals:
    """The state of a stream. `counters` and `latency_ms` are as in heartbeats; `troubles` is empty while it is healthy.
    `state`: of a stream of a station, what the station does with it; else None."""

    stream: str
    counters: dict[str, Any]
    latency_ms: dict[str, dict[str, float]]
    events: int
    held: int
    troubles: tuple[str, ...]
    state: dict[str, Any] | None = None


def parse_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` or `[HOST]:PORT`. Raises EdgeHalError (exit code 2) for another text."""
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+):(\d{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise EdgeHalError(f"--metrics {address}", "it is not an address", "write 127.0.0.1:9570", exit_code=2)
    return match[1], int(match[2])


class MetricsServer:
    """Serves `HOST:PORT` in threads of its own until it is closed.

    Args:
        more: what `/health` tells beside its streams.

    Raises:
        EdgeHalError: the address is malformed, taken, or open to others without `insecure`; prometheus-client is
            missing.
    """

    def __init__(
        self,
        address: str,
        vitals: Callable[[], Sequence[Vitals]],
        *,
        more: Callable[[], dict[str, Any]] = dict,
        insecure: bool = False,
    ) -> None:
        shown, port = parse_address(address)
        host = shown.strip("[]")
        if not (is_loopback(host) or insecure):
            todo = "use 127.0.0.1, or add --insecure on a trusted network"
            why = "other machines could read it"
            raise EdgeHalError(f"will not serve metrics on {address}", why, todo, exit_code=2)
        app = _app(vitals, more)
        try:
            place = net.getaddrinfo(host, port, type=net.SOCK_STREAM)[0]
            listener = net.create_server(place[4][:2], family=place[0], backlog=BACKLOG)
        except OSError as error:
            what, other = f"cannot serve metrics on {address}", "--metrics 127.0.0.1:9570"
            raise bind_error(what, error.errno, address, other) from error
        self.address = f"{shown}:{listener.getsockname()[1]}"
        self._server = _serve(app, listener)
        self._closing = False
        self._thread = threads.Worker(self._run, "metrics", restarts=RESTARTS)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._server.run()
        except OSError:  # its sockets were closed while it waited for them
            if not self._closing:
                raise

    def close(self) -> None:
        self._closing = True
        self._server.trigger.pull_trigger(self._close_all)  # in the thread that serves
        self._thread.finish()
        self._server.trigger.close()  # only now: `pull_trigger` may write to it after the call
        self._server.task_dispatcher.shutdown()

    def _close_all(self) -> None:
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()
        self._server.socket.close()
        self._server._map.clear()  # ends the loop of the server

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _serve(app: Callable[..., Iterable[bytes]], listener: net.socket) -> Any:
    """A server that closes a connection which has sent no whole request for `SILENCE_S`."""
    try:
        from waitress import create_server
        from waitress.channel import HTTPChannel
    except ImportError as error:
        listener.close()
        todo = "pip install 'edge-hal[metrics]'"
        raise EdgeHalError("waitress is not installed", "--metrics needs it", todo) from error

    class Channel(HTTPChannel):  # type: ignore[misc]
        last_activity: float

        def handle_read(self) -> None:
            """A request that arrives byte by byte is no activity until it is whole."""
            before = self.last_activity
            super().handle_read()
            if not self.requests:
                self.last_activity = before

    logging.getLogger("waitress").setLevel(logging.ERROR)  # a client that leaves is no warning
    server = create_server(
        app,
        sockets=[listener],
        threads=THREADS,
        connection_limit=most_connections(CONNECTIONS),
        channel_timeout=SILENCE_S,
        cleanup_interval=1,
        asyncore_use_poll=True,  # select() fails beyond 1024 descriptors
        log_socket_errors=False,
        max_request_header_size=8192,
        max_request_body_size=8192,
        ident="",
    )
    server.channel_class = Channel
    return server


def _app(vitals: Callable[[], Sequence[Vitals]], more: Callable[[], dict[str, Any]]) -> Callable[..., Iterable[bytes]]:
    try:
        from prometheus_client import CollectorRegistry, make_wsgi_app
    except ImportError as error:
        todo = "pip install 'edge-hal[metrics]'"
        raise EdgeHalError("prometheus-client is not installed", "--metrics needs it", todo) from error
    registry = CollectorRegistry()
    registry.register(_Collector(vitals))
    metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

    def app(environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, respond)
        if environ["PATH_INFO"] != "/health":
            respond("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics or /health\n"]
        now = vitals()
        ailing = any(each.troubles for each in now)
        respond("503 Service Unavailable" if ailing else "200 OK", [("Content-Type", "application/json")])
        return [json.dumps({**_health(now), **more()}).encode()]

    return app


def _health(now: Sequence[Vitals]) -> dict[str, Any]:
    """Of a run with one stream, or of a station."""
    if len(now) == 1 and now[0].state is None:
        return {"stream": now[0].stream, "troubles": now[0].troubles}
    return {"streams": {each.stream: {**(each.state or {}), "troubles": each.troubles} for each in now}}


class _Collector:
    """The content of heartbeats, under Prometheus's names."""

    def __init__(self, vitals: Callable[[], Sequence[Vitals]]) -> None:
        self._vitals = vitals

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        every = self._vitals()
        frames = CounterMetricFamily("edge_hal_frames", "Frames by what became of them.", labels=["stream", "fate"])
        ticks = CounterMetricFamily("edge_hal_ticks", "Ticks by kind.", labels=["stream", "kind"])
        latency = GaugeMetricFamily(
            "edge_hal_latency_seconds", "Latency of the last ticks, by stage.", labels=["stream", "stage", "quantile"]
        )
        events = CounterMetricFamily("edge_hal_events", "Durable events published.", labels=["stream"])
        for now in every:
            counters = now.counters
            for fate in ("captured", "used"):
                frames.add_metric([now.stream, fate], counters.get(fate, 0))
            for reason, count in counters.get("dropped", {}).items():
                frames.add_metric([now.stream, f"dropped_{reason}"], count)
            for kind in ("fresh", "held", "cut"):
                ticks.add_metric([now.stream, kind], counters.get(kind, 0))
            for stage, quantiles in now.latency_ms.items():
                for name, ms in quantiles.items():
                    latency.add_metric([now.stream, stage, f"0.{name[1:]}"], ms / 1e3)
            events.add_metric([now.stream], now.events)
        yield from (frames, ticks, latency, events)
        failures = CounterMetricFamily("edge_hal_stream_failures", "Runs of a stream that failed.", labels=["stream"])
        for now in every:
            if now.state is not None:  # of a station
                failures.add_metric([now.stream], now.state["failures"])
        yield failures
        gauges: tuple[tuple[str, str, Callable[[Vitals], int]], ...] = (
            ("in_flight_frames", "Frames that wait to be taken or used.", lambda now: now.counters.get("in_flight", 0)),
            ("held_events", "Durable events that wait to be stored and published.", lambda now: now.held),
            ("healthy", "1 while nothing is wrong.", lambda now: int(not now.troubles)),
        )
        for title, text, value in gauges:
            gauge = GaugeMetricFamily(f"edge_hal_{title}", text, labels=["stream"])
            for now in every:
                gauge.add_metric([now.stream], value(now))
            yield gauge
