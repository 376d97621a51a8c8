"""Each check on a machine on which something is missing, broken or lies."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_hal.runtime import jetson
from edge_hal.runtime.checks import child, readings
from edge_hal.runtime.checks.doctor import cameras, examine, machine, packages
from edge_hal.runtime.checks.doctor.bundles import check_bundle, deadline
from edge_hal.runtime.checks.doctor.gpu import check_gpu
from edge_hal.runtime.checks.finding import Finding
from tests.helpers.bundles import known_bundle
from tests.helpers.processes import REPOSITORY, call
from tests.helpers.processes import completed as edge_hal

Found = dict[str, Finding]


def found(check: Any, *arguments: Any) -> Found:
    """By name; every finding that is not well says what to do."""
    findings = list(check(*arguments))
    assert all(one.todo not in ("", "nothing") for one in findings if one.state != "ok")
    assert all(one.check and one.found for one in findings)
    return {one.check: one for one in findings}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a module before the installed one, in other processes alone."""
    folder = tmp_path / "lib"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])

    def put(name: str, code: str) -> None:
        (folder / f"{name}.py").write_text(textwrap.dedent(code))

    return put


# --- OpenCV against numpy -----------------------------------------------------------------------------

OLD_BUILD = """
    import sys
    print("A module that was compiled using NumPy 1.x cannot be run in\\nNumPy 2.4.6 as it may crash.", file=sys.stderr)
    raise ImportError("numpy.core.multiarray failed to import")
"""
NEW_BUILD = """
    raise RuntimeError("module was compiled against NumPy C-API version 0x12 (NumPy 2.0) but the running NumPy has "
                       "C-API version 0xf. Check the section C-API incompatibility at ...")
"""


@pytest.mark.parametrize(
    "numpy, code, told, todo",
    [
        ("2.4.6", OLD_BUILD, "numpy 2.4.6 with a build for numpy 1: the cause", "numpy<2"),
        ("2.0.0", "raise AttributeError('_ARRAY_API not found')", "build for numpy 1: the cause", "numpy<2"),
        ("2.4.6", "import ctypes; ctypes.string_at(0)", "most likely the cause of 'its process was killed", "numpy<2"),
        ("1.26.4", NEW_BUILD, "numpy 1.26.4 with a build for a newer numpy", "a newer numpy"),
        ("1.26.4", "import ctypes; ctypes.string_at(0)", "its process was killed by SIGSEGV", "python3-opencv"),
        ("2.4.6", "raise ImportError('libGL.so.1: cannot open shared object file')", "libGL", "apt-get install libgl1"),
        ("2.4.6", "raise SystemExit(3)", "it returned nothing", "python3-opencv"),
    ],
)
def test_an_opencv_that_does_not_import_is_told_with_its_cause(
    library: Callable[[str, str], None], numpy: str, code: str, told: str, todo: str
) -> None:
    library("numpy", f"__version__ = {numpy!r}\nuint8 = None\nclass ones:\n  def __init__(self, n): pass\n"
                     "  def __matmul__(self, other): return 1")  # fmt: skip
    library("cv2", code)
    (finding,) = found(packages.check_opencv).values()
    assert finding.state == "fail" and told in finding.found and todo in finding.todo


