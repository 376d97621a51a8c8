"""The trial of a bundle: its graphs are opened and stepped in a child process with limits, before they serve.

A graph is a program. It may never end, allocate all memory, or crash ONNX Runtime. The child finds this out within
`LIMIT_S`, `WALL_LIMIT_S` and `LIMIT_BYTES`. It steps every graph on ONNX Runtime with zeros and with random input, and
checks that all outputs are finite. A bundle that passed is not tried again: a mark named after its fingerprint is kept
in the user's cache folder.

A graph that behaves well on this input and badly on other input passes. A signature tells whose graph it is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import resource
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from edge_hal import __version__
from edge_hal.bundle import REEXPORT, Bundle, load_bundle
from edge_hal.errors import EdgeHalError
from edge_hal.files.user_folders import cache_folder

LIMIT_S = 30.0
"""Limit of the processor time. A bundle of the demo takes 1 s."""
WALL_LIMIT_S = 180.0
"""Limit of the wall time: longer than `LIMIT_S`, because other programs may keep the processor busy."""
LIMIT_BYTES = 3 << 30
"""Limit of the private memory. The buffers of a stream have at most 1 GiB; see `spec_limits.LARGEST_BYTES`."""
TRIED_STEPS = 4
FAILED = 3
CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {name} import child; child(sys.argv[2])"
"""The child imports the same modules as this process, and none from the current folder."""

log = logging.getLogger("edge_hal.engine")


def try_bundle(bundle: Bundle) -> None:
    """Try the bundle, unless one with the same fingerprint passed before.

    Raises:
        EdgeHalError: a graph does not end, needs too much memory, crashes, or gives numbers that are not finite.
    """
    mark = _mark(bundle)
    if mark is not None and mark.exists():
        return
    what, todo = f"the bundle {bundle.path} failed its trial", REEXPORT.format(path=bundle.path)
    command = [sys.executable, "-I", "-c", CHILD.format(name=__name__), json.dumps(sys.path), str(bundle.path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=WALL_LIMIT_S,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EdgeHalError(what, f"its graphs were not done after {WALL_LIMIT_S:g} s", todo) from error
    except OSError as error:
        raise EdgeHalError(what, f"it cannot be tried: {error.strerror}", "free memory or processes") from error
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]  # before it are messages of ONNX Runtime
    if done.returncode == FAILED:
        raise EdgeHalError(what, last[-1000:], todo)
    if done.returncode != 0:
        ended = f"it was ended by signal {-done.returncode}" if done.returncode < 0 else last[-200:]
        raise EdgeHalError(what, f"the process that ran its graphs died: {ended}", todo)
    if mark is not None:
        with suppress(OSError):
            mark.touch(0o600)


def child(path: str) -> None:
    """Open and step the graphs of a bundle; exit code `FAILED` with the reason on standard error."""
    seconds = int(LIMIT_S) + 1
    for limit, value in (
        (resource.RLIMIT_DATA, LIMIT_BYTES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    try:
        step_everything(load_bundle(Path(path), allow_uncertified=True))
    except EdgeHalError as error:
        print(f"{error.what}: {error.why}" if error.why else error.what, file=sys.stderr)
        sys.exit(FAILED)
    except MemoryError:
        print(f"it needs more than {LIMIT_BYTES >> 20} MB", file=sys.stderr)
        sys.exit(FAILED)
    except Exception as error:  # ONNX Runtime's errors share no base class
        print(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:500]}", file=sys.stderr)
        sys.exit(FAILED)


def step_everything(bundle: Bundle) -> None:
    """Step every graph of the bundle with zeros and with random input from a fixed seed.

    Raises:
        EdgeHalError: a graph cannot be opened or does not fit the table, or an output is not finite.
    """
    from .onnxruntime_engine import OnnxRuntimeModel

    spec, rng = bundle.spec, np.random.default_rng(0)
    engines = OnnxRuntimeModel(bundle).open_stream()
    for level, engine in enumerate(engines.levels):
        for chunk in spec.chunks(level):
            for number in range(TRIED_STEPS):
                shapes = {tensor.name: tensor.shape for tensor in spec.inputs(level, chunk)}
                scale = 0.0 if number == 0 else 1.0
                inputs = {k: (scale * rng.standard_normal(v)).astype(np.float32) for k, v in shapes.items()}
                for name, value in {**engine.step(inputs), **engine.state()}.items():
                    if not np.isfinite(value).all():
                        raise EdgeHalError(f"{name} of level {level} is not finite", f"after {number + 1} steps")
    if engines.encoder is not None and spec.encoder is not None:
        for level in (0, 127, 255):
            if not np.isfinite(engines.encoder.encode(np.full(spec.encoder.image.shape, level, np.uint8))).all():
                raise EdgeHalError("the vector of the encoder is not finite", f"for a picture of {level}")


def _mark(bundle: Bundle) -> Path | None:
    """The file that says that this bundle passed; None if its folder cannot be used. What computes the bundle is part
    of the name, because another version may crash."""
    import onnxruntime

    key = f"{bundle.fingerprint} {__version__} {onnxruntime.__version__} {LIMIT_BYTES}"
    folder = cache_folder() / "trials"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            log.warning("bundles are tried at each start: another user can write into %s", folder)
            return None
    except (OSError, RuntimeError):  # no home: a service without a cache folder
        return None
    return folder / hashlib.sha256(key.encode()).hexdigest()
