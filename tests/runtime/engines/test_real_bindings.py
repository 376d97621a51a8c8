"""`CudaDevice` with the real pycuda and the real cuda-bindings, on a driver's library made of host memory. It tests the
calls, their order, and pycuda's own rules for threads and for the end of a process; no kernel runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.processes import REPOSITORY

SOURCE = REPOSITORY / "tests" / "helpers" / "host_cuda.c"

PROGRAM = """
import ctypes, gc, sys, threading, warnings
import numpy as np
warnings.simplefilter("error")
from edge_hal.errors import EdgeHalError
from edge_hal.runtime.engines.cuda_device import CudaDevice

NAMES = ("contexts", "streams", "memory", "pinned", "graphs", "executables")

def left():
    counts = (ctypes.c_int * len(NAMES))()
    ctypes.CDLL("libcuda.so.1").host_cuda_left(counts)
    return {name: count for name, count in zip(NAMES, counts) if count}

def use(device):
    '''Three steps; whether they were a captured graph.'''
    with device.active():
        given, made = (device.pinned((8,), np.dtype(np.float32)) for _ in range(2))
        at = device.alloc(given.nbytes)
        def work():
            device.upload(at, given)
            device.download(made, at)
        launch = device.capture(work)
        for number in range(3):
            given[:] = number
            (launch or work)()
            device.synchronise()
            assert (made == number).all()
    return launch is not None

def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the library. pycuda is linked with functions that no test calls: they exist and fail."""
    pycuda, compiler = find_spec("pycuda"), shutil.which("cc")
    if (
        pycuda is None
        or pycuda.origin is None
        or find_spec("cuda") is None
        or compiler is None
        or not shutil.which("nm")
    ):
        pytest.skip("needs pycuda, cuda-bindings and a C compiler: pip install -e '.[tensorrt]'")
    folder = tmp_path_factory.mktemp("libcuda")

    def build(more: str) -> None:
        (folder / "more.c").write_text(more)
        command = [compiler, "-shared", "-fPIC", "-w", "-o", folder / "libcuda.so.1", SOURCE, folder / "more.c", "-ldl"]
        subprocess.run(list(map(str, command)), check=True)

    def symbols(path: Path, which: str) -> set[str]:
        listed = subprocess.run(["nm", "-D", which, str(path)], capture_output=True, text=True, check=True).stdout
        names = {line.split()[-1] for line in listed.splitlines()}
        return {name for name in names if name.startswith("cu") and "@" not in name}  # with @: of another library

    build("")
    (extension,) = Path(pycuda.origin).parent.glob("_driver*.so")
    missing = symbols(extension, "--undefined-only") - symbols(folder / "libcuda.so.1", "--defined-only")
    build("\n".join(f"int {name}(void) {{ return 801; }}" for name in sorted(missing)))
    return folder


def run(driver: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    libraries = os.pathsep.join([str(driver), os.environ.get("LD_LIBRARY_PATH", "")])
    path = {"LD_LIBRARY_PATH": libraries, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    command = [sys.executable, "-c", PROGRAM + code]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **path, **environment})


@pytest.mark.parametrize(
    "code",
    [
        "device = CudaDevice()\nassert use(device) and left()\ndevice.close()\ndevice.close()\nprint(left())",
        "device = CudaDevice()\nuse(device)\nin_a_thread(device.close)\nprint(left())",
        "a, b = CudaDevice(), CudaDevice()\nuse(a)\nuse(b)\na.close()\nuse(b)\nb.close()\nc = CudaDevice()\nuse(c)\n"
        "with c.active():\n d = CudaDevice()\n d.close()\n use(c)\nc.close()\nprint(left())",
        "device = CudaDevice()\nuse(device)\ndel device\ngc.collect()\nprint(left())",
        "kept = []\ndef work():\n kept.append(CudaDevice())\n use(kept[0])\nin_a_thread(work)\nassert use(kept[0])\n"
        "kept[0].close()\nprint(left())",
        # The process ends: with the device open, inside a step, after the thread of the device.
        "device = CudaDevice()\nuse(device)\nprint('{}')",
        "device = CudaDevice()\nprint('{}')\nwith device.active():\n sys.exit(0)",
        "kept = []\ndef work():\n kept.append(CudaDevice())\n use(kept[0])\nin_a_thread(work)\nprint('{}')",
    ],
    ids=[
        "closed",
        "closed elsewhere",
        "several",
        "forgotten",
        "thread ended",
        "open at exit",
        "in use at exit",
        "exit",
    ],
)
def test_everything_is_given_back_and_nothing_aborts(driver: Path, code: str) -> None:
    done = run(driver, code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")


@pytest.mark.parametrize(
    "step, name",
    [
        ("begin", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        ("end", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
        ("instantiate", "CUDA_ERROR_NOT_SUPPORTED"),
    ],
)
def test_a_refused_capture_is_named(driver: Path, step: str, name: str) -> None:
    code = "device = CudaDevice()\nassert not use(device)\nprint(device.refusal)\ndevice.close()\nprint(left())"
    done = run(driver, code, REFUSE=step)
    assert (done.returncode, done.stdout) == (0, f"{name}\n{{}}\n") and done.stderr.count(name) == 1


def test_a_launch_that_fails_is_named(driver: Path) -> None:
    code = "device = CudaDevice()\ntry:\n use(device)\nexcept EdgeHalError as error:\n print(error.why)"
    done = run(driver, code, REFUSE="launch")
    assert (done.returncode, done.stdout, done.stderr) == (0, "CUDA_ERROR_LAUNCH_FAILED\n", "")


def test_a_context_left_on_the_stack_of_a_thread_would_abort(driver: Path) -> None:
    """What all of this avoids."""
    code = (
        "import pycuda.driver as cuda\ncuda.init()\nin_a_thread(lambda: cuda.Device(0).retain_primary_context().push())"
    )
    assert run(driver, code).returncode == -6