def test_an_opencv_that_hangs_ends_its_check(
    library: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    library("cv2", "import time; time.sleep(600)")
    whole = child.call
    monkeypatch.setattr(child, "call", lambda function, *arguments: whole(function, *arguments, silence_s=2))
    (finding,) = found(packages.check_opencv).values()
    assert finding.state == "fail" and "no answer" in finding.found


@pytest.mark.parametrize("says", ["YES (1.20.3)", "NO", None])
def test_what_opencv_was_built_with_is_told(library: Callable[[str, str], None], says: str | None) -> None:
    row = "" if says is None else f"    GStreamer:                   {says}\n"
    build = (
        f"Video I/O:\n    FFMPEG:   YES\n      avcodec:  YES (62.28.101)\n{row}    v4l/v4l2:  YES (linux/videodev2.h)\n"
    )
    library("cv2", f"__version__ = '4.10.0'\nresize = lambda *a: None\ngetBuildInformation = lambda: {build!r}")
    findings = found(packages.check_opencv)
    assert findings["OpenCV with FFMPEG"].state == findings["OpenCV with v4l/v4l2"].state == "ok"
    streamer = findings["OpenCV with GStreamer"]
    assert streamer.state == ("ok" if says == "YES (1.20.3)" else "warn")
    assert streamer.state == "ok" or "python3-opencv" in streamer.todo


def test_an_opencv_that_is_not_there_is_no_failure(library: Callable[[str, str], None]) -> None:
    library("cv2", "raise ModuleNotFoundError(\"No module named 'cv2'\")")
    (finding,) = found(packages.check_opencv).values()
    assert finding.state == "warn" and "edge-hal[camera]" in finding.todo


def test_without_pyav_video_files_are_told_to_be_unreadable(library: Callable[[str, str], None]) -> None:
    library("av", "raise ImportError('libavcodec is missing')")
    (finding,) = found(packages.check_pyav).values()
    assert finding.state == "warn" and "libavcodec is missing" in finding.found and "edge-hal[video]" in finding.todo
    library("av", "__version__ = '15.0.0'")
    (finding,) = found(packages.check_pyav).values()
    assert finding.state == "ok" and finding.found == "15.0.0"


def test_a_broken_numpy_is_named_and_no_check_crashes(library: Callable[[str, str], None], tmp_path: Path) -> None:
    """In a process of its own, since nothing of the doctor may import numpy."""
    (tmp_path / "lib" / "numpy.py").write_text("raise ImportError('it is broken')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'lib'}:{REPOSITORY}"}
    command = [sys.executable, "-m", "edge_hal", "doctor", "--json", "--bundle", "none"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    findings = {one["check"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert findings["numpy"]["state"] == "fail" and "it is broken" in findings["numpy"]["found"]
    assert findings["OpenCV"]["todo"] == findings["ONNX Runtime"]["todo"] == "repair numpy first"


def test_an_onnx_runtime_without_the_cpu_is_told(library: Callable[[str, str], None]) -> None:
    library("onnxruntime", "__version__ = '9'\nget_available_providers = lambda: []")
    (finding,) = found(packages.check_onnxruntime).values()
    assert finding.state == "fail"
    library("onnxruntime", "__version__ = None\nget_available_providers = None")
    (finding,) = found(packages.check_onnxruntime).values()
    assert finding.state == "fail" and "TypeError" in finding.found


# --- cameras ------------------------------------------------------------------------------------------


def test_a_camera_that_may_not_be_opened_names_the_group(tmp_path: Path) -> None:
    """As an ordinary user, whom root's rights do not help."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    node = tmp_path / "video0"
    node.touch()
    node.chmod(0o660)
    shutil.chown(node, 0, "video")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    # Another user may not be able to read this installation: all is imported before, and nothing is started after.
    code = f"""
        import fcntl, json, os
        from dataclasses import asdict
        from pathlib import Path
        from edge_hal.runtime.checks import child
        from edge_hal.runtime.checks.doctor.cameras import check_cameras
        child.call = lambda function, *arguments, **limits: child.Answer(function(*arguments))
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        print(json.dumps([asdict(one) for one in check_cameras(Path({str(tmp_path)!r}))]))
    """
    returned, out, err = call(code=textwrap.dedent(code))
    assert returned == 0, err
    (finding,) = json.loads(out)
    assert finding["state"] == "fail" and "is not in the group video" in finding["found"]
    assert "usermod -aG video" in finding["todo"]


def test_a_node_that_is_no_camera_or_is_gone_is_told(tmp_path: Path) -> None:
    assert found(cameras.check_cameras, tmp_path)["cameras"].state == "warn"
    (tmp_path / "video0").write_text("a file")
    (tmp_path / "video1").symlink_to(tmp_path / "nowhere")
    findings = found(cameras.check_cameras, tmp_path)
    assert {one.state for one in findings.values()} == {"fail"} and len(findings) == 2


@pytest.mark.parametrize("of_all, of_node, camera", [(0x84A00001, 0x04200001, True), (0x84A00001, 0x04A00000, False),
                                                     (0x00000001, 0, True)])  # fmt: skip
def test_a_node_for_metadata_is_no_camera(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, of_all: int, of_node: int, camera: bool
) -> None:
    import fcntl
    import struct

    def ioctl(device: int, request: int, reply: bytearray) -> None:
        assert request >> 16 & 0x3FFF == len(reply)
        struct.pack_into("16s32s32sIII", reply, 0, b"uvcvideo", b"A Webcam", b"usb", 0, of_all, of_node)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    (tmp_path / "video0").touch()
    assert cameras.query(str(tmp_path / "video0")) == {"errno": 0, "name": "A Webcam", "captures": camera}


# --- GPU ----------------------------------------------------------------------------------------------

LIBCUDA = """
    #include <stdlib.h>
    #include <string.h>
    #include <signal.h>
    int cuInit(unsigned flags) {
        const char *code = getenv("CUDA_CASE");
        if (code && !strcmp(code, "crash")) raise(SIGSEGV);
        return code ? atoi(code) : 0;
    }
    int cuGetErrorName(int code, const char **name) {
        *name = code == 999 ? "CUDA_ERROR_UNKNOWN" : code == 100 ? "CUDA_ERROR_NO_DEVICE" : 0;
        return 0;
    }
    int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
    int cuDeviceGetCount(int *count) { *count = 1; return 0; }
    int cuDeviceGet(int *device, int index) { *device = 0; return 0; }
    int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin (nvgpu)", size); return 0; }
    int cuDeviceTotalMem_v2(size_t *size, int device) { *size = 8ul << 30; return 0; }
    int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 7; return 0; }
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1 that answers what CUDA_CASE says."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("libcuda")
    (folder / "cuda.c").write_text(LIBCUDA)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "cuda.c"], check=True)
    return folder


def test_a_gpu_and_what_is_missing_beside_it_are_told(
    driver: Path, tmp_path: Path, library: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.delenv("CUDA_CASE", raising=False)
    library("tensorrt", "__version__ = '10.3.0'\nclass Logger:\n  ERROR = 1\n  def __init__(self, level): pass\n"
                        "Runtime = lambda logger: None")  # fmt: skip
    library("pycuda", "raise ImportError('libcuda.so.1 is another')")
    findings = found(check_gpu, tmp_path)
    gpu = findings["GPU"]
    assert gpu.state == "ok" and gpu.found == "Orin (nvgpu), compute capability 8.7, 8.0 GiB, driver for CUDA 12.6"
    assert findings["TensorRT"].state == "ok" and "nvcc" in findings["pycuda"].todo
    assert findings["cuda-bindings"].state == "warn" and "one by one" in findings["cuda-bindings"].found
    library("tensorrt", "__version__ = '8.6.1'\nclass Logger:\n  ERROR = 1\n  def __init__(self, level): pass\n"
                        "Runtime = lambda logger: None")  # fmt: skip
    assert "JetPack" in found(check_gpu, tmp_path)["TensorRT"].todo
    library("tensorrt", "import ctypes; ctypes.string_at(0)")
    assert "killed by SIGSEGV" in found(check_gpu, tmp_path)["TensorRT"].found


@pytest.mark.parametrize("case, told", [("999", "CUDA_ERROR_UNKNOWN"), ("46", "error 46"), ("crash", "SIGSEGV")])
def test_a_driver_that_refuses_names_its_error_and_the_groups(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, told: str
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("CUDA_CASE", case)
    findings = found(check_gpu, tmp_path)
    assert findings["GPU"].state == "fail"
    assert told in findings["GPU"].found and "video,render" in findings["GPU"].todo


def test_no_gpu_is_well_and_a_jetson_without_a_driver_is_not(
    driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("CUDA_CASE", "100")
    assert found(check_gpu, tmp_path)["GPU"].state == "ok"
    monkeypatch.setattr(jetson, "L4T", tmp_path / "release")
    (tmp_path / "release").write_bytes(b"# R36 (release), REVISION: 4.3\xff, GCID: 1\n")
    findings = found(check_gpu, tmp_path)
    assert findings["Jetson"].found.startswith("R36") and findings["GPU"].state == "fail"
    (tmp_path / "release").write_bytes(b"")
    assert found(check_gpu, tmp_path)["GPU"].state == "ok"


# --- machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script, state, told",
    [
        ("echo 'NV Power Mode: MAXN'; echo 0", "ok", "MAXN"),
        ("echo 'NV Power Mode: 15W'; echo 2", "ok", "15W: not the fastest"),
        ("echo 'Error: no permission' >&2; exit 1", "warn", "no permission"),
        ("true", "warn", "it printed nothing"),
        ("printf '\\377'", "warn", "reports no mode"),
    ],
)
def test_the_power_mode_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, state: str, told: str
) -> None:
    (tmp_path / "nvpmodel").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvpmodel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (finding,) = found(machine.check_power).values()
    assert finding.state == state and told in finding.found


@pytest.mark.parametrize(
    "celsius, state", [((48.2, 51.0), "ok"), ((48.2, 91.0), "warn"), ((-256.0,), "ok"), ((), "ok")]
)
def test_a_hot_machine_is_told_and_a_sensor_that_is_off_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, celsius: tuple[float, ...], state: str
) -> None:
    for index, value in enumerate(celsius):
        zone = tmp_path / f"thermal_zone{index}"
        zone.mkdir()
        (zone / "type").write_text(f"sensor{index}\n")
        (zone / "temp").write_text(f"{value * 1000:.0f}\n")
    for name in ("THERMAL", "HWMON", "DEVFREQ", "CPUS"):
        monkeypatch.setattr(readings, name, tmp_path if name == "THERMAL" else tmp_path / "none")
    (finding,) = found(machine.check_temperature).values()
    assert finding.state == state


def test_a_full_or_closed_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("EDGE_HAL_CACHE", str(tmp_path / "file" / "plans"))
    (tmp_path / "file").write_text("")
    for free, state in ((50e6, "fail"), (500e6, "warn"), (50e9, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=int(free)))
        findings = found(machine.check_disk)
        assert findings["disk for the journal"].state == state
        assert findings["disk for TensorRT plans"].state == "fail"
        assert str(tmp_path / "file") in findings["disk for TensorRT plans"].found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_home_that_this_user_may_not_enter_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "state").mkdir(parents=True)
    home.chmod(0o700)
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("EDGE_HAL_CACHE", str(home / "cache"))
    found(machine.check_disk)  # root imports what it needs: nobody may not be able to read this repository
    answer, end = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            states = [one.state for one in examine._guarded("disk", machine.check_disk)]
            os.write(end, json.dumps(states).encode())
        finally:
            os._exit(0)
    os.close(end)
    with os.fdopen(answer) as file:
        assert json.load(file) == ["fail", "fail"]
    os.waitpid(process, 0)


