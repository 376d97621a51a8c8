"""All checks, in the order in which a run needs what they check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from edge_hal.progress import Progress
from edge_hal.runtime.checks.finding import Finding

from .bundles import check_bundle
from .cameras import check_cameras
from .gpu import check_gpu
from .machine import check_clock, check_disk, check_ports, check_power, check_temperature
from .packages import check_numpy, check_onnxruntime, check_opencv, check_pyav, check_python

CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "python": check_python,
    "numpy": check_numpy,
    "onnxruntime": check_onnxruntime,
    "opencv": check_opencv,
    "pyav": check_pyav,
    "cameras": check_cameras,
    "gpu": check_gpu,
    "power mode": check_power,
    "temperature": check_temperature,
    "disk": check_disk,
    "clock": check_clock,
    "ports": check_ports,
}


def examine(bundles: Sequence[Path] = (), report: Progress | None = None) -> Iterator[Finding]:
    """Look at the machine, then at each bundle. Findings come as they are made; none of them is an exception.

    Args:
        report: told while TensorRT builds the plans of a bundle.
    """
    for name, check in CHECKS.items():
        yield from _guarded(name, check)
    for bundle in bundles:
        yield from _guarded(f"bundle {bundle}", partial(check_bundle, bundle, report))


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that fails itself, because a file or a tool says what nobody expected, ends here."""
    try:
        yield from check()
    except Exception as error:
        found = f"it could not be checked: {type(error).__name__}: {error}"
        yield Finding(name, "warn", found, "look at it by hand, and report this message")
