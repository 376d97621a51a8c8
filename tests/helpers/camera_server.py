"""A camera on the network, as a process that tests can stop and kill: MJPEG over HTTP, or RTSP with JPEG
(RFC 2326, RFC 2435) inside the connection. Only the standard library and OpenCV.

    python camera_server.py http|rtsp PORT [--fps 30] [--auth user:password] [--still] [--size 64x48]

The port is printed once it listens. Pictures are noisy around a brightness that grows; `--still` repeats one.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import os
import socketserver
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

Options = argparse.Namespace


class Camera(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, options: Options) -> None:
        self.options = options
        self.began = time.monotonic()
        handler = Http if options.protocol == "http" else Rtsp
        super().__init__(("127.0.0.1", options.port), handler)

    def pictures(self) -> Iterator[bytes]:
        """JPEGs at the camera's rate; everybody sees the same time."""
        width, height = map(int, self.options.size.split("x"))
        due = time.monotonic()
        for number in itertools.count():
            now = time.monotonic() - self.began
            seed = 0 if self.options.still else [os.getpid(), number, int(now * 1e3)]
            level = 60 if self.options.still else 60 + int(now) * 10 % 120
            noise = np.random.default_rng(seed).integers(-20, 20, (height, width, 3))
            yield cv2.imencode(".jpg", (level + noise).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            due += 1 / self.options.fps
            time.sleep(max(0.0, due - time.monotonic()))  # the camera's frame rate; no test waits for it

    def allows(self, headers: dict[str, str]) -> bool:
        wanted = base64.b64encode(self.options.auth.encode()).decode()
        return not self.options.auth or headers.get("authorization") == f"Basic {wanted}"


class Handler(socketserver.StreamRequestHandler):
    server: Camera

    def request_headers(self) -> tuple[str, dict[str, str]]:
        first, headers = self.rfile.readline().decode().strip(), {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return first, headers


class Http(Handler):
    def handle(self) -> None:
        _, headers = self.request_headers()
        if not self.server.allows(headers):
            self.wfile.write(b'HTTP/1.0 401 No\r\nWWW-Authenticate: Basic realm="cam"\r\nContent-Length: 0\r\n\r\n')
            return
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n")
        try:
            for jpeg in self.server.pictures():
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
        except OSError:
            return


class Rtsp(Handler):
    def handle(self) -> None:
        while (request := self.request_headers())[0]:
            first, headers = request
            method = first.split()[0]
            answer, body = [], ""
            status = "200 OK"
            if not self.server.allows(headers):
                status, answer = "401 Unauthorized", ['WWW-Authenticate: Basic realm="cam"']
            elif method == "OPTIONS":
                answer = ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"]
            elif method == "DESCRIBE":
                fps = self.server.options.fps
                lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=cam", "t=0 0", "m=video 0 RTP/AVP 26"]
                body = "\r\n".join([*lines, f"a=framerate:{fps}", ""])
                answer = ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                if "TCP" not in headers["transport"]:
                    status = "461 Unsupported Transport"
                answer = ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
            elif method == "PLAY":
                answer = ["Session: 1", "Range: npt=0-"]
            lines = [f"RTSP/1.0 {status}", f"CSeq: {headers.get('cseq', 0)}", *answer]
            self.wfile.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
            if method == "PLAY" and status == "200 OK":
                return self.play()
            if method == "TEARDOWN":
                return None

    def play(self) -> None:
        sequence = 0
        try:
            for jpeg in self.server.pictures():
                stamp = int((time.monotonic() - self.server.began) * 90_000) & 0xFFFFFFFF
                for payload, last in packets(jpeg):
                    rtp = struct.pack(">BBHII", 0x80, 26 | last << 7, sequence & 0xFFFF, stamp, 7)
                    packet = rtp + payload
                    self.wfile.write(struct.pack(">BBH", 0x24, 0, len(packet)) + packet)
                    sequence += 1
        except OSError:
            return


def packets(jpeg: bytes) -> Iterator[tuple[bytes, bool]]:
    """RTP payloads of a baseline 4:2:0 JPEG with standard Huffman tables, and whether it is the last."""
    tables, position, width, height = b"", 2, 0, 0
    while True:
        marker, length = struct.unpack(">HH", jpeg[position : position + 4])
        segment = jpeg[position + 4 : position + 2 + length]
        if marker == 0xFFDB:
            while segment:
                tables, segment = tables + segment[1:65], segment[65:]
        elif marker == 0xFFC0:
            height, width = struct.unpack(">HH", segment[1:5])
        position += 2 + length
        if marker == 0xFFDA:
            break
    scan, offset = jpeg[position:-2], 0
    while offset < len(scan):
        part = scan[offset : offset + 1200]
        head = struct.pack(">I", offset) + bytes([1, 255, width // 8, height // 8])
        if offset == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        offset += len(part)
        yield head + part, offset >= len(scan)


@contextmanager
def serving(protocol: str, port: int = 0, **options: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The camera as a process, and its port; killed at the end, whatever it does."""
    extra = [text for name, value in options.items() for text in (f"--{name}", str(value)) if text != "True"]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), protocol, str(port), *extra], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=["http", "rtsp"])
    parser.add_argument("port", type=int)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--auth", default="")
    parser.add_argument("--size", default="64x48")
    parser.add_argument("--still", action="store_true")
    with Camera(parser.parse_args()) as camera:
        print(camera.server_address[1], flush=True)
        camera.serve_forever()


if __name__ == "__main__":
    main()
