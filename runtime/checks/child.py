"""Run a function in a process of its own.

An import of a library built for another numpy can kill its process, a camera can hang whoever opens it, and after some
CUDA errors every further call in the process fails. Here that ends one check and not the report.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from edge_hal.errors import EdgeHalError
from edge_hal.progress import Progress

SILENT = "it returned nothing"
KILLED_S = 5.0
"""How long a killed process may take to go. One that waits for a broken driver never goes: it is left behind."""


@dataclass(frozen=True)
class Answer:
    """`value`: what the function returned, as JSON carries it; of a generator a list of what it yielded, even if it
    failed later. `failure`: why it failed, empty if it did not; a process that crashes after it returned has failed.
    `todo`: the remedy that its error named. `printed`: the end of what the process wrote."""

    value: Any = None
    failure: str = ""
    todo: str = ""
    printed: str = ""


def call(
    function: Callable[..., Any], *arguments: Any, silence_s: float = 60.0, report: Progress | None = None
) -> Answer:
    """Call a function of a module in another process.

    Args:
        function: found there by its module and name.
        arguments: whatever JSON can carry.
        silence_s: the process is killed when it has neither returned nor reported for this time.
        report: passed on as the argument `report` of the function, which then must take it.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    command = [sys.executable, "-m", __name__, name, json.dumps(arguments), str(int(report is not None))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ORT_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryFile() as printed:
        # A group of its own, so that a child of the child is killed with it.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=printed,
            env=environment,
            start_new_session=True,
        )
        try:
            answer = _follow(process, silence_s, report)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILLED_S)
            assert process.stdout is not None
            process.stdout.close()
        printed.seek(0)
        text = printed.read().decode(errors="replace").strip()[-4000:]
    failure = answer.failure
    if failure == SILENT and text:
        failure = f"{SILENT}: {text.splitlines()[-1]}"
    return replace(answer, failure=failure, printed=text)


def _follow(process: subprocess.Popen[bytes], silence_s: float, report: Progress | None) -> Answer:
    """Read what the process says, line by line, to its end."""
    assert process.stdout is not None
    items: list[Any] = []
    pending, answer, heard_s = b"", Answer(failure=SILENT), time.monotonic()
    while True:
        left_s = heard_s + silence_s - time.monotonic()
        if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
            return Answer(items or answer.value, f"no answer for {silence_s:g} s")
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            break
        heard_s = time.monotonic()
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            kind, content = json.loads(line)
            if kind == "report" and report is not None:
                report(*content)
            elif kind == "item":
                items.append(content)
            elif kind == "answer":
                value, failure, todo = content
                answer = Answer(items or value, failure, todo)
    try:
        returned = process.wait(silence_s)
    except subprocess.TimeoutExpired:
        return Answer(answer.value, "its process does not end")
    if returned < 0:
        return Answer(items or answer.value, f"its process was killed by {signal.Signals(-returned).name}")
    return answer


def _main(name: str, arguments: str, reports: str) -> None:
    """The other process. Answers are written to its standard output, and what libraries print to standard error."""
    with os.fdopen(os.dup(1), "w", buffering=1) as out:
        os.dup2(2, 1)

        def say(kind: str, content: Any) -> None:
            out.write(json.dumps([kind, content]) + "\n")

        def report(*progress: Any) -> None:
            say("report", progress)

        try:
            module, _, function = name.partition(":")
            more = {"report": report} if reports == "1" else {}
            value = getattr(importlib.import_module(module), function)(*json.loads(arguments), **more)
            if isinstance(value, Iterator):
                for item in value:
                    say("item", item)
                value = []
            say("answer", (value, "", ""))
        except EdgeHalError as error:
            say("answer", (None, f"{error.what}: {error.why}" if error.why else error.what, error.todo))
        except Exception as error:
            say("answer", (None, f"{type(error).__name__}: {error}", ""))


if __name__ == "__main__":
    _main(*sys.argv[1:])
