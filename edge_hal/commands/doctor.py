"""`edge-hal doctor`: whether edge-hal works on this machine, and what to do if it does not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge_hal.commands.streams import require_written
from edge_hal.errors import EdgeHalError

DEFAULT = Path("bundle")


def doctor(
    bundle: Annotated[
        list[Path] | None,
        typer.Option(readable=False, help="Bundle or task folder; repeatable (default: ./bundle, if it exists)."),
    ] = None,
    selftest: Annotated[
        bool,
        typer.Option("--selftest", help="Compare each engine with ONNX Runtime, about one minute for each bundle."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON array.")] = False,
) -> None:
    """Check whether edge-hal works on this machine: libraries, cameras, GPU, disk, clock, ports and bundles.

    Each finding says what to do. The exit code is 1 if a check fails.
    """
    # Nothing here may import numpy: whether that works is one of the checks.
    from edge_hal.commands.progress import Stages
    from edge_hal.runtime.checks.doctor.examine import examine
    from edge_hal.runtime.checks.finding import NOTHING
    from edge_hal.runtime.checks.selftest import selftest as prove

    bundles = bundle or ([DEFAULT] if selftest or DEFAULT.exists() else [])
    findings = []
    with Stages() as report:
        for found in (examine(bundles, report), prove(bundles if selftest else (), report)):
            for finding in found:
                findings.append(finding)
                if not as_json:
                    print(f"{finding.state:4s}  {finding.check}: {finding.found}", flush=True)
                    if finding.todo != NOTHING:
                        print(f"      -> {finding.todo}", flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    require_written()
    failed = [finding.check for finding in findings if finding.state == "fail"]
    if failed:
        more = "" if len(failed) == 1 else f" and {len(failed) - 1} more"
        raise EdgeHalError(f"what fails here: {failed[0]}{more}", "", "each line that fails says what to do")