def test_a_clock_that_was_never_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(machine.check_clock)["clock"].state in ("ok", "warn")
    monkeypatch.setattr(time, "time", lambda: 86400.0)
    assert found(machine.check_clock)["clock"].state == "fail"


def test_a_port_that_is_taken_is_told() -> None:
    def states() -> dict[str, str]:
        return {name.split()[1]: one.state for name, one in found(machine.check_ports).items()}

    before = states()
    if before["5571"] != "ok":
        pytest.skip("something here uses the port")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 5571))
        taken.listen()
        assert states()["5571"] == "warn"
    assert states()["5571"] == "ok"


# --- bundles, and all together ------------------------------------------------------------------------


def test_a_bundle_is_opened_stepped_and_timed(tmp_path: Path) -> None:
    path = known_bundle(tmp_path / "bundle", model_hz=20.0, pictures=True).path
    findings = found(check_bundle, path)
    assert [name.removeprefix(f"bundle {path}: ") for name in findings] == ["opens", "engine", "a step", "deadline"]
    assert findings[f"bundle {path}: opens"].state == "ok" and findings[f"bundle {path}: a step"].state == "ok"
    graph = next(path.glob("level0*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1])
    (finding,) = found(check_bundle, path).values()
    assert finding.state == "fail" and graph.name in finding.found
    (finding,) = found(check_bundle, tmp_path / "none").values()
    assert finding.state == "fail"


@pytest.mark.parametrize("p50, p99, state", [(10.0, 49.0, "ok"), (10.0, 51.0, "warn"), (51.0, 80.0, "fail")])
def test_a_missed_deadline_is_told(p50: float, p99: float, state: str) -> None:
    assert deadline(50.0, p50, p99)[0] == state


def test_a_check_that_fails_itself_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        yield Finding("first", "ok", "well")
        raise np.exceptions.AxisError("a file says what nobody expected")

    monkeypatch.setattr(examine, "CHECKS", {"odd": broken, "ports": machine.check_ports})
    findings = found(examine.examine)
    assert findings["first"].state == "ok" and findings["odd"].state == "warn" and "AxisError" in findings["odd"].found
    assert len(findings) == 4


@pytest.mark.slow
def test_the_command_tells_all_and_exits_with_1_where_something_fails(tmp_path: Path) -> None:
    path = known_bundle(tmp_path / "bundle", model_hz=20.0).path
    done = edge_hal("doctor", "--json", "--bundle", path)
    findings = json.loads(done.stdout)
    failed = [one for one in findings if one["state"] == "fail"]
    assert done.returncode == (1 if failed else 0) and "Traceback" not in done.stderr
    assert {"Python", "numpy", "OpenCV", "ONNX Runtime", "GPU", "clock", "power mode", "temperature"} <= {
        one["check"] for one in findings
    }
    assert all(set(one) == {"check", "state", "found", "todo"} for one in findings)
    done = edge_hal("doctor", "--bundle", tmp_path / "none", "--bundle", path)
    assert done.returncode == 1 and f"fail  bundle {tmp_path / 'none'}" in done.stdout and "  -> " in done.stdout
    assert f"ok    bundle {path}: a step" in done.stdout and "what fails here" in done.stderr
