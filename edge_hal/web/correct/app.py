"""The answers of the server of `edge-hal correct`: videos with their segments, frames, changes, and the training."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_hal import __version__
from edge_hal.errors import EdgeHalError
from edge_hal.files.untrusted import parse_json
from edge_hal.web.hub import Hub
from edge_hal.web.site import Site

from .frames import Frames
from .shown import Shown, StaleRevision
from .videos import TaskVideos
from .work import Work

PAGE = Path(__file__).parent / "page"
BODY_BYTES = 1_000_000
DOUBTS = 20
"""Least certain boundaries of each video that the list of videos holds."""
WAITING = 32
"""Frames that may be requested at a time. More are refused."""


class Correct:
    """What the page asks for; `site` is the application."""

    def __init__(self, videos: TaskVideos, work: Work, hub: Hub, token: str, hosts: frozenset[str] | None) -> None:
        self._videos, self._work, self._hub = videos, work, hub
        self._frames = Frames()
        self._waiting = 0
        routes = [
            Route("/data/task", self._task),
            Route("/data/video", self._video),
            Route("/data/frame", self._frame),
            Route("/data/video", self._change, methods=["POST"]),
            Route("/data/training", self._training, methods=["POST"]),
        ]
        self.site = Site(PAGE, hub, self._hello, routes, token, hosts, work.score, work.close)

    async def _hello(self) -> Sequence[str]:
        return [json.dumps({"type": "hello", "version": __version__}), json.dumps(self._work.body())]

    async def _task(self, request: Request) -> Response:
        def body() -> dict[str, Any]:
            videos = self._videos
            return {
                "task": videos.root.resolve().name,
                "steps": videos.steps,
                "order": videos.usual_order(),
                "advice": videos.advice(),
                "videos": [self._row(videos.shown(name)) for name in videos.names()],
            }

        try:
            return JSONResponse(await run_in_threadpool(body))
        except EdgeHalError as error:
            return refused(error)

    async def _video(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        if name not in self._videos:
            return JSONResponse({"error": "no such video"}, 404)
        try:
            return JSONResponse(await run_in_threadpool(lambda: self._body(self._videos.shown(name))))
        except EdgeHalError as error:
            return refused(error)

    async def _frame(self, request: Request) -> Response:
        name, at = (request.query_params.get(key, "") for key in ("name", "at"))
        if name not in self._videos or not at.isdecimal() or len(at) > 9:
            return JSONResponse({"error": "no such frame"}, 404)
        video = self._videos.video(name)
        if video.kind != "video" or int(at) >= video.length:
            return JSONResponse({"error": "no such frame"}, 404)
        if self._waiting >= WAITING:
            return JSONResponse({"error": "too many frames at a time"}, 503)
        self._waiting += 1
        try:
            await run_in_threadpool(self._videos.check_file, name)
            rate = (await run_in_threadpool(self._videos.times, name)).rate
            picture = await run_in_threadpool(self._frames.jpeg, name, video.path, rate, video.rate_hz, int(at))
        except EdgeHalError as error:
            return refused(error)
        finally:
            self._waiting -= 1
        return Response(picture, media_type="image/jpeg")

    async def _change(self, request: Request) -> Response:
        try:
            body = await _object_of(request)
            name, revision, what = str(body["name"]), str(body["revision"]), body["do"]
            if name not in self._videos:
                return JSONResponse({"error": "no such video"}, 404)
            if what == "save":
                begins = [(str(step), first) for step, first in body["segments"]]
                if not all(type(first) is int for _, first in begins):
                    raise ValueError("a frame is no whole number")
                shown = await run_in_threadpool(self._videos.save, name, revision, begins)
            elif what == "stamp":
                shown = await run_in_threadpool(self._videos.stamp, name, revision, _frame_of(body), str(body["step"]))
            elif what == "remove_stamp":
                shown = await run_in_threadpool(self._videos.remove_stamp, name, revision, _frame_of(body))
            else:
                change = {
                    "accept": self._videos.accept,
                    "withdraw": self._videos.withdraw,
                    "discard": self._videos.discard,
                }[what]
                shown = await run_in_threadpool(change, name, revision)
        except StaleRevision:
            try:
                now = await run_in_threadpool(lambda: self._body(self._videos.shown(name)))
            except EdgeHalError as error:
                return refused(error)
            return JSONResponse({"error": "the video was changed elsewhere", "video": now}, 409)
        except EdgeHalError as error:
            return refused(error)
        except (ValueError, KeyError, TypeError) as error:
            return JSONResponse({"error": f"this is no change of a video: {error}"[:400]}, 400)
        row = self._row(shown)
        self._hub.tell(json.dumps({"type": "video", **row}))
        return JSONResponse(self._body(shown))

    async def _training(self, request: Request) -> Response:
        try:
            what = (await _object_of(request))["do"]
            if what not in ("start", "stop"):
                raise ValueError("do is neither start nor stop")
        except (ValueError, KeyError, TypeError) as error:
            return JSONResponse({"error": f"this is no request: {error}"[:400]}, 400)
        if what == "stop":
            await asyncio.to_thread(self._work.stop)
        elif not await asyncio.to_thread(self._work.train):
            return JSONResponse({"error": "a training is running"}, 409)
        return JSONResponse(self._work.body())

    def _body(self, shown: Shown) -> dict[str, Any]:
        video = self._videos.video(shown.name)
        return {
            **{key: getattr(shown, key) for key in ("name", "state", "segments", "parts", "note", "revision")},
            "length": video.length,
            "rate_hz": video.rate_hz,
            "pictures": video.kind == "video",
            "list": [self._videos.steps[step] for step in video.transcript],
        }

    def _row(self, shown: Shown) -> dict[str, Any]:
        """A video in the list. `expected`: how many of its boundaries are expected to be wrong, None: not known yet.
        `labelled`: how many of its segments have a label. `doubts`: [frame, confidence, step before, step after], the
        least certain first."""
        video = self._videos.video(shown.name)
        pairs = zip(shown.segments, shown.segments[1:], strict=False)
        known = [(first, sure, before, step) for (before, *_), (step, first, sure) in pairs if sure is not None]
        complete = len(known) == len(shown.segments) - 1
        open_ = [each for each in known if each[1] < 1 and shown.state != "accepted"]
        return {
            "name": shown.name,
            "state": shown.state,
            "revision": shown.revision,
            "seconds": video.length / (video.rate_hz or 1.0),
            "rate_hz": video.rate_hz,
            "note": bool(shown.note),
            "labelled": shown.labelled,
            "segments": len(shown.segments),
            "expected": sum(1 - sure for _, sure, *_ in open_) if complete else None,
            "doubts": sorted(open_, key=lambda each: each[1])[:DOUBTS],
        }


def _frame_of(body: dict[str, Any]) -> int:
    frame = body["frame"]
    if type(frame) is not int:
        raise ValueError("a frame is no whole number")
    return frame


async def _object_of(request: Request) -> dict[str, Any]:
    """The JSON object that was sent. Raises ValueError for anything else, and for more than `BODY_BYTES`."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > BODY_BYTES:
            raise ValueError(f"it has more than {BODY_BYTES} bytes")
    found = parse_json(bytes(data))
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def refused(error: EdgeHalError) -> Response:
    """The error as a page shows it: 409 if the files or labels of a video do not allow it, 500 if the disk failed."""
    text = "; ".join(filter(None, (error.what, error.why, error.todo)))
    return JSONResponse({"error": text}, 500 if isinstance(error.__cause__, OSError) else 409)
