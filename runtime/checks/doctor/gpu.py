"""The GPU and what TensorRT needs beside it. Without a GPU all of that is left out: ONNX Runtime runs on the CPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_hal.runtime import jetson
from edge_hal.runtime.checks import child
from edge_hal.runtime.checks.finding import NOTHING, Finding, State

from .access import denied
from .packages import unusable

DRIVER = Path("/proc/driver/nvidia/version")
TOOLKIT = Path("/usr/local/cuda")
NODES = ("nvmap", "nvhost-*gpu*", "nvgpu/*/*", "nvidia[0-9]*", "nvidiactl", "dri/renderD*")
OLDEST_TENSORRT = (10, 3)
INSTALL = "pip install 'edge-hal[tensorrt]'; on a Jetson apt's TensorRT, in a venv with --system-site-packages"
BUILD = "PATH=/usr/local/cuda/bin:$PATH pip install pycuda (it builds with nvcc)"
GROUPS = (
    "sudo usermod -aG video,render $USER and log in again; in a container: --runtime nvidia or --gpus all; else reboot"
)
GRAPHS = ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch", "cuGraphDestroy",
          "cuGraphExecDestroy")  # fmt: skip


def check_gpu(dev: Path = Path("/dev")) -> Iterator[Finding]:
    release = jetson.release()
    if release is not None:
        yield Finding("Jetson", "ok", release)
    for node in sorted({path for pattern in NODES for path in dev.glob(pattern)}):
        if not node.is_dir() and not os.access(node, os.R_OK | os.W_OK):
            yield Finding(f"device {node}", "fail", *denied(node))
    should_be = release is not None or DRIVER.exists() or any(dev.glob("nvidia[0-9]*"))
    gpu = _gpu(should_be)
    yield gpu or Finding("GPU", "ok", "none: ONNX Runtime runs on the CPU")
    if gpu is not None:
        yield from _libraries()


def _gpu(should_be: bool) -> Finding | None:
    """None where there is none, nor should be."""
    answer = child.call(ask_driver)
    if answer.failure:
        return Finding("GPU", "fail", f"the driver fails: {answer.failure}", GROUPS)
    found = answer.value
    if not should_be and ("missing" in found or found.get("error") == "CUDA_ERROR_NO_DEVICE"):
        return None
    if "missing" in found:
        return Finding("GPU", "fail", f"there is one, and no driver for programs: {found['missing']}", GROUPS)
    if "error" in found:
        return Finding("GPU", "fail", f"the driver refuses: {found['error']}", GROUPS)
    version, text = int(found["version"]), f"{found['name']}, compute capability {found['capability']}"
    cuda = f"{version // 1000}.{version % 1000 // 10}"
    return Finding("GPU", "ok", f"{text}, {found['memory'] / 2**30:.1f} GiB, driver for CUDA {cuda}")


def _libraries() -> Iterator[Finding]:
    """They only matter where there is a GPU. Where one is missing, ONNX Runtime runs on the CPU: slower, no failure."""
    nvcc = shutil.which("nvcc") or shutil.which(str(TOOLKIT / "bin" / "nvcc"))
    pycuda = child.call(import_pycuda)
    if nvcc is not None:
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=20).stdout
        release = [line for line in text.splitlines() if "release" in line]
        yield Finding("CUDA toolkit", "ok", f"{release[0].strip() if release else 'of no known version'}, {nvcc}")
    else:
        state: State = "warn" if pycuda.failure else "ok"
        todo = "install it (a Jetson: sudo apt-get install nvidia-jetpack)" if pycuda.failure else NOTHING
        yield Finding("CUDA toolkit", state, "no nvcc; only building pycuda needs it", todo)
    tensorrt = child.call(import_tensorrt)
    if tensorrt.failure:
        yield unusable("TensorRT", tensorrt, INSTALL, "warn")
    else:
        old = tuple(int(part) for part in tensorrt.value.split(".")[:2] if part.isdigit()) < OLDEST_TENSORRT
        todo = "update JetPack to 6.1 or later" if old else NOTHING
        yield Finding("TensorRT", "warn" if old else "ok", tensorrt.value, todo)
    yield unusable("pycuda", pycuda, BUILD, "warn") if pycuda.failure else Finding("pycuda", "ok", pycuda.value)
    graphs = child.call(import_bindings)
    if graphs.failure:
        found = f"{graphs.failure}: steps are launched one by one, which takes longer"
        yield Finding("cuda-bindings", "warn", found, "pip install cuda-bindings")
    else:
        yield Finding("cuda-bindings", "ok", graphs.value)


# --- in the other process -----------------------------------------------------------------------------


def ask_driver() -> dict[str, Any]:
    """The first GPU, asked through the driver's own library, without any package."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"missing": str(error)}

    def called(function: str, *arguments: Any) -> None:
        code = getattr(cuda, function)(*arguments)
        if code:
            name = ctypes.c_char_p()
            cuda.cuGetErrorName(code, ctypes.byref(name))
            raise LookupError((name.value or b"error %d" % code).decode())

    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(256)
    capability = []
    try:
        called("cuInit", 0)
        called("cuDriverGetVersion", ctypes.byref(version))
        called("cuDeviceGetCount", ctypes.byref(count))
        if not count.value:
            return {"error": "CUDA_ERROR_NO_DEVICE"}
        called("cuDeviceGet", ctypes.byref(device), 0)
        called("cuDeviceGetName", name, len(name), device)
        called("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
            value = ctypes.c_int()
            called("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
            capability.append(str(value.value))
    except LookupError as error:
        return {"error": str(error)}
    return {
        "version": version.value,
        "name": name.value.decode(errors="replace"),
        "capability": ".".join(capability),
        "memory": memory.value,
    }


def import_tensorrt() -> str:
    import tensorrt

    tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    return str(tensorrt.__version__)


def import_pycuda() -> str:
    import pycuda
    import pycuda.driver

    pycuda.driver.init()
    return f"{pycuda.VERSION_TEXT}, {pycuda.driver.Device.count()} devices"


def import_bindings() -> str:
    from importlib import metadata

    from cuda.bindings import driver

    lacking = [name for name in GRAPHS if not hasattr(driver, name)]
    if lacking:
        raise ImportError(f"cuda.bindings.driver has no {lacking[0]}")
    error, version = driver.cuDriverGetVersion()
    if int(error):
        raise RuntimeError(f"cuDriverGetVersion: {error.name}")
    return f"{metadata.version('cuda-bindings')}, sees the driver's {version}"
