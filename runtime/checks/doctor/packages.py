"""Python and the libraries that every run needs: each imported in a process of its own, which it may crash."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_hal.runtime import jetson
from edge_hal.runtime.checks import child
from edge_hal.runtime.checks.finding import NOTHING, Finding, State

OLDEST, TOO_NEW = (3, 10), (3, 14)
BUILT_FOR_NUMPY_1 = ("compiled using NumPy 1", "_ARRAY_API not found", "multiarray failed to import")
BUILT_FOR_NUMPY_2 = ("compiled against NumPy C-API version", "compiled against API version", "compiled against ABI")
VIDEO = {
    "GStreamer": (
        "csi: and gst: cameras do not open",
        "for those use the system's python3-opencv (JetPack brings it) and: pip uninstall opencv-python-headless",
    ),
    "v4l/v4l2": ("USB cameras do not open", "use pip's opencv-python-headless or the system's python3-opencv"),
    "FFMPEG": ("rtsp: and http: cameras do not open", "use pip's opencv-python-headless, or gst: pipelines"),
}
"""Rows of OpenCV's build information -> what does not work without, and the remedy."""


def check_python() -> Iterator[Finding]:
    version, wanted = platform.python_version(), OLDEST <= sys.version_info[:2] < TOO_NEW
    todo = "make a virtual environment with Python 3.10 to 3.13" if not wanted else NOTHING
    yield Finding("Python", "ok" if wanted else "fail", f"{version}, {sys.executable}", todo)
    settings = Path(sys.prefix, "pyvenv.cfg")
    if jetson.release() is None or not settings.is_file():
        return
    if re.search(r"^include-system-site-packages\s*=\s*false", settings.read_text(errors="replace"), re.M | re.I):
        found = f"{sys.prefix} does not see JetPack's OpenCV and TensorRT"
        todo = "make it again: python3 -m venv --system-site-packages FOLDER"
        yield Finding("virtual environment", "warn", found, todo)


def check_numpy() -> Iterator[Finding]:
    answer = child.call(import_numpy)
    todo = "pip install --force-reinstall numpy"
    yield Finding("numpy", "fail", answer.failure, todo) if answer.failure else Finding("numpy", "ok", answer.value)


def check_onnxruntime() -> Iterator[Finding]:
    answer = child.call(import_onnxruntime)
    if answer.failure:
        yield unusable("ONNX Runtime", answer, "pip install --force-reinstall onnxruntime", "fail")
        return
    version, providers = answer.value
    if "CPUExecutionProvider" in providers:
        yield Finding("ONNX Runtime", "ok", f"{version} with {', '.join(providers)}")
    else:
        found = f"{version} with {', '.join(providers) or 'no provider'}: none for the CPU"
        yield Finding("ONNX Runtime", "fail", found, "pip install --force-reinstall onnxruntime")


def check_opencv() -> Iterator[Finding]:
    answer = child.call(import_opencv)
    if "No module named 'cv2'" in answer.failure:
        found = "not installed: features: sources alone can be run"
        todo = "pip install 'edge-hal[camera]'; on a Jetson use the system's: sudo apt-get install python3-opencv"
        yield Finding("OpenCV", "warn", found, todo)
        return
    if answer.failure:
        todo = (
            "pip install --force-reinstall opencv-python-headless; "
            "on a Jetson: sudo apt-get install --reinstall python3-opencv"
        )
        yield unusable("OpenCV", answer, todo, "fail")
        return
    version, where, build = answer.value
    yield Finding("OpenCV", "ok", f"{version}, {where}")
    for name, (lost, todo) in VIDEO.items():
        row = re.search(rf"^\s*{re.escape(name)}:[ \t]*(\S.*)$", str(build), re.M)
        has = row is not None and row[1].upper().startswith("YES")
        check = f"OpenCV with {name}"
        yield Finding(check, "ok", row[1].strip()) if has and row else Finding(check, "warn", f"no: {lost}", todo)


def check_pyav() -> Iterator[Finding]:
    answer = child.call(import_pyav)
    if answer.failure:
        todo = "pip install 'edge-hal[video]'"
        yield Finding("PyAV", "warn", f"video files cannot be read: {answer.failure}", todo)
    else:
        yield Finding("PyAV", "ok", answer.value)


def unusable(check: str, answer: child.Answer, todo: str, state: State) -> Finding:
    """A library that does not import: the cause is named where numpy or a library of the system is it."""
    text, numpy = f"{answer.failure}\n{answer.printed}", child.call(import_numpy)
    if numpy.failure:
        return Finding(check, state, answer.failure, "repair numpy first")
    version, built_for_1 = numpy.value, any(words in text for words in BUILT_FOR_NUMPY_1)
    new = not version.startswith(("0.", "1."))
    if new and (built_for_1 or "killed by" in answer.failure):
        likely = "" if built_for_1 else "most likely "
        found = f"numpy {version} with a build for numpy 1: {likely}the cause of '{answer.failure}'"
        todo = f"pip install 'numpy<2', as what JetPack brings needs it; elsewhere a newer {check} will do"
        return Finding(check, state, found, todo)
    if not new and any(words in text for words in BUILT_FOR_NUMPY_2):
        found = f"numpy {version} with a build for a newer numpy: the cause of '{answer.failure}'"
        return Finding(check, state, found, f"install an older {check} (on a Jetson the system's), or a newer numpy")
    missing = re.search(r"(lib\S+\.so[.\d]*): cannot open shared object file", text)
    if missing is not None:
        package = "libgl1 libglib2.0-0" if missing[1].startswith(("libGL", "libgthread")) else "the package that has it"
        return Finding(check, state, answer.failure, f"sudo apt-get install {package}")
    return Finding(check, state, answer.failure, todo)


# --- in the other process -----------------------------------------------------------------------------


def import_pyav() -> str:
    import av

    return str(av.__version__)


def import_numpy() -> str:
    import numpy

    numpy.ones(3) @ numpy.ones(3)
    return str(numpy.__version__)


def import_onnxruntime() -> tuple[str, list[str]]:
    import onnxruntime

    return str(onnxruntime.__version__), list(map(str, onnxruntime.get_available_providers()))


def import_opencv() -> tuple[str, str, str]:
    """Version, file and build information, after it has worked on a numpy array once."""
    import cv2
    import numpy

    cv2.resize(numpy.zeros((4, 4, 3), numpy.uint8), (2, 2))
    return str(cv2.__version__), str(cv2.__file__), str(cv2.getBuildInformation())
