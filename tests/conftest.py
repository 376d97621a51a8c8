from __future__ import annotations

import faulthandler
import fcntl
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from edge_hal import redaction
from tests.helpers.bundles import LABELS, known_bundle, vectors

REPOSITORY = Path(__file__).resolve().parent.parent

# A runner in the background ignores SIGINT, and what it starts would inherit that: the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """`make test` draws the same examples in each run, `make test-slow` new ones. A busy machine needs longer for an
    example: that is no failure."""
    for name, seeded in (("seeded", True), ("random", False)):
        hypothesis.settings.register_profile(name, deadline=None, derandomize=seeded)
    hypothesis.settings.load_profile("random" if config.option.markexpr == "slow" else "seeded")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A slow test may take longer than `faulthandler_timeout`. The stacks that it prints then have ended a process:
    they are read while its threads run."""
    if item.get_closest_marker("slow") is not None:
        faulthandler.cancel_dump_traceback_later()


class Child(subprocess.Popen):  # type: ignore[type-arg]
    """A failed test kills what it started: `with` would wait without end for a process that is stopped."""

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


subprocess.Popen = Child  # type: ignore[misc]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that a test calls in this process sets up logging for the whole process."""
    root, own = logging.getLogger(), logging.getLogger("edge_hal")
    handlers, levels = list(root.handlers), (root.level, own.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])
    logging.captureWarnings(False)


ABSENT = [name for name in ("torch", "onnxscript", "safetensors") if importlib.util.find_spec(name) is None]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """`make test-pythons` installs no torch: a test module that needs training is skipped, with the reason."""
    report = yield
    for name in ABSENT:
        if report.failed and f"No module named '{name}'" in str(report.longrepr):
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"Skipped: {name} is not installed")
    return report


outcome = 0


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    global outcome
    outcome = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A failed test may leave threads and sockets behind that never end: all has been said, so do not wait for them."""
    if outcome:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(outcome)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings, never part of the repository: EDGE_HAL_DATA, else ../shared/data."""
    root = Path(os.environ.get("EDGE_HAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real recordings at {root}: set EDGE_HAL_DATA to measure on them")
    return root


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Default journals, keys and caches of whatever the tests start lie in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all worker processes of a run of the tests share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "of-the-run"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def made_once(of_the_run: Path) -> Callable[[str, Callable[[Path], object]], Path]:
    """`made_once(name, make)`: the folder `name`, which `make` fills once in a run of the tests, in whichever worker
    process needs it first. Nobody may write into it."""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = of_the_run / name
        with (of_the_run / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (of_the_run / f"{name}.made").exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                make(folder)
                (of_the_run / f"{name}.made").touch()
        return folder

    return made


@pytest.fixture
def devices_of_this_machine(of_the_run: Path) -> Iterator[Path]:
    """/dev for one test at a time: a test that makes a node there would change what another test lists."""
    with (of_the_run / "dev.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path("/dev")


@pytest.fixture(scope="session", autouse=True)
def kept_graphs(of_the_run: Path) -> Iterator[None]:
    """A run of the tests exports each graph once, in whichever worker process needs it first. Certificates follow a
    stream for 1,000 ticks: the 10,000 of users take longer than all else in them (`test_export.py` has those)."""
    graphs = sys.modules.get("edge_hal.export.graphs")
    if graphs is None:  # no test of this run exports
        yield
        return
    from edge_hal.export import certificate
    from tests.helpers.kept_graphs import keeping, keeping_operators

    folder = of_the_run / "graphs"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "_export", keeping(graphs._export, folder))
        keeping_operators(patch)
        patch.setattr(certificate, "AGE_TICKS", 1000)
        yield


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A known bundle that takes vectors. Nobody may write into it."""
    return known_bundle(tmp_path_factory.mktemp("known") / "bundle").path


@pytest.fixture(scope="session")
def picture_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A known bundle that takes pictures. Nobody may write into it."""
    return known_bundle(tmp_path_factory.mktemp("known") / "pictures", pictures=True).path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: the same sums in the same order."""
    torch = pytest.importorskip("torch")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bundle`, and `f.npy`: 20,000 ticks at 10 Hz with a transition every second decision."""
    root = tmp_path_factory.mktemp("delivery")
    known_bundle(root / "bundle")
    rng = np.random.default_rng(0)
    np.save(root / "f.npy", vectors(np.repeat(rng.integers(0, len(LABELS), 2500), 8).tolist()))
    return root


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s"


@pytest.fixture(autouse=True)
def forgotten_secrets() -> Iterator[None]:
    """What one test remembers as secret is not masked in the messages of the next."""
    before = dict(redaction._known)
    yield
    redaction._known.clear()
    redaction._known.update(before)
