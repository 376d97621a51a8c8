"""Logs on standard error: readable lines on a terminal, else one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.redaction import mask, mask_all, visible

KINDS = ("auto", "human", "json")

log = logging.getLogger("edge_hal")

of_stream: ContextVar[str | None] = ContextVar("of_stream", default=None)
"""Which of several streams a thread works for; each line that it logs names it. Set by `runtime.threads.Worker`."""


class Human(logging.Formatter):
    """`09:41:07 warning  the camera 0 was lost: it hangs`; of several streams: `09:41:07 [left] warning  ...`"""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}  "
        stream = "" if (name := of_stream.get()) is None else f"[{name}] "
        text = f"{clock} {stream}{level}{visible(mask(record.getMessage()))}"
        return text if not record.exc_info else f"{text}\n{visible(mask(self.formatException(record.exc_info)))}"


class JsonLines(logging.Formatter):
    """`time` (UTC), `level`, `logger`, `stream`, `message`, and the caller's `extra={"fields": {...}}`."""

    def __init__(self, stream: str | None) -> None:
        super().__init__()
        self._stream = stream

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = {"time": f"{clock}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "logger": record.name}
        fields: dict[str, Any] = getattr(record, "fields", {})
        name = of_stream.get() or self._stream
        stream = {} if name is None else {"stream": name}
        body = {**head, **stream, "message": mask(record.getMessage()), **mask_all(fields)}
        if record.exc_info:
            body["traceback"] = mask(self.formatException(record.exc_info))
        return json.dumps(body, ensure_ascii=False, default=str)


def set_up(kind: str = "auto", stream: str | None = None, level: int = logging.INFO) -> None:
    """Set up logging for this process. Other packages log from level `warning` on.

    Args:
        kind: `human`, `json`, or `auto` (`human` if standard error is a terminal, else `json`).
        stream: named in every JSON line.
        level: edge-hal logs from this level on.

    Raises:
        EdgeHalError: no such kind.
    """
    if kind not in KINDS:
        raise EdgeHalError(f"--log {kind}", f"it is one of {', '.join(KINDS)}", exit_code=2)
    human = kind == "human" or (kind == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Human() if human else JsonLines(stream))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    log.setLevel(level)


def in_json() -> bool:
    """Whether `set_up` chose JSON lines; then errors are logged as JSON as well."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)
